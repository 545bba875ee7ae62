//! One connection to one tracker: calls go out with a number, answers come back in any order. A tracker that leaves one
//! call unanswered for too long is given up altogether: another serves the caller better.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use shoal_common::PeerId;
use shoal_common::limits::MAX_CLIENT_MESSAGE;
use shoal_common::tracker_api::ways::PUSH;
use shoal_common::tracker_api::{
    Answer, Call, FromTracker, LATER_NAMES, Refusal, RefusalKind, Reply, ToTracker, has_later_name,
};
use shoal_net::requests::{NotAsked, Requests};
use shoal_net::{Channel, ChannelReceiver, ChannelSender};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ways::Ways;

/// How long a tracker may take for an answer. A tracker that waits for another one answers after 1.5 s.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// The slowest network that a large call is given time for, in bytes per second.
const SLOWEST: u64 = 128 * 1024;
/// Calls under way at once; more wait.
const MAX_CALLS: usize = 64;
/// Calls without an answer, those whose callers are gone included. A tracker that owes so many does not answer.
const MAX_UNANSWERED: usize = 16 * MAX_CALLS;

/// A connection to a tracker. Cheap to clone; it ends when [`TrackerConnection::close`] is called or the network fails.
#[derive(Debug, Clone)]
pub struct TrackerConnection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The tracker's address as the file has it.
    address: String,
    peer: PeerId,
    outgoing: mpsc::Sender<Vec<u8>>,
    /// What the tracker says it speaks; see [`shoal_common::tracker_api::REVISION`].
    revision: AtomicU32,
    room: Semaphore,
    calls: Arc<Requests<u32, (), Reply, String>>,
}

/// The connection ended before the answer came.
#[derive(Debug, thiserror::Error)]
#[error("the connection was lost before the answer came")]
pub struct Lost;

impl TrackerConnection {
    /// Takes over a channel; what the tracker says without being asked goes to `ways`. The task that carries its messages ends with the connection.
    #[must_use]
    pub fn start(address: String, channel: Channel, tasks: &TaskTracker, ways: Option<Ways>) -> Self {
        let (outgoing, queue) = mpsc::channel(MAX_CALLS);
        let calls = Arc::new(Requests::new(MAX_UNANSWERED, CancellationToken::new()));
        let connection = Self(Arc::new(Inner {
            address,
            peer: channel.peer(),
            outgoing,
            revision: AtomicU32::new(0),
            room: Semaphore::new(MAX_CALLS),
            calls: calls.clone(),
        }));
        let (sender, mut receiver) = channel.split();
        receiver.set_limit(MAX_CLIENT_MESSAGE);
        tasks.spawn(async move {
            let work = async {
                tokio::select! {
                    reason = send(sender, queue) => reason,
                    reason = receive(&calls, receiver, ways.as_ref()) => reason,
                }
            };
            calls.carry(work, "is not needed any more".to_owned()).await;
        });
        connection
    }

    /// The tracker's address as the file has it.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0.address
    }

    /// The tracker's key.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.0.peer
    }

    /// The revision that the tracker speaks; 0 is an earlier version.
    #[must_use]
    pub fn revision(&self) -> u32 {
        self.0.revision.load(Ordering::Relaxed)
    }

    /// Notes what the tracker said that it speaks.
    pub(crate) fn speaks(&self, revision: u32) {
        self.0.revision.store(revision, Ordering::Relaxed);
    }

    /// Asks, and waits for the answer. What a tracker of an earlier version cannot read is refused here: sent to it, it would end
    /// the connection. Dropping the future leaves the call under way and its answer unread.
    ///
    /// # Errors
    /// When the connection ends before the answer comes.
    pub async fn call(&self, call: Call) -> Result<Reply, Lost> {
        let Inner { calls, room, outgoing, .. } = &*self.0;
        let _room = room.acquire().await.map_err(|_| Lost)?;
        let number = calls.number();
        let message =
            minicbor::to_vec(ToTracker { call: number, body: call }).expect("a vector takes every write");
        if self.revision() < LATER_NAMES && has_later_name(&message) {
            let text = format!(
                "the tracker {} is of an earlier version, which cannot read such a name; ask its operator to update it",
                self.address()
            );
            return Ok(Reply::Refused(Refusal::new(RefusalKind::Malformed, text)));
        }
        let asked = calls.ask(number, None, || {}).map_err(|not| {
            if not == NotAsked::Full {
                self.close("does not answer");
            }
            Lost
        })?;
        let patience = ANSWER_WITHIN + Duration::from_secs(message.len() as u64 / SLOWEST);
        let exchange = async {
            outgoing.send(message).await.map_err(|_| Lost)?;
            asked.answer().await.map_err(|_| Lost)
        };
        tokio::time::timeout(patience, exchange).await.unwrap_or_else(|_| {
            self.close("does not answer");
            Err(Lost)
        })
    }

    /// Ends the connection; calls under way are lost. The first reason stays.
    pub fn close(&self, reason: &str) {
        self.0.calls.end(reason.to_owned());
    }

    /// Completes, with the reason, when the connection has ended. Safe to drop.
    pub async fn ended(&self) -> String {
        self.0.calls.ended().await;
        self.0.calls.reason().unwrap_or_default()
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.0.calls.has_ended()
    }
}

async fn receive(
    calls: &Requests<u32, (), Reply, String>,
    mut receiver: ChannelReceiver,
    ways: Option<&Ways>,
) -> String {
    loop {
        let message = match receiver.recv().await {
            Ok(Some(message)) => message,
            Ok(None) => return "closed the connection".to_owned(),
            Err(error) => return format!("is lost ({error})"),
        };
        let answered = minicbor::decode::<FromTracker>(&message)
            .map_err(|error| format!("sent something that is no answer ({error})"))
            .and_then(|FromTracker { call, body }| match body {
                Reply::Done(Answer::Push(push)) if call == PUSH => {
                    if let Some(ways) = ways {
                        ways.pushed(push);
                    }
                    Ok(())
                }
                body => calls.answer(call, body).map_err(|error| error.to_string()),
            });
        if let Err(reason) = answered {
            return reason;
        }
    }
}

async fn send(mut sender: ChannelSender, mut queue: mpsc::Receiver<Vec<u8>>) -> String {
    while let Some(message) = queue.recv().await {
        if let Err(error) = sender.send(&message).await {
            return format!("is lost ({error})");
        }
    }
    "is not needed any more".to_owned()
}
