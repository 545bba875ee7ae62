//! The `tracker` binary: arguments, logs, and the prompt.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use etcetera::BaseStrategy;
use rustix::fs::Mode;
use rustyline::error::ReadlineError;
use shoal_common::join::NodeSecret;
use shoal_common::{TrackerInfo, tracker_info};
use shoal_console::{LogFormat, descriptors, log, pipe, read_key, read_text, wrapped};
use shoal_tracker::cluster_key::ClusterKey;
use shoal_tracker::data_dir;
use shoal_tracker::node::{self, Node, NodeConfig};
use shoal_tracker::prompt::{self, Command};
use shoal_tracker::registration::{PER_ADDRESS, Registration, Terms};
use shoal_tracker::reporter;
use shoal_tracker::storage::{Admitted, Applicant, Rules};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// What is logged when RUST_LOG does not say.
const LOG_FILTER: &str = "info,libp2p=warn";

/// One member of Shoal's tracker cluster.
///
/// Keeps accounts, groups and the metadata of shared files in step with the other trackers; any one of them is enough.
#[derive(Debug, Parser)]
#[command(name = "tracker", version, after_help = "Example: tracker tracker_info.txt 1")]
struct Arguments {
    /// File with one tracker a line: "ip port", "ip:port" or "name port", optionally followed by its peer id
    #[arg(required_unless_present = "status")]
    tracker_info: Option<PathBuf>,
    /// Which of the file's trackers this is, counted from 1
    #[arg(required_unless_present = "status", value_parser = clap::value_parser!(u8).range(1..))]
    tracker_no: Option<u8>,
    /// Show how the tracker at this address of this machine is, and end
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["tracker_info", "tracker_no"])]
    status: Option<String>,
    /// With --status: as JSON
    #[arg(long, requires = "status")]
    json: bool,
    /// Print this tracker's complete line for tracker_info.txt, with its key, which is made if there is none; and end
    #[arg(long, conflicts_with = "status")]
    id: bool,
    /// Serve metrics for Prometheus at this address, under /metrics
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// Where this tracker's state lives [default: shoal/tracker-N under the user's XDG data home]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// File with a key that all trackers share: only a tracker that proves to hold it is sent anything
    #[arg(long, value_name = "FILE")]
    cluster_key: Option<PathBuf>,
    /// Who may create an account at this tracker; invitations are made with invite_user at the prompt
    #[arg(long, value_enum, value_name = "WHO", default_value_t = Registration::Open)]
    registration: Registration,
    /// How many accounts one address (of IPv6, one /64) may create at once; after that one per minute
    #[arg(long, value_name = "N", default_value_t = PER_ADDRESS, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    accounts_per_address: u32,
    /// File with a secret that storage nodes share: a node that proves to know it is admitted without being asked for
    #[arg(long, value_name = "FILE")]
    node_secret: Option<PathBuf>,
    /// For how long a chunk on a storage node must have been named by no stored file before it may be deleted
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// For how long a storage node must have been silent before the copies that it held are made again elsewhere
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    repair_after: Duration,
    /// Tells this tracker a wrong time, by so many milliseconds: for tests
    #[arg(long, hide = true, value_name = "MS", default_value_t = 0, allow_negative_numbers = true)]
    clock_offset: i64,
    /// How log lines are written
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

fn main() -> ExitCode {
    // Whatever the tracker writes is its owner's alone: salts, keys that passwords can be guessed from, who talks to it.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    match run(Arguments::parse().checked()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tracker: {error:#}");
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
    let shown = path.display();
    let text = read_text(path, tracker_info::MAX_FILE_BYTES)
        .with_context(|| format!("cannot read the tracker file {shown}"))?;
    let info =
        TrackerInfo::parse(&text).with_context(|| format!("the tracker file {shown} cannot be used"))?;
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
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let file = terminal.then(|| dir.join("tracker.log"));
    log::start(arguments.log_format, LOG_FILTER, file.as_deref()).context("cannot write the log file")?;
    descriptors::raise();
    let cluster_key = arguments.cluster_key.as_deref().map(ClusterKey::read).transpose()?;
    let node_secret = arguments.node_secret.as_deref().map(read_node_secret).transpose()?;
    shoal_tracker::clock::shift(arguments.clock_offset);
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let rules = Rules { grace_ms: ms(arguments.grace), repair_after_ms: ms(arguments.repair_after) };
    let config = NodeConfig {
        info,
        info_path: path.clone(),
        number,
        dir,
        rules,
        metrics: arguments.metrics,
        cluster_key,
        registration: Terms { who: arguments.registration, per_address: arguments.accounts_per_address },
        node_secret,
    };
    let _terminal = shoal_console::Restored::at_end();
    runtime.block_on(operate(config, terminal))
}

fn read_node_secret(path: &Path) -> Result<NodeSecret> {
    let bytes = read_key(path, "the storage nodes' secret")?;
    NodeSecret::new(&bytes)
        .with_context(|| format!("the storage nodes' secret {} cannot be used", path.display()))
}

/// Prints the tracker's line with its key, whatever key the file names for it now.
#[expect(clippy::print_stdout, reason = "what the operator reads")]
fn show_line(info: &TrackerInfo, path: &Path, number: u8, dir: &Path) -> Result<()> {
    let key = data_dir::identity(dir)?.peer_id();
    println!("{}", node::line_of(info, path, number)?.with_key(key));
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

async fn operate(config: NodeConfig, terminal: bool) -> Result<()> {
    // Before anything else: a signal during the start closes cleanly too.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let node = Node::start(config).await?;
    greet(&node, terminal);
    let (lines, mut typed) = mpsc::channel(1);
    let (next, prompts) = std::sync::mpsc::channel();
    if terminal {
        std::thread::spawn(move || read_terminal(&lines, &prompts));
    } else if pipe::is_given() {
        pipe::read(lines);
    } else {
        // Nobody to listen to: run until a signal.
        std::mem::forget(lines);
    }
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            line = typed.recv() => match line {
                None => break,
                Some(line) => {
                    if obey(&node, &line).await {
                        break;
                    }
                }
            },
        }
        // Only a terminal waits for it.
        let _ = next.send(());
    }
    node.shutdown().await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what the operator reads")]
fn greet(node: &Node, terminal: bool) {
    if terminal {
        let others = node.info().iter().count() - 1;
        let address = node.local_addr().map_or_else(String::new, |address| address.to_string());
        let others = if others == 1 { "1 other".to_owned() } else { format!("{others} others") };
        println!("tracker {} at {address}, with {others}, as {}", node.number(), node.peer_id());
        println!("its line for every tracker_info.txt: {}", node.line());
        println!("type status, help or quit");
    }
}

/// Does what was typed; true if that was to quit.
async fn obey(node: &Node, line: &str) -> bool {
    match prompt::parse(line) {
        Ok(None) => {}
        Ok(Some(Command::Quit)) => return true,
        Ok(Some(Command::Status)) => match node.report().await {
            Some(report) => say(format_args!("{}", report.text())),
            None => complain(format_args!("this tracker is closing")),
        },
        Ok(Some(Command::Backup(to))) => match node.back_up(to.clone()).await {
            Ok(()) => say(format_args!(
                "the database is in {}; keep the key, identity.key, apart from it",
                to.display()
            )),
            Err(error) => complain(format_args!("no backup was made: {error:#}")),
        },
        Ok(Some(Command::AllowDeletions)) => match node.allow_deletions().await {
            Ok(()) => say(format_args!(
                "what nothing names on the storage nodes now may be deleted, after the time of grace"
            )),
            Err(error) => complain(format_args!("that could not be written: {error:#}")),
        },
        Ok(Some(Command::InviteUser(days))) => {
            match node.invite_user(Duration::from_secs(u64::from(days) * 86_400)).await {
                Ok(code) => say(format_args!(
                    "good for one account within {days} days: create_user NAME --invite {code}"
                )),
                Err(error) => complain(format_args!("no invitation was made: {error:#}")),
            }
        }
        Ok(Some(Command::Quota(command))) => match node.quota(command).await {
            Ok(shown) => say(format_args!("{shown}")),
            Err(error) => complain(format_args!("{error:#}")),
        },
        Ok(Some(Command::Nodes)) => say(format_args!("{}", nodes_text(node))),
        Ok(Some(Command::Admit(nodes))) => {
            for which in nodes {
                match node.storage().admit(&which).await {
                    Ok(Admitted::Now(node)) => {
                        say(format_args!(
                            "{} is admitted, as {}, seen at {}",
                            node.name, node.peer, node.from
                        ));
                    }
                    Ok(Admitted::OnceItAsks(key)) => say(format_args!(
                        "no node with the key {key} waits here; it is admitted when it asks this tracker, within an hour"
                    )),
                    Err(problem) => complain(format_args!("{problem}")),
                }
            }
        }
        Ok(Some(Command::Expel(which))) => match node.storage().expel(&which).await {
            Ok(gone) => say(format_args!(
                "{} ({}) is out, until it is admitted again; its copies are made again elsewhere",
                gone.name, gone.peer
            )),
            Err(problem) => complain(format_args!("{problem}")),
        },
        Ok(Some(Command::AcceptTracker(number, key))) => match node.accept_tracker(number, key).await {
            Ok(key) => say(format_args!("tracker {number} is now known by its key {key}")),
            Err(error) => complain(format_args!("{error:#}")),
        },
        Ok(Some(Command::AllowRemoval(number))) => match node.allow_removal(number).await {
            Ok(true) => say(format_args!(
                "what tracker {number} does not hold is removed here when it is compared next"
            )),
            Ok(false) => complain(format_args!("nothing is held back that tracker {number} would remove")),
            Err(error) => complain(format_args!("that could not be done: {error:#}")),
        },
        Ok(Some(Command::Restamp)) => match node.restamp().await {
            Ok(()) => say(format_args!(
                "records with an impossible time get the present one; the log says how many"
            )),
            Err(error) => complain(format_args!("that could not be done: {error:#}")),
        },
        Ok(Some(Command::Help)) => say(format_args!("{}", prompt::HELP)),
        Err(problem) => complain(format_args!("{problem}")),
    }
    false
}

/// Shows a line, or several, to the operator.
#[expect(clippy::print_stdout, reason = "what the operator reads")]
fn say(text: std::fmt::Arguments<'_>) {
    println!("{}", wrapped(&text.to_string()));
}

/// Says what is wrong.
fn complain(text: std::fmt::Arguments<'_>) {
    eprintln!("{}", wrapped(&text.to_string()));
}

/// The storage nodes, and those that wait, as the operator reads them.
fn nodes_text(node: &Node) -> String {
    let mut lines: Vec<String> = node
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
    for one in node.storage().applicants() {
        let Applicant { peer, name, address, from, .. } = one;
        lines.push(format!("{name:<12} {address:<24} {peer}  seen at {from}, WAITS: admit {peer}"));
    }
    if node.storage().is_crowded() {
        lines.push("MORE WAIT than are listed: admit by the key that the node says when it starts".into());
    }
    lines.join("\n")
}

/// Reads lines from the terminal, each after the last was obeyed, until end of input.
fn read_terminal(lines: &mpsc::Sender<String>, prompts: &std::sync::mpsc::Receiver<()>) {
    let Ok(mut editor) = rustyline::DefaultEditor::new() else { return };
    loop {
        match editor.readline("tracker> ") {
            Ok(line) => {
                // History is a convenience.
                let _ = editor.add_history_entry(&line);
                if lines.blocking_send(line).is_err() || prompts.recv().is_err() {
                    return;
                }
            }
            // Ctrl-C cancels the line, not the tracker.
            Err(ReadlineError::Interrupted) => {}
            Err(_) => return,
        }
    }
}
