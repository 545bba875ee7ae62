//! The life of the binary `dfs`: reach the servers, log in, then one command, or those that are typed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use shoal_common::Password;
use shoal_common::UserName;
use shoal_common::tracker_api::RefusalKind;
use shoal_console::{descriptors, log, read_text, read_trackers, secrets};
use shoal_engine::regular::{self, OpenError};
use shoal_session::LoginError;
use shoal_session::events::Event;
use shoal_session::text;
use tokio::sync::broadcast;

use super::command::{self, Command, Line};
use super::options::Options;
use super::prompt::{self, Input};
use super::show::{Output, Screen};
use crate::client::{Client, GetOptions, NodeState, StoreError};
use crate::conf::{Conf, MAX_CONF_BYTES};
use crate::files;
use crate::name::StoredName;

/// Tries to log in at a prompt (F2).
const TRIES: u32 = 4;
/// How long leaving may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);

/// Runs `dfs`; the exit code is 0, or 1 if anything failed.
#[must_use]
pub fn main(options: Options) -> ExitCode {
    secrets::no_core_dumps();
    let runtime = match shoal_console::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let ended = runtime.block_on(run(options));
    // A read from the terminal may still wait in a thread; it ends with the process.
    runtime.shutdown_background();
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&format!("{error:#}")),
    }
}

fn fail(error: &str) -> ExitCode {
    // There is no other way to report that stderr is closed.
    let _ = writeln!(std::io::stderr(), "error: {}", text::error_line(error));
    ExitCode::FAILURE
}

async fn run(options: Options) -> anyhow::Result<bool> {
    options.password_file.as_deref().map(secrets::use_password_file).transpose()?;
    let screen = Screen::new(options.json);
    let conf = read_conf(&options.conf)?;
    let trackers = match &conf.trackers {
        Some(path) => read_trackers(path)?,
        None => {
            let path = files::default_trackers()?;
            let line =
                format!("{} names no trackers; takes them from {}", options.conf.display(), path.display());
            screen.event("trackers", json!({ "file": path.to_string_lossy() }), &line);
            read_trackers(&path)?
        }
    };
    let folder = match &options.data_dir {
        Some(folder) => folder.clone(),
        None => files::data_home()?.join("dfs"),
    };
    log::start(options.log_format, log::ERRORS, None).context("cannot write the log")?;
    descriptors::raise();
    conf.warnings.iter().for_each(|warning| screen.warn(&format!("{}: {warning}", options.conf.display())));
    let mut client = Client::start(&conf, trackers, folder.clone()).await?;
    let mut input = Input::new(folder, screen.clone());
    client.set_retry_time(Duration::from_secs(options.retry_time));
    if let Some(events) = client.take_events() {
        tokio::spawn(show_events(events, screen.clone()));
    }
    let at_prompt = options.command.is_none() && prompt::attended();
    let work = async {
        match options.command {
            Some(command) => once(&mut client, &screen, &mut input, options.user, command).await,
            None => interactive(&mut client, &screen, &mut input, options.user).await,
        }
    };
    let done = tokio::select! {
        done = work => done,
        stopped = terminated(at_prompt) => stopped.map(|()| false),
    };
    let _ = tokio::time::timeout(LEAVE_WITHIN, client.shutdown()).await;
    done
}

/// Shows which trackers became known.
async fn show_events(mut events: broadcast::Receiver<Event>, screen: Screen) {
    while let Ok(event) = events.recv().await {
        if let Event::TrackerKnown { tracker, key, .. } = &event {
            let fields = json!({ "tracker": tracker, "key": key });
            screen.event("tracker_known", fields, &event.to_string());
        }
    }
}

/// Completes when the system asks to leave. At a prompt Ctrl-C is not such a wish.
async fn terminated(at_prompt: bool) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c(), if !at_prompt => interrupted?,
    }
    Ok(())
}

fn read_conf(path: &Path) -> anyhow::Result<Conf> {
    let text = read_text(path, MAX_CONF_BYTES).with_context(|| format!("cannot read {}", path.display()))?;
    let folder = path.parent().map(PathBuf::from).unwrap_or_default();
    Conf::parse(&text, &folder).with_context(|| format!("{} cannot be used", path.display()))
}

/// One command, and out.
async fn once(
    client: &mut Client,
    screen: &Screen,
    input: &mut Input,
    user: Option<UserName>,
    command: Command,
) -> anyhow::Result<bool> {
    let name = command.name();
    let result = match prepare(client, screen, input, user.clone(), &command).await {
        Ok(()) => carry_out(client, screen, input, user, command).await,
        Err(error) => Err(error),
    };
    let result = result.map_err(|error| text::error_line(&format!("{error:#}")));
    screen.result(name, &result);
    Ok(result.is_ok())
}

/// Logs in, if the command needs that. The command itself reaches the servers that it needs.
async fn prepare(
    client: &mut Client,
    screen: &Screen,
    input: &mut Input,
    user: Option<UserName>,
    command: &Command,
) -> anyhow::Result<()> {
    if !command.needs_login() {
        return Ok(());
    }
    // Checked before the password is asked for.
    if let Command::Put { files, .. } = command
        && let [file] = &files[..]
        && let Err(OpenError::NotRegular(found)) = regular::check(file)
    {
        return Err(StoreError::from(found).into());
    }
    client.ready().await?;
    let user = match user {
        Some(user) => user,
        None if prompt::attended() && !screen.json => {
            ask_user(input).await?.context("no username was given")?
        }
        None => anyhow::bail!("say who you are with --user NAME"),
    };
    let password = password("Password: ").await?;
    client.login(user, password).await?;
    Ok(())
}

async fn interactive(
    client: &mut Client,
    screen: &Screen,
    input: &mut Input,
    user: Option<UserName>,
) -> anyhow::Result<bool> {
    let states = client.ping().await?;
    states.iter().for_each(|state| greet(screen, state));
    if !log_in(client, screen, input, user).await? {
        return Ok(false);
    }
    let mut all_well = true;
    while let Some(line) = input.command("dfs> ").await? {
        let command = match Line::read(&line) {
            Ok(Some(Command::Exit)) => break,
            Ok(Some(command)) => command,
            Ok(None) => continue,
            Err(usage) => {
                refuse(screen, &line, &usage);
                all_well = false;
                continue;
            }
        };
        let name = command.name();
        let result = tokio::select! {
            result = carry_out(client, screen, input, None, command) => result,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                Err(anyhow::anyhow!("cancelled; the same command goes on where it was"))
            }
        };
        let result = result.map_err(|error| text::error_line(&format!("{error:#}")));
        all_well &= result.is_ok();
        screen.result(name, &result);
    }
    // A user at a terminal has seen what failed.
    Ok(all_well || prompt::attended())
}

/// Says what is wrong with a line that is no command.
fn refuse(screen: &Screen, line: &str, problem: &str) {
    let name = text::short(line.split_whitespace().next().unwrap_or_default()).to_lowercase();
    let problem = if screen.json { text::error_line(problem) } else { problem.to_owned() };
    screen.result(&name, &Err(problem));
}

fn greet(screen: &Screen, state: &NodeState) {
    let fields =
        json!({ "server": state.name, "reached": state.problem.is_none(), "problem": state.problem });
    let line = match &state.problem {
        None => format!("Connected to server {}", state.name),
        Some(problem) => {
            format!("Could not connect to server {} ({})", state.name, text::error_line(problem))
        }
    };
    screen.event("server", fields, &line);
}

/// Asks who it is, four times at most; false if nobody was let in.
async fn log_in(
    client: &mut Client,
    screen: &Screen,
    input: &mut Input,
    mut user: Option<UserName>,
) -> anyhow::Result<bool> {
    if user.is_none() && !screen.json {
        screen.say("Log in; without an account, type create_user NAME first.");
    }
    for left in (0..TRIES).rev() {
        let (name, password) = match user.take() {
            Some(name) => (name, password("Password: ").await?),
            None => match ask_login(client, screen, input).await? {
                Some(login) => login,
                None => return Ok(false),
            },
        };
        match client.login(name, password).await {
            Ok((_, granted)) => {
                for server in granted {
                    let line = format!("From {server}: Authorization Granted.");
                    screen.event("granted", json!({ "server": server }), &line);
                }
                return Ok(true);
            }
            Err(StoreError::Login(LoginError::Call(error)))
                if error.refusal() == Some(RefusalKind::WrongPassword) =>
            {
                let tries = text::count(left as usize, "try").replace("trys", "tries");
                screen.warn(&format!("Invalid Username/Password. Please try again; {tries} left."));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

async fn ask_user(input: &mut Input) -> anyhow::Result<Option<UserName>> {
    loop {
        let Some(typed) = input.answer("Username: ").await? else { return Ok(None) };
        match UserName::refer(typed.trim()) {
            Ok(name) => return Ok(Some(name)),
            Err(error) if prompt::attended() => {
                let _ = writeln!(std::io::stderr(), "{error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Asks for a name and its password; `create_user` instead of a name makes the account first.
async fn ask_login(
    client: &Client,
    screen: &Screen,
    input: &mut Input,
) -> anyhow::Result<Option<(UserName, Password)>> {
    loop {
        let Some(typed) = input.answer("Username: ").await? else { return Ok(None) };
        if typed.split_whitespace().next() != Some("create_user") {
            match UserName::refer(typed.trim()) {
                Ok(name) => return Ok(Some((name, password("Password: ").await?))),
                Err(error) if prompt::attended() => screen.warn(&error.to_string()),
                Err(error) => return Err(error.into()),
            }
            continue;
        }
        let created = match Line::read(&typed) {
            Ok(Some(Command::CreateUser { user: Some(user), invite })) => {
                let user = UserName::create(user.as_str())?;
                let password = new_password().await?;
                create_user(client, &user, password.clone(), invite).await.map(|_| (user, password))
            }
            Ok(_) => Err(anyhow::anyhow!("say which: create_user NAME")),
            Err(problem) => Err(anyhow::anyhow!(problem)),
        };
        match created {
            Ok((user, password)) => {
                screen.say(&format!("user {user} was created"));
                return Ok(Some((user, password)));
            }
            Err(error) if prompt::attended() => screen.warn(&format!("{error:#}")),
            Err(error) => return Err(error),
        }
    }
}

/// The password of the password file or the environment, else asked for.
async fn password(question: &'static str) -> anyhow::Result<Password> {
    if let Some(password) = secrets::given_password() {
        return Ok(password);
    }
    let given = prompt::secret(question).await?;
    given
        .context("the password is missing; give it with --password-file, in SHOAL_PASSWORD, or at a terminal")
}

async fn carry_out(
    client: &mut Client,
    screen: &Screen,
    input: &mut Input,
    user: Option<UserName>,
    command: Command,
) -> anyhow::Result<Output> {
    match command {
        Command::Put { files, copies } => put(client, screen, input, files, copies).await,
        Command::Get { name, output, force } => {
            let name = (!name.is_empty()).then(|| name.join(" "));
            get(client, screen, input, name, output, force).await
        }
        Command::List { name, verbose } => list(client, &name.join(" "), verbose).await,
        Command::Rm { name } => Ok(Output::Removed(client.remove(&StoredName::new(&name.join(" "))?).await?)),
        Command::Help { command } => {
            command::help(command.as_deref()).map(Output::Help).map_err(anyhow::Error::msg)
        }
        Command::Status => {
            let states = client.ping().await?;
            Ok(Output::Status(states, client.status().await?, client.health().await?))
        }
        Command::CreateUser { user: named, invite } => {
            let user = named.or(user).context("say which: create_user NAME")?;
            let user = UserName::create(user.as_str())?;
            let password = new_password().await?;
            let provisional = create_user(client, &user, password, invite).await?;
            Ok(Output::UserCreated { user: user.to_string(), provisional })
        }
        Command::ChangePassword => {
            let old = match prompt::attended() {
                true => Some(prompt::secret("Old password: ").await?.context("nothing was changed")?),
                false => None,
            };
            let new = prompt::secret("New password: ").await?.context("the new password is missing")?;
            client.change_password(old, new).await?;
            Ok(Output::PasswordChanged)
        }
        Command::Exit => anyhow::bail!("exit leaves the prompt"),
    }
}

/// Creates an account; a taken name gets a hint that works here.
async fn create_user(
    client: &Client,
    user: &UserName,
    password: Password,
    invite: Option<String>,
) -> anyhow::Result<bool> {
    match client.create_user(user.clone(), password, invite).await {
        Err(StoreError::Login(LoginError::Call(error))) if error.refusal() == Some(RefusalKind::Exists) => {
            let shown = text::quoted(user.as_str());
            anyhow::bail!(
                "the user id {user} is taken; choose another, or if it is yours, log in: dfs dfs.conf --user {shown}"
            )
        }
        created => Ok(created?),
    }
}

/// The user's files, or one of them, with who holds what where that was asked for.
async fn list(client: &Client, name: &str, verbose: bool) -> anyhow::Result<Output> {
    if name.is_empty() && !verbose {
        return Ok(Output::Listed(client.list().await?));
    }
    let only = if name.is_empty() { None } else { Some(client.resolve(name).await?) };
    let mut held = Vec::new();
    for file in
        client.list().await?.into_iter().filter(|file| only.as_ref().is_none_or(|only| file.name == *only))
    {
        let holders = client.holders(&file.name).await?;
        held.push((file, holders));
    }
    Ok(Output::Held(held))
}

/// The password of a new account; a user at a terminal types it twice.
async fn new_password() -> anyhow::Result<Password> {
    let asked = secrets::given_password().is_none() && prompt::attended();
    let first = password("Password: ").await?;
    if asked && prompt::secret("Again: ").await?.as_ref() != Some(&first) {
        anyhow::bail!("the two passwords differ; no account was created");
    }
    Ok(first)
}

async fn put(
    client: &Client,
    screen: &Screen,
    input: &mut Input,
    mut paths: Vec<PathBuf>,
    copies: Option<u8>,
) -> anyhow::Result<Output> {
    if paths.is_empty() {
        anyhow::ensure!(!screen.json, "say which file: put FILE");
        screen.say(&prompt::local_files(Path::new(".")).join("\n"));
        let typed = input.answer("Which file? ").await?.filter(|typed| !typed.trim().is_empty());
        paths.push(typed.context("no file was named")?.trim().into());
    }
    let (mut stored, mut failed) = (Vec::new(), Vec::new());
    for path in paths {
        let put = screen
            .watch(&path.to_string_lossy(), async |report| client.put(&path, copies, report).await)
            .await;
        match put {
            Ok(put) => stored.push(put),
            Err(error) => failed.push(error.to_string()),
        }
    }
    if failed.is_empty() {
        return Ok(Output::Stored(stored));
    }
    let names: Vec<&str> = stored.iter().map(|file| file.name.as_str()).collect();
    let done = match &names[..] {
        [] => "nothing was stored".to_owned(),
        names => format!("only these were stored: {}", names.join(", ")),
    };
    anyhow::bail!("{done}: {}", failed.join("; "))
}

async fn get(
    client: &Client,
    screen: &Screen,
    input: &mut Input,
    name: Option<String>,
    to: Option<PathBuf>,
    force: bool,
) -> anyhow::Result<Output> {
    let name = match name {
        Some(name) => name,
        None => {
            anyhow::ensure!(!screen.json, "say which file: get NAME");
            screen.result("list", &Ok(Output::Listed(client.list().await?)));
            let typed = input.answer("Which file? ").await?.filter(|typed| !typed.trim().is_empty());
            typed.context("no file was named")?.trim().to_owned()
        }
    };
    let name = client.resolve(&name).await?;
    let options = GetOptions { to, force };
    let got = screen.watch(name.as_str(), async |report| client.get(&name, &options, report).await).await;
    Ok(Output::Got(got?))
}
