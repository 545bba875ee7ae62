//! Reports to every tracker what is held, over one connection each, and takes their orders.

use std::sync::Arc;
use std::time::Duration;

use shoal_common::PeerId;
use shoal_common::join::NodeSecret;
use shoal_common::names::NodeName;
use shoal_common::tracker_api::storage::{MAX_ORDERS, MAX_REPORT, NodeAnswer, NodeCall, NodeReport, Order};
use shoal_common::tracker_api::{Answer, Call};
use shoal_common::tracker_info::TrackerLine;
use shoal_common::vouching::{Expected, News};
use shoal_session::connection::TrackerConnection;
use shoal_session::reach::{Backoff, Dialer, Learned, Unreached, ask};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Say;
use super::acknowledged::Acknowledged;
use super::copies::Copies;
use super::deletions::Deletions;
use super::verifier::TokenVerifier;
use crate::chunks::{Change, Chunks};

/// How a refusal begins in the log.
const REFUSES: &str = "the tracker refuses this node";
/// How often the trackers are asked what they know of each other's keys, beside every new connection.
const VOUCHES_EVERY: Duration = Duration::from_secs(30);
/// How often it is looked whether a connected tracker's key still counts: another tracker may have said that it does not.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long changes gather before they are reported.
const GATHER: Duration = Duration::from_millis(20);
/// Bounds on how long a tracker can have us wait with the next report.
const SOONEST: Duration = Duration::from_millis(50);
const LATEST: Duration = Duration::from_secs(1);

/// What a reporter needs; one for all trackers.
#[derive(Clone)]
pub(super) struct Reporter {
    /// Shows the operator a line.
    pub(super) say: Say,
    /// Reaches the trackers.
    pub(super) dialer: Dialer,
    /// Its key.
    pub(super) own: PeerId,
    /// The secret that admits it, if it has one.
    pub(super) secret: Option<Arc<NodeSecret>>,
    /// What the node is called.
    pub(super) name: NodeName,
    /// The chunks to report.
    pub(super) chunks: Chunks,
    /// Learns keys and time.
    pub(super) verifier: TokenVerifier,
    /// Carries out copies.
    pub(super) copies: Copies,
    /// Counts votes on deletions.
    pub(super) deletions: Deletions,
    /// Notes what each tracker acknowledged.
    pub(super) acknowledged: Acknowledged,
}

impl Reporter {
    /// Keeps the tracker of that number informed until `stop`.
    pub(super) async fn run(self, number: u8, line: TrackerLine, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        let mut said = String::new();
        let work = async {
            loop {
                let reason = match self.reach(&line).await {
                    Ok(connection) => {
                        tracing::info!(tracker = %line, "registered");
                        self.deletions.remove(number, false);
                        if said.starts_with(REFUSES) {
                            (self.say)(&format!("admitted by the tracker at {line}"));
                            // Refused again, it says so again.
                            said.clear();
                        }
                        backoff = Backoff::default();
                        let reason = tokio::select! {
                            reason = self.report(number, &connection) => reason,
                            reason = self.stay_informed(&line, &connection) => reason,
                        };
                        self.acknowledged.forget(number);
                        self.deletions.forget(number);
                        self.verifier.left(number);
                        connection.close("is not needed any more");
                        self.dialer.control.disconnect(connection.peer()).await;
                        reason
                    }
                    Err(Unreached::NotBelieved(error)) => {
                        let reason = error.to_string();
                        let removed = matches!(self.dialer.known.expected(&line).await, Ok(Expected::Nobody));
                        if let Some(consequence) = self.deletions.remove(number, removed) {
                            tracing::error!("{consequence}");
                            (self.say)(&consequence);
                        }
                        if reason != said {
                            tracing::error!("a tracker is not believed: {reason}");
                            said.clone_from(&reason);
                        }
                        reason
                    }
                    Err(reason) => explain(&reason),
                };
                if reason != said {
                    // Only the operator can act on a refusal.
                    if reason.starts_with(REFUSES) {
                        tracing::error!(tracker = %line, "{reason}; trying again");
                    } else {
                        tracing::warn!(tracker = %line, reason, "a tracker is not informed; trying again");
                    }
                    said = reason;
                }
                tokio::time::sleep(backoff.pause()).await;
            }
        };
        stop.run_until_cancelled(work).await;
    }

    /// A connection on which the node is registered.
    async fn reach(&self, line: &TrackerLine) -> Result<TrackerConnection, Unreached> {
        let connection = self.dialer.connect(line).await?;
        let registered = self.register(&connection).await;
        if let Err(reason) = &registered {
            connection.close(&explain(reason));
            self.dialer.control.disconnect(connection.peer()).await;
        }
        registered.map(|()| connection)
    }

    async fn register(&self, connection: &TrackerConnection) -> Result<(), Unreached> {
        let proof = self.secret.as_ref().map(|secret| secret.prove(self.own, connection.peer()));
        match ask(connection, Call::Node(NodeCall::Register { name: self.name.clone(), proof })).await? {
            Answer::Node(NodeAnswer::Registered { address }) => {
                tracing::debug!(address, "the tracker reaches this node there");
                Ok(())
            }
            _ => Err(Unreached::OtherVersion),
        }
    }

    /// Asks the tracker again and again what it knows of all keys, and looks whether its own still counts; ends with the
    /// reason to leave it.
    async fn stay_informed(&self, line: &TrackerLine, connection: &TrackerConnection) -> String {
        let (mut look, mut greeted) = (tokio::time::interval(LOOK_EVERY), Instant::now());
        loop {
            look.tick().await;
            if let Err(reason) = self.dialer.check(line, connection.peer()) {
                return explain(&reason);
            }
            if greeted.elapsed() > VOUCHES_EVERY {
                greeted = Instant::now();
                if let Err(reason) = self.dialer.greet(line, connection).await {
                    return explain(&reason);
                }
            }
        }
    }

    /// Reports until the connection ends; why it did.
    async fn report(&self, number: u8, connection: &TrackerConnection) -> String {
        let mut changes = self.chunks.watch();
        let mut acknowledged = None;
        loop {
            let reported = match acknowledged {
                None => self.snapshot(number, connection).await,
                Some(after) => self.changes(number, connection, after).await,
            };
            let (next, again) = match reported {
                Ok(reported) => reported,
                Err(reason) => return reason,
            };
            acknowledged = next;
            if let Some(acknowledged) = acknowledged {
                self.acknowledged.note(number, acknowledged);
            }
            let due = Instant::now() + again;
            let wait = async {
                // A tracker that is behind gets its report at once: the version may have grown before it was watched.
                if acknowledged.is_some_and(|acknowledged| *changes.borrow_and_update() > acknowledged) {
                    return;
                }
                let _ = changes.changed().await;
                tokio::time::sleep(GATHER).await;
            };
            tokio::select! {
                reason = connection.ended() => return reason,
                () = wait => {}
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    /// Reports everything, page by page. Returns the last change that was acknowledged, and when to report again.
    async fn snapshot(
        &self,
        number: u8,
        connection: &TrackerConnection,
    ) -> Result<(Option<u64>, Duration), String> {
        let (held, last) = self.chunks.snapshot();
        let mut pages: Vec<Vec<_>> = held.chunks(MAX_REPORT).map(<[_]>::to_vec).collect();
        if pages.is_empty() {
            pages.push(Vec::new());
        }
        let count = pages.len();
        let mut again = SOONEST;
        for (index, held) in pages.into_iter().enumerate() {
            let page =
                NodeReport { reset: index == 0, more: index + 1 < count, held, ..NodeReport::default() };
            again = self.send(number, connection, page).await?;
        }
        Ok((Some(last), again))
    }

    /// Reports what changed. The first result is `None` if the changes are too old to be known.
    async fn changes(
        &self,
        number: u8,
        connection: &TrackerConnection,
        after: u64,
    ) -> Result<(Option<u64>, Duration), String> {
        let Some(changes) = self.chunks.changes_after(after, MAX_REPORT) else {
            return Ok((None, Duration::ZERO));
        };
        let mut report = NodeReport::default();
        for change in net(&changes.changes) {
            match change {
                Change::Held(chunk) => report.held.push(chunk),
                Change::Gone(chunk) => report.gone.push(chunk),
                Change::Failed(chunk) => report.failed.push(chunk),
            }
        }
        let again = self.send(number, connection, report).await?;
        Ok((Some(changes.last), again))
    }

    async fn send(
        &self,
        number: u8,
        connection: &TrackerConnection,
        mut report: NodeReport,
    ) -> Result<Duration, String> {
        let room = self.chunks.room();
        (report.capacity, report.free) = (room.capacity, room.free);
        match ask(connection, Call::Node(NodeCall::Report(Box::new(report))))
            .await
            .map_err(|error| explain(&error))?
        {
            Answer::Node(NodeAnswer::Orders { orders, ticket_keys, now_ms, retry_after_ms }) => {
                self.verifier.update(number, &ticket_keys, now_ms);
                self.obey((number, connection.peer()), orders);
                Ok(Duration::from_millis(retry_after_ms.into()).clamp(SOONEST, LATEST))
            }
            _ => Err(explain(&Unreached::OtherVersion)),
        }
    }
}

impl Reporter {
    /// Takes a tracker's orders. A copy is made for any of them; for a deletion this one's word is only a part.
    fn obey(&self, (number, peer): (u8, PeerId), orders: Vec<Order>) {
        let mut deletions = Vec::new();
        for order in orders.into_iter().take(MAX_ORDERS) {
            match order {
                Order::Copy { chunk, .. } => {
                    self.deletions.withdraw(number, &chunk);
                    self.copies.begin(number, order);
                }
                Order::Delete { chunk, min_age_ms } => deletions.push((chunk, min_age_ms)),
            }
        }
        self.deletions.take((number, peer), &deletions);
    }
}

/// The last change of each chunk, in order: a report says what is, not what was in between.
fn net(changes: &[Change]) -> Vec<Change> {
    let mut seen = std::collections::HashSet::new();
    let mut net: Vec<Change> = changes
        .iter()
        .rev()
        .filter(|change| match change {
            Change::Held(chunk) | Change::Gone(chunk) => seen.insert(*chunk),
            Change::Failed(_) => true,
        })
        .copied()
        .collect();
    net.reverse();
    net
}

/// Why a tracker is not informed, as the log has it.
fn explain(reason: &Unreached) -> String {
    match reason {
        Unreached::Refused(text) => format!("{REFUSES}: {text}"),
        reason => reason.to_string(),
    }
}

/// Tells the operator what was learned of a tracker's key.
pub(super) fn learned(say: &Say, learned: Learned) {
    match learned {
        Learned::Met { tracker, key } => {
            say(&format!("the tracker at {tracker} is now known by its key {key}"))
        }
        Learned::Vouched(News { address, before, now }) => {
            let now = now.map_or_else(|| "none any more".to_owned(), |key| key.to_string());
            let before = before.map(|key| key.to_string()).unwrap_or_default();
            say(&format!(
                "the key of the tracker at {address} is {now}, not {before}: the others vouch for it"
            ));
        }
    }
}

/// Starts a reporter for each tracker.
pub(super) fn start(
    reporter: &Reporter,
    trackers: &shoal_common::TrackerInfo,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let reporter = Arc::new(reporter.clone());
    for (number, line) in trackers.iter() {
        let reporter = Reporter::clone(&reporter);
        tasks.spawn(reporter.run(number, line.clone(), stop.child_token()));
    }
}
