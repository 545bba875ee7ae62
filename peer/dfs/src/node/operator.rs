//! How a storage node is, for its operator: what `status` prints, `--status` asks for, and the metrics are made of.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use shoal_common::{PeerId, TrackerInfo};
use shoal_metrics::Page;
use shoal_net::Identity;
use shoal_net::bulk::frame::{FrameReader, FrameWriter};
use shoal_net::bulk::{self, BulkError};
use shoal_session::text;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::acknowledged::Acknowledged;
use super::copies::Copies;
use super::counters::{Count, Counters};
use crate::chunks::{Chunks, Scrubbed};
use crate::wire::{MAX_MESSAGE, MAX_TO_CLIENT, TO_CLIENT, TO_NODE, ToClient, ToNode};

/// How long `--status` waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether the log needs a line on repair or capacity.
const LOOK: Duration = Duration::from_secs(1);
/// Percentages of the room at which the log says so.
const FILL_MARKS: [u64; 3] = [80, 90, 99];

/// How a node is. Fields are added at the end; names stay, because scripts read them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// What its operator calls it.
    pub name: String,
    /// Its key.
    pub peer: String,
    /// Where it listens.
    pub address: String,
    /// Its program's version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Bytes that it may hold.
    pub capacity: u64,
    /// Bytes that its chunks take, those in the bin included.
    pub used: u64,
    /// Bytes that it could still take: the rest of the capacity, or what the disk has left if that is less.
    pub free: u64,
    /// Chunks that it holds.
    pub chunks: u64,
    /// Chunks in the bin.
    pub binned: u64,
    /// Open connections.
    pub connections: u64,
    /// Chunks that users stored since the start.
    pub stored_chunks: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// Chunks that users and other nodes fetched since the start.
    pub fetched_chunks: u64,
    /// Their bytes.
    pub fetched_bytes: u64,
    /// Chunks deleted since the start, those that went into the bin included.
    pub deleted_chunks: u64,
    /// Copies made by the trackers' orders since the start.
    pub copies_made: u64,
    /// Copies that failed since the start.
    pub copies_failed: u64,
    /// Copies under way or waiting.
    pub copying: u64,
    /// Chunks that this pass of scrubbing has read.
    pub scrubbed: u64,
    /// Chunks that this pass is to read.
    pub scrub_total: u64,
    /// Finished passes.
    pub scrub_passes: u64,
    /// Rotten chunks found since the start.
    pub rotten: u64,
    /// The trackers.
    pub trackers: Vec<NodeTracker>,
}

/// A tracker as a node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeTracker {
    /// Its number.
    pub tracker: u8,
    /// Its line's address.
    pub address: String,
    /// Whether it took this node's last report.
    pub up: bool,
}

/// What makes a [`NodeStatus`]. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Operator {
    pub(super) name: String,
    pub(super) peer: PeerId,
    pub(super) address: SocketAddr,
    pub(super) started: Instant,
    pub(super) chunks: Chunks,
    pub(super) copies: Copies,
    pub(super) counters: Counters,
    pub(super) scrubbed: watch::Receiver<Scrubbed>,
    pub(super) acknowledged: Acknowledged,
    pub(super) trackers: TrackerInfo,
}

impl Operator {
    /// How the node is.
    pub(super) fn status(&self) -> NodeStatus {
        let (room, scrubbed, counted) =
            (self.chunks.room(), *self.scrubbed.borrow(), |count| self.counters.get(count));
        let up = self.acknowledged.connected();
        let trackers = self.trackers.iter().map(|(tracker, line)| NodeTracker {
            tracker,
            address: line.to_string(),
            up: up.contains(&tracker),
        });
        NodeStatus {
            name: self.name.clone(),
            peer: self.peer.to_string(),
            address: self.address.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_s: self.started.elapsed().as_secs(),
            capacity: room.capacity,
            used: room.used,
            free: room.free,
            chunks: room.chunks as u64,
            binned: self.chunks.bin_len() as u64,
            connections: counted(Count::Connections),
            stored_chunks: counted(Count::Stored),
            stored_bytes: counted(Count::StoredBytes),
            fetched_chunks: counted(Count::Fetched),
            fetched_bytes: counted(Count::FetchedBytes),
            deleted_chunks: counted(Count::Deleted),
            copies_made: counted(Count::Copied),
            copies_failed: counted(Count::CopiesFailed),
            copying: self.copies.under_way() as u64,
            scrubbed: scrubbed.checked,
            scrub_total: scrubbed.total,
            scrub_passes: scrubbed.passes,
            rotten: scrubbed.rotten,
            trackers: trackers.collect(),
        }
    }

    /// The answer to `--status` from `remote`: only this machine gets one.
    pub(super) fn answer(&self, remote: IpAddr) -> Option<String> {
        if !shoal_net::is_of_this_machine(remote) {
            tracing::info!(from = %remote, "another machine asked for the status; not answered");
            return None;
        }
        serde_json::to_string(&self.status()).ok()
    }

    /// Logs when repair pauses and when the capacity is nearly used up, until `stop`.
    pub(super) async fn log(self, stop: CancellationToken) {
        let work = async {
            let (mut logged, mut before, mut mark) = ((0, 0), (0, 0), 0);
            loop {
                sleep(LOOK).await;
                let now = (self.counters.get(Count::Copied), self.counters.get(Count::CopiesFailed));
                if now == before && now != logged {
                    let (made, failed) = (now.0 - logged.0, now.1 - logged.1);
                    tracing::info!(
                        "repair: {made} copies made, {failed} failed, {} under way",
                        self.copies.under_way()
                    );
                    logged = now;
                }
                before = now;
                let room = self.chunks.room();
                let percent = fill(room.used, room.free);
                let reached = FILL_MARKS.into_iter().rfind(|mark| percent >= *mark).unwrap_or(0);
                if reached > mark {
                    let free = text::size(room.free);
                    let short =
                        if room.short_of_disk { " on the disk, less than the capacity allows" } else { "" };
                    tracing::warn!(
                        "{percent} % of the room is used, {free} is left{short}; a full node takes no more chunks"
                    );
                }
                mark = reached;
            }
        };
        stop.run_until_cancelled(work).await;
    }
}

/// How full a node is, in percent. One that has nothing and can take nothing is full.
fn fill(used: u64, free: u64) -> u64 {
    let all = u128::from(used) + u128::from(free);
    (u128::from(used) * 100).checked_div(all).map_or(100, |percent| u64::try_from(percent).unwrap_or(100))
}

impl NodeStatus {
    /// The status in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let up = self.trackers.iter().filter(|tracker| tracker.up).count();
        format!(
            "{} in {} chunks, {} free, {} connections, put {} get {} chunks, {} copies made, {} of {} trackers",
            text::size(self.used),
            self.chunks,
            text::size(self.free),
            self.connections,
            self.stored_chunks,
            self.fetched_chunks,
            self.copies_made,
            up,
            self.trackers.len(),
        )
    }

    /// The status in words.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = vec![format!("{} at {} as {}", self.name, self.address, self.peer)];
        lines.extend(self.trackers.iter().map(|NodeTracker { tracker, address, up }| {
            format!("tracker {tracker}  {address:<24} {}", if *up { "up" } else { "not connected" })
        }));
        lines.push(format!(
            "{} of {} used ({} %), {} free, {} chunks, {} more in the bin",
            text::size(self.used),
            text::size(self.capacity),
            fill(self.used, self.free),
            text::size(self.free),
            self.chunks,
            self.binned
        ));
        lines.push(format!(
            "{} connections; since the start: put {} chunks ({}), get {} chunks ({}), deleted {}",
            self.connections,
            self.stored_chunks,
            text::size(self.stored_bytes),
            self.fetched_chunks,
            text::size(self.fetched_bytes),
            self.deleted_chunks
        ));
        lines.push(format!(
            "repair: {} copies made, {} failed, {} under way",
            self.copies_made, self.copies_failed, self.copying
        ));
        lines.push(format!(
            "scrubbing: {} of {} chunks read in this pass, {} passes finished, {} rotten",
            self.scrubbed, self.scrub_total, self.scrub_passes, self.rotten
        ));
        let up = Duration::from_secs(self.uptime_s);
        lines.push(format!("up for {}, version {}", humantime::format_duration(up), self.version));
        lines.join("\n")
    }

    /// The status in Prometheus' text format.
    ///
    /// # Errors
    /// When a figure cannot be written as text.
    pub fn metrics(&self) -> Result<String, std::fmt::Error> {
        let mut page = Page::default();
        for (name, help, value) in [
            ("uptime_seconds", "Time since the node started", self.uptime_s),
            ("node_capacity_bytes", "What the node may hold", self.capacity),
            ("node_used_bytes", "What the node's chunks take", self.used),
            ("node_free_bytes", "Room that the node has left", self.free),
            ("node_chunks", "Chunks that the node holds", self.chunks),
            ("node_chunks_binned", "Chunks in the bin", self.binned),
            ("node_connections", "Open connections", self.connections),
            ("node_chunks_stored", "Chunks that users stored since the start", self.stored_chunks),
            ("node_bytes_stored", "Bytes of chunks that users stored since the start", self.stored_bytes),
            ("node_chunks_fetched", "Chunks fetched since the start", self.fetched_chunks),
            ("node_bytes_fetched", "Bytes of chunks fetched since the start", self.fetched_bytes),
            ("node_chunks_deleted", "Chunks deleted since the start", self.deleted_chunks),
            ("node_copies_made", "Copies made by the trackers' orders since the start", self.copies_made),
            ("node_copies_failed", "Copies that failed since the start", self.copies_failed),
            ("node_copies_under_way", "Copies under way or waiting", self.copying),
            ("node_scrub_passes", "Finished passes of scrubbing", self.scrub_passes),
            ("node_chunks_rotten", "Rotten chunks found since the start", self.rotten),
        ] {
            page.gauge(name, help, value);
        }
        let label = |tracker: &NodeTracker| vec![("tracker", tracker.tracker.to_string())];
        let up = self.trackers.iter().map(|tracker| (label(tracker), tracker.up.into()));
        page.labelled("node_tracker_up", "Whether the tracker takes the node's reports", up.collect());
        page.text()
    }
}

/// Asks the node at `ip:port` of this machine how it is.
///
/// # Errors
/// In words: nothing answers there, or not to this machine.
pub(super) async fn ask(at: &str) -> Result<NodeStatus> {
    let found = tokio::net::lookup_host(at).await;
    let Some(address) = found.ok().and_then(|mut found| found.next()) else {
        bail!("{at:?} is no address of a node; give ip:port, for example 127.0.0.1:10001")
    };
    let identity = Identity::generate();
    // It is this machine's own node, whatever its key is; the first try learns it.
    let peer = match bulk::connect(address, identity.peer_id(), &identity).await {
        Err(BulkError::WrongPeer { found, .. }) => found,
        Err(error) => {
            return Err(anyhow::Error::new(error).context("is the node running, and is this its address?"));
        }
        Ok(_) => bail!("{at} is no storage node"),
    };
    let answer = async {
        let (input, output) = bulk::connect(address, peer, &identity).await?.into_split();
        let (mut frames, mut out) = (FrameReader::new(input, MAX_TO_CLIENT), FrameWriter::new(output));
        let question = minicbor::to_vec(ToNode::Status { request: 1 })?;
        out.control(TO_NODE, &question).await?;
        out.flush().await?;
        let header = frames.next().await?.context("it closed the connection")?;
        if header.kind != TO_CLIENT {
            bail!("it is no storage node");
        }
        let payload = frames.payload(MAX_MESSAGE).await?;
        match minicbor::decode(&payload)? {
            ToClient::Status { status, .. } => Ok(serde_json::from_str(&status)?),
            _ => bail!("it tells its status to its own machine only; run this there"),
        }
    };
    let answer = timeout(PATIENCE, answer).await.with_context(|| format!("{at} does not answer"))?;
    answer.with_context(|| format!("{at} does not tell its status; it may be of an older version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_said_in_words_and_named_for_prometheus() {
        let trackers =
            vec![NodeTracker { tracker: 1, address: "a:1".into(), up: true }, NodeTracker::default()];
        let status = NodeStatus {
            capacity: 4096,
            used: 1024,
            free: 1024,
            chunks: 7,
            trackers,
            ..NodeStatus::default()
        };
        assert!(status.line().starts_with("1.0 KiB in 7 chunks, 1.0 KiB free"), "{}", status.line());
        assert!(status.line().ends_with("1 of 2 trackers"), "{}", status.line());
        assert!(
            status.text().contains("1.0 KiB of 4.0 KiB used (50 %), 1.0 KiB free, 7 chunks"),
            "{}",
            status.text()
        );
        let page = status.metrics().unwrap();
        for line in ["shoal_node_chunks 7", "shoal_node_tracker_up{tracker=\"1\"} 1", "# EOF"] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert_eq!((fill(0, 0), fill(0, 9)), (100, 0));
    }
}
