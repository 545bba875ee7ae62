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
use shoal_console::{descriptors, log, read_text, read_trackers};
use shoal_engine::regular::{self, OpenError};
use shoal_session::LoginError;
use shoal_session::events::Event;
use shoal_session::text;
use tokio::sync::broadcast;

use super::command::{Command, Line};
use super::options::Options;
use super::prompt;
use super::show::{Output, Screen};
use crate::client::{Client, GetOptions, NodeState, StoreError};
use crate::conf::{Conf, MAX_CONF_BYTES};
use crate::files;
use crate::name::StoredName;

/// Where a password may stand.
const PASSWORD_VARIABLE: &str = "SHOAL_PASSWORD";
/// Tries that somebody at a prompt has (F2).
const TRIES: u32 = 4;
/// How long leaving may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(3);

/// Runs `dfs`; the exit code is 0, or 1 if anything failed.
#[must_use]
pub fn main(options: Options) -> ExitCode {
    // A core dump would hold keys.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
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
    // Nobody reads stderr: there is no other way to say it.
    let _ = writeln!(std::io::stderr(), "error: {}", text::error_line(error));
    ExitCode::FAILURE
}

async fn run(options: Options) -> anyhow::Result<bool> {
    let screen = Screen { json: options.json };
    let conf = read_conf(&options.conf)?;
    let trackers = read_trackers(&conf.trackers)?;
    let folder = match &options.data_dir {
        Some(folder) => folder.clone(),
        None => files::data_home()?.join("dfs"),
    };
    log::start(options.log_format, log::ERRORS, None).context("cannot write the log")?;
    descriptors::raise();
    conf.warnings.iter().for_each(|warning| screen.warn(&format!("{}: {warning}", options.conf.display())));
    let mut client = Client::start(&conf, trackers, folder).await?;
    client.set_retry_time(Duration::from_secs(options.retry_time));
    if let Some(events) = client.take_events() {
        tokio::spawn(tell(events, screen));
    }
    let work = async {
        match options.command {
            Some(command) => once(&mut client, screen, options.user, command).await,
            None => interactive(&mut client, screen, options.user).await,
        }
    };
    let done = tokio::select! {
        done = work => done,
        stopped = terminated() => stopped.map(|()| false),
    };
    let _ = tokio::time::timeout(LEAVE_WITHIN, client.shutdown()).await;
    done
}

/// Tells which trackers became known.
async fn tell(mut events: broadcast::Receiver<Event>, screen: Screen) {
    while let Ok(event) = events.recv().await {
        if let Event::TrackerKnown { tracker, key, .. } = &event {
            let fields = json!({ "tracker": tracker, "key": key });
            screen.tell("tracker_known", fields, &event.to_string());
        }
    }
}

async fn terminated() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
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
    screen: Screen,
    user: Option<UserName>,
    command: Command,
) -> anyhow::Result<bool> {
    let name = command.name();
    let result = match prepare(client, screen, user.clone(), &command).await {
        Ok(()) => carry_out(client, screen, user, command).await,
        Err(error) => Err(error),
    };
    let result = result.map_err(|error| text::error_line(&format!("{error:#}")));
    screen.result(name, &result);
    Ok(result.is_ok())
}

/// Logs in, if the command needs that. The command itself reaches the servers that it needs.
async fn prepare(
    client: &mut Client,
    screen: Screen,
    user: Option<UserName>,
    command: &Command,
) -> anyhow::Result<()> {
    if !command.needs_login() {
        return Ok(());
    }
    // No password is asked for in vain.
    if let Command::Put { files, .. } = command
        && let [file] = &files[..]
        && let Err(OpenError::NotRegular(found)) = regular::check(file)
    {
        return Err(StoreError::from(found).into());
    }
    client.ready().await?;
    let user = match user {
        Some(user) => user,
        None if prompt::attended() && !screen.json => ask_user().await?.context("no username was given")?,
        None => anyhow::bail!("say who you are with --user NAME"),
    };
    let password = password("Password: ").await?;
    client.login(user, password).await?;
    Ok(())
}

async fn interactive(client: &mut Client, screen: Screen, user: Option<UserName>) -> anyhow::Result<bool> {
    let states = client.ping().await?;
    states.iter().for_each(|state| greet(screen, state));
    if !log_in(client, screen, user).await? {
        return Ok(false);
    }
    let mut all_well = true;
    while let Some(line) = prompt::line("dfs> ").await? {
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
            result = carry_out(client, screen, None, command) => result,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                Err(anyhow::anyhow!("cancelled; the same command goes on where it was"))
            }
        };
        let result = result.map_err(|error| text::error_line(&format!("{error:#}")));
        all_well &= result.is_ok();
        screen.result(name, &result);
    }
    // Somebody at a terminal has seen what failed.
    Ok(all_well || prompt::attended())
}

/// Says what is wrong with a line that is no command.
fn refuse(screen: Screen, line: &str, usage: &str) {
    if !screen.json {
        // Of clap's several lines all are wanted.
        let _ = writeln!(std::io::stderr(), "{}", usage.trim_end());
        return;
    }
    let first = usage.lines().next().unwrap_or_default();
    let problem = text::error_line(first.trim_start_matches("error: "));
    let name = text::short(line.split_whitespace().next().unwrap_or_default()).to_lowercase();
    screen.result(&name, &Err(problem));
}

fn greet(screen: Screen, state: &NodeState) {
    let fields =
        json!({ "server": state.name, "reached": state.problem.is_none(), "problem": state.problem });
    let line = match &state.problem {
        None => format!("Connected to server {}", state.name),
        Some(problem) => {
            format!("Could not connect to server {} ({})", state.name, text::error_line(problem))
        }
    };
    screen.tell("server", fields, &line);
}

/// Asks who it is, four times at most; false if nobody was let in.
async fn log_in(client: &mut Client, screen: Screen, mut user: Option<UserName>) -> anyhow::Result<bool> {
    for left in (0..TRIES).rev() {
        let name = match user.take() {
            Some(name) => name,
            None => match ask_user().await? {
                Some(name) => name,
                None => return Ok(false),
            },
        };
        let password = password("Password: ").await?;
        match client.login(name, password).await {
            Ok((_, granted)) => {
                for server in granted {
                    let line = format!("From {server}: Authorization Granted.");
                    screen.tell("granted", json!({ "server": server }), &line);
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

async fn ask_user() -> anyhow::Result<Option<UserName>> {
    loop {
        if !prompt::attended() {
            prompt::show("");
        }
        let Some(typed) = prompt::line("Username: ").await? else { return Ok(None) };
        match UserName::refer(typed.trim()) {
            Ok(name) => return Ok(Some(name)),
            Err(error) if prompt::attended() => {
                let _ = writeln!(std::io::stderr(), "{error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The password from the environment, else asked for.
async fn password(question: &'static str) -> anyhow::Result<Password> {
    if let Ok(password) = std::env::var(PASSWORD_VARIABLE) {
        return Ok(Password::new(password));
    }
    let given = prompt::secret(question).await?;
    given.context("the password is missing; give it in SHOAL_PASSWORD, or at a terminal")
}

async fn carry_out(
    client: &mut Client,
    screen: Screen,
    user: Option<UserName>,
    command: Command,
) -> anyhow::Result<Output> {
    match command {
        Command::Put { files, copies } => put(client, screen, files, copies).await,
        Command::Get { name, output, force } => get(client, screen, name, output, force).await,
        Command::List => Ok(Output::Listed(client.list().await?)),
        Command::Rm { name } => Ok(Output::Removed(client.remove(&StoredName::new(&name)?).await?)),
        Command::Status => {
            let states = client.ping().await?;
            Ok(Output::Status(states, client.status().await?, client.health().await?))
        }
        Command::CreateUser { user: named, invite } => {
            let user = named.or(user).context("say which: create_user NAME")?;
            let user = UserName::create(user.as_str())?;
            let password = new_password().await?;
            let provisional = client.create_user(user.clone(), password, invite).await?;
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

/// The password of a new account; somebody at a terminal types it twice.
async fn new_password() -> anyhow::Result<Password> {
    let asked = std::env::var_os(PASSWORD_VARIABLE).is_none() && prompt::attended();
    let first = password("Password: ").await?;
    if asked && prompt::secret("Again: ").await?.as_ref() != Some(&first) {
        anyhow::bail!("the two passwords differ; no account was created");
    }
    Ok(first)
}

async fn put(client: &Client, screen: Screen, mut paths: Vec<PathBuf>, copies: u8) -> anyhow::Result<Output> {
    if paths.is_empty() {
        anyhow::ensure!(!screen.json, "say which file: put FILE");
        screen.say(&prompt::local_files().join("\n"));
        let typed = prompt::line("Which file? ").await?.filter(|typed| !typed.trim().is_empty());
        paths.push(typed.context("no file was named")?.trim().into());
    }
    let (mut stored, mut failed) = (Vec::new(), Vec::new());
    for path in paths {
        let (report, bar) = screen.progress(&path.to_string_lossy());
        let put = client.put(&path, copies, report).await;
        drop(bar);
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
    screen: Screen,
    name: Option<String>,
    to: Option<PathBuf>,
    force: bool,
) -> anyhow::Result<Output> {
    let name = match name {
        Some(name) => name,
        None => {
            anyhow::ensure!(!screen.json, "say which file: get NAME");
            screen.result("list", &Ok(Output::Listed(client.list().await?)));
            let typed = prompt::line("Which file? ").await?.filter(|typed| !typed.trim().is_empty());
            typed.context("no file was named")?.trim().to_owned()
        }
    };
    let name = StoredName::new(&name)?;
    let (report, _bar) = screen.progress(name.as_str());
    Ok(Output::Got(client.get(&name, &GetOptions { to, force }, report).await?))
}
