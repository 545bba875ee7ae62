//! The life of `shoal up`: the tracker first, then the client and its socket; at the end the client first.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use shoal_client::{Client, ClientConfig, archive};
use shoal_common::TrackerInfo;
use shoal_console::data_dir::{DataDir, DataDirError};
use shoal_console::{descriptors, log, service};
use shoal_http::mirror::Reach;
use shoal_peer::daemon::Daemon;
use shoal_peer::options::UPLOAD_SLOTS;
use shoal_peer::screen::{Form, Screen};
use shoal_session::text::printable;
use shoal_tracker::tracker::{Tracker, TrackerConfig};
use shoal_web::{WebConfig, socket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::notice::{self, Notice};
use super::setup::{Setup, client_folder, folder};
use super::{Options, address, files, typed};
use crate::browser;

/// What is logged when RUST_LOG does not say.
const LOG_FILTER: &str = "info,libp2p=warn";
/// The log, in the folder.
const LOG_FILE: &str = "shoal.log";
/// How long the tracker may take to end, once the client has. What it acknowledged is on the disk already.
const TRACKER_WITHIN: Duration = Duration::from_millis(800);
/// How long it may take to end when it is started again at another address.
const TRACKER_AGAIN_WITHIN: Duration = Duration::from_secs(10);
/// How long the end waits for the last events to be shown.
const EVENTS_WITHIN: Duration = Duration::from_millis(500);

pub(super) async fn run(options: Options) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let dir = folder(&options)?;
    let data_dir = lock(&dir)?;
    archive::marks::check(data_dir.path())?;
    log::start(options.log_format, LOG_FILTER, Some(&dir.join(LOG_FILE)))
        .context("cannot write the log file")?;
    descriptors::raise();
    if let Some(warning) = files::warning(&dir) {
        tell(&warning);
    }
    let own = dir.clone();
    let mut setup = Setup::read(dir, &options)?;
    if setup.own_tracker() {
        shoal_tracker::data_dir::make(&setup.tracker_folder())?;
    }
    let (trackers, path) = setup.trackers(options.join.as_deref())?;
    let mut tracker = match setup.own_tracker() {
        true => {
            Some(start_tracker(&setup, trackers.clone(), path).await.map_err(|error| setup.failed(error))?)
        }
        false => None,
    };
    let near = tracker.as_ref().map(|tracker| setup.near(tracker.peer_id())).transpose()?;
    let dialled = near.unwrap_or_else(|| trackers.clone());
    let web = setup.web().filter(|_| !options.no_web);
    let web = shoal_peer::options::web(web, &options.web_root);
    // The tracker's keys and database are there too.
    let web = web.map(|web| WebConfig { private: vec![own], ..web });
    let started = start_client(&mut setup, dialled, data_dir, web).await;
    let ended = match started {
        Ok((client, mut daemon)) => {
            let screen = Screen::new(Form::Text);
            let end = CancellationToken::new();
            let events = tokio::spawn(screen.show_events(client.events(), end.clone()));
            say(&setup, &trackers, tracker.as_ref(), &client, &daemon);
            service::ready();
            let opened = tokio::spawn(open_page(daemon.path().to_owned(), daemon.page(), options.no_browser));
            let mut notice = Notice::new(setup.given_out());
            {
                let mut serving = std::pin::pin!(daemon.serve(&client));
                loop {
                    tokio::select! {
                        () = &mut serving => break,
                        _ = terminate.recv() => break,
                        _ = interrupt.recv() => break,
                        _ = hangup.recv() => break,
                        () = service::watchdog() => break,
                        moved = notice.changed() => follow(&mut setup, &mut tracker, &client, moved).await,
                    }
                }
            }
            opened.abort();
            daemon.end(&client).await;
            end.cancel();
            // It showed what there was; whoever reads that may hang.
            let _ = timeout(EVENTS_WITHIN, events).await;
            Ok(())
        }
        Err(error) => Err(error),
    };
    if let Some(tracker) = tracker
        && timeout(TRACKER_WITHIN, tracker.shutdown()).await.is_err()
    {
        tracing::warn!("the tracker did not end within {TRACKER_WITHIN:?}; it ends with the process");
    }
    ended
}

/// Starts the tracker that is in this process.
async fn start_tracker(setup: &Setup, trackers: TrackerInfo, path: PathBuf) -> Result<Tracker> {
    let listen = Some(setup.tracker_listen());
    let folder = setup.tracker_folder();
    Tracker::start(TrackerConfig { listen, ..TrackerConfig::new(trackers, path, 1, folder) }).await
}

/// This machine has another address: others are given that one. The tracker is started again, so that all that it hands out has it.
async fn follow(
    setup: &mut Setup,
    tracker: &mut Option<Tracker>,
    client: &Client,
    (before, now): (IpAddr, IpAddr),
) {
    let mut line = None;
    if let Some(running) = tracker.take() {
        let _ = timeout(TRACKER_AGAIN_WITHIN, running.shutdown()).await;
        let started = async {
            let (trackers, path) = setup.trackers(None)?;
            setup.keep()?;
            start_tracker(setup, trackers, path).await
        };
        match started.await {
            Ok(started) => {
                line = Some(started.line());
                *tracker = Some(started);
            }
            Err(error) => {
                tell(&format!(
                    "this machine's address is {now} now, and the tracker does not start there: {error:#}; start shoal up again"
                ));
                return;
            }
        }
    }
    client.give_out(setup.client_address());
    tell(&notice::news(before, now, line.as_deref()));
}

/// Says something on the terminal and in the log.
fn tell(text: &str) {
    tracing::warn!("{text}");
    // Where nobody reads it, the log has it.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Locks the client's folder.
fn lock(dir: &Path) -> Result<DataDir> {
    match DataDir::open(&client_folder(dir)) {
        Ok(data_dir) => Ok(data_dir),
        Err(DataDirError::InUse { pid, .. }) => bail!(
            "shoal up runs already on {}{pid}: type commands, such as {} whoami; or give another folder: --data DIR",
            dir.display(),
            typed::shoal(Some(&socket::in_data(&client_folder(dir))))
        ),
        Err(DataDirError::Unusable { error, .. }) => {
            bail!("cannot keep data in {}: {error}; give another folder: --data DIR", dir.display())
        }
        Err(error) => Err(error.into()),
    }
}

async fn start_client(
    setup: &mut Setup,
    trackers: TrackerInfo,
    data_dir: DataDir,
    web: Option<WebConfig>,
) -> Result<(Client, Daemon)> {
    let config = ClientConfig {
        listen: setup.client_address(),
        everywhere: setup.given_out().is_some(),
        trackers,
        data_dir,
        upload_slots: UPLOAD_SLOTS,
        clock: shoal_client::wake::system_clock(),
        mirrors: Reach::Global,
    };
    let client = Client::start(config).await.map_err(|error| setup.failed(error.into()))?;
    match Daemon::start(&client, web) {
        Ok(daemon) => match setup.keep() {
            Ok(()) => Ok((client, daemon)),
            Err(error) => {
                daemon.end(&client).await;
                Err(error)
            }
        },
        Err(error) => {
            client.shutdown().await;
            Err(error).context("no commands could be taken")
        }
    }
}

/// Opens a browser on the page, where there is one and a person began this.
async fn open_page(socket: PathBuf, page: Option<SocketAddr>, not_wanted: bool) {
    let variable = |name: &str| std::env::var_os(name);
    if not_wanted || page.is_none() || !browser::is_attended(variable) {
        return;
    }
    // Without a desktop nobody expects one.
    let Ok(opener) = browser::find(variable) else { return };
    if let Err(error) = browser::open(&socket, &opener).await {
        // Nobody reads stderr: there is no other way to say it.
        let _ = writeln!(io::stderr(), "no browser was opened: {}; see: shoal web", printable(&error));
    }
}

/// Says what to type now, what to send to a friend, and who can reach this machine.
fn say(setup: &Setup, trackers: &TrackerInfo, tracker: Option<&Tracker>, client: &Client, daemon: &Daemon) {
    let is_found = socket::find().iter().any(|found| found == daemon.path());
    let shoal = typed::shoal((!is_found).then_some(daemon.path()));
    let page = daemon.page().map_or_else(String::new, |at| {
        format!(" Its page is http://{at}/, and {shoal} web lets a browser in.")
    });
    let next = if client.keeps_session() {
        format!("commands in another terminal, such as {shoal} whoami,")
    } else {
        format!("in another terminal: {shoal} create_user NAME, and then {shoal} login NAME,")
    };
    let text = match tracker {
        Some(tracker) => format!(
            "Shoal runs.{page} Type {next} {shoal} create_group GROUP\nA friend types: shoal up --join '{}'\n{}",
            tracker.line(),
            sentence(&address::reach(setup.client_address(), &setup.ports()))
        ),
        None => {
            let named: Vec<String> = trackers.iter().map(|(_, line)| line.to_string()).collect();
            format!(
                "Shoal runs, with the tracker {}.{page} Type {next} {shoal} join_group GROUP\n\
                 Others get files from this machine if they reach it: TCP to {}",
                named.join(", "),
                setup.ports()
            )
        }
    };
    // Nobody reads it, as where a service manager starts this.
    let _ = writeln!(io::stdout(), "{text}");
    if let Some(note) = daemon.web_note().filter(|_| daemon.page().is_none()) {
        let _ = writeln!(io::stdout(), "{note}");
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + letters.as_str())
}
