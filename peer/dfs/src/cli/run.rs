//! The life of the binary `dfs`: reach the servers, log in, then one command, or those that are typed.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use shoal_common::UserName;
use shoal_console::{descriptors, log, read_text, read_trackers, secrets};
use shoal_engine::regular::{self, OpenError};
use shoal_session::CallError;
use shoal_session::events::Event;
use shoal_session::text;
use tokio::sync::broadcast;

use super::command::{self, Command, Line};
use super::jobs::{self, Jobs};
use super::login::{ask_user, create_user, log_in, log_in_again, new_password, present_password};
use super::options::Options;
use super::prompt::{self, Input};
use super::show::{Output, Screen};
use crate::client::{Client, GetOptions, NodeState, StoreError};
use crate::conf::{Conf, MAX_CONF_BYTES};
use crate::files;
use crate::name::StoredName;
use crate::queue::Work;
use crate::queue::file::QueueFile;

/// A service says that it waits for a tracker after this long.
const TRACKER_WITHIN: Duration = Duration::from_secs(2);
/// The pause before a tracker is asked again.
const TRACKER_AGAIN: Duration = Duration::from_secs(1);
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
    if let Some(Command::Help { command }) = &options.command {
        let result = command::help(command.as_deref()).map(Output::Help);
        screen.result("help", &result);
        return Ok(result.is_ok());
    }
    let conf_path = options.conf.clone().context("say which file names the servers: dfs DFS_CONF")?;
    let conf = read_conf(&conf_path)?;
    let trackers = match &conf.trackers {
        Some(path) => read_trackers(path)?,
        None => {
            let path = files::default_trackers()?;
            let line =
                format!("{} names no trackers; takes them from {}", conf_path.display(), path.display());
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
    conf.warnings.iter().for_each(|warning| screen.warn(&format!("{}: {warning}", conf_path.display())));
    let mut client = Client::start(&conf, trackers, folder.clone()).await?;
    let mut input = Input::new(folder.clone(), screen.clone());
    let queues = Queues { data: folder, conf: conf_path };
    client.set_retry_time(Duration::from_secs(options.retry_time));
    if let Some(events) = client.take_events() {
        tokio::spawn(show_events(events, screen.clone()));
    }
    let at_prompt = options.command.is_none() && !options.headless && prompt::attended();
    let work = async {
        match options.command {
            Some(command) => once(&client, &screen, &mut input, &queues, options.user, command).await,
            None if options.headless => headless(&client, &screen, &queues, options.user).await,
            None => interactive(&client, &screen, &mut input, &queues, options.user).await,
        }
    };
    let done = tokio::select! {
        done = work => done,
        stopped = terminated(at_prompt) => stopped.map(|()| false),
    };
    let _ = tokio::time::timeout(LEAVE_WITHIN, client.shutdown()).await;
    done
}

/// Where queues are kept, and for which store.
struct Queues {
    data: PathBuf,
    conf: PathBuf,
}

impl Queues {
    fn of(&self, user: &UserName, screen: &Screen, at_work: bool) -> anyhow::Result<Jobs> {
        let file = QueueFile::open(&self.data, user, &self.conf);
        let file = file.with_context(|| format!("cannot use the queue in {}", self.data.display()))?;
        Ok(Jobs::new(file, screen.clone(), at_work, user.clone()))
    }
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
    client: &Client,
    screen: &Screen,
    input: &mut Input,
    queues: &Queues,
    user: Option<UserName>,
    command: Command,
) -> anyhow::Result<bool> {
    let name = command.name();
    let result = match prepare(client, screen, input, user.clone(), &command).await {
        Ok(()) => {
            let queued = client.who().map(|who| who.name).or_else(|| user.clone());
            let jobs = queued.map(|user| queues.of(&user, screen, false)).transpose();
            match jobs {
                Ok(jobs) => carry_out(client, screen, input, jobs.as_ref(), user, command).await,
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    };
    let result = result.map_err(|error| text::error_line(&format!("{error:#}")));
    screen.result(name, &result);
    Ok(result.is_ok())
}

/// Logs in, if the command needs that. The command itself reaches the servers that it needs.
async fn prepare(
    client: &Client,
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
        && let Err(OpenError::NotRegular(found)) = regular::check(&regular::found(file))
    {
        return Err(StoreError::from(found).into());
    }
    if matches!(command, Command::Put { queue: true, .. }) {
        return user.map(drop).context("say who you are with --user NAME");
    }
    client.ready().await?;
    let user = match user {
        Some(user) => user,
        None if prompt::attended() && !screen.json => {
            ask_user(input).await?.context("no username was given")?
        }
        None => anyhow::bail!("say who you are with --user NAME"),
    };
    let password = present_password("Password: ").await?;
    client.login(user, password).await?;
    Ok(())
}

async fn interactive(
    client: &Client,
    screen: &Screen,
    input: &mut Input,
    queues: &Queues,
    user: Option<UserName>,
) -> anyhow::Result<bool> {
    let states = first_ping(client, screen).await?;
    states.iter().for_each(|state| greet(screen, state));
    if !log_in(client, screen, input, user).await? {
        return Ok(false);
    }
    let who = client.who().context("nobody is logged in")?;
    let jobs = queues.of(&who.name, screen, prompt::attended())?;
    if !prompt::attended() {
        return commands(client, screen, input, &jobs).await;
    }
    // Dropping the worker interrupts its job, which the next worker continues.
    tokio::select! {
        done = commands(client, screen, input, &jobs) => {
            jobs.say_what_is_left().await;
            done
        }
        never = jobs.work(client) => match never {},
    }
}

/// Works the queue off until a signal, or until somebody ends the session. It waits for a tracker as long as it takes.
async fn headless(
    client: &Client,
    screen: &Screen,
    queues: &Queues,
    user: Option<UserName>,
) -> anyhow::Result<bool> {
    let user = user.context("say who you are with --user NAME")?;
    let password = secrets::given_password().context(
        "without a prompt nobody can type the password; give it with --password-file or in SHOAL_PASSWORD",
    )?;
    let mut said = String::new();
    loop {
        let lack = match tokio::time::timeout(TRACKER_WITHIN, client.ready()).await {
            Ok(Ok(())) => match client.login(user.clone(), password.clone()).await {
                Ok(_) => break,
                // A tracker that was there goes again, is not ready yet, or asks for patience.
                Err(error) if error.passes() && !error.needs_login() => {
                    format!("{}; tries again", text::error_line(&error.lack()))
                }
                Err(error) => return Err(error.into()),
            },
            _ => "no tracker answers; waits for one".to_owned(),
        };
        if lack != said {
            screen.warn(&lack);
            said = lack;
        }
        tokio::time::sleep(TRACKER_AGAIN).await;
    }
    let jobs = queues.of(&user, screen, false)?;
    let line = format!("works the queue of {user} off; dfs put --queue leaves jobs there");
    screen.event("queue_begun", json!({ "user": user.as_str() }), &line);
    match jobs.work_alone(client).await? {}
}

/// Tries to reach the servers; at a terminal it waits for a tracker as long as its user does.
async fn first_ping(client: &Client, screen: &Screen) -> anyhow::Result<Vec<NodeState>> {
    let mut said = false;
    loop {
        let states = tokio::select! {
            states = client.ping() => states,
            interrupted = tokio::signal::ctrl_c(), if prompt::attended() => {
                interrupted?;
                anyhow::bail!("no tracker was reached");
            }
        };
        match states {
            Err(error @ StoreError::Call(CallError::NoTracker { .. })) if prompt::attended() => {
                if !std::mem::replace(&mut said, true) {
                    screen.warn(&format!("{error}; waits for one, Ctrl-C leaves"));
                }
            }
            states => return Ok(states?),
        }
    }
}

/// Carries out what is typed, until the end of input.
async fn commands(client: &Client, screen: &Screen, input: &mut Input, jobs: &Jobs) -> anyhow::Result<bool> {
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
            result = carry_out(client, screen, input, Some(jobs), None, command) => result,
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

async fn carry_out(
    client: &Client,
    screen: &Screen,
    input: &mut Input,
    jobs: Option<&Jobs>,
    user: Option<UserName>,
    command: Command,
) -> anyhow::Result<Output> {
    match command {
        Command::Put { files, copies, queue } => {
            let files = files_to_put(screen, input, files).await?;
            match jobs.filter(|jobs| queue || jobs.at_work()) {
                Some(jobs) => jobs.add(jobs::puts(&files, copies)?).await,
                None => put(client, screen, files, copies).await,
            }
        }
        Command::Get { name, output, force } => {
            let name = (!name.is_empty()).then(|| name.join(" "));
            let name = name_to_get(client, screen, input, name).await?;
            match jobs.filter(|jobs| jobs.at_work()) {
                Some(jobs) => {
                    let to = std::path::absolute(output.unwrap_or_else(|| ".".into()))?;
                    jobs.add(vec![Work::Get { name, to, force }]).await
                }
                None => get(client, screen, &name, output, force).await,
            }
        }
        Command::Queue { .. }
        | Command::Pause { .. }
        | Command::Resume { .. }
        | Command::Cancel { .. }
        | Command::Wait { .. } => {
            jobs.context("say who you are with --user NAME")?.carry_out(client, command).await
        }
        Command::List { name, verbose } => list(client, &name.join(" "), verbose).await,
        Command::Rm { name } => {
            Ok(Output::Removed(client.remove(&StoredName::typed(&name.join(" "))?).await?))
        }
        Command::Login => log_in_again(client, jobs).await,
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
            let password = new_password(screen, &user, "Password: ", secrets::given_password()).await?;
            let if_own = format!("log in: dfs dfs.conf --user {}", text::quoted(user.as_str()));
            let provisional = create_user(client, &user, password, invite, &if_own).await?;
            Ok(Output::UserCreated { user: user.to_string(), provisional })
        }
        Command::ChangePassword => {
            let old = match prompt::attended() {
                true => Some(prompt::secret("Old password: ").await?.context("nothing was changed")?),
                false => None,
            };
            let user = client.who().context("nobody is logged in")?.name;
            let new = new_password(screen, &user, "New password: ", None).await?;
            client.change_password(old, new).await?;
            Ok(Output::Done("the password was changed"))
        }
        Command::Exit => anyhow::bail!("exit leaves the prompt"),
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

/// The files that are to be stored; asked for if none is named.
async fn files_to_put(
    screen: &Screen,
    input: &mut Input,
    mut paths: Vec<PathBuf>,
) -> anyhow::Result<Vec<PathBuf>> {
    if paths.is_empty() {
        anyhow::ensure!(!screen.json, "say which file: put FILE");
        screen.say(&prompt::local_files(Path::new(".")).join("\n"));
        let typed = input.answer("Which file? ").await?.filter(|typed| !typed.trim().is_empty());
        paths.push(typed.context("no file was named")?.trim().into());
    }
    Ok(paths.iter().map(|path| regular::found(path)).collect())
}

async fn put(
    client: &Client,
    screen: &Screen,
    paths: Vec<PathBuf>,
    copies: Option<u8>,
) -> anyhow::Result<Output> {
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

/// The file that is to be fetched; asked for if none is named.
async fn name_to_get(
    client: &Client,
    screen: &Screen,
    input: &mut Input,
    name: Option<String>,
) -> anyhow::Result<String> {
    if let Some(name) = name {
        return Ok(name);
    }
    anyhow::ensure!(!screen.json, "say which file: get NAME");
    screen.result("list", &Ok(Output::Listed(client.list().await?)));
    let typed = input.answer("Which file? ").await?.filter(|typed| !typed.trim().is_empty());
    Ok(typed.context("no file was named")?.trim().to_owned())
}

async fn get(
    client: &Client,
    screen: &Screen,
    name: &str,
    to: Option<PathBuf>,
    force: bool,
) -> anyhow::Result<Output> {
    let name = client.resolve(name).await?;
    let options = GetOptions { to, force };
    let got = screen.watch(name.as_str(), async |report| client.get(&name, &options, report).await).await;
    Ok(Output::Got(got?))
}
