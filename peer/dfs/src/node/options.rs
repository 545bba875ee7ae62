//! The command line and the life of `dfs-server`.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use shoal_common::TrackerInfo;
use shoal_common::join::NodeSecret;
use shoal_common::names::NodeName;
use shoal_console::data_dir::DataDir;
use shoal_console::read_trackers;
use shoal_console::{LogFormat, descriptors, log, read_key, secrets};
use shoal_net::{Identity, KnownTrackers};
use shoal_prompt::Output;
use shoal_session::text;

use super::{Node, NodeConfig, Say, operate, operator};
use crate::chunks::{Backend, BinRules, Chunks, Folder, ObjectBackend, OpenError, Room, Scrub};
use crate::files;

/// The key's file in the data directory.
const KEY_FILE: &str = "key";
/// Where chunks are if nothing else is said.
const CHUNKS: &str = "chunks";
/// The log file in the data directory, while a prompt owns the terminal.
const LOG_FILE: &str = "dfs-server.log";
/// What is logged when RUST_LOG does not say.
const LOG_FILTER: &str = "info,libp2p=warn";
/// The list of what is in the bin, in the data directory.
const BIN: &str = "bin";

/// Keeps encrypted chunks of users' files, which it cannot read, and serves them.
#[derive(Debug, Parser)]
#[command(
    name = "dfs-server",
    version,
    after_help = "Example: dfs-server 10001 --trackers tracker_info.txt --name DFS1"
)]
pub struct Options {
    /// The port on which clients and other nodes reach this one.
    #[arg(value_name = "PORT", value_parser = port, required_unless_present = "status")]
    port: Option<u16>,
    /// The file that names the trackers, one per line [default: ./tracker_info.txt, then the one in the configuration folder].
    #[arg(long, value_name = "FILE")]
    trackers: Option<PathBuf>,
    /// Show how the node at this address of this machine is, and end.
    #[arg(long, value_name = "ADDR", conflicts_with = "port")]
    status: Option<String>,
    /// With --status: as JSON.
    #[arg(long, requires = "status")]
    json: bool,
    /// Serve metrics for Prometheus at this address, under /metrics.
    #[arg(long, value_name = "ADDR", value_parser = shoal_console::address)]
    metrics: Option<SocketAddr>,
    /// Show a status line every so many seconds.
    #[arg(long, short, value_name = "SECS", visible_aliases = ["status_interval", "metric_interval"], value_parser = seconds)]
    interval: Option<u64>,
    /// File with the secret that the trackers were given with --node-secret; a node without it waits to be admitted.
    #[arg(long, value_name = "FILE")]
    join_secret: Option<PathBuf>,
    /// Where this node keeps its key [default: a folder for this port under the XDG data home].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the chunks are: a folder, or s3://BUCKET/PREFIX, with the bucket's keys in AWS_… variables
    /// [default: chunks in the data directory].
    #[arg(long, value_name = "DIR|URL")]
    store: Option<String>,
    /// What operators and users call this node [default: DFS and the port].
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<NodeName>,
    /// How much it may hold, in bytes, or with K, M, G or T.
    #[arg(long, value_name = "SIZE", default_value = "100GiB", value_parser = files::parse_size)]
    capacity: u64,
    /// The address to listen on.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED), value_parser = shoal_console::ip_address)]
    bind: IpAddr,
    /// Chunks stored less than this ago are not deleted by the trackers' order.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = shoal_console::time)]
    min_age: Duration,
    /// How long a chunk that the trackers had deleted stays in the bin, from which it comes back when it is needed.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = shoal_console::time)]
    keep_deleted: Duration,
    /// Percentage of the chunks that the trackers may have deleted per day, and at least one chunk; 100 for no bound.
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = percent)]
    daily_deletions: u8,
    /// Hold everything again that is in the bin.
    #[arg(long)]
    restore_bin: bool,
    /// How fast all chunks are read again to find rot, in bytes per second; 0 for never.
    #[arg(long, value_name = "RATE", default_value = "8M", value_parser = files::parse_size)]
    scrub_rate: u64,
    /// Hours from the end of one such pass to the next.
    #[arg(long, value_name = "HOURS", default_value_t = 24.0, value_parser = hours)]
    scrub_pause: f64,
    /// How log lines look; RUST_LOG says which are written.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Make nothing durable: for measuring what that costs.
    #[arg(long, hide = true)]
    no_fsync: bool,
}

fn name(typed: &str) -> Result<NodeName, String> {
    NodeName::create(typed).map_err(|error| error.to_string())
}

fn number<T: TryFrom<u64>>(typed: &str, least: u64, most: u64) -> Result<T, String> {
    let number = typed.parse().ok().filter(|number| (least..=most).contains(number));
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("write a whole number from {least} to {most}"))
}

fn port(typed: &str) -> Result<u16, String> {
    number(typed, 1, u16::MAX.into())
}

fn percent(typed: &str) -> Result<u8, String> {
    number(typed, 0, 100)
}

fn seconds(typed: &str) -> Result<u64, String> {
    number(typed, 1, 86_400)
}

fn hours(typed: &str) -> Result<f64, String> {
    let hours = typed.parse().ok().filter(|hours: &f64| (0.0..=1e6).contains(hours));
    hours.ok_or_else(|| "write a number of hours, such as 24 or 0.5".to_owned())
}

/// Runs a node until SIGTERM, SIGINT or `quit`; or shows how another one is.
#[must_use]
pub fn main(options: Options) -> ExitCode {
    let ended =
        shoal_console::runtime().context("cannot start").and_then(|runtime| runtime.block_on(run(options)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody reads stderr: there is no other way to say it.
            let _ = writeln!(std::io::stderr(), "error: {}", text::error_line(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<()> {
    let output = Output::default();
    let say = say_on(&output);
    if let Some(at) = &options.status {
        let status = operator::ask(at).await?;
        say(&if options.json { serde_json::to_string(&status)? } else { status.text() });
        return Ok(());
    }
    let port = options.port.context("give the port on which clients reach this node")?;
    let trackers = trackers(&options, &say)?;
    let path = match &options.data_dir {
        Some(path) => path.clone(),
        None => files::data_home()?.join(format!("dfs-server-{port}")),
    };
    let secret = options.join_secret.as_deref().map(read_secret).transpose()?;
    let data_dir = DataDir::open(&path)?;
    let file = shoal_prompt::attended().then(|| data_dir.path().join(LOG_FILE));
    log::start(options.log_format, LOG_FILTER, file.as_deref()).context("cannot write the log")?;
    let _terminal = shoal_console::Restored::at_end();
    secrets::no_core_dumps();
    descriptors::raise();
    let identity = Identity::load_or_create(&data_dir.path().join(KEY_FILE))?;
    let chunks = open_chunks(&options, &data_dir).await?;
    let name = match options.name {
        Some(name) => name,
        None => NodeName::create(&format!("DFS-{port}"))?,
    };
    if options.no_fsync {
        say(
            "WARNING: --no-fsync: a power cut loses files that were acknowledged as stored; this is for measuring only",
        );
    }
    let room = chunks.room();
    let scrub = (options.scrub_rate > 0).then(|| Scrub {
        rate: options.scrub_rate,
        every: Duration::from_secs_f64((options.scrub_pause * 3600.0).clamp(0.0, 1e9)),
    });
    let listen = SocketAddr::new(options.bind, port);
    let peer = identity.peer_id();
    if trackers.iter().count() == 1 {
        say("there is one tracker: its word alone has chunks deleted, into the bin");
    }
    let binned = chunks.bin_len();
    let min_age = options.min_age;
    let known = KnownTrackers::open(data_dir.path(), &trackers, None)?;
    let config = NodeConfig {
        identity,
        name: name.clone(),
        listen,
        trackers,
        known,
        say: say.clone(),
        chunks,
        scrub,
        min_age,
        secret,
    };
    let node = Node::start(config).await?;
    say(&format!(
        "{name} serves on {} as {peer}; {} in {} of {} used",
        node.local_addr(),
        text::count(room.chunks, "chunk"),
        text::size(room.used),
        text::size(room.capacity),
    ));
    show_room(&room, binned, &say);
    if let Some(at) = options.metrics {
        say(&format!("metrics are at http://{}/metrics", node.serve_metrics(at).await?));
    }
    if shoal_prompt::attended() {
        say("type status, help or quit");
    }
    let ended =
        operate::operate(&node, &output, data_dir.path(), options.interval.map(Duration::from_secs)).await;
    node.shutdown().await;
    ended
}

/// Shows what an operator should know of the room at the start.
fn show_room(room: &Room, binned: usize, say: &Say) {
    if room.short_of_disk {
        let (free, capacity) = (text::size(room.free), text::size(room.capacity));
        say(&format!("the disk has {free} left, less than the capacity of {capacity} allows"));
    }
    if binned > 0 {
        let chunks = text::count(binned, "chunk");
        say(&format!("{chunks} in the bin; --restore-bin holds all of it again"));
    }
}

/// The trackers of the file that is given, else of the one that is found.
fn trackers(options: &Options, say: &Say) -> anyhow::Result<TrackerInfo> {
    if let Some(path) = &options.trackers {
        return read_trackers(path);
    }
    let path = files::default_trackers()?;
    say(&format!("takes the trackers from {}", path.display()));
    read_trackers(&path)
}

/// The chunks that this node holds already.
async fn open_chunks(options: &Options, data_dir: &DataDir) -> anyhow::Result<Chunks> {
    let store = options.store.clone().unwrap_or_else(|| data_dir.path().join(CHUNKS).display().to_string());
    let backend = open_backend(&store, !options.no_fsync)?;
    let bin = BinRules {
        journal: data_dir.path().join(BIN),
        keep: options.keep_deleted,
        daily_percent: options.daily_deletions,
        restore: options.restore_bin,
    };
    let chunks = Chunks::open(backend, options.capacity, bin).await;
    chunks.map_err(|error| match error {
        OpenError::Backend(error) => anyhow::Error::new(error)
            .context(format!("cannot list what {store} holds; check that it can be reached and read")),
        error @ OpenError::Journal { .. } => error.into(),
    })
}

/// Where chunks are kept: a folder, or a bucket where a URL is given.
fn open_backend(store: &str, fsync: bool) -> anyhow::Result<Arc<dyn Backend>> {
    Ok(if store.contains("://") {
        Arc::new(ObjectBackend::open(store)?)
    } else {
        let opened = Folder::open(store.as_ref(), fsync);
        Arc::new(opened.with_context(|| {
            format!(
                "cannot use the folder {store} for chunks, of which each node needs one of its own (--store)"
            )
        })?)
    })
}

fn read_secret(path: &Path) -> anyhow::Result<NodeSecret> {
    let bytes = read_key(path, "the join secret")?;
    NodeSecret::new(&bytes).with_context(|| format!("the join secret {} cannot be used", path.display()))
}

/// Shows lines on `output`, above the line that is being edited there.
fn say_on(output: &Output) -> Say {
    let output = output.clone();
    // A closed stdout is no reason not to serve.
    Arc::new(move |line| drop(output.above(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
        let options = Options::parse_from(["dfs-server", "10001", "--trackers", "t", "--capacity", "10MiB"]);
        assert_eq!((options.port, options.capacity), (Some(10_001), 10 << 20));
        assert!(Options::try_parse_from(["dfs-server", "1", "-i", "5"]).is_ok());
        assert!(Options::try_parse_from(["dfs-server", "--status", "127.0.0.1:1", "--json"]).is_ok());
        for wrong in [
            &["0"][..],
            &["x"],
            &[],
            &["1", "--daily-deletions", "x"],
            &["1", "-i", "0"],
            &["1", "--scrub-pause", "x"],
            &["1", "--scrub-rate", "x"],
            &["1", "--capacity", "x"],
            &["1", "--min-age", "5"],
            &["1", "--keep-deleted", "x"],
            &["1", "--bind", "127.0.0.1:80"],
            &["1", "--metrics", "x"],
        ] {
            let error = Options::try_parse_from([&["dfs-server"], wrong].concat()).unwrap_err().to_string();
            let says_what = ["write", "give", "<PORT>"].iter().any(|word| error.contains(word));
            assert!(says_what && !error.contains("invalid digit"), "{error}");
        }
    }
}
