//! The status for operators: gathers the report, and answers `tracker --status ADDR` from this machine.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use shoal_common::{PeerId, TrackerInfo};
use shoal_net::{Control, ControlConfig, ControlLimits, Identity, Inbound};

use crate::database::Database;
use crate::presence::Presence;
use crate::quota;
use crate::relay::Relay;
use crate::status::{Member, Report, STATUS_PROTOCOL};
use crate::storage::Storage;
use crate::store;
use crate::trust::Trust;

/// Largest report: some hundred storage nodes take far less.
const MAX_REPORT_BYTES: usize = 1024 * 1024;
/// How long an answer may take: counting millions of records takes seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes reports. Cheap to clone.
#[derive(Clone)]
pub struct Reporter {
    pub(crate) database: Database,
    pub(crate) presence: Presence,
    pub(crate) storage: Storage,
    pub(crate) dir: PathBuf,
    pub(crate) number: u8,
    pub(crate) peer: PeerId,
    pub(crate) info: TrackerInfo,
    pub(crate) trust: Trust,
    pub(crate) relay: Option<Relay>,
    pub(crate) started: Instant,
}

impl Reporter {
    /// The tracker's status; `None` while it closes. Dropping the future is safe.
    pub async fn report(&self) -> Option<Report> {
        let members = self.info.iter().map(|(number, line)| Member {
            tracker: number,
            address: line.to_string(),
            own: number == self.number,
            up: number == self.number,
            in_sync: number == self.number,
            refused: self.trust.refused_key(number).map(|key| key.to_string()),
            ..Member::default()
        });
        let mut report = Report {
            tracker: self.number,
            peer: self.peer.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_s: self.started.elapsed().as_secs(),
            members: members.collect(),
            peers_online: self.presence.count() as u64,
            ..Report::default()
        };
        if let Some(relay) = &self.relay {
            let relayed = relay.relayed();
            (report.relayed_bytes, report.relayed_connections) = (relayed.bytes, relayed.connections);
            let users = relayed.users.iter().map(|(user, bytes)| (user.to_string(), *bytes));
            report.relayed_by_user = users.collect();
            let peers = relayed.peers.iter().map(|(peer, bytes)| (peer.to_string(), *bytes));
            report.relayed_by_peer = peers.collect();
        }
        report.add_status(&self.database.status().await?);
        report.add_store(self.storage.status());
        report.store.waiting = self.storage.applicants().len() as u64;
        let dir = self.dir.clone();
        let count = move || Ok::<_, store::StoreError>((store::count(&dir)?, quota::at_quota(&dir)?));
        match tokio::task::spawn_blocking(count).await {
            Ok(Ok((counts, at_quota))) => {
                report.add_counts(&counts);
                report.add_quotas(at_quota);
            }
            Ok(Err(error)) => tracing::warn!("the records cannot be counted: {error}"),
            Err(error) => tracing::warn!("the records cannot be counted: {error}"),
        }
        Some(report)
    }

    /// Answers a request from this machine; one from another machine gets nothing.
    pub(crate) async fn answer(self, mut inbound: Inbound) {
        if !shoal_net::is_of_this_machine(inbound.remote.ip()) {
            tracing::info!(from = %inbound.remote, "the status was requested from another machine; not answered");
            return;
        }
        let Some(report) = self.report().await else { return };
        let Ok(text) = serde_json::to_vec(&report) else { return };
        // A requester that is gone needs no answer.
        let _ = tokio::time::timeout(PATIENCE, inbound.channel.send(&text)).await;
    }
}

/// Asks the tracker at `host:port` for its status.
///
/// # Errors
/// In words: no tracker answers there, or not to this machine.
pub async fn ask(at: &str) -> Result<Report> {
    let info = TrackerInfo::parse(at).ok();
    let line = info.as_ref().and_then(|info| info.tracker(1));
    let Some(line) = line else { bail!("{at:?} is no address of a tracker; give ip:port") };
    let config = ControlConfig {
        identity: Identity::generate(),
        listen: None,
        protocols: Vec::new(),
        limits: ControlLimits::default(),
    };
    let (control, _) = Control::start(config).await?;
    let asked = async {
        let dialled = control.dial(&line.host, line.port, line.peer_id).await;
        let tracker = dialled.map_err(|error| {
            anyhow!("{error}; is the tracker running, and is this the address in its tracker_info line?")
        })?;
        let mut channel = control.open(tracker, STATUS_PROTOCOL).await?;
        channel.set_limit(MAX_REPORT_BYTES);
        let answer = tokio::time::timeout(PATIENCE, channel.recv()).await;
        let answer = answer.with_context(|| format!("{at} does not answer"))??;
        let Some(answer) = answer else {
            bail!("{at} reports its status to its own machine only; run this there")
        };
        serde_json::from_slice(&answer).with_context(|| {
            format!("the answer of {at} cannot be read; is it a tracker of another version?")
        })
    };
    let report = asked.await;
    control.shutdown().await;
    report
}
