//! A channel: one stream of messages in each direction between two proven peers.
//!
//! Opened by [`Control::open`](crate::Control::open) or taken from [`Incoming`](crate::Incoming);
//! many share one connection and break with it. What the messages say is the callers' business.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use libp2p::Stream;
use shoal_common::PeerId;
use shoal_common::limits::MAX_STRANGER_MESSAGE;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

use crate::message::{ChannelError, MessageReader, MessageWriter};

/// Both directions. Dropping it, or both halves, ends the channel for the other side too.
#[derive(Debug)]
pub struct Channel {
    sender: ChannelSender,
    receiver: ChannelReceiver,
}

/// The half that sends.
pub struct ChannelSender {
    writer: MessageWriter<WriteHalf<Compat<Stream>>>,
    ends: Arc<Ends>,
}

/// The half that receives.
pub struct ChannelReceiver {
    reader: MessageReader<ReadHalf<Compat<Stream>>>,
    ends: Arc<Ends>,
}

/// Who is at the other end. The permit of an inbound channel is held until both halves are gone.
struct Ends {
    peer: PeerId,
    remote: SocketAddr,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Channel {
    pub(crate) fn new(
        stream: Stream,
        peer: PeerId,
        remote: SocketAddr,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let ends = Arc::new(Ends { peer, remote, _permit: permit });
        let (read, write) = tokio::io::split(stream.compat());
        Self {
            sender: ChannelSender { writer: MessageWriter::new(write), ends: ends.clone() },
            receiver: ChannelReceiver { reader: MessageReader::new(read, MAX_STRANGER_MESSAGE), ends },
        }
    }

    /// The proven id of the other end.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.sender.peer()
    }

    /// Where the connection's other end is.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.sender.remote()
    }

    /// See [`ChannelSender::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&mut self, message: &[u8]) -> Result<(), ChannelError> {
        self.sender.send(message).await
    }

    /// See [`ChannelReceiver::recv`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv(&mut self) -> Result<Option<Vec<u8>>, ChannelError> {
        self.receiver.recv().await
    }

    /// See [`ChannelReceiver::set_limit`].
    pub fn set_limit(&mut self, bytes: usize) {
        self.receiver.set_limit(bytes);
    }

    /// The two halves, for two tasks.
    #[must_use]
    pub fn split(self) -> (ChannelSender, ChannelReceiver) {
        (self.sender, self.receiver)
    }
}

impl ChannelSender {
    /// Sends one message and flushes. It was then handed to the connection, which says nothing about
    /// its arrival. Dropping the future leaves the channel usable: the message may still go out, whole,
    /// with the next one.
    ///
    /// # Errors
    /// When the connection is lost, or the message is longer than [`MAX_MESSAGE`](crate::MAX_MESSAGE).
    pub async fn send(&mut self, message: &[u8]) -> Result<(), ChannelError> {
        self.writer.feed(message).await?;
        self.writer.flush().await
    }

    /// Queues one message; at most 64 KiB wait, then they are written. Call [`flush`](Self::flush) after
    /// the last of a run. As safe to drop as [`send`](Self::send).
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub async fn feed(&mut self, message: &[u8]) -> Result<(), ChannelError> {
        self.writer.feed(message).await
    }

    /// Sends what is queued. Safe to drop and call again.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn flush(&mut self) -> Result<(), ChannelError> {
        self.writer.flush().await
    }

    /// Flushes, and ends this direction: the other side's `recv` gives `None` after the last message.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn close(&mut self) -> Result<(), ChannelError> {
        self.writer.close().await
    }

    /// The proven id of the other end.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.ends.peer
    }

    /// Where the connection's other end is.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.ends.remote
    }
}

impl ChannelReceiver {
    /// The next message; `None` once the other side ended the channel or its connection closed between
    /// two messages. Safe to drop: nothing is lost.
    ///
    /// # Errors
    /// When the connection is lost, or the message is over the limit.
    pub async fn recv(&mut self) -> Result<Option<Vec<u8>>, ChannelError> {
        self.reader.recv().await
    }

    /// Longest message taken from now on, in bytes. A channel starts with what a stranger may send,
    /// [`MAX_STRANGER_MESSAGE`]; [`MAX_MESSAGE`](crate::MAX_MESSAGE) bounds any limit.
    pub fn set_limit(&mut self, bytes: usize) {
        self.reader.set_limit(bytes);
    }

    /// The proven id of the other end.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.ends.peer
    }

    /// Where the connection's other end is.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.ends.remote
    }
}

impl fmt::Debug for ChannelSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChannelSender").field(&self.ends.peer).field(&self.ends.remote).finish()
    }
}

impl fmt::Debug for ChannelReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ChannelReceiver").field(&self.ends.peer).field(&self.ends.remote).finish()
    }
}
