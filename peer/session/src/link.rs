//! One connection to one tracker: calls go out with a number, answers come back in any order. A tracker that leaves one
//! call unanswered for too long is given up altogether, because whoever is waiting is better served by another.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_common::PeerId;
use shoal_common::limits::MAX_CLIENT_MESSAGE;
use shoal_common::tracker_api::{Call, FromTracker, Reply, ToTracker};
use shoal_net::{Channel, ChannelReceiver, ChannelSender};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a tracker may take for an answer. A tracker that waits for another one answers after 1.5 s.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// The slowest line that a large call is given time for, in bytes a second.
const SLOWEST_LINE: u64 = 128 * 1024;
/// Calls under way at once; more wait for their turn.
const MAX_CALLS: usize = 64;

/// A connection to a tracker. Cheap to clone; it ends when [`Link::close`] is called or the connection breaks.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    /// The tracker's address as the file has it.
    address: String,
    peer: PeerId,
    outgoing: mpsc::Sender<Vec<u8>>,
    /// What the tracker says it speaks; see [`shoal_common::tracker_api::REVISION`].
    revision: AtomicU32,
    turns: Semaphore,
    pending: Mutex<Pending>,
    ended: CancellationToken,
}

#[derive(Default)]
struct Pending {
    last: u32,
    waiting: HashMap<u32, oneshot::Sender<Reply>>,
    /// Why the connection ended.
    reason: Option<String>,
}

/// The connection ended before the answer came.
#[derive(Debug, thiserror::Error)]
#[error("the connection was lost before the answer came")]
pub struct Lost;

impl Link {
    /// Takes over a channel. The task that carries its messages ends with the connection.
    #[must_use]
    pub fn start(address: String, channel: Channel, tasks: &TaskTracker) -> Self {
        let (outgoing, queue) = mpsc::channel(MAX_CALLS);
        let link = Self(Arc::new(Inner {
            address,
            peer: channel.peer(),
            outgoing,
            revision: AtomicU32::new(0),
            turns: Semaphore::new(MAX_CALLS),
            pending: Mutex::default(),
            ended: CancellationToken::new(),
        }));
        let (sender, mut receiver) = channel.split();
        receiver.set_limit(MAX_CLIENT_MESSAGE);
        tasks.spawn(link.clone().carry(sender, queue, receiver));
        link
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

    /// What the tracker speaks; 0 is an earlier version.
    #[must_use]
    pub fn revision(&self) -> u32 {
        self.0.revision.load(Ordering::Relaxed)
    }

    /// Notes what the tracker said that it speaks.
    pub(super) fn speaks(&self, revision: u32) {
        self.0.revision.store(revision, Ordering::Relaxed);
    }

    /// Asks, and waits for the answer. Dropping the future leaves the call under way and its answer unread.
    ///
    /// # Errors
    /// When the connection ends before the answer comes.
    pub async fn call(&self, call: Call) -> Result<Reply, Lost> {
        let _turn = self.0.turns.acquire().await.map_err(|_| Lost)?;
        let (answer, answered) = oneshot::channel();
        let number = {
            let mut pending = self.pending();
            if pending.reason.is_some() {
                return Err(Lost);
            }
            pending.last = pending.last.wrapping_add(1);
            let number = pending.last;
            pending.waiting.insert(number, answer);
            number
        };
        let _forget = Forget { link: self, number };
        let message =
            minicbor::to_vec(ToTracker { call: number, body: call }).expect("a vector takes every write");
        let patience = ANSWER_WITHIN + Duration::from_secs(message.len() as u64 / SLOWEST_LINE);
        let exchange = async {
            self.0.outgoing.send(message).await.map_err(|_| Lost)?;
            answered.await.map_err(|_| Lost)
        };
        tokio::select! {
            () = self.0.ended.cancelled() => Err(Lost),
            done = tokio::time::timeout(patience, exchange) => done.unwrap_or_else(|_| {
                self.close("does not answer");
                Err(Lost)
            }),
        }
    }

    /// Ends the connection; calls under way are lost. The first reason stays.
    pub fn close(&self, reason: &str) {
        let mut pending = self.pending();
        pending.reason.get_or_insert_with(|| reason.to_owned());
        // First the end, then the callers: woken, they look for another link and must not find this one.
        self.0.ended.cancel();
        pending.waiting.clear();
    }

    /// Completes, with the reason, when the connection has ended. Safe to drop.
    pub async fn ended(&self) -> String {
        self.0.ended.cancelled().await;
        self.pending().reason.clone().unwrap_or_default()
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.0.ended.is_cancelled()
    }

    async fn carry(self, sender: ChannelSender, queue: mpsc::Receiver<Vec<u8>>, receiver: ChannelReceiver) {
        let reason = tokio::select! {
            () = self.0.ended.cancelled() => return,
            reason = send(sender, queue) => reason,
            reason = self.receive(receiver) => reason,
        };
        self.close(&reason);
    }

    async fn receive(&self, mut receiver: ChannelReceiver) -> String {
        loop {
            let message = match receiver.recv().await {
                Ok(Some(message)) => message,
                Ok(None) => return "closed the connection".to_owned(),
                Err(error) => return format!("is lost ({error})"),
            };
            match minicbor::decode::<FromTracker>(&message) {
                Ok(FromTracker { call, body }) => {
                    let waiting = self.pending().waiting.remove(&call);
                    // Nobody waits for it any more: its caller was dropped.
                    if let Some(waiting) = waiting {
                        let _ = waiting.send(body);
                    }
                }
                Err(error) => return format!("sent something that is no answer ({error})"),
            }
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Takes a call off the list when its caller is dropped.
struct Forget<'a> {
    link: &'a Link,
    number: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.link.pending().waiting.remove(&self.number);
    }
}
