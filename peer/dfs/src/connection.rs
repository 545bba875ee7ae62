//! A connection to a storage node, as a client has it, or a node that copies from another. Cheap to clone; it ends when the
//! last clone is dropped, or when the node owes an answer and is silent.

use std::convert::Infallible;
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
use shoal_net::requests::{Listening, NotAsked, Requests, Silence, Violation};
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

type NodeRequests = Requests<u32, Incoming, Result<Answer, RequestError>, Reason>;

/// Why a connection ended.
#[derive(Debug, Clone)]
struct Reason(String);

/// A chunk that is coming in.
struct Incoming {
    bytes: Vec<u8>,
    /// Learns how many bytes came.
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
        let requests = Arc::new(Requests::new(MAX_REQUESTS, ended.clone()));
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
                    Err(reason) = read(&requests, input) => reason,
                    Err(reason) = write(messages, FrameWriter::new(output)) => reason,
                    () = requests.overdue(&silence, SILENCE) => {
                        Reason(format!("it was silent for {} seconds", SILENCE.as_secs()))
                    }
                }
            };
            requests.carry(work, "closed here".into()).await;
            tracing::debug!(%peer, reason = ?requests.reason(), "a connection to a storage node ended");
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
        match self.exchange(TICKET, None, |_| Outgoing::Message(ToNode::Show { ticket })).await? {
            Answer::Message(ToClient::Granted { name, free }) => Ok((name, free)),
            Answer::Message(ToClient::Refused { expired }) => Err(RequestError::Refused { expired }),
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
        let incoming = Incoming { bytes: Vec::with_capacity(length as usize), arrivals };
        let message = |request| Outgoing::Message(ToNode::Fetch { request, chunk, offset: 0, length, order });
        let number = self.0.requests.number();
        match self.exchange(number, Some((length.into(), incoming)), message).await? {
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
    pub async fn wait_reported(&self) -> Result<(), RequestError> {
        self.ask(|request| Outgoing::Message(ToNode::AwaitReported { request })).await.map(|_| ())
    }

    /// Sends a request that is answered by one message.
    async fn ask(&self, message: impl FnOnce(u32) -> Outgoing) -> Result<ToClient, RequestError> {
        match self.exchange(self.0.requests.number(), None, message).await? {
            Answer::Message(message) => Ok(message),
            Answer::Chunk(_) => Err(misfit()),
        }
    }

    /// Sends a request and waits for its answer, which may come in parts.
    async fn exchange(
        &self,
        request: u32,
        parts: Option<(u64, Incoming)>,
        message: impl FnOnce(u32) -> Outgoing,
    ) -> Result<Answer, RequestError> {
        let Inner { requests, outbox, .. } = &*self.0;
        // First a place in the outbox: a request that is noted goes out.
        let place = outbox.reserve().await.map_err(|_| lost(requests.reason()))?;
        let comes_in_parts = parts.is_some();
        let recall = || {
            if comes_in_parts {
                // A full outbox costs the bytes of a chunk that is not wanted any more.
                let _ = outbox.try_send(Outgoing::Message(ToNode::Cancel { request }));
            }
        };
        let asked = requests.ask(request, parts, recall).map_err(|not| match not {
            NotAsked::Full | NotAsked::Twice => RequestError::Failed(Failure::Busy),
            NotAsked::Ended(reason) => lost(Some(reason)),
        })?;
        place.send(message(request));
        asked.answer().await.map_err(|reason| lost(Some(reason)))?
    }
}

fn misfit() -> RequestError {
    RequestError::Lost("it gave an answer that does not fit".to_owned())
}

fn lost(reason: Option<Reason>) -> RequestError {
    RequestError::Lost(reason.map_or_else(|| "closed here".to_owned(), |reason| reason.0))
}

impl From<&str> for Reason {
    fn from(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

impl From<FrameError> for Reason {
    fn from(error: FrameError) -> Self {
        Self(error.to_string())
    }
}

impl From<Violation> for Reason {
    fn from(violation: Violation) -> Self {
        Self(format!("it {violation}"))
    }
}

/// Takes frames until the connection ends.
async fn read(
    requests: &NodeRequests,
    mut frames: FrameReader<Listening<BulkReader>>,
) -> Result<Infallible, Reason> {
    while let Some(header) = frames.next().await? {
        match header.kind {
            TO_CLIENT => {
                let payload = frames.payload(MAX_MESSAGE).await?;
                let message =
                    minicbor::decode(&payload).map_err(|_| "it sent a message that makes no sense")?;
                match message {
                    ToClient::Granted { .. } | ToClient::Refused { .. } => {
                        requests.answer(TICKET, Ok(Answer::Message(message)))?;
                    }
                    ToClient::Failed { request, reason } => {
                        requests.refuse(request, Err(RequestError::Failed(reason)))?;
                    }
                    ToClient::Stored { request }
                    | ToClient::Done { request }
                    | ToClient::Held { request, .. }
                    | ToClient::Status { request, .. } => {
                        requests.answer(request, Ok(Answer::Message(message)))?;
                    }
                }
            }
            DATA => {
                let mut head = [0; DataHead::BYTES];
                frames.read_into(&mut head).await?;
                let (DataHead { request, offset }, length) = (DataHead::from_bytes(head), frames.remaining());
                let mut incoming = requests.part(request, offset.into(), length as u64)?;
                if let Some(Incoming { bytes, arrivals }) = &mut incoming {
                    let start = bytes.len();
                    bytes.resize(start + length, 0);
                    frames.read_into(&mut bytes[start..]).await?;
                    arrivals.iter().for_each(|arrivals| arrivals.received(bytes.len() as u64));
                } else {
                    frames.skip().await?;
                }
                let whole = |incoming: Incoming| Ok(Answer::Chunk(incoming.bytes));
                requests.part_came(request, length as u64, incoming.map(Ok), whole);
            }
            _ => return Err("it sent a frame that no node sends".into()),
        }
    }
    Err("the node closed it".into())
}

/// Writes messages until the connection ends.
async fn write(
    mut messages: mpsc::Receiver<Outgoing>,
    mut frames: FrameWriter<BulkWriter>,
) -> Result<Infallible, Reason> {
    while let Some(message) = messages.recv().await {
        match message {
            Outgoing::Message(message) => {
                let payload = minicbor::to_vec(&message).expect("a vector takes every write");
                frames.control(TO_NODE, &payload).await?;
            }
            Outgoing::Chunk(head, sealed) => frames.data(CHUNK, &head.to_bytes(), &sealed).await?,
        }
        frames.flush().await?;
    }
    Err("closed here".into())
}
