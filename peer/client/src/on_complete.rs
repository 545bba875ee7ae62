//! The command that the user wants run when a download is complete. It is run directly, word by word: no shell reads it, and
//! what other members named reaches it in its environment alone. Downloads wait for their commands in the database, so that those that did
//! not begin are run after the next start, however this one ends.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use shoal_session::events::{Event, Events};
use shoal_session::text;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::store::{Completed, Store, StoreError};
use crate::{Client, ClientError};

/// The setting that holds the command.
const ON_COMPLETE: &str = "on_complete";
/// Longest command in bytes.
const MAX_COMMAND: usize = 4_096;
/// Commands at the same time: as many as a small machine bears.
const AT_ONCE: usize = 2;
/// Completed downloads whose commands may wait.
const MAX_WAITING: usize = 1_000;
/// How long a command may take.
const LONGEST: Duration = Duration::from_secs(3_600);
/// How long it may take to end after that, before it is killed.
const TO_END: Duration = Duration::from_secs(10);
/// The same when the client ends: that takes a few seconds in all.
const TO_END_WITH_CLIENT: Duration = Duration::from_secs(3);
/// How often it is looked at whether all that a command started has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Why a command was not run to its end.
const CLIENT_ENDED: &str = "the client ended before the command did; run it yourself if it is to be run";
/// The pause before the database is looked at again after it failed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long its output is read after its end: a process that it left may keep it open.
const AFTERWARDS: Duration = Duration::from_millis(500);
/// Lines of output that the log takes of one command, and bytes of a line.
const MAX_LINES: usize = 200;
const MAX_LINE: u64 = 1_000;
/// What of this process's environment a command gets. All else may hold secrets, such as SHOAL_PASSWORD.
const KEPT: [&str; 16] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "DBUS_SESSION_BUS_ADDRESS",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
];
/// The same by the beginning of the name.
const KEPT_PREFIX: &str = "LC_";

/// Why a command cannot be one that is run on completion.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Its quotes do not match.
    #[error("the command's quotes do not match; write it as in a shell, and \"\" to have none")]
    Quotes,
    /// Too long.
    #[error("the command is longer than {MAX_COMMAND} bytes; put it into a script")]
    Long,
    /// There is no such program.
    #[error("there is no program {0} that may be run; give its whole path")]
    NoProgram(String),
}

/// Runs the command. Cheap to clone.
#[derive(Clone)]
pub(crate) struct OnComplete {
    command: Arc<Mutex<Option<String>>>,
    store: Store,
    /// There may be another download in the line.
    more: Arc<Notify>,
    events: Events,
}

impl OnComplete {
    /// With the command that was set before.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn load(store: &Store, events: Events) -> Result<Self, StoreError> {
        let command = Arc::new(Mutex::new(store.setting(ON_COMPLETE).await?));
        Ok(Self { command, store: store.clone(), more: Arc::default(), events })
    }

    fn command(&self) -> Option<String> {
        self.command.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A download is complete: the command is run soon, or after the next start, if there is one.
    pub(crate) async fn completed(&self, completed: Completed) {
        if self.command().is_none() {
            return;
        }
        match self.store.put_command(completed.clone(), MAX_WAITING).await {
            Ok(true) => self.more.notify_one(),
            Ok(false) => self.failed(&completed, format!("{MAX_WAITING} others wait already")),
            Err(error) => {
                self.failed(&completed, format!("it cannot be kept until it runs: {error}; run it yourself"));
            }
        }
    }

    fn failed(&self, Completed { group, file, .. }: &Completed, reason: String) {
        let (group, file) = (group.clone(), file.clone());
        tracing::warn!(%file, reason, "the command on completion failed");
        self.events.emit(Event::CommandFailed { group, file, reason });
    }

    /// Runs commands until `stop`. Those that run then are ended and reported; those that wait are run after the next start.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let (room, tasks) = (Arc::new(Semaphore::new(AT_ONCE)), TaskTracker::new());
        while let Some(Ok(place)) = stop.run_until_cancelled(room.clone().acquire_owned()).await {
            let Some(next) = self.next(&stop).await else { break };
            let Some(command) = self.command() else { continue };
            let (own, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move {
                if let Err(reason) = carry_out(&command, &next, &stop).await {
                    own.failed(&next, reason);
                }
                drop(place);
            });
        }
        tasks.close();
        tasks.wait().await;
    }

    /// The next download in the line, taken out of it: what was begun is not begun again. Nothing at `stop`. The future must not be dropped
    /// before it is complete: what it has taken would be lost.
    async fn next(&self, stop: &CancellationToken) -> Option<Completed> {
        while !stop.is_cancelled() {
            let waited = match self.store.take_command().await {
                Ok(Some(next)) => return Some(next),
                Ok(None) => stop.run_until_cancelled(self.more.notified()).await,
                Err(error) => {
                    tracing::warn!(%error, "the commands on completion wait");
                    stop.run_until_cancelled(tokio::time::sleep(LOOK_AGAIN)).await
                }
            };
            waited?;
        }
        None
    }
}

impl Client {
    /// The command that is run when a download is complete.
    #[must_use]
    pub fn on_complete(&self) -> Option<String> {
        self.0.on_complete.command()
    }

    /// Sets the command that is run when a download is complete, from now on and after a restart; `None` or an empty one is none.
    /// No shell reads it: its words are cut as a shell would, and nothing in them is replaced. SHOAL_GROUP, SHOAL_FILE,
    /// SHOAL_PATH, SHOAL_SIZE and SHOAL_SHA1 are in its environment.
    ///
    /// # Errors
    /// When it names no program, or the store fails.
    pub async fn set_on_complete(&self, command: Option<String>) -> Result<(), ClientError> {
        let command = command.filter(|command| !command.trim().is_empty());
        match &command {
            Some(command) => {
                words(command)?;
                self.0.store.set_setting(ON_COMPLETE, command.clone()).await?;
            }
            None => {
                self.0.store.remove_setting(ON_COMPLETE).await?;
                self.0.store.remove_commands().await?;
            }
        }
        *self.0.on_complete.command.lock().unwrap_or_else(PoisonError::into_inner) = command;
        Ok(())
    }
}

/// The words of a command; the first is a program that is there.
fn words(command: &str) -> Result<Vec<String>, CommandError> {
    if command.len() > MAX_COMMAND {
        return Err(CommandError::Long);
    }
    let words = shlex::split(command).filter(|words| !words.is_empty()).ok_or(CommandError::Quotes)?;
    let may_be_run =
        |path: &Path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    let program = Path::new(&words[0]);
    let found = if words[0].contains('/') {
        program.is_absolute() && may_be_run(program)
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.is_absolute() && may_be_run(&folder.join(program)))
    };
    if found { Ok(words) } else { Err(CommandError::NoProgram(text::short(&words[0]))) }
}

/// The environment of a command.
fn environment(completed: &Completed) -> Vec<(OsString, OsString)> {
    let is_kept = |name: &OsString| {
        name.to_str().is_some_and(|name| KEPT.contains(&name) || name.starts_with(KEPT_PREFIX))
    };
    let kept = std::env::vars_os().filter(|(name, _)| is_kept(name));
    let own = [
        ("SHOAL_GROUP", completed.group.as_str().into()),
        ("SHOAL_FILE", completed.file.as_str().into()),
        ("SHOAL_PATH", completed.path.as_os_str().to_owned()),
        ("SHOAL_SIZE", completed.size.to_string().into()),
        ("SHOAL_SHA1", completed.sha1.to_string().into()),
    ];
    kept.chain(own.map(|(name, value)| (name.into(), value))).collect()
}

/// Runs a command to its end, or until `stop`. Gives what went wrong, in words. Dropping the future kills it.
async fn carry_out(command: &str, completed: &Completed, stop: &CancellationToken) -> Result<(), String> {
    let words = words(command).map_err(|error| error.to_string())?;
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_dir());
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .env_clear()
        .envs(environment(completed))
        .current_dir(home.unwrap_or_else(|| "/".into()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C at the prompt does not mean it, and all of it can be ended.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{} cannot be started: {error}", text::short(&words[0])))?;
    let mut group = Group::of(&child);
    let file = completed.file.as_str();
    tracing::info!(file, program = words[0], "the command on completion runs");
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = {
        let mut read = std::pin::pin!(async { tokio::join!(log(out, file), log(err, file)) });
        let mut end = std::pin::pin!(end(&mut child, &mut group, stop));
        let (ended, read_all) = tokio::select! {
            ended = &mut end => (ended, false),
            _ = &mut read => (end.await, true),
        };
        if !read_all {
            // What it said last.
            let _ = tokio::time::timeout(AFTERWARDS, read).await;
        }
        ended
    };
    let status = ended?;
    tracing::info!(file, %status, "the command on completion ended");
    if status.success() { Ok(()) } else { Err(format!("it ended with {status}; the log has what it said")) }
}

/// A command and all that it started; dropped before it ended, it is killed.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, signal);
        }
    }

    /// Completes when all of it has ended.
    async fn ended(&self) {
        while self.0.is_some_and(|group| test_kill_process_group(group).is_ok()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Waits for the end of a command; one that takes too long, or that still runs at `stop`, is ended with all that it started.
async fn end(child: &mut Child, group: &mut Group, stop: &CancellationToken) -> Result<ExitStatus, String> {
    let unknown = |error: std::io::Error| format!("nothing is known of its end: {error}");
    let (reason, patience) = tokio::select! {
        ended = child.wait() => {
            // What it left behind may go on.
            group.0 = None;
            return ended.map_err(unknown);
        }
        () = tokio::time::sleep(LONGEST) => {
            (format!("it was ended after {}", text::duration(LONGEST)), TO_END)
        }
        () = stop.cancelled() => (CLIENT_ENDED.to_owned(), TO_END_WITH_CLIENT),
    };
    group.signal(Signal::TERM);
    let ended = async {
        let _ = child.wait().await;
        group.ended().await;
    };
    if tokio::time::timeout(patience, ended).await.is_err() {
        group.signal(Signal::KILL);
        let _ = tokio::time::timeout(AFTERWARDS, child.wait()).await;
    }
    group.0 = None;
    Err(reason)
}

/// Writes the first lines of a command's output to the log, and reads the rest away.
async fn log(output: Option<impl AsyncRead + Unpin>, file: &str) {
    let Some(output) = output else { return };
    let mut lines = BufReader::new(output);
    let (mut line, mut count) = (Vec::new(), 0);
    loop {
        line.clear();
        // A line that is longer goes on as the next one.
        let mut bounded = tokio::io::AsyncReadExt::take(&mut lines, MAX_LINE);
        match bounded.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        count += 1;
        if count <= MAX_LINES {
            let line = text::printable(&String::from_utf8_lossy(&line));
            tracing::info!(file, line, "the command on completion says");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::{FileName, GroupName, Sha1};

    fn completed(name: &str) -> Completed {
        Completed {
            group: GroupName::create("g").unwrap(),
            file: FileName::create(name).unwrap(),
            path: Path::new("/tmp").join(name),
            size: 5,
            sha1: Sha1([0; 20]),
        }
    }

    #[test]
    fn a_command_is_words_and_a_program_that_is_there() {
        assert_eq!(
            words("sh -c 'echo \"$SHOAL_PATH\"'"),
            Ok(vec!["sh".into(), "-c".into(), "echo \"$SHOAL_PATH\"".into()])
        );
        assert!(words("/bin/sh").is_ok());
        for (command, error) in [
            ("sh 'a", CommandError::Quotes),
            ("''", CommandError::NoProgram(String::new())),
            ("no-such-program-here a", CommandError::NoProgram("no-such-program-here".into())),
            ("./sh", CommandError::NoProgram("./sh".into())),
            ("/etc/passwd", CommandError::NoProgram("/etc/passwd".into())),
            ("/etc", CommandError::NoProgram("/etc".into())),
        ] {
            assert_eq!(words(command), Err(error), "{command}");
        }
        assert_eq!(words(&"x".repeat(5_000)), Err(CommandError::Long));
    }

    #[tokio::test]
    async fn names_reach_a_command_as_they_are_and_nothing_secret_does() {
        let dir = tempfile::tempdir().unwrap();
        let name = "$(touch hacked) `id`; rm -rf ~ \" '.bin";
        let out = dir.path().join("out");
        let command = format!("sh -c 'env > \"{}\"; pwd'", out.display());
        carry_out(&command, &completed(name), &CancellationToken::new()).await.unwrap();
        let seen = std::fs::read_to_string(&out).unwrap();
        assert!(seen.contains(&format!("SHOAL_FILE={name}\n")), "{seen}");
        assert!(seen.contains(&format!("SHOAL_PATH=/tmp/{name}\n")) && seen.contains("SHOAL_SIZE=5\n"));
        let odd = seen.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).find(|name| {
            let own = name.starts_with("SHOAL_") || ["PWD", "OLDPWD", "SHLVL", "_"].contains(name);
            !own && !KEPT.contains(name) && !name.starts_with(KEPT_PREFIX)
        });
        assert_eq!(odd, None, "{seen}");
        assert!(!seen.contains("SHOAL_PASSWORD") && !seen.contains("CARGO"), "{seen}");
    }

    #[tokio::test]
    async fn what_goes_wrong_is_said() {
        for (command, part) in [
            ("false", "exit status: 1"),
            ("sh -c 'kill -9 $$'", "signal: 9"),
            ("no-such-program-here", "no program"),
        ] {
            let error = carry_out(command, &completed("a"), &CancellationToken::new()).await.unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        // One that leaves a process behind which keeps its output open.
        carry_out("sh -c 'sleep 3 & exit 0'", &completed("a"), &CancellationToken::new()).await.unwrap();
        carry_out("sh -c 'yes | head -c 3000000'", &completed("a"), &CancellationToken::new()).await.unwrap();
    }

    /// Two commands that say that they run and wait for ever, and one that waits for them; then the client ends. Gives the files
    /// of which it was reported that the command did not do its work, the processes of the commands, and what waits.
    async fn client_ends(command: &str, folder: &Path) -> (Vec<String>, Vec<Pid>, Vec<String>) {
        let store = Store::open(&folder.join("client.db")).unwrap();
        let events = Events::default();
        let mut seen = events.listen();
        let own = OnComplete::load(&store, events).await.unwrap();
        *own.command.lock().unwrap() = Some(command.to_owned());
        let stop = CancellationToken::new();
        let running = tokio::spawn(own.clone().run(stop.clone()));
        for name in ["a", "b", "c"] {
            own.completed(completed(name)).await;
        }
        let pids = || -> Vec<Pid> {
            let read = |name| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            let pid = |name| read(name).strip_suffix('\n').and_then(|pid| pid.parse().ok());
            ["a", "b"].into_iter().filter_map(pid).filter_map(Pid::from_raw).collect()
        };
        while pids().len() < 2 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        running.await.unwrap();
        own.completed(completed("d")).await;
        let mut failed = Vec::new();
        while let Ok(event) = seen.try_recv() {
            if let Event::CommandFailed { file, reason, .. } = event {
                assert_eq!(reason, CLIENT_ENDED);
                failed.push(file.as_str().to_owned());
            }
        }
        failed.sort();
        let mut waiting = Vec::new();
        while let Some(next) = store.take_command().await.unwrap() {
            waiting.push(next.file.as_str().to_owned());
        }
        (failed, pids(), waiting)
    }

    #[tokio::test]
    async fn no_command_vanishes_without_a_word_when_the_client_ends() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().display();
        // One that ends when it is asked to, and one that does not, nor does what it started.
        for ignored in ["", "trap \"\" TERM;"] {
            let command =
                format!("sh -c '{ignored} echo $$ > {here}/$SHOAL_FILE; while :; do sleep 1000; done'");
            let (failed, pids, waiting) = client_ends(&command, dir.path()).await;
            assert_eq!(
                (failed, waiting),
                (vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned(), "d".to_owned()])
            );
            for name in ["a", "b"] {
                std::fs::remove_file(dir.path().join(name)).unwrap();
            }
            for group in pids {
                // A killed one may be a zombie until its new parent looks.
                let gone = tokio::time::timeout(TO_END, Group(Some(group)).ended()).await;
                assert!(gone.is_ok(), "{group:?} goes on");
            }
        }
    }
}
