//! A connection to a storage node, as a client has it, or a node that copies from another. Cheap to clone; it ends when the
//! last clone is dropped, or when the node owes an answer and is silent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shoal_common::PeerId;
use shoal_common::storage::ChunkId;
use shoal_engine::Arrivals;
use shoal_net::Identity;
use shoal_net::bulk::frame::{FrameError, FrameReader, FrameWriter};
use shoal_net::bulk::{self, BulkError, BulkReader, BulkWriter};
use shoal_net::requests::{Dropped, Listening, NotAsked, Requests, Silence};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::wire::{
    CHUNK, ChunkHead, DATA, DataHead, Failure, MAX_MESSAGE, MAX_REQUESTS, MAX_TO_CLIENT, RemovalKey,
    TO_CLIENT, TO_NODE, ToClient, ToNode,
};

/// A node that owes an answer and says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(15);
/// Messages that wait to be written at most. Each may hold a chunk, which is why they are few.
const OUTBOX: usize = 2;
/// Stands for the number of a shown ticket, which has none. Other requests count from 1.
const TICKET: u32 = 0;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The connection ended.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The ticket is not good there.
    #[error("it refuses the login")]
    Refused {
        /// Whether a newer ticket would be.
        expired: bool,
    },
    /// The node cannot, or will not.
    #[error("{0}")]
    Failed(Failure),
}

/// See the module.
#[derive(Debug, Clone)]
pub struct NodeConnection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    peer: PeerId,
    requests: Arc<NodeRequests>,
    outbox: mpsc::Sender<Outgoing>,
    silence: Silence,
    tasks: TaskTracker,
    _end: DropGuard,
}

type NodeRequests = Requests<u32, Incoming, Result<Answer, RequestError>, String>;

/// A chunk that is coming in.
struct Incoming {
    bytes: Vec<u8>,
    /// What is told how many bytes came.
    arrivals: Option<Arrivals>,
}

enum Answer {
    Message(ToClient),
    Chunk(Vec<u8>),
}

enum Outgoing {
    Message(ToNode),
    Chunk(ChunkHead, Bytes),
}

impl NodeConnection {
    /// Connects to the node `peer` at `address`, within 5 s.
    ///
    /// # Errors
    /// When nothing, or another node, answers.
    pub async fn connect(
        address: SocketAddr,
        peer: PeerId,
        identity: &Identity,
        tasks: &TaskTracker,
    ) -> Result<Self, BulkError> {
        let (input, output) = bulk::connect(address, peer, identity).await?.into_split();
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let (ended, silence) = (CancellationToken::new(), Silence::default());
        let requests = Arc::new(Requests::new(MAX_REQUESTS, Dropped::Awaited, ended.clone()));
        let inner = Inner {
            peer,
            requests: requests.clone(),
            outbox,
            silence: silence.clone(),
            tasks: tasks.clone(),
            _end: ended.drop_guard(),
        };
        tasks.spawn(async move {
            let input = FrameReader::new(Listening::new(input, silence.clone()), MAX_TO_CLIENT);
            let work = async {
                tokio::select! {
                    reason = read(&requests, input) => reason,
                    reason = write(messages, FrameWriter::new(output)) => reason,
                    () = requests.overdue(&silence, SILENCE) => {
                        format!("it was silent for {} seconds", SILENCE.as_secs())
                    }
                }
            };
            requests.carry(work, "closed here".to_owned()).await;
            tracing::debug!(%peer, reason = requests.reason(), "a connection to a storage node ended");
        });
        Ok(Self(Arc::new(inner)))
    }

    /// The node.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.0.peer
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.requests.has_ended()
    }

    /// Completes when the connection has ended. Safe to drop.
    pub async fn ended(&self) {
        self.0.requests.ended().await;
    }

    /// For how long nothing has come from the node.
    #[must_use]
    pub fn silent_for(&self) -> Duration {
        self.0.silence.lasts()
    }

    /// Shows a ticket: what the node calls itself, and the bytes that it could still take.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn show(&self, ticket: Vec<u8>) -> Result<(String, u64), RequestError> {
        match self.ask_as(TICKET, |_| Outgoing::Message(ToNode::Show { ticket })).await? {
            ToClient::Granted { name, free } => Ok((name, free)),
            ToClient::Refused { expired } => Err(RequestError::Refused { expired }),
            _ => Err(misfit()),
        }
    }

    /// Has a chunk stored; done when it is durable there. Dropping the future leaves open whether it is.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn put(&self, chunk: ChunkId, sealed: Bytes) -> Result<(), RequestError> {
        self.ask(|request| Outgoing::Chunk(ChunkHead { request, chunk }, sealed)).await.map(|_| ())
    }

    /// Fetches a chunk of `length` sealed bytes, unchecked. `arrivals` learns how many came so far. Dropping the future
    /// takes the request back.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn fetch(
        &self,
        chunk: ChunkId,
        length: u32,
        order: Option<Vec<u8>>,
        arrivals: Option<Arrivals>,
    ) -> Result<Vec<u8>, RequestError> {
        let Inner { requests, outbox, .. } = &*self.0;
        let place = outbox.reserve().await.map_err(|_| self.lost())?;
        let request = requests.number();
        let recall = || {
            // A full outbox costs the bytes of a chunk that is not wanted any more.
            let _ = outbox.try_send(Outgoing::Message(ToNode::Cancel { request }));
        };
        let incoming = Incoming { bytes: Vec::with_capacity(length as usize), arrivals };
        let asked = requests.ask(request, Some((length.into(), incoming)), recall).map_err(not_asked)?;
        place.send(Outgoing::Message(ToNode::Fetch { request, chunk, offset: 0, length, order }));
        match asked.answer().await.map_err(RequestError::Lost)?? {
            Answer::Chunk(bytes) => Ok(bytes),
            Answer::Message(_) => Err(misfit()),
        }
    }

    /// Which of these chunks, at most a thousand, the node holds. They count as stored now.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn holds(&self, chunks: Vec<ChunkId>) -> Result<Vec<bool>, RequestError> {
        let count = chunks.len();
        match self.ask(|request| Outgoing::Message(ToNode::Holds { request, chunks })).await? {
            ToClient::Held { held, .. } if held.len() == count => {
                Ok(held.into_iter().map(|held| held == 1).collect())
            }
            _ => Err(misfit()),
        }
    }

    /// Has chunks deleted: at most a thousand, or 500 with their removal keys, of which there are as many.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn delete(
        &self,
        chunks: Vec<ChunkId>,
        keys: Option<Vec<RemovalKey>>,
    ) -> Result<(), RequestError> {
        self.ask(|request| Outgoing::Message(ToNode::Delete { request, chunks, keys })).await.map(|_| ())
    }

    /// Has the node read a chunk again that came wrong. Nothing waits for its answer.
    pub fn check(&self, chunk: ChunkId) {
        let connection = self.clone();
        self.0.tasks.spawn(async move {
            let asked = connection.ask(|request| Outgoing::Message(ToNode::Check { request, chunk })).await;
            if let Err(error) = asked {
                tracing::debug!(node = %connection.peer(), %chunk, %error, "a chunk that came wrong was not checked");
            }
        });
    }

    /// Waits until the trackers that the node is connected to know what it holds now, or it gave up on one of them.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn settle(&self) -> Result<(), RequestError> {
        self.ask(|request| Outgoing::Message(ToNode::Settle { request })).await.map(|_| ())
    }

    async fn ask(&self, message: impl FnOnce(u32) -> Outgoing) -> Result<ToClient, RequestError> {
        self.ask_as(self.0.requests.number(), message).await
    }

    /// Sends a request that is answered by one message.
    async fn ask_as(
        &self,
        number: u32,
        message: impl FnOnce(u32) -> Outgoing,
    ) -> Result<ToClient, RequestError> {
        // First a place in the outbox: a request that is noted goes out.
        let place = self.0.outbox.reserve().await.map_err(|_| self.lost())?;
        let asked = self.0.requests.ask(number, None, || {}).map_err(not_asked)?;
        place.send(message(number));
        match asked.answer().await.map_err(RequestError::Lost)?? {
            Answer::Message(message) => Ok(message),
            Answer::Chunk(_) => Err(misfit()),
        }
    }

    fn lost(&self) -> RequestError {
        RequestError::Lost(self.0.requests.reason().unwrap_or_else(|| "closed here".to_owned()))
    }
}

fn misfit() -> RequestError {
    RequestError::Lost("it gave an answer that does not fit".to_owned())
}

fn not_asked(reason: NotAsked<String>) -> RequestError {
    match reason {
        NotAsked::Full | NotAsked::Twice => RequestError::Failed(Failure::Busy),
        NotAsked::Ended(reason) => RequestError::Lost(reason),
    }
}

async fn read(requests: &NodeRequests, mut frames: FrameReader<Listening<BulkReader>>) -> String {
    loop {
        match read_frame(requests, &mut frames).await {
            Ok(Some(())) => {}
            Ok(None) => return "the node closed it".to_owned(),
            Err(reason) => return reason,
        }
    }
}

async fn read_frame(
    requests: &NodeRequests,
    frames: &mut FrameReader<Listening<BulkReader>>,
) -> Result<Option<()>, String> {
    let lost = |error: FrameError| error.to_string();
    let Some(header) = frames.next().await.map_err(lost)? else { return Ok(None) };
    match header.kind {
        TO_CLIENT => {
            let payload = frames.payload(MAX_MESSAGE).await.map_err(lost)?;
            let message = minicbor::decode(&payload).map_err(|_| "it sent a message that makes no sense")?;
            let answered = match message {
                ToClient::Granted { .. } | ToClient::Refused { .. } => {
                    requests.answer(TICKET, Ok(Answer::Message(message)))
                }
                ToClient::Failed { request, reason } => {
                    requests.refuse(request, Err(RequestError::Failed(reason)))
                }
                ToClient::Stored { request }
                | ToClient::Done { request }
                | ToClient::Held { request, .. } => requests.answer(request, Ok(Answer::Message(message))),
            };
            answered.map_err(|violation| format!("it {violation}"))?;
        }
        DATA => {
            let mut head = [0; DataHead::BYTES];
            frames.read_into(&mut head).await.map_err(lost)?;
            let (DataHead { request, offset }, length) = (DataHead::from_bytes(head), frames.remaining());
            let incoming = requests.part(request, offset.into(), length as u64);
            let incoming = match incoming.map_err(|violation| format!("it {violation}"))? {
                Some(mut incoming) => {
                    let start = incoming.bytes.len();
                    incoming.bytes.resize(start + length, 0);
                    frames.read_into(&mut incoming.bytes[start..]).await.map_err(lost)?;
                    if let Some(arrivals) = &incoming.arrivals {
                        arrivals.received(incoming.bytes.len() as u64);
                    }
                    Some(Ok(incoming))
                }
                None => {
                    frames.skip().await.map_err(lost)?;
                    None
                }
            };
            requests
                .part_came(request, length as u64, incoming, |incoming| Ok(Answer::Chunk(incoming.bytes)));
        }
        _ => return Err("it sent a frame that no node sends".to_owned()),
    }
    Ok(Some(()))
}

async fn write(mut messages: mpsc::Receiver<Outgoing>, mut frames: FrameWriter<BulkWriter>) -> String {
    while let Some(message) = messages.recv().await {
        let written = match message {
            Outgoing::Message(message) => {
                let payload = minicbor::to_vec(&message).expect("a vector takes every write");
                frames.control(TO_NODE, &payload).await
            }
            Outgoing::Chunk(head, sealed) => frames.data(CHUNK, &head.to_bytes(), &sealed).await,
        };
        let flushed = match written {
            Ok(()) => frames.flush().await,
            Err(error) => Err(error),
        };
        if let Err(error) = flushed {
            return error.to_string();
        }
    }
    "closed here".to_owned()
}
