//! Frames on a bulk connection: a `u32` payload length in little-endian, a kind byte, the payload.
//!
//! Neither end buffers: the stream below does, and each payload is copied once, from or to where its user has it. What a
//! kind means is the users' business. Lengths come from strangers: nothing is reserved for them before their bytes have
//! come.

use std::io::{self, IoSlice};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes before each payload.
pub const HEADER: usize = 5;
/// Room made for a payload at once at most, whatever length was announced.
const MAX_RESERVE: usize = 64 * 1024;
/// Longest payload of any frame.
pub const MAX_PAYLOAD: usize = 16 * 1024 * 1024;

/// Why a frame could not be read or written. After any of these a reader is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection broke, or ended within a frame.
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    /// A payload is longer than allowed here.
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    TooLong {
        /// Length of the payload in bytes.
        length: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// A payload is shorter than what its kind must hold.
    #[error("a frame ends {missing} bytes early")]
    TooShort {
        /// Bytes that were asked for beyond its end.
        missing: usize,
    },
}

/// What stands before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the payload is.
    pub kind: u8,
    /// Length of the payload in bytes.
    pub length: u32,
}

/// Reads frames.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    limit: u32,
    /// The next frame's header, as far as it has come.
    header: [u8; HEADER],
    header_bytes: usize,
    /// Bytes of the current payload that were not taken yet.
    left: usize,
}

impl<R: AsyncBufRead + Unpin> FrameReader<R> {
    /// `limit` is the longest payload that is taken at all, in bytes.
    #[must_use]
    pub fn new(stream: R, limit: u32) -> Self {
        Self { stream, limit, header: [0; HEADER], header_bytes: 0, left: 0 }
    }

    /// Goes to the next frame, skipping what is left of the current one; `None` once the other side ended the
    /// connection between two frames. Safe to drop: nothing is lost.
    ///
    /// # Errors
    /// When the connection is lost or the payload is over the limit.
    pub async fn next(&mut self) -> Result<Option<Header>, FrameError> {
        self.skip().await?;
        while self.header_bytes < HEADER {
            let buffered = self.stream.fill_buf().await?;
            let count = buffered.len().min(HEADER - self.header_bytes);
            if count == 0 {
                return if self.header_bytes == 0 { Ok(None) } else { Err(cut()) };
            }
            self.header[self.header_bytes..self.header_bytes + count].copy_from_slice(&buffered[..count]);
            self.stream.consume(count);
            self.header_bytes += count;
        }
        let [a, b, c, d, kind] = self.header;
        let header = Header { kind, length: u32::from_le_bytes([a, b, c, d]) };
        if header.length > self.limit {
            return Err(FrameError::TooLong { length: header.length as usize, limit: self.limit as usize });
        }
        self.header_bytes = 0;
        self.left = header.length as usize;
        Ok(Some(header))
    }

    /// Bytes of the current payload that were not taken yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.left
    }

    /// The rest of the current payload, of at most `max` bytes. For small frames: it is copied into a
    /// new vector. Not safe to drop midway: what it had taken is lost, though the next frame is not.
    ///
    /// # Errors
    /// When it is longer than `max`, or the connection is lost.
    pub async fn payload(&mut self, max: usize) -> Result<Vec<u8>, FrameError> {
        if self.left > max {
            return Err(FrameError::TooLong { length: self.left, limit: max });
        }
        let mut payload = Vec::new();
        while self.left > 0 {
            let taken = payload.len();
            payload.resize(taken + self.left.min(MAX_RESERVE), 0);
            self.read_into(&mut payload[taken..]).await?;
        }
        Ok(payload)
    }

    /// Fills `into` with the next bytes of the current payload. Not safe to drop midway, as
    /// [`payload`](Self::payload).
    ///
    /// # Errors
    /// When the payload has fewer bytes left, or the connection is lost.
    pub async fn read_into(&mut self, mut into: &mut [u8]) -> Result<(), FrameError> {
        if into.len() > self.left {
            return Err(FrameError::TooShort { missing: into.len() - self.left });
        }
        while !into.is_empty() {
            let count = self.read_some(into).await?;
            into = &mut into[count..];
        }
        Ok(())
    }

    /// Takes some of the next bytes of the current payload: at least one, unless `into` is empty or
    /// nothing is left. Safe to drop.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn read_some(&mut self, into: &mut [u8]) -> Result<usize, FrameError> {
        let wanted = into.len().min(self.left);
        if wanted == 0 {
            return Ok(0);
        }
        let buffered = self.stream.fill_buf().await?;
        if buffered.is_empty() {
            return Err(cut());
        }
        let count = buffered.len().min(wanted);
        into[..count].copy_from_slice(&buffered[..count]);
        self.stream.consume(count);
        self.left -= count;
        Ok(count)
    }

    /// Passes over the rest of the current payload. Safe to drop.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn skip(&mut self) -> Result<(), FrameError> {
        while self.left > 0 {
            let count = self.stream.fill_buf().await?.len().min(self.left);
            if count == 0 {
                return Err(cut());
            }
            self.stream.consume(count);
            self.left -= count;
        }
        Ok(())
    }
}

fn cut() -> FrameError {
    FrameError::Lost(io::ErrorKind::UnexpectedEof.into())
}

/// Writes frames.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// When bytes go out is up to the stream, before [`flush`](Self::flush).
    #[must_use]
    pub fn new(stream: W) -> Self {
        Self { stream }
    }

    /// Writes a frame. A caller that drops the future before it is done must not write another one: a part of the frame may be
    /// under way.
    ///
    /// # Errors
    /// When the payload is over [`MAX_PAYLOAD`], or the connection is lost.
    pub async fn control(&mut self, kind: u8, payload: &[u8]) -> Result<(), FrameError> {
        self.data(kind, payload, &[]).await
    }

    /// Writes a frame whose payload is `head`, then `body`. As unsafe to drop as [`control`](Self::control).
    ///
    /// # Errors
    /// As there.
    pub async fn data(&mut self, kind: u8, head: &[u8], body: &[u8]) -> Result<(), FrameError> {
        let length = head.len() + body.len();
        let announced = u32::try_from(length).ok().filter(|_| length <= MAX_PAYLOAD);
        let Some(announced) = announced else {
            return Err(FrameError::TooLong { length, limit: MAX_PAYLOAD });
        };
        let [a, b, c, d] = announced.to_le_bytes();
        let header = [a, b, c, d, kind];
        let mut slices = [IoSlice::new(&header), IoSlice::new(head), IoSlice::new(body)];
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match self.stream.write_vectored(rest).await? {
                0 => return Err(FrameError::Lost(io::ErrorKind::WriteZero.into())),
                count => IoSlice::advance_slices(&mut rest, count),
            }
        }
        Ok(())
    }

    /// Sends everything written. Dropped and called again, it goes on where it was.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        Ok(self.stream.flush().await?)
    }

    /// Flushes, and tells the other side that nothing more comes.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn close(&mut self) -> Result<(), FrameError> {
        Ok(self.stream.shutdown().await?)
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
