//! Serves one connection on the bulk lane: a user's client, or a node that copies from here.
//!
//! One task reads and checks, one task per request carries it out, one writes. Memory for chunks in transit is charged to the
//! node's budget before it is allocated, so that neither many nor slow clients make it grow.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use shoal_common::storage::{ChunkId, MAX_SEALED_CHUNK};
use shoal_common::tracker_api::storage::OwnedChunk;
use shoal_common::{PeerId, Uid};
use shoal_net::bulk::frame::{FrameError, FrameReader, FrameWriter};
use shoal_net::bulk::{BulkReader, BulkStream, BulkWriter};
use shoal_session::tickets::TicketError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::acknowledged::Acknowledged;
use super::counters::Count;
use super::operator::Operator;
use super::tally::Tally;
use super::verifier::{Admitted, TokenVerifier};
use crate::chunks::Chunks;
use crate::wire::{
    CHUNK, ChunkHead, DATA, DataHead, Failure, MAX_CHUNK_LIST, MAX_MESSAGE, MAX_REQUESTS, MAX_TO_NODE,
    RemovalKey, SLICE, TO_CLIENT, TO_NODE, ToClient, ToNode,
};

/// Memory for chunks that come and go, of all connections: sixteen of the longest.
const BUDGET: usize = 16 * MAX_SEALED_CHUNK as usize;
/// Memory that one connection may have of that.
const SHARE: usize = 6 * MAX_SEALED_CHUNK as usize;
/// A connection over which nothing comes for so long is closed; clients that are still there come again.
const IDLE: Duration = Duration::from_secs(120);
/// A chunk that does not come whole within this time ends the connection: 4 MiB at 70 kB/s.
const CHUNK_WITHIN: Duration = Duration::from_secs(60);
/// A client that takes nothing for so long is gone.
const STALL: Duration = Duration::from_secs(30);

/// What all connections share. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Server {
    name: Arc<str>,
    chunks: Chunks,
    verifier: TokenVerifier,
    acknowledged: Acknowledged,
    operator: Operator,
    budget: Arc<Semaphore>,
}

/// Why a connection is closed from here.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Nonsense(&'static str),
    #[error("nothing came for too long")]
    Idle,
}

/// What is to be written.
enum Answer {
    Message(ToClient),
    /// Bytes of a chunk, with the memory that they are charged to.
    Data(u32, Bytes, Charge),
}

/// Memory that is given back when it is dropped.
struct Charge {
    _node: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Server {
    /// Serves these chunks to everyone whose ticket `verifier` accepts.
    #[must_use]
    pub(super) fn new(verifier: TokenVerifier, operator: Operator) -> Self {
        let (name, chunks) = (operator.name.as_str().into(), operator.chunks.clone());
        let acknowledged = operator.acknowledged.clone();
        Self { name, chunks, verifier, acknowledged, operator, budget: Arc::new(Semaphore::new(BUDGET)) }
    }

    /// Serves a connection to its end.
    pub(super) async fn serve(self, stream: BulkStream, remote: SocketAddr) {
        let peer = stream.peer();
        let (input, output) = stream.into_split();
        let (answers, queue) = mpsc::channel(MAX_REQUESTS);
        let recalled = Arc::new(Mutex::new(HashSet::new()));
        let own = Arc::new(Semaphore::new(SHARE));
        let tasks = TaskTracker::new();
        let counters = self.operator.counters.clone();
        let tally = Tally::new(counters.clone());
        let user = Arc::new(Mutex::new(None));
        tracing::info!(%peer, %remote, "connected");
        counters.add(Count::Connections, 1);
        let connection = Connection {
            server: self,
            peer,
            answers,
            recalled: recalled.clone(),
            own,
            slots: Arc::new(Semaphore::new(MAX_REQUESTS)),
            tasks: tasks.clone(),
            admitted: None,
            remote: remote.ip(),
            tally: tally.clone(),
            logged_in: user.clone(),
        };
        let ended = tokio::select! {
            ended = connection.read(FrameReader::new(input, MAX_TO_NODE)) => ended,
            written = write(queue, &recalled, FrameWriter::new(output)) => written,
            () = tally.log_pauses(|| last(&user), peer) => Ok(()),
        };
        counters.less(Count::Connections);
        tasks.close();
        tasks.wait().await;
        tally.log(last(&user), peer);
        match ended {
            Ok(()) => tracing::info!(%peer, %remote, "disconnected"),
            Err(error) => tracing::info!(%peer, %remote, %error, "disconnected"),
        }
    }
}

/// The user that logged in last.
fn last(user: &Mutex<Option<Uid>>) -> Option<Uid> {
    *user.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Connection {
    server: Server,
    peer: PeerId,
    answers: mpsc::Sender<Answer>,
    /// Requests that were taken back.
    recalled: Arc<Mutex<HashSet<u32>>>,
    own: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    admitted: Option<Admitted>,
    remote: IpAddr,
    tally: Tally,
    /// The user, for the log.
    logged_in: Arc<Mutex<Option<Uid>>>,
}

impl Connection {
    async fn read(mut self, mut frames: FrameReader<BulkReader>) -> Result<(), Closed> {
        loop {
            let next = timeout(IDLE, frames.next()).await.map_err(|_| Closed::Idle)?;
            let Some(header) = next? else { return Ok(()) };
            match header.kind {
                TO_NODE => {
                    let payload = timeout(CHUNK_WITHIN, frames.payload(MAX_MESSAGE)).await;
                    let payload = payload.map_err(|_| Closed::Idle)??;
                    let message =
                        minicbor::decode(&payload).map_err(|_| Closed::Nonsense("an unreadable message"))?;
                    self.handle(message).await?;
                }
                CHUNK => {
                    let taken = timeout(CHUNK_WITHIN, self.chunk(&mut frames)).await;
                    taken.map_err(|_| Closed::Idle)??;
                }
                _ => return Err(Closed::Nonsense("a frame that no client sends")),
            }
        }
    }

    /// Takes a chunk to be stored.
    async fn chunk(&mut self, frames: &mut FrameReader<BulkReader>) -> Result<(), Closed> {
        let mut head = [0; ChunkHead::BYTES];
        frames.read_into(&mut head).await?;
        let ChunkHead { request, chunk } = ChunkHead::from_bytes(&head);
        let Some(Admitted { user: owner, allowance, .. }) = self.admitted() else {
            frames.skip().await?;
            return self.say(ToClient::Failed { request, reason: Failure::NotAllowed }).await;
        };
        // A full node says so before it takes the bytes into memory.
        let length = frames.remaining();
        let owned = OwnedChunk { owner, chunk };
        if self.server.chunks.room().free < length as u64 && !self.server.chunks.holds(&owned) {
            frames.skip().await?;
            self.tally.refused();
            return self.say(ToClient::Failed { request, reason: Failure::Full }).await;
        }
        let charge = self.charge(length).await?;
        let mut sealed = vec![0; length];
        frames.read_into(&mut sealed).await?;
        let (chunks, answers, tally) = (self.server.chunks.clone(), self.answers.clone(), self.tally.clone());
        self.begin(async move {
            let stored = chunks.put_within(allowance, owned, sealed.into()).await;
            drop(charge);
            let answer = match stored {
                Ok(()) => {
                    tally.stored(length);
                    ToClient::Stored { request }
                }
                Err(reason) => {
                    tally.refused();
                    ToClient::Failed { request, reason }
                }
            };
            let _ = answers.send(Answer::Message(answer)).await;
        })
        .await
    }

    async fn handle(&mut self, message: ToNode) -> Result<(), Closed> {
        match message {
            ToNode::Show { ticket } => self.show(&ticket).await,
            ToNode::Fetch { request, chunk, offset, length, order } => {
                self.fetch(request, chunk, (offset, length), order).await
            }
            ToNode::Cancel { request } => {
                let mut recalled = self.recalled.lock().unwrap_or_else(PoisonError::into_inner);
                // One that ended already is never looked up again; they must not pile up.
                if recalled.len() > 2 * MAX_REQUESTS {
                    recalled.clear();
                }
                recalled.insert(request);
                Ok(())
            }
            ToNode::Holds { request, chunks } => {
                self.list(request, chunks, move |chunks, list| async move {
                    match chunks.keep(&list).await {
                        Ok(held) => {
                            ToClient::Held { request, held: held.into_iter().map(u8::from).collect() }
                        }
                        Err(reason) => ToClient::Failed { request, reason },
                    }
                })
                .await
            }
            ToNode::Delete { request, chunks, keys } => {
                let tally = self.tally.clone();
                self.list(request, chunks, move |chunks, list| async move {
                    match delete(&chunks, list, keys.unwrap_or_default(), &tally).await {
                        Ok(()) => ToClient::Done { request },
                        Err(reason) => ToClient::Failed { request, reason },
                    }
                })
                .await
            }
            ToNode::Check { request, chunk } => {
                self.list(request, vec![chunk], move |chunks, list| async move {
                    for chunk in list {
                        if let Err(reason) = chunks.verify(chunk).await {
                            return ToClient::Failed { request, reason };
                        }
                    }
                    ToClient::Done { request }
                })
                .await
            }
            ToNode::Status { request } => {
                let status = self.server.operator.answer(self.remote);
                let refused = ToClient::Failed { request, reason: Failure::NotAllowed };
                self.say(status.map_or(refused, |status| ToClient::Status { request, status })).await
            }
            ToNode::AwaitReported { request } => {
                let (acknowledged, answers) = (self.server.acknowledged.clone(), self.answers.clone());
                let now = *self.server.chunks.watch().borrow();
                self.begin(async move {
                    acknowledged.wait_for(now).await;
                    let _ = answers.send(Answer::Message(ToClient::Done { request })).await;
                })
                .await
            }
        }
    }

    async fn show(&mut self, ticket: &[u8]) -> Result<(), Closed> {
        match self.server.verifier.ticket(ticket, self.peer).await {
            Ok(ticket) if self.admitted.is_none_or(|admitted| admitted.user == ticket.user) => {
                let allowance = ticket.allowance.unwrap_or(u64::MAX);
                if self.admitted.is_none() {
                    tracing::info!(user = %ticket.user, peer = %self.peer, "logged in");
                    *self.logged_in.lock().unwrap_or_else(PoisonError::into_inner) = Some(ticket.user);
                }
                self.admitted =
                    Some(Admitted { user: ticket.user, expires_ms: ticket.expires_ms, allowance });
                let (name, free) = (self.server.name.to_string(), self.server.chunks.room().free);
                self.say(ToClient::Granted { name, free }).await
            }
            Ok(_) => self.say(ToClient::Refused { expired: false }).await,
            Err(reason) => {
                tracing::info!(peer = %self.peer, %reason, "a ticket was refused");
                self.say(ToClient::Refused { expired: reason == TicketError::Expired }).await
            }
        }
    }

    async fn fetch(
        &mut self,
        request: u32,
        chunk: ChunkId,
        (offset, length): (u32, u32),
        order: Option<Vec<u8>>,
    ) -> Result<(), Closed> {
        let refused = move |reason| ToClient::Failed { request, reason };
        let owned = match order {
            Some(order) => self.server.verifier.order(&order, self.peer, chunk).await.ok(),
            None => self.user().map(|owner| OwnedChunk { owner, chunk }),
        };
        let Some(owned) = owned else { return self.say(refused(Failure::NotAllowed)).await };
        if length > MAX_SEALED_CHUNK {
            return self.say(refused(Failure::NotFound)).await;
        }
        let (chunks, answers, server, own, tally) = (
            self.server.chunks.clone(),
            self.answers.clone(),
            self.server.clone(),
            self.own.clone(),
            self.tally.clone(),
        );
        self.begin(async move {
            let Some(charge) = charge(&own, &server.budget, length as usize).await else { return };
            let answer = match chunks.read(owned, offset, length).await {
                Ok(bytes) => {
                    tally.fetched(bytes.len());
                    Answer::Data(request, bytes, charge)
                }
                Err(reason) => Answer::Message(refused(reason)),
            };
            let _ = answers.send(answer).await;
        })
        .await
    }

    /// Does something with a list of the user's chunks.
    async fn list<W, F>(&mut self, request: u32, chunks: Vec<ChunkId>, work: W) -> Result<(), Closed>
    where
        W: FnOnce(Chunks, Vec<OwnedChunk>) -> F + Send + 'static,
        F: Future<Output = ToClient> + Send,
    {
        let Some(owner) = self.user().filter(|_| chunks.len() <= MAX_CHUNK_LIST) else {
            return self.say(ToClient::Failed { request, reason: Failure::NotAllowed }).await;
        };
        let list = chunks.into_iter().map(|chunk| OwnedChunk { owner, chunk }).collect();
        let (chunks, answers) = (self.server.chunks.clone(), self.answers.clone());
        self.begin(async move {
            let answer = work(chunks, list).await;
            let _ = answers.send(Answer::Message(answer)).await;
        })
        .await
    }

    /// Carries out a request beside the others, once there is a slot.
    async fn begin(&self, work: impl Future<Output = ()> + Send + 'static) -> Result<(), Closed> {
        let slot = self.slots.clone().acquire_owned().await;
        let slot = slot.map_err(|_| Closed::Nonsense("shutting down"))?;
        self.tasks.spawn(async move {
            work.await;
            drop(slot);
        });
        Ok(())
    }

    async fn charge(&self, bytes: usize) -> Result<Charge, Closed> {
        let charge = charge(&self.own, &self.server.budget, bytes).await;
        charge.ok_or(Closed::Nonsense("shutting down"))
    }

    /// Who is logged in here, as long as the ticket holds.
    fn user(&self) -> Option<Uid> {
        self.admitted().map(|admitted| admitted.user)
    }

    fn admitted(&self) -> Option<Admitted> {
        self.admitted.filter(|admitted| !self.server.verifier.is_over(admitted.expires_ms))
    }

    async fn say(&self, message: ToClient) -> Result<(), Closed> {
        // Only a connection that is being closed takes no more.
        let _ = self.answers.send(Answer::Message(message)).await;
        Ok(())
    }
}

/// Deletes chunks whose removal key is shown. The others stay where they are: a tracker that lies can make tickets for anybody,
/// so a ticket alone deletes nothing, and what no file names goes by the trackers' rule.
async fn delete(
    chunks: &Chunks,
    list: Vec<OwnedChunk>,
    keys: Vec<RemovalKey>,
    tally: &Tally,
) -> Result<(), Failure> {
    let mut refused = false;
    for (index, chunk) in list.into_iter().enumerate() {
        let shown = match keys.get(index) {
            Some(key) => chunks.ends_with(chunk, &key.lock()).await?,
            None => false,
        };
        if shown {
            if chunks.delete(chunk).await? {
                tally.deleted();
            }
        } else {
            refused |= chunks.holds(&chunk);
        }
    }
    if refused { Err(Failure::NotAllowed) } else { Ok(()) }
}

/// The connection's share first, so that one that takes nothing waits for itself.
async fn charge(own: &Arc<Semaphore>, node: &Arc<Semaphore>, bytes: usize) -> Option<Charge> {
    let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes <= MAX_SEALED_CHUNK)?;
    let own = own.clone().acquire_many_owned(bytes).await.ok()?;
    let node = node.clone().acquire_many_owned(bytes).await.ok()?;
    Some(Charge { _node: node, _own: own })
}

async fn write(
    mut answers: mpsc::Receiver<Answer>,
    recalled: &Mutex<HashSet<u32>>,
    mut frames: FrameWriter<BulkWriter>,
) -> Result<(), Closed> {
    while let Some(answer) = answers.recv().await {
        match answer {
            Answer::Message(message) => {
                let payload = minicbor::to_vec(&message).expect("a vector takes every write");
                frames.control(TO_CLIENT, &payload).await?;
            }
            Answer::Data(request, bytes, _charge) => data(&mut frames, recalled, request, &bytes).await?,
        }
        if answers.is_empty() {
            timeout(STALL, frames.flush()).await.map_err(|_| Closed::Idle)??;
        }
    }
    Ok(())
}

async fn data(
    frames: &mut FrameWriter<BulkWriter>,
    recalled: &Mutex<HashSet<u32>>,
    request: u32,
    bytes: &[u8],
) -> Result<(), Closed> {
    let mut offset = 0;
    for slice in bytes.chunks(SLICE) {
        if recalled.lock().unwrap_or_else(PoisonError::into_inner).remove(&request) {
            let ended = ToClient::Failed { request, reason: Failure::Busy };
            let payload = minicbor::to_vec(&ended).expect("a vector takes every write");
            frames.control(TO_CLIENT, &payload).await?;
            return Ok(());
        }
        let head = DataHead { request, offset };
        timeout(STALL, frames.data(DATA, &head.to_bytes(), slice)).await.map_err(|_| Closed::Idle)??;
        offset += u32::try_from(slice.len()).unwrap_or(u32::MAX);
    }
    Ok(())
}
