//! Messages on a byte stream: a `u32` length in little-endian, then that many bytes.
//!
//! Used by `channel`, which owns the stream. The reader never reserves what a length merely
//! promises: memory follows the bytes that really came, up to the limit of the moment.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of the length in front of every message.
const HEADER: usize = 4;
/// Read at once at least; most messages are smaller.
const MIN_READ: usize = 4 * 1024;
/// Room made at once at most, whatever length was announced.
const MAX_RESERVE: usize = 64 * 1024;
/// A larger buffer is given back when it is empty.
const KEPT_BUFFER: usize = 64 * 1024;
/// Queued bytes beyond which `feed` writes before it takes more.
const WRITE_BATCH: usize = 64 * 1024;
/// Longest message that is ever sent or accepted, whatever limit is asked for.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// Why a channel cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The connection broke, or the other side left in the middle of a message.
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    /// A message is longer than its reader or [`MAX_MESSAGE`] allows. A channel that received one is
    /// of no further use.
    #[error("a message of {length} bytes is over the limit of {limit}")]
    TooLarge {
        /// Announced length in bytes.
        length: usize,
        /// Limit in bytes at that moment.
        limit: usize,
    },
}

/// Takes messages off a stream.
#[derive(Debug)]
pub(crate) struct MessageReader<R> {
    stream: R,
    buffer: Vec<u8>,
    start: usize,
    limit: usize,
}

impl<R: AsyncRead + Unpin> MessageReader<R> {
    pub(crate) fn new(stream: R, limit: usize) -> Self {
        Self { stream, buffer: Vec::new(), start: 0, limit: limit.min(MAX_MESSAGE) }
    }

    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(MAX_MESSAGE);
    }

    /// Dropping the future loses nothing: what was read stays in the buffer.
    pub(crate) async fn recv(&mut self) -> Result<Option<Vec<u8>>, ChannelError> {
        loop {
            let missing = match self.take()? {
                Taken::Message(message) => return Ok(Some(message)),
                Taken::Missing(bytes) => bytes,
            };
            self.buffer.drain(..self.start);
            self.start = 0;
            self.buffer.reserve(missing.clamp(MIN_READ, MAX_RESERVE));
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                };
            }
        }
    }

    fn take(&mut self) -> Result<Taken, ChannelError> {
        let unread = &self.buffer[self.start..];
        let Some((header, body)) = unread.split_first_chunk::<HEADER>() else {
            return Ok(Taken::Missing(HEADER - unread.len()));
        };
        let length = u32::from_le_bytes(*header) as usize;
        if length > self.limit {
            return Err(ChannelError::TooLarge { length, limit: self.limit });
        }
        let Some(message) = body.get(..length) else {
            return Ok(Taken::Missing(length - body.len()));
        };
        let message = message.to_vec();
        self.start += HEADER + length;
        if self.start == self.buffer.len() {
            self.start = 0;
            self.buffer.clear();
            self.buffer.shrink_to(KEPT_BUFFER);
        }
        Ok(Taken::Message(message))
    }
}

enum Taken {
    Message(Vec<u8>),
    /// Bytes that the message, or its length, still lacks.
    Missing(usize),
}

/// Puts messages onto a stream.
#[derive(Debug)]
pub(crate) struct MessageWriter<W> {
    stream: W,
    queue: Vec<u8>,
    written: usize,
}

impl<W: AsyncWrite + Unpin> MessageWriter<W> {
    pub(crate) fn new(stream: W) -> Self {
        Self { stream, queue: Vec::new(), written: 0 }
    }

    /// Queues a message; writes only once a batch has come together. A caller that drops the future may
    /// have queued the message or not, but never a part of it.
    pub(crate) async fn feed(&mut self, message: &[u8]) -> Result<(), ChannelError> {
        let too_large = ChannelError::TooLarge { length: message.len(), limit: MAX_MESSAGE };
        let length = u32::try_from(message.len()).ok().filter(|_| message.len() <= MAX_MESSAGE);
        let Some(length) = length else { return Err(too_large) };
        if self.queue.len() - self.written >= WRITE_BATCH {
            self.write_out().await?;
        }
        self.queue.extend_from_slice(&length.to_le_bytes());
        self.queue.extend_from_slice(message);
        if self.queue.len() - self.written >= WRITE_BATCH {
            self.write_out().await?;
        }
        Ok(())
    }

    /// Hands everything queued to the stream. Dropped and called again, it goes on where it was.
    pub(crate) async fn flush(&mut self) -> Result<(), ChannelError> {
        self.write_out().await?;
        Ok(self.stream.flush().await?)
    }

    /// Flushes and tells the other side that nothing more comes.
    pub(crate) async fn close(&mut self) -> Result<(), ChannelError> {
        self.flush().await?;
        Ok(self.stream.shutdown().await?)
    }

    async fn write_out(&mut self) -> Result<(), ChannelError> {
        while self.written < self.queue.len() {
            let count = self.stream.write(&self.queue[self.written..]).await?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            self.written += count;
        }
        self.written = 0;
        self.queue.clear();
        self.queue.shrink_to(KEPT_BUFFER);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 1_000;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    async fn read_all<R: AsyncRead + Unpin>(reader: &mut MessageReader<R>) -> (Vec<Vec<u8>>, bool) {
        let mut messages = Vec::new();
        loop {
            match reader.recv().await {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return (messages, true),
                Err(_) => return (messages, false),
            }
        }
    }

    #[test]
    fn golden_bytes() {
        let mut bytes = Vec::new();
        let mut writer = MessageWriter::new(&mut bytes);
        run(async {
            writer.feed(b"ab").await.unwrap();
            writer.feed(b"").await.unwrap();
            writer.flush().await.unwrap();
        });
        assert_eq!(bytes, b"\x02\0\0\0ab\0\0\0\0");
    }

    #[test]
    fn a_length_over_the_limit_is_an_error_before_its_bytes_come() {
        let bytes = 1_001_u32.to_le_bytes();
        let mut reader = MessageReader::new(&bytes[..], LIMIT);
        let error = run(reader.recv()).unwrap_err();
        assert!(matches!(error, ChannelError::TooLarge { length: 1_001, limit: 1_000 }), "{error}");
    }

    #[test]
    fn the_limit_can_be_raised_after_the_stranger_proved_himself() {
        let mut bytes = 5_u32.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"login");
        bytes.extend_from_slice(&2_000_u32.to_le_bytes());
        bytes.extend_from_slice(&[7; 2_000]);
        let mut reader = MessageReader::new(&bytes[..], LIMIT);
        assert_eq!(run(reader.recv()).unwrap().unwrap(), b"login");
        reader.set_limit(2_000);
        assert_eq!(run(reader.recv()).unwrap().unwrap(), [7; 2_000]);
        assert!(run(reader.recv()).unwrap().is_none());
    }

    #[test]
    fn no_limit_goes_over_the_maximum() {
        let bytes = u32::MAX.to_le_bytes();
        let mut reader = MessageReader::new(&bytes[..], usize::MAX);
        assert!(matches!(run(reader.recv()), Err(ChannelError::TooLarge { limit: MAX_MESSAGE, .. })));
    }

    #[test]
    fn an_announced_length_reserves_no_memory() {
        let announced = u32::try_from(MAX_MESSAGE).unwrap().to_le_bytes();
        let mut reader = MessageReader::new(&announced[..], MAX_MESSAGE);
        assert!(matches!(run(reader.recv()), Err(ChannelError::Lost(_))));
        assert!(reader.buffer.capacity() <= 2 * MAX_RESERVE, "{}", reader.buffer.capacity());
    }

    #[test]
    fn an_end_inside_a_message_is_a_loss() {
        for cut in 1..6 {
            let mut reader = MessageReader::new(&b"\x02\0\0\0ab"[..cut], LIMIT);
            assert!(matches!(run(reader.recv()), Err(ChannelError::Lost(_))), "cut at {cut}");
        }
    }

    #[test]
    fn a_message_too_long_to_send_leaves_the_stream_whole() {
        let mut bytes = Vec::new();
        let mut writer = MessageWriter::new(&mut bytes);
        let long = vec![0; MAX_MESSAGE + 1];
        assert!(matches!(run(writer.feed(&long)), Err(ChannelError::TooLarge { .. })));
        run(async {
            writer.feed(b"x").await.unwrap();
            writer.flush().await.unwrap();
        });
        assert_eq!(bytes, b"\x01\0\0\0x");
    }

    #[test]
    fn a_dropped_recv_and_a_dropped_send_tear_nothing() {
        run(async {
            let (near, far) = tokio::io::duplex(3);
            let (mut writer, mut reader) = (MessageWriter::new(near), MessageReader::new(far, LIMIT));
            writer.feed(&[1; 100]).await.unwrap();
            let mut received = None;
            // The pipe holds three bytes, so each of these futures stops midway and is dropped.
            while received.is_none() {
                tokio::select! {
                    biased;
                    sent = writer.flush() => sent.unwrap(),
                    () = std::future::ready(()) => {}
                }
                tokio::select! {
                    biased;
                    message = reader.recv() => received = message.unwrap(),
                    () = std::future::ready(()) => {}
                }
            }
            assert_eq!(received.unwrap(), [1; 100]);
        });
    }

    proptest! {
        #[test]
        fn messages_go_through_whatever_the_chunks(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..LIMIT), 0..20),
            pipe in 1_usize..3_000,
        ) {
            let received = run(async {
                let (near, far) = tokio::io::duplex(pipe);
                let (mut writer, mut reader) = (MessageWriter::new(near), MessageReader::new(far, LIMIT));
                let send = async {
                    for message in &messages {
                        writer.feed(message).await.unwrap();
                    }
                    writer.close().await.unwrap();
                };
                tokio::join!(send, read_all(&mut reader)).1
            });
            prop_assert_eq!(received, (messages, true));
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_never_pass_the_limit(
            bytes in prop::collection::vec(prop_oneof![3 => Just(0_u8), 1 => any::<u8>()], 0..5_000),
            limit in 0_usize..LIMIT,
        ) {
            let mut reader = MessageReader::new(&bytes[..], limit);
            let (messages, _) = run(read_all(&mut reader));
            prop_assert!(messages.iter().all(|message| message.len() <= limit));
            prop_assert!(messages.iter().map(|message| message.len() + HEADER).sum::<usize>() <= bytes.len());
        }
    }
}
