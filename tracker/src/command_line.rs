//! The command line of `tracker`, its logs, and the life of a tracker with its prompt.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use etcetera::BaseStrategy;
use rustix::fs::Mode;
use shoal_common::TrackerInfo;
use shoal_common::join::NodeSecret;
use shoal_common::tracker_api::storage::NodeEntry;
use shoal_console::{
    LogFormat, address, descriptors, log, number, read_key, read_trackers, secrets, time, wrapped,
};
use shoal_prompt::{CommandLines, FirstWord, Output, attended};
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster_key::ClusterKey;
use crate::data_dir;
use crate::prompt::{self, Command};
use crate::registration::{PER_ADDRESS, Registration, Terms};
use crate::relay::RelayTerms;
use crate::reporter;
use crate::storage::{Admitted, Applicant, Rules};
use crate::tracker::{self, Tracker, TrackerConfig};

/// What is logged when RUST_LOG does not say.
const LOG_FILTER: &str = "info,libp2p=warn";
/// The prompt's history in the data directory.
const HISTORY_FILE: &str = "history";

/// One member of Shoal's tracker cluster.
///
/// Keeps accounts, groups and the metadata of shared files in step with the other trackers. Clients need any one of them.
#[derive(Debug, Parser)]
#[command(name = "tracker", version, after_help = "Example: tracker tracker_info.txt 1")]
pub struct Arguments {
    /// File with one tracker per line: "ip port", "ip:port" or "name port", optionally followed by its peer id
    #[arg(required_unless_present = "status")]
    tracker_info: Option<PathBuf>,
    /// Which of the file's trackers this is, from 1
    #[arg(required_unless_present = "status", value_parser = number(1..=u8::MAX))]
    tracker_no: Option<u8>,
    /// Show the status of the tracker at this address of this machine, and end
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["tracker_info", "tracker_no"])]
    status: Option<String>,
    /// Show the status as JSON; with --status
    #[arg(long, requires = "status")]
    json: bool,
    /// Print this tracker's line for tracker_info.txt with its key, and end; makes the key if there is none
    #[arg(long, conflicts_with = "status")]
    id: bool,
    /// Serve metrics for Prometheus at this address, under /metrics
    #[arg(long, value_name = "ADDR", value_parser = address)]
    metrics: Option<SocketAddr>,
    /// Folder for this tracker's key, database and log [default: shoal/tracker-N under the user's XDG data home]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// File with a key that all trackers share; records are sent only to a tracker that proves to have it
    #[arg(long, value_name = "FILE")]
    cluster_key: Option<PathBuf>,
    /// Who may create an account at this tracker; invitations are made with invite_user at the prompt
    #[arg(long, value_enum, value_name = "WHO", default_value_t = Registration::Open)]
    registration: Registration,
    /// How many accounts one address (of IPv6, one /64) may create at once; after that, one per minute
    #[arg(long, value_name = "N", default_value_t = PER_ADDRESS, value_parser = number(1..=10_000_000u32))]
    accounts_per_address: u32,
    /// File with a secret that storage nodes share; a node that proves to know it is admitted without an operator
    #[arg(long, value_name = "FILE")]
    node_secret: Option<PathBuf>,
    /// Pass on what clients say that cannot connect to each other, so many bytes per second of all together: 50M, or 500K
    #[arg(long, value_name = "RATE", value_parser = relay_rate)]
    relay: Option<u64>,
    /// With --relay: so many bytes per second of one client, and of one user [default: a tenth of --relay]
    #[arg(long, value_name = "RATE", requires = "relay", value_parser = relay_rate)]
    relay_peer: Option<u64>,
    /// How long a chunk on a storage node must be named by no stored file before it may be deleted
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    grace: Duration,
    /// How long a storage node must be silent before its copies are made again elsewhere
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    repair_after: Duration,
    /// Shift this tracker's clock by so many milliseconds, for tests
    #[arg(long, hide = true, value_name = "MS", default_value_t = 0, allow_negative_numbers = true, value_parser = number(i64::MIN..=i64::MAX))]
    clock_offset: i64,
    /// Format of log lines
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

impl Arguments {
    /// Ends the process with a usage error if the arguments contradict each other.
    fn checked(self) -> Self {
        // clap does not ask for --status where the tracker file rules it out.
        if self.json && self.status.is_none() {
            let message = "--json is for --status ADDR; log lines become JSON with --log-format json";
            Self::command().error(ErrorKind::MissingRequiredArgument, message).exit();
        }
        self
    }
}

/// Runs a tracker until it is asked to end; or says what one is asked for. The exit code is 0, or 1 if that failed.
#[must_use]
pub fn main(arguments: Arguments) -> ExitCode {
    let arguments = arguments.checked();
    // All that the tracker writes is its owner's alone: salts, keys that passwords can be guessed from, who talks to it.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody reads stderr: there is no other way to say it.
            let _ = writeln!(io::stderr(), "tracker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let runtime = shoal_console::runtime().context("cannot start the runtime")?;
    if let Some(at) = &arguments.status {
        return runtime.block_on(show_status(at, arguments.json));
    }
    let (Some(path), Some(number)) = (&arguments.tracker_info, arguments.tracker_no) else {
        bail!("give tracker_info.txt and the tracker's number")
    };
    let info = read_trackers(path)?;
    let dir = match arguments.data_dir {
        Some(dir) => dir,
        None => etcetera::choose_base_strategy()
            .context("no home directory; give --data-dir")?
            .data_dir()
            .join("shoal")
            .join(format!("tracker-{number}")),
    };
    data_dir::make(&dir)?;
    if arguments.id {
        return show_line(&info, path, number, &dir);
    }
    let terminal = attended();
    let file = terminal.then(|| dir.join("tracker.log"));
    log::start(arguments.log_format, LOG_FILTER, file.as_deref()).context("cannot write the log file")?;
    secrets::no_core_dumps();
    descriptors::raise();
    let cluster_key = arguments.cluster_key.as_deref().map(ClusterKey::read).transpose()?;
    let node_secret = arguments.node_secret.as_deref().map(read_node_secret).transpose()?;
    crate::clock::shift(arguments.clock_offset);
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let rules = Rules { grace_ms: ms(arguments.grace), repair_after_ms: ms(arguments.repair_after) };
    let config = TrackerConfig {
        info,
        info_path: path.clone(),
        number,
        dir,
        rules,
        metrics: arguments.metrics,
        listen: None,
        cluster_key,
        registration: Terms { who: arguments.registration, per_address: arguments.accounts_per_address },
        node_secret,
        relay: arguments.relay.map(|all| RelayTerms {
            all,
            peer: arguments.relay_peer.unwrap_or((all / 10).max(LEAST_RELAYED)).min(all),
        }),
    };
    let _terminal = shoal_console::Restored::at_end();
    runtime.block_on(operate(config, terminal))
}

/// The least rate that something can be relayed at, in bytes per second.
const LEAST_RELAYED: u64 = 64 * 1024;

/// A rate that something can be relayed at.
fn relay_rate(text: &str) -> Result<u64, String> {
    match shoal_console::rate(text) {
        Some(rate) if rate >= LEAST_RELAYED => Ok(rate),
        _ => Err("give bytes per second, 64K at least, such as 500K or 50M".to_owned()),
    }
}

fn read_node_secret(path: &Path) -> Result<NodeSecret> {
    let bytes = read_key(path, "the storage nodes' secret")?;
    NodeSecret::new(&bytes)
        .with_context(|| format!("the storage nodes' secret {} cannot be used", path.display()))
}

/// Prints the tracker's line with its key, even if the file names another key for it.
#[expect(clippy::print_stdout, reason = "what the operator reads")]
fn show_line(info: &TrackerInfo, path: &Path, number: u8, dir: &Path) -> Result<()> {
    let key = data_dir::identity(dir)?.peer_id();
    println!("{}", tracker::line_of(info, path, number)?.with_key(key));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what the operator reads")]
async fn show_status(at: &str, json: bool) -> Result<()> {
    let report = reporter::ask(at).await?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{}", report.text());
    }
    Ok(())
}

async fn operate(config: TrackerConfig, terminal: bool) -> Result<()> {
    // Before anything else: a signal during the start closes cleanly too.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let history = config.dir.join(HISTORY_FILE);
    let tracker = Tracker::start(config).await?;
    greet(&tracker, terminal);
    let mut lines =
        CommandLines::open("tracker> ", Some(history), FirstWord(&prompt::COMMANDS), &Output::default())?;
    'serve: loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            typed = lines.next() => {
                let Some(text) = typed else { break };
                for line in text.lines() {
                    if obey(&tracker, line).await {
                        break 'serve;
                    }
                }
            }
        }
    }
    tracker.shutdown().await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what the operator reads")]
fn greet(tracker: &Tracker, terminal: bool) {
    if terminal {
        let others = tracker.info().iter().count() - 1;
        let address = tracker.local_addr().map_or_else(String::new, |address| address.to_string());
        let others = if others == 1 { "1 other".to_owned() } else { format!("{others} others") };
        println!("tracker {} at {address}, with {others}, as {}", tracker.number(), tracker.peer_id());
        println!("its line for every tracker_info.txt: {}", tracker.line());
        println!("type status, help or quit");
    }
}

/// Carries out a line that was typed; true if that was to quit.
async fn obey(tracker: &Tracker, line: &str) -> bool {
    match prompt::parse(line) {
        Ok(None) => false,
        Ok(Some(command)) => {
            let quits = command == Command::Quit;
            show(carry_out(tracker, command).await);
            quits
        }
        Err(problem) => {
            show(Err(anyhow!(problem)));
            false
        }
    }
}

/// Carries out a command; gives the answer, which is empty where there is none.
async fn carry_out(tracker: &Tracker, command: Command) -> Result<String> {
    Ok(match command {
        Command::Quit => String::new(),
        Command::Help => prompt::HELP.to_owned(),
        Command::Status => tracker.report().await.context("this tracker is closing")?.text(),
        Command::Backup(to) => {
            tracker.back_up(to.clone()).await.context("no backup was made")?;
            format!("the database is in {}; keep the key, identity.key, apart from it", to.display())
        }
        Command::AllowDeletions => {
            tracker.allow_deletions().await.context("that was not written")?;
            "chunks on storage nodes that no stored file names now may be deleted, once the time of --grace is over".into()
        }
        Command::InviteUser(days) => {
            let life = Duration::from_secs(u64::from(days) * 86_400);
            let code = tracker.invite_user(life).await.context("no invitation was made")?;
            format!("good for one account within {days} days: create_user NAME --invite {code}")
        }
        Command::Quota(command) => tracker.quota(command).await?,
        Command::Nodes => nodes_text(tracker),
        Command::Admit(nodes) => {
            for which in nodes {
                show(admit(tracker, &which).await);
            }
            String::new()
        }
        Command::Expel(which) => {
            let NodeEntry { name, peer, .. } = tracker.storage().expel(&which).await?;
            format!(
                "{name} ({peer}) is out of the cluster until it is admitted again; its copies are made again elsewhere"
            )
        }
        Command::AcceptTracker(number, key) => {
            let key = tracker.accept_tracker(number, key).await?;
            format!("tracker {number} is now known by its key {key}")
        }
        Command::AllowRemoval(number) => {
            if !tracker.allow_removal(number).await.context("that was not done")? {
                bail!("no removal by tracker {number} is held back");
            }
            format!(
                "records that tracker {number} does not hold are removed here at the next comparison with it"
            )
        }
        Command::Restamp => {
            tracker.restamp().await.context("that was not done")?;
            "records with an impossible time get the present one; the log says how many".into()
        }
    })
}

async fn admit(tracker: &Tracker, which: &str) -> Result<String> {
    Ok(match tracker.storage().admit(which).await? {
        Admitted::Now(Applicant { name, peer, from, .. }) => {
            format!("{name} is admitted; its key is {peer}, and it was seen at {from}")
        }
        Admitted::OnceItAsks(key) => format!(
            "no node with the key {key} waits here; it is admitted if it asks this tracker within an hour"
        ),
    })
}

/// Shows a command's answer, or why it was not done.
#[expect(clippy::print_stdout, reason = "what the operator reads")]
fn show(done: Result<String>) {
    match done {
        Ok(text) if text.is_empty() => {}
        Ok(text) => println!("{}", wrapped(&text)),
        // Nobody reads stderr: there is no other way to say it.
        Err(error) => drop(writeln!(io::stderr(), "{}", wrapped(&format!("{error:#}")))),
    }
}

/// The storage nodes, and those that wait, as text.
fn nodes_text(tracker: &Tracker) -> String {
    let mut lines: Vec<String> = tracker
        .store_status()
        .nodes
        .iter()
        .map(|node| {
            let state = if node.up { "up" } else { "not connected" };
            format!("{:<12} {:<24} {}  {state}", node.name, node.address, node.peer)
        })
        .collect();
    if lines.is_empty() {
        lines.push("there are no storage nodes".into());
    }
    for one in tracker.storage().applicants() {
        let Applicant { peer, name, address, from, .. } = one;
        lines.push(format!("{name:<12} {address:<24} {peer}  seen at {from}, WAITS: admit {peer}"));
    }
    if tracker.storage().is_crowded() {
        lines.push(
            "MORE NODES WAIT than are listed: admit them by the key that each prints when it starts".into(),
        );
    }
    lines.join("\n")
}
