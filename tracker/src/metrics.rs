//! The tracker's figures for Prometheus.

use std::net::SocketAddr;

use anyhow::Result;
use shoal_metrics::{Labels, Page};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::reporter::Reporter;
use crate::status::Report;

/// Serves `/metrics` at `address` until the tracker closes.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn start(
    address: SocketAddr,
    reporter: Reporter,
    tasks: &TaskTracker,
    closing: CancellationToken,
) -> Result<SocketAddr> {
    let page = move || {
        let reporter = reporter.clone();
        async move { render(&reporter.report().await?).ok() }
    };
    shoal_metrics::serve(address, page, tasks, closing).await
}

/// A report in Prometheus' text format.
fn render(report: &Report) -> Result<String, std::fmt::Error> {
    let mut page = Page::default();
    let mut gauge = |name: &str, help: &str, value: u64| page.gauge(name, help, value);
    gauge("uptime_seconds", "Time since the tracker started", report.uptime_s);
    gauge("users", "Claims on user names", report.users);
    gauge("groups", "Claims on group names", report.groups);
    gauge("files", "Shared files", report.files);
    gauge("peers_online", "Clients online in the whole cluster", report.peers_online);
    gauge("database_bytes", "Size of the database with its log", report.database_bytes);
    gauge("disk_full", "Whether writes are refused because the disk is full", report.disk_full.into());
    gauge("users_at_quota", "Users who used all of a quota, or have more than it", report.users_at_quota);
    gauge("groups_at_quota", "Groups that used all of a quota, or have more than it", report.groups_at_quota);
    gauge("relayed_bytes", "Bytes passed on between clients since the start", report.relayed_bytes);
    gauge("relayed_connections", "Connections passed on between clients", report.relayed_connections);
    gauge("alarms", "Things that must not happen and did, since the start", report.alarms);
    gauge("origins", "Process starts of any tracker that records stem from", report.origins);
    let store = &report.store;
    gauge("stored_files", "Files in the encrypted store", store.files);
    gauge("stored_chunks", "Chunks that stored files name", store.chunks);
    gauge("stored_copies_missing", "Copies of chunks that are to be made", store.missing_copies);
    gauge("stored_chunks_lost", "Chunks of which no node reports a copy", store.lost_chunks);
    gauge("stored_unknown", "Whether no storage node has reported to this tracker yet", store.unheard.into());
    gauge("stored_copies_under_way", "Copies under way by order of this tracker", store.copying);
    gauge("stored_chunks_unneeded", "Chunks on nodes that no stored file names", store.unnamed);
    let mut labelled = |name: &str, help: &str, values: Vec<(Labels, u64)>| page.labelled(name, help, values);
    let of_members = |value: fn(&crate::status::Member) -> u64| {
        let others = report.members.iter().filter(|member| !member.own);
        others.map(|member| (vec![("tracker", member.tracker.to_string())], value(member))).collect()
    };
    labelled("tracker_up", "Whether the other tracker is connected", of_members(|member| member.up.into()));
    labelled("tracker_in_sync", "Whether both hold the same", of_members(|member| member.in_sync.into()));
    labelled("tracker_lag", "Records that the other tracker lacks", of_members(|member| member.lag));
    labelled(
        "tracker_behind",
        "Records of the other tracker lacking here",
        of_members(|member| member.behind),
    );
    labelled(
        "tracker_unawaited",
        "Whether the other tracker failed to acknowledge lately and is not waited for",
        of_members(|member| member.unawaited.into()),
    );
    labelled(
        "tracker_removal_held",
        "Records kept here though the other tracker's word would remove them",
        of_members(|member| member.held_removal),
    );
    let records = report.records_by_kind.iter();
    let records = records.map(|(kind, count)| (vec![("kind", kind.to_string())], *count)).collect();
    labelled("records", "Records by kind, deleted ones included until they are dropped", records);
    let of_nodes = |value: fn(&crate::status::StoreNode) -> u64| {
        let labels =
            |node: &crate::status::StoreNode| vec![("name", node.name.clone()), ("peer", node.peer.clone())];
        store.nodes.iter().map(|node| (labels(node), value(node))).collect()
    };
    labelled("node_up", "Whether the storage node is connected", of_nodes(|node| node.up.into()));
    labelled("node_chunks", "Chunks that the storage node holds", of_nodes(|node| node.chunks));
    labelled("node_free_bytes", "Room that the storage node has left", of_nodes(|node| node.free));
    labelled("node_capacity_bytes", "What the storage node may hold", of_nodes(|node| node.capacity));
    page.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Member;

    #[test]
    fn figures_are_named_labelled_and_ended() {
        let members = vec![Member { tracker: 2, up: true, lag: 7, ..Member::default() }];
        let report = Report { users: 3, members, records_by_kind: vec![(64, 9)], ..Report::default() };
        let text = render(&report).unwrap();
        for line in
            ["shoal_users 3", "shoal_tracker_lag{tracker=\"2\"} 7", "shoal_records{kind=\"64\"} 9", "# EOF"]
        {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
