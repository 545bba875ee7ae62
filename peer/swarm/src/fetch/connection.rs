//! One connection to a server: its task reads blocks straight into the buffers that wait for them, writes what the
//! sources ask for, and gives up on a server that owes an answer and is silent.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use shoal_common::limits::{MAX_CHANNELS, MAX_PEER_DATA, MAX_PEER_MESSAGE, MAX_PEER_REQUESTS};
use shoal_common::peer_wire::{DATA, DataHead, TO_REQUESTER, TO_SERVER, ToServer};
use shoal_engine::{PieceBuf, ReadError, SourceError};
use shoal_net::MessageBudget;
use shoal_net::bulk::frame::{FrameError, FrameReader, FrameWriter};
use shoal_net::requests::{Listening, Silence};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::channels::{Channels, Fault};
use crate::price;
use crate::way::Way;

/// A server that owes an answer and says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(10);
/// The longest frame that a server sends.
#[expect(clippy::cast_possible_truncation, reason = "64 KiB and a head")]
const MAX_FRAME: u32 = (MAX_PEER_DATA + DataHead::BYTES) as u32;
/// What waits to be written at most: a request and its cancellation each, and some words on each channel.
const MAX_OUTBOX: usize = 2 * MAX_PEER_REQUESTS + 4 * MAX_CHANNELS;

/// A connection to a server; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) channels: Arc<Channels>,
    /// A round trip to the server, about: of the handshakes, so that nothing else was under way.
    pub(super) round_trip: Duration,
    /// Over which way it runs.
    pub(super) way: Way,
    outbox: mpsc::Sender<ToServer>,
    silence: Silence,
    end: CancellationToken,
    _ends: DropGuard,
}

impl Connection {
    /// A connection, and the future that carries it until it ends.
    pub(super) fn new<R, W>(
        input: R,
        output: W,
        (round_trip, way): (Duration, Way),
        budget: MessageBudget,
        end: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<R, W>)
    where
        R: AsyncBufRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send,
    {
        let channels = Arc::new(Channels::new(end.clone()));
        let (outbox, messages) = mpsc::channel(MAX_OUTBOX);
        let silence = Silence::default();
        let connection = Self {
            channels: channels.clone(),
            round_trip,
            way,
            outbox,
            silence: silence.clone(),
            _ends: end.clone().drop_guard(),
            end,
        };
        let task = async move {
            let input = FrameReader::new(Listening::new(input, silence.clone()), MAX_FRAME);
            let work = async {
                tokio::select! {
                    Err(fault) = read(&channels, input, budget) => fault,
                    Err(fault) = write(messages, FrameWriter::new(output)) => fault,
                    () = channels.requests.overdue(&silence, SILENCE) => {
                        Fault::Gone(format!("it was silent for {} seconds", SILENCE.as_secs()))
                    }
                }
            };
            channels.requests.carry(work, Fault::Gone("closed here".into())).await;
            tracing::debug!(fault = ?channels.requests.reason(), "a connection to a server ended");
            channels.lose();
        };
        (connection, task)
    }

    /// Says something to the server. A connection that is this far behind is given up.
    pub(super) fn say(&self, message: ToServer) {
        if self.outbox.try_send(message).is_err() {
            self.end.cancel();
        }
    }

    /// Ends the connection if nothing has come on it for so long.
    pub(super) fn end_if_silent(&self, least: Duration) {
        if self.silence.lasts() >= least {
            self.end.cancel();
        }
    }

    /// Ends the connection.
    pub(super) fn end(&self) {
        self.end.cancel();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_cancelled()
    }
}

/// The current frame's payload, as buffers want to read it.
struct Payload<'a, R> {
    frames: &'a mut FrameReader<R>,
}

impl<R: AsyncBufRead + Unpin> AsyncRead for Payload<'_, R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = {
            // Nothing is lost when this future is dropped before it is ready.
            let read = pin!(self.frames.read_some(into.initialize_unfilled()));
            match ready!(read.poll(context)) {
                Ok(count) => count,
                Err(FrameError::Lost(error)) => return Poll::Ready(Err(error)),
                Err(error) => return Poll::Ready(Err(io::Error::other(error))),
            }
        };
        into.advance(count);
        Poll::Ready(Ok(()))
    }
}

/// Takes frames until the connection ends.
async fn read<R: AsyncBufRead + Unpin>(
    channels: &Channels,
    mut frames: FrameReader<R>,
    mut budget: MessageBudget,
) -> Result<Infallible, Fault> {
    while let Some(header) = frames.next().await? {
        match header.kind {
            TO_REQUESTER => {
                let payload = frames.payload(MAX_PEER_MESSAGE).await?;
                let message = minicbor::decode(&payload).map_err(|_| "sent a message that makes no sense")?;
                budget.charge(price::of_answer(&message, payload.len())).await?;
                if !channels.take(message)? {
                    budget.charge(price::NOTHING_NEW).await?;
                }
            }
            DATA => {
                let mut head = [0; DataHead::BYTES];
                if frames.remaining() < head.len() {
                    return Err("sent a block without a head".into());
                }
                frames.read_into(&mut head).await?;
                let head = DataHead::from_bytes(&head);
                let length =
                    u32::try_from(frames.remaining()).map_err(|_| "sent a block that is too long")?;
                if length < price::SMALL_BLOCK {
                    budget.charge(1).await?;
                }
                let buffer = match channels.part(head, length)? {
                    Some(buffer) => Some(receive(&mut frames, buffer).await?),
                    None => {
                        frames.skip().await?;
                        None
                    }
                };
                channels.part_came(head, length, buffer);
            }
            _ => return Err("sent a frame that no server sends".into()),
        }
    }
    Err(Fault::Gone("it closed the connection".into()))
}

/// Writes messages until the connection ends, several with one flush.
async fn write<W: AsyncWrite + Unpin>(
    mut messages: mpsc::Receiver<ToServer>,
    mut frames: FrameWriter<W>,
) -> Result<Infallible, Fault> {
    while let Some(message) = messages.recv().await {
        let payload = minicbor::to_vec(&message).expect("a vector takes every write");
        frames.control(TO_SERVER, &payload).await?;
        if messages.is_empty() {
            frames.flush().await?;
        }
    }
    Err(Fault::Gone("closed here".into()))
}

/// Reads a block into the buffer that waits for it. A buffer that takes no more costs that request, not the connection:
/// the rest of the block is skipped.
async fn receive<R: AsyncBufRead + Unpin>(
    frames: &mut FrameReader<R>,
    mut buffer: PieceBuf,
) -> Result<Result<PieceBuf, SourceError>, FrameError> {
    while frames.remaining() > 0 {
        let rest = frames.remaining();
        match buffer.read_from(&mut Payload { frames }, rest).await {
            Ok(_) => {}
            Err(ReadError::Buffer(error)) => {
                frames.skip().await?;
                return Ok(Err(error.into()));
            }
            Err(ReadError::Io(error)) => return Err(error.into()),
        }
    }
    Ok(Ok(buffer))
}
