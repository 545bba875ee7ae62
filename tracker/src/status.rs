//! A tracker's status for its operator: what `status` prints, `--status` requests, and the metrics show.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use shoal_common::tracker_api::storage::StoreStatus;
use shoal_net::Protocol;

use crate::database::Status;
use crate::quota::AtQuota;
use crate::storage::is_unheard;
use crate::store::Counts;

/// The protocol on which a tracker sends its status to its own machine.
pub const STATUS_PROTOCOL: Protocol = Protocol("/shoal/status/1");

/// A tracker's status. Fields are added at the end; names stay, because scripts read them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Its number.
    pub tracker: u8,
    /// Its key.
    pub peer: String,
    /// Its program's version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// All trackers, this one included.
    pub members: Vec<Member>,
    /// Claims on user names.
    pub users: u64,
    /// Claims on group names.
    pub groups: u64,
    /// Shared files.
    pub files: u64,
    /// Records of all kinds, deleted ones included until they are dropped.
    pub records: u64,
    /// Records by the number of their kind.
    pub records_by_kind: Vec<(u16, u64)>,
    /// Process starts of any tracker that records may stem from.
    pub origins: u64,
    /// Clients online in the whole cluster.
    pub peers_online: u64,
    /// Size of the database with its log in bytes.
    pub database_bytes: u64,
    /// Whether writes are refused because the disk is full.
    pub disk_full: bool,
    /// Alarms since it started: events that must not happen. They are in its log.
    pub alarms: u64,
    /// The encrypted store.
    pub store: Store,
    /// Users who used most of a quota, those who used all of it included.
    pub users_near_quota: u64,
    /// Users who used all of a quota, or have more than it.
    pub users_at_quota: u64,
    /// Groups that used most of a quota, those that used all of it included.
    pub groups_near_quota: u64,
    /// Groups that used all of a quota, or have more than it.
    pub groups_at_quota: u64,
    /// The last alarms, in words.
    pub last_alarms: Vec<String>,
    /// Bytes that were passed on between clients since the start, where the operator allows it.
    pub relayed_bytes: u64,
    /// Connections that are passed on now.
    pub relayed_connections: u64,
    /// The same bytes by user's id, those with most first, ten at most.
    pub relayed_by_user: Vec<(String, u64)>,
    /// And by client's key.
    pub relayed_by_peer: Vec<(String, u64)>,
    /// Whether records written here bear times so far ahead of the clock that others refuse them.
    pub set_back: bool,
}

/// One tracker of the cluster as another one sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Member {
    /// Its number.
    pub tracker: u8,
    /// Its line's address.
    pub address: String,
    /// Whether it is the tracker that reports.
    pub own: bool,
    /// Whether it is connected.
    pub up: bool,
    /// Whether both hold the same.
    pub in_sync: bool,
    /// Records that it lacks, as far as is known.
    pub lag: u64,
    /// Records of it that this one lacks.
    pub behind: u64,
    /// The key that is shown in its place and not believed.
    pub refused: Option<String>,
    /// Whether the reporting tracker has not had all its records since it started. Until then it does not vote on names.
    pub unheard: bool,
    /// Whether it failed to acknowledge writes lately and is not waited for.
    pub unawaited: bool,
    /// Records that it would have removed here, and that are kept until an operator allows it.
    pub held_removal: u64,
}

/// The encrypted store as one tracker knows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Store {
    /// Storage nodes.
    pub nodes: Vec<StoreNode>,
    /// Stored files, of all users.
    pub files: u64,
    /// Chunks that they name.
    pub chunks: u64,
    /// Copies that are to be made.
    pub missing_copies: u64,
    /// Chunks without any copy.
    pub lost_chunks: u64,
    /// Copies under way by order of this tracker.
    pub copying: u64,
    /// Which tracker gives the orders.
    pub ordered_by: u8,
    /// Chunks on nodes that nothing names.
    pub unnamed: u64,
    /// Why nothing is deleted now.
    pub deletions_held: Option<String>,
    /// Nodes that wait at this tracker to be admitted.
    pub waiting: u64,
    /// Whether no storage node has reported what it holds since this tracker started. Nothing counts as missing or lost then.
    pub unheard: bool,
}

/// A storage node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreNode {
    /// What its operator calls it.
    pub name: String,
    /// Its key.
    pub peer: String,
    /// Where it is.
    pub address: String,
    /// Whether it is connected.
    pub up: bool,
    /// Bytes that it may hold.
    pub capacity: u64,
    /// Bytes that it could still take.
    pub free: u64,
    /// Chunks that it holds.
    pub chunks: u64,
}

impl Report {
    /// Adds what the database thread reports of itself and the other trackers.
    pub(crate) fn add_status(&mut self, status: &Status) {
        (self.database_bytes, self.disk_full) = (status.database_bytes, status.disk_full);
        (self.origins, self.alarms) = (status.origins, status.alarms);
        self.last_alarms.clone_from(&status.last_alarms);
        self.set_back = status.set_back;
        for member in &mut self.members {
            if let Some(found) = status.members.iter().find(|found| found.no.0 == member.tracker) {
                (member.up, member.in_sync) = (found.connected, found.connected && found.in_sync);
                (member.lag, member.behind) = (found.lag_rows, found.behind_rows);
                member.unheard = !found.synced_since_start;
                member.unawaited = found.connected && !found.awaited;
                member.held_removal = found.held_removal.unwrap_or(0);
            }
        }
    }

    /// Adds what is in the database.
    pub(crate) fn add_counts(&mut self, counts: &Counts) {
        (self.users, self.groups, self.files) = (counts.users, counts.groups, counts.files);
        self.records = counts.records.iter().map(|(_, count)| count).sum();
        self.records_by_kind = counts.records.iter().map(|(kind, count)| (kind.0.into(), *count)).collect();
    }

    /// Adds the encrypted store's status.
    pub(crate) fn add_store(&mut self, store: StoreStatus) {
        let unheard = is_unheard(&store);
        let nodes = store.nodes.into_iter().filter(|node| node.successor.is_none()).map(|node| StoreNode {
            name: node.name.to_string(),
            peer: node.peer.to_string(),
            address: node.address,
            up: node.up,
            capacity: node.capacity,
            free: node.free,
            chunks: node.chunks,
        });
        self.store = Store {
            nodes: nodes.collect(),
            files: store.files,
            chunks: store.chunks,
            missing_copies: store.missing_copies,
            lost_chunks: store.lost_chunks,
            copying: store.copying,
            ordered_by: store.ordered_by,
            unnamed: store.unnamed,
            deletions_held: store.deletions_held,
            waiting: 0,
            unheard,
        };
    }

    /// Adds how many users and groups are near a quota.
    pub(crate) fn add_quotas(&mut self, [users, groups]: [AtQuota; 2]) {
        (self.users_near_quota, self.users_at_quota) = (users.near, users.full);
        (self.groups_near_quota, self.groups_at_quota) = (groups.near, groups.full);
    }

    /// The report as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let all = self.members.len();
        for member in &self.members {
            let state = match member {
                Member { own: true, .. } => format!("this tracker, 1 of {all}"),
                Member { up: false, refused: Some(key), tracker, .. } => format!(
                    "not connected: it SHOWS ANOTHER KEY; if it was replaced on purpose and has this one, type: accept-tracker {tracker} {key}"
                ),
                Member { up: false, .. } => "not connected".into(),
                Member { in_sync: true, .. } => "up, in sync".into(),
                Member { lag, behind, .. } => format!("up, lags by {lag} records, we by {behind}"),
            };
            // Writing to a string cannot fail.
            let slow =
                if member.unawaited { "; does not acknowledge, so writes do not wait for it" } else { "" };
            let _ = writeln!(text, "tracker {}  {:<24} {state}{slow}", member.tracker, member.address);
            if member.held_removal > 0 {
                let Member { tracker, held_removal, .. } = member;
                let _ = writeln!(
                    text,
                    "  IT WOULD HAVE {held_removal} RECORDS REMOVED HERE: kept; type allow-removal {tracker} if this tracker was \
                     restored from an old backup"
                );
            }
        }
        let unheard = self.members.iter().filter(|member| member.unheard && !member.own);
        let unheard: Vec<String> = unheard.map(|member| member.tracker.to_string()).collect();
        if !unheard.is_empty() {
            let _ = writeln!(
                text,
                "does not vote on new names until it has synced with tracker {}",
                unheard.join(" and tracker ")
            );
        }
        if self.disk_full {
            text.push_str("THE DISK IS FULL: writes are refused until there is room\n");
        }
        if self.set_back {
            text.push_str("THE CLOCK WAS SET BACK: other trackers refuse what is written here; if the clock is right now, type: restamp\n");
        }
        if self.alarms > 0 {
            let _ = writeln!(text, "ALARMS: {} since the start; see the log", self.alarms);
            for alarm in &self.last_alarms {
                let _ = writeln!(text, "  {alarm}");
            }
        }
        let Self { users, groups, files, peers_online, .. } = self;
        let _ = writeln!(text, "users {users}, groups {groups}, files {files}, peers online {peers_online}");
        let _ = write!(
            text,
            "records {}, database {}, up for {}, version {}",
            self.records,
            bytes(self.database_bytes),
            humantime::format_duration(std::time::Duration::from_secs(self.uptime_s)),
            self.version
        );
        if self.users_near_quota + self.groups_near_quota > 0 {
            let Self { users_near_quota, users_at_quota, groups_near_quota, groups_at_quota, .. } = self;
            let _ = write!(
                text,
                "\nnear a quota: users {users_near_quota} ({users_at_quota} at it or over), groups {groups_near_quota} \
                 ({groups_at_quota} at it or over); type: quota"
            );
        }
        self.store.write_text(&mut text);
        text
    }
}

impl Store {
    fn write_text(&self, text: &mut String) {
        if self.waiting > 0 {
            // Writing to a string cannot fail.
            let _ = write!(text, "\nSTORAGE NODES THAT WAIT TO BE ADMITTED: {}; type: nodes", self.waiting);
        }
        if self.nodes.is_empty() {
            return;
        }
        let up = self.nodes.iter().filter(|node| node.up).count();
        let _ = write!(
            text,
            "\nstored files {}, chunks {}, copies missing {}, under way {}; storage nodes up {up} of {}, orders by tracker {}",
            self.files,
            self.chunks,
            self.missing_copies,
            self.copying,
            self.nodes.len(),
            self.ordered_by
        );
        for node in &self.nodes {
            let state = if node.up { "up" } else { "not connected" };
            let StoreNode { name, address, chunks, .. } = node;
            let (free, capacity) = (bytes(node.free), bytes(node.capacity));
            let _ = write!(
                text,
                "\n  {name:<12} {address:<24} {state}, {chunks} chunks, {free} of {capacity} free"
            );
        }
        if self.unheard {
            text.push_str(
                "\n  NO STORAGE NODE REPORTS TO THIS TRACKER, so what they hold is not known here; if it is new in \
                 tracker_info.txt, restart them with the new file",
            );
        }
        if self.lost_chunks > 0 {
            let _ = write!(
                text,
                "\n  CHUNKS WITHOUT ANY COPY: {}; bring back a node that held them",
                self.lost_chunks
            );
        }
        if let (true, Some(why)) = (self.unnamed > 0, &self.deletions_held) {
            let _ = write!(text, "\n  {} chunks are not needed and not deleted: {why}", self.unnamed);
        }
    }
}

/// A number of bytes as text.
fn bytes(count: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let (mut unit, mut rest) = (0, count);
    while rest >= 10 * 1024 && unit + 1 < units.len() {
        (unit, rest) = (unit + 1, rest.div_ceil(1024));
    }
    format!("{rest} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_back_and_a_later_ones_fields_are_passed_over() {
        let report = Report { tracker: 2, users: 5, members: vec![Member::default()], ..Report::default() };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        assert_eq!(serde_json::from_str::<Report>(r#"{"tracker": 3, "later": [1]}"#).unwrap().tracker, 3);
    }

    #[test]
    fn bytes_are_said_in_units_of_which_there_are_a_few() {
        let said = [0, 10_239, 10_240, 1 << 30, u64::MAX].map(bytes);
        assert_eq!(said, ["0 bytes", "10239 bytes", "10 KiB", "1024 MiB", "16777216 TiB"]);
    }
}
