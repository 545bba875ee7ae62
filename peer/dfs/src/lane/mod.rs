//! A connection to a storage node, as a client has it, or a node that copies from another. Cheap to clone; it ends when the
//! last clone is dropped. One task reads, one writes, one gives up on a node that owes an answer and is silent.

mod requests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shoal_common::PeerId;
use shoal_common::storage::ChunkId;
use shoal_net::Identity;
use shoal_net::bulk::frame::{FrameError, FrameReader, FrameWriter};
use shoal_net::bulk::{self, BulkError, BulkReader, BulkWriter};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::wire::{
    CHUNK, ChunkHead, DATA, DataHead, Failure, MAX_MESSAGE, MAX_TO_CLIENT, RemovalKey, TO_CLIENT, TO_NODE,
    ToClient, ToNode,
};
use requests::{Progress, Requests};

/// A node that owes an answer and says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(15);
/// How often that is looked at.
const WATCH: Duration = Duration::from_millis(500);
/// Messages that wait to be written at most. Each may hold a chunk, which is why they are few.
const OUTBOX: usize = 2;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LaneError {
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
pub struct Lane(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    peer: PeerId,
    requests: Arc<Requests>,
    outbox: mpsc::Sender<Outgoing>,
    ended: CancellationToken,
    _end: DropGuard,
}

enum Outgoing {
    Message(ToNode),
    Chunk(ChunkHead, Bytes),
}

impl Lane {
    /// Connects to the node `peer` at `address`, within 5 s.
    ///
    /// # Errors
    /// When nobody, or somebody else, answers.
    pub async fn connect(
        address: SocketAddr,
        peer: PeerId,
        identity: &Identity,
        tasks: &TaskTracker,
    ) -> Result<Self, BulkError> {
        let (input, output) = bulk::connect(address, peer, identity).await?.into_split();
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let (requests, ended) = (Arc::new(Requests::default()), CancellationToken::new());
        let inner = Inner {
            peer,
            requests: requests.clone(),
            outbox,
            ended: ended.clone(),
            _end: ended.clone().drop_guard(),
        };
        tasks.spawn(async move {
            let reason = tokio::select! {
                reason = read(&requests, FrameReader::new(input, MAX_TO_CLIENT)) => reason,
                reason = write(messages, FrameWriter::new(output)) => reason,
                reason = watch(&requests) => reason,
                () = ended.cancelled() => "closed here".to_owned(),
            };
            tracing::debug!(%peer, reason, "a connection to a storage node ended");
            requests.fail(&reason);
            ended.cancel();
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
        self.0.ended.is_cancelled()
    }

    /// Completes when the connection has ended. Safe to drop.
    pub async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    /// How long ago anything came from the node.
    #[must_use]
    pub fn silent_for(&self) -> Duration {
        self.0.requests.silent_for()
    }

    /// Shows a ticket: what the node calls itself, and the bytes that it could still take.
    ///
    /// # Errors
    /// [`LaneError`].
    pub async fn show(&self, ticket: Vec<u8>) -> Result<(String, u64), LaneError> {
        let answer = self.0.requests.expect_grant()?;
        self.say(Outgoing::Message(ToNode::Show { ticket })).await?;
        match answer.await {
            Ok(ToClient::Granted { name, free }) => Ok((name, free)),
            Ok(ToClient::Refused { expired }) => Err(LaneError::Refused { expired }),
            _ => Err(self.0.requests.lost()),
        }
    }

    /// Has a chunk stored; done when it is durable there. Dropping the future leaves open whether it is.
    ///
    /// # Errors
    /// [`LaneError`].
    pub async fn put(&self, chunk: ChunkId, sealed: Bytes) -> Result<(), LaneError> {
        let asked = self.0.requests.ask()?;
        self.say(Outgoing::Chunk(ChunkHead { request: asked.number, chunk }, sealed)).await?;
        asked.answer().await.map(|_| ())
    }

    /// Fetches a chunk of `length` sealed bytes, unchecked. `progress` is told how many came so far. Dropping the future
    /// takes the request back.
    ///
    /// # Errors
    /// [`LaneError`].
    pub async fn fetch(
        &self,
        chunk: ChunkId,
        length: u32,
        order: Option<Vec<u8>>,
        progress: Progress,
    ) -> Result<Vec<u8>, LaneError> {
        let asked = self.0.requests.ask_for_data(length as usize, progress)?;
        let request = asked.number;
        let recall = Recall { lane: self, request };
        self.say(Outgoing::Message(ToNode::Fetch { request, chunk, offset: 0, length, order })).await?;
        let data = asked.data().await;
        std::mem::forget(recall);
        data
    }

    /// Which of these chunks, at most a thousand, the node holds. They count as stored now.
    ///
    /// # Errors
    /// [`LaneError`].
    pub async fn holds(&self, chunks: Vec<ChunkId>) -> Result<Vec<bool>, LaneError> {
        let (asked, count) = (self.0.requests.ask()?, chunks.len());
        self.say(Outgoing::Message(ToNode::Holds { request: asked.number, chunks })).await?;
        match asked.answer().await? {
            ToClient::Held { held, .. } if held.len() == count => {
                Ok(held.into_iter().map(|held| held == 1).collect())
            }
            _ => Err(LaneError::Lost("it gave an answer that does not fit".to_owned())),
        }
    }

    /// Has chunks deleted: at most a thousand, or 500 with their removal keys, of which there are as many.
    ///
    /// # Errors
    /// [`LaneError`].
    pub async fn delete(&self, chunks: Vec<ChunkId>, keys: Option<Vec<RemovalKey>>) -> Result<(), LaneError> {
        let asked = self.0.requests.ask()?;
        self.say(Outgoing::Message(ToNode::Delete { request: asked.number, chunks, keys })).await?;
        asked.answer().await.map(|_| ())
    }

    /// Has the node read a chunk again that came wrong.
    ///
    /// # Errors
    /// [`LaneError`].
    pub async fn check(&self, chunk: ChunkId) -> Result<(), LaneError> {
        let asked = self.0.requests.ask()?;
        self.say(Outgoing::Message(ToNode::Check { request: asked.number, chunk })).await?;
        asked.answer().await.map(|_| ())
    }

    /// Waits until the trackers that the node is connected to know what it holds now, or it gave up on one of them.
    ///
    /// # Errors
    /// [`LaneError`].
    pub async fn wait_reported(&self) -> Result<(), LaneError> {
        let asked = self.0.requests.ask()?;
        self.say(Outgoing::Message(ToNode::AwaitReported { request: asked.number })).await?;
        asked.answer().await.map(|_| ())
    }

    async fn say(&self, message: Outgoing) -> Result<(), LaneError> {
        tokio::select! {
            sent = self.0.outbox.send(message) => sent.map_err(|_| self.0.requests.lost()),
            () = self.0.ended.cancelled() => Err(self.0.requests.lost()),
        }
    }
}

/// Takes a request back when it is dropped.
struct Recall<'a> {
    lane: &'a Lane,
    request: u32,
}

impl Drop for Recall<'_> {
    fn drop(&mut self) {
        // A full outbox costs the bytes of a chunk that nobody wants.
        let _ = self.lane.0.outbox.try_send(Outgoing::Message(ToNode::Cancel { request: self.request }));
    }
}

async fn read(requests: &Requests, mut frames: FrameReader<BulkReader>) -> String {
    loop {
        match read_frame(requests, &mut frames).await {
            Ok(Some(())) => {}
            Ok(None) => return "the node closed it".to_owned(),
            Err(reason) => return reason,
        }
    }
}

async fn read_frame(requests: &Requests, frames: &mut FrameReader<BulkReader>) -> Result<Option<()>, String> {
    let lost = |error: FrameError| error.to_string();
    let Some(header) = frames.next().await.map_err(lost)? else { return Ok(None) };
    requests.heard();
    match header.kind {
        TO_CLIENT => {
            let payload = frames.payload(MAX_MESSAGE).await.map_err(lost)?;
            let message = minicbor::decode(&payload).map_err(|_| "it sent a message that makes no sense")?;
            requests.told(message)?;
        }
        DATA => {
            let mut head = [0; DataHead::BYTES];
            frames.read_into(&mut head).await.map_err(lost)?;
            let (head, length) = (DataHead::from_bytes(head), frames.remaining());
            match requests.lend(head, length)? {
                Some(mut buffer) => {
                    let start = buffer.len();
                    buffer.resize(start + length, 0);
                    frames.read_into(&mut buffer[start..]).await.map_err(lost)?;
                    requests.put_back(head.request, buffer);
                }
                None => frames.skip().await.map_err(lost)?,
            }
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

async fn watch(requests: &Requests) -> String {
    loop {
        tokio::time::sleep(WATCH).await;
        if requests.owed_for().min(requests.silent_for()) >= SILENCE {
            return format!("it was silent for {} seconds", SILENCE.as_secs());
        }
    }
}
