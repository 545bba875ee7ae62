//! The life of the binary `client`: options in, a running [`Client`] with a prompt, a script or no input, and an orderly
//! end.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use shoal_console::{descriptors, log, read_trackers, secrets, service};
use shoal_http::mirror::Reach;
use shoal_prompt::attended;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::command::{Context, gives_password, logs_in};
use crate::daemon::Daemon;
use crate::options::Options;
use crate::prompt;
use crate::reply::shown;
use crate::runner::{self, Next};
use crate::screen::{Form, Screen};
use crate::script;
use shoal_client::{Client, ClientConfig, WhoAmI};
use shoal_console::data_dir::DataDir;
use shoal_session::text;
use shoal_web::WebConfig;

/// How long the prompt waits for a tracker before it says that there is none yet.
const GREET_WITHIN: Duration = Duration::from_millis(1_500);
/// How long is waited for a tracker at a time before a login without a prompt; the event `no_tracker` says so meanwhile.
const TRACKER_WITHIN: Duration = Duration::from_secs(60);
/// How long the end of a service waits for the last events to be shown.
const EVENTS_WITHIN: Duration = Duration::from_millis(500);
/// The log file in the data directory.
const LOG_FILE: &str = "client.log";
/// What is logged there when RUST_LOG does not say.
const FILE_FILTER: &str = "info";

/// Where commands come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interface {
    /// A user at a terminal.
    Prompt,
    /// Lines from a pipe.
    Script,
    /// Nowhere.
    Headless,
}

/// Runs a client from its start to its end; the exit code is 0, or 1 if anything failed.
#[must_use]
pub fn main(options: Options) -> ExitCode {
    secrets::no_core_dumps();
    let runtime = match shoal_console::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start")),
    };
    let terminal = rustix::termios::tcgetattr(io::stdin()).ok();
    let ended = runtime.block_on(run(options));
    // A read from the terminal or a pipe may still wait in a thread; it ends with the process.
    runtime.shutdown_background();
    if let Some(terminal) = terminal {
        // A terminal that is gone needs no mending.
        let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, &terminal);
    }
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let closed = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    if error.root_cause().downcast_ref().is_some_and(closed) {
        // The reader has seen enough, as `head` has.
        return ExitCode::FAILURE;
    }
    // Nobody reads stderr: there is no other way to say it.
    let _ = writeln!(io::stderr(), "error: {}", text::error_line(&format!("{error:#}")));
    ExitCode::FAILURE
}

async fn run(options: Options) -> anyhow::Result<bool> {
    options.password_file.as_deref().map(secrets::use_password_file).transpose()?;
    warn_of_passwords(&options.exec)?;
    let trackers = read_trackers(&options.tracker_info)?;
    let (data_dir, mut notes) = match &options.data_dir {
        Some(path) => (DataDir::open(path)?, Vec::new()),
        None => DataDir::open_default(options.listen)?,
    };
    let interface = interface(&options);
    let (filter, file) = match interface {
        Interface::Prompt => (FILE_FILTER, Some(data_dir.path().join(LOG_FILE))),
        Interface::Script | Interface::Headless => (log::ERRORS, None),
    };
    log::start(options.log_format, filter, file.as_deref()).context("cannot write the log file")?;
    let mirrors = if options.private_mirrors { Reach::Anywhere } else { Reach::Global };
    descriptors::raise();
    let config = ClientConfig {
        listen: options.listen,
        everywhere: false,
        trackers,
        data_dir,
        upload_slots: options.upload_slots,
        clock: shoal_client::wake::system_clock(),
        mirrors,
    };
    let client = Client::start(config).await?;
    if client.is_forwarded() {
        notes.push(format!(
            "{} is no address of this machine: listening on all of them, and giving out that one; have port {} forwarded here",
            options.listen.ip(),
            options.listen.port()
        ));
    }
    let screen = Screen::new(match interface {
        _ if options.json => Form::Json,
        Interface::Prompt => Form::Prompt,
        Interface::Script | Interface::Headless => Form::Text,
    });
    for note in &notes {
        screen.note(note)?;
    }
    let headless = interface == Interface::Headless;
    // Before anyone is told that it is ready: from then on it ends in order.
    let signals = Signals::listen()?;
    let mut daemon = if headless {
        open(&client, crate::options::web(options.web, &options.web_root), &screen)?
    } else {
        None
    };
    let end = CancellationToken::new();
    let events = tokio::spawn(screen.clone().show_events(client.events(), end.clone()));
    let failed = AtomicBool::new(false);
    // A service whose commands leave nobody logged in has failed; without any, and with a socket, others may log in.
    let waits = daemon.is_some() && options.exec.is_empty();
    let done = tokio::select! {
        done = serve(&client, &screen, interface, waits, &options.exec, &failed) => done,
        () = answer(daemon.as_mut(), &client) => Ok(()),
        () = service::watchdog(), if headless => Ok(()),
        // A script that is cut off has failed.
        cut_off = signals.terminated(interface) => {
            failed.fetch_or(cut_off, Ordering::Relaxed);
            Ok(())
        }
    };
    match daemon {
        Some(daemon) => daemon.end(&client).await,
        None => {
            client.shutdown().await;
        }
    }
    end.cancel();
    if headless {
        // Whoever reads the log of a service may hang; the service ends all the same.
        let _ = tokio::time::timeout(EVENTS_WITHIN, events).await;
    } else {
        events.await?;
    }
    done.map(|()| !failed.load(Ordering::Relaxed))
}

/// Warns where a command line holds a password.
fn warn_of_passwords(lines: &[String]) -> io::Result<()> {
    if lines.iter().any(|line| gives_password(line)) {
        let advice = "give it with --password-file or in SHOAL_PASSWORD";
        writeln!(
            io::stderr(),
            "warning: other users of this machine can read the password in --exec; {advice}"
        )?;
    }
    Ok(())
}

/// Opens the socket of a service, and says where it is. Without one the service goes on: it shares and downloads all the same.
fn open(client: &Client, web: Option<WebConfig>, screen: &Screen) -> io::Result<Option<Daemon>> {
    let opened = Daemon::start(client, web);
    match &opened {
        Ok(daemon) => screen.note(&format!("commands are taken at {}", shown(daemon.path())))?,
        Err(error) => screen.note(&format!("no commands are taken while this runs: {error}"))?,
    }
    let note = opened.as_ref().ok().and_then(Daemon::web_note);
    note.map_or(Ok(()), |note| screen.note(&note))?;
    service::ready();
    Ok(opened.ok())
}

/// Carries out what comes through the socket, until a command ends the daemon.
async fn answer(daemon: Option<&mut Daemon>, client: &Client) {
    match daemon {
        Some(daemon) => daemon.serve(client).await,
        None => std::future::pending().await,
    }
}

/// Carries out the commands given at the start, then those of the interface. Notes in `failed` whether a command failed.
async fn serve(
    client: &Client,
    screen: &Screen,
    interface: Interface,
    waits: bool,
    exec: &[String],
    failed: &AtomicBool,
) -> anyhow::Result<()> {
    let attended = io::stdin().is_terminal() && interface != Interface::Headless;
    let context = Context { client: client.clone(), screen: screen.clone(), attended, caller: None };
    if interface == Interface::Prompt {
        client.reached(GREET_WITHIN).await;
        screen.out(&intro(&client.whoami()))?;
    }
    if interface != Interface::Prompt {
        // What nobody types at a prompt relies on the session that was kept.
        let _ = tokio::time::timeout(TRACKER_WITHIN, client.gone_on()).await;
    }
    for line in exec {
        if interface == Interface::Headless && logs_in(line) {
            // Nobody is there to try again.
            while !client.reached(TRACKER_WITHIN).await {}
        }
        match runner::run(&context, line).await? {
            Next::Continue => {}
            Next::Failed => failed.store(true, Ordering::Relaxed),
            Next::Quit => return Ok(()),
        }
    }
    match interface {
        Interface::Prompt => prompt::run(&context).await,
        Interface::Script => {
            if !script::run(&context).await? {
                failed.store(true, Ordering::Relaxed);
            }
            Ok(())
        }
        Interface::Headless if client.whoami().user.is_none() && !waits && !client.goes_on() => {
            anyhow::bail!(
                "nobody is logged in, and without a prompt nobody can; give --exec 'login NAME' and --password-file FILE"
            )
        }
        Interface::Headless => std::future::pending().await,
    }
}

/// What the system sends when it asks the client to leave. From [`Self::listen`] on the process does not end by it.
struct Signals {
    terminate: Signal,
    hangup: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Completes when the system asks the client to leave. At a prompt Ctrl-C is not such a wish. Gives whether a script was cut off.
    async fn terminated(mut self, interface: Interface) -> bool {
        let interrupted = async {
            if interface == Interface::Prompt {
                std::future::pending::<()>().await;
            }
            self.interrupt.recv().await;
        };
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
            () = interrupted => "SIGINT",
        };
        let cut_off = interface == Interface::Script;
        if cut_off {
            // Nobody reads stderr: there is no other way to say it.
            let _ = writeln!(io::stderr(), "stopped by {name} before the script's end");
        }
        cut_off
    }
}

fn interface(options: &Options) -> Interface {
    if options.headless {
        Interface::Headless
    } else if attended() && !options.json {
        Interface::Prompt
    } else {
        Interface::Script
    }
}

/// What a client says at its start: who and where it is, and what to type first.
fn intro(who: &WhoAmI) -> String {
    let tracker = match &who.tracker {
        Some(tracker) => format!("tracker {tracker}"),
        None => "no tracker yet".to_owned(),
    };
    let peer = who.peer.to_string();
    let tail = &peer[peer.len().saturating_sub(8)..];
    format!(
        "Shoal client …{tail} at {}, {tracker}, data in {}\n\
         Type create_user <user_id> or login <user_id> first; help shows all commands, Ctrl-D leaves.",
        who.address,
        shown(&who.data_dir)
    )
}
