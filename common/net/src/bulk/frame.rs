//! Frames on a bulk connection: a `u32` payload length in little-endian, a kind byte, the payload.
//!
//! Both ends are built for frames of 16 KiB that follow one another without a pause: the writer gathers them
//! into one large write, the reader looks at a buffer and copies each payload once, to where its user wants
//! it. What a kind means is the users' business. Lengths come from strangers: nothing is reserved for
//! them before their bytes have come.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes before each payload.
pub const HEADER: usize = 5;
/// Four TLS records: headers and small frames are read from it.
const READ_BUFFER: usize = 64 * 1024;
/// Room made for a payload at once at most, whatever length was announced.
const MAX_RESERVE: usize = 64 * 1024;
/// Queued bytes at which the writer writes: eight TLS records for one system call. Of 32 to 256 KiB, 128
/// and 256 cost the least CPU (measured 2026-11-21 on two cores of an EPYC), and 128 is less memory.
const WRITE_BATCH: usize = 128 * 1024;
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
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes of the current payload that were not taken yet.
    left: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// `limit` is the longest payload that is taken at all, in bytes.
    #[must_use]
    pub fn new(stream: R, limit: u32) -> Self {
        let buffer = vec![0; READ_BUFFER].into_boxed_slice();
        Self { stream, limit, buffer, start: 0, end: 0, left: 0 }
    }

    /// Goes to the next frame, skipping what is left of the current one; `None` once the other side ended the
    /// connection between two frames. Safe to drop: nothing is lost.
    ///
    /// # Errors
    /// When the connection is lost or the payload is over the limit.
    pub async fn next(&mut self) -> Result<Option<Header>, FrameError> {
        self.skip().await?;
        loop {
            if let Some([a, b, c, d, kind]) = self.buffer[self.start..self.end].first_chunk::<HEADER>() {
                let header = Header { kind: *kind, length: u32::from_le_bytes([*a, *b, *c, *d]) };
                if header.length > self.limit {
                    let (length, limit) = (header.length as usize, self.limit as usize);
                    return Err(FrameError::TooLong { length, limit });
                }
                self.start += HEADER;
                self.left = header.length as usize;
                return Ok(Some(header));
            }
            if self.fill().await? == 0 {
                return match self.end - self.start {
                    0 => Ok(None),
                    _ => Err(cut()),
                };
            }
        }
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
        let into = &mut into[..wanted];
        let buffered = &self.buffer[self.start..self.end];
        let count = if buffered.is_empty() {
            match self.stream.read(into).await? {
                0 => return Err(cut()),
                count => count,
            }
        } else {
            let count = buffered.len().min(wanted);
            into[..count].copy_from_slice(&buffered[..count]);
            self.start += count;
            count
        };
        self.left -= count;
        Ok(count)
    }

    /// Passes over the rest of the current payload. Safe to drop.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn skip(&mut self) -> Result<(), FrameError> {
        while self.left > 0 {
            if self.start == self.end && self.fill().await? == 0 {
                return Err(cut());
            }
            let count = self.left.min(self.end - self.start);
            self.start += count;
            self.left -= count;
        }
        Ok(())
    }

    /// Reads once behind what is buffered.
    async fn fill(&mut self) -> io::Result<usize> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 {
            // Only a piece of a header is left whenever this happens: four bytes at most.
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let count = self.stream.read(&mut self.buffer[self.end..]).await?;
        self.end += count;
        Ok(count)
    }
}

fn cut() -> FrameError {
    FrameError::Lost(io::ErrorKind::UnexpectedEof.into())
}

/// Writes frames.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    queue: Vec<u8>,
    written: usize,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Nothing is written before a batch has come together, or [`flush`](Self::flush).
    #[must_use]
    pub fn new(stream: W) -> Self {
        Self { stream, queue: Vec::new(), written: 0 }
    }

    /// Queues a frame. Whoever drops the future may have queued it or not, but never a part of it.
    ///
    /// # Errors
    /// When the payload is over [`MAX_PAYLOAD`], or the connection is lost.
    pub async fn control(&mut self, kind: u8, payload: &[u8]) -> Result<(), FrameError> {
        self.data(kind, payload, &[]).await
    }

    /// Queues a frame whose payload is `head`, then `body`. As safe to drop as
    /// [`control`](Self::control).
    ///
    /// # Errors
    /// As there.
    pub async fn data(&mut self, kind: u8, head: &[u8], body: &[u8]) -> Result<(), FrameError> {
        let length = head.len() + body.len();
        let announced = u32::try_from(length).ok().filter(|_| length <= MAX_PAYLOAD);
        let Some(announced) = announced else {
            return Err(FrameError::TooLong { length, limit: MAX_PAYLOAD });
        };
        if self.queued() > 0 && self.queued() + HEADER + length > WRITE_BATCH {
            self.write_out().await?;
        }
        self.queue.extend_from_slice(&announced.to_le_bytes());
        self.queue.push(kind);
        self.queue.extend_from_slice(head);
        self.queue.extend_from_slice(body);
        Ok(())
    }

    /// Bytes that wait for the next [`flush`](Self::flush).
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len() - self.written
    }

    /// Sends everything queued. Dropped and called again, it goes on where it was.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        self.write_out().await?;
        Ok(self.stream.flush().await?)
    }

    /// Flushes, and tells the other side that nothing more comes.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn close(&mut self) -> Result<(), FrameError> {
        self.flush().await?;
        Ok(self.stream.shutdown().await?)
    }

    async fn write_out(&mut self) -> Result<(), FrameError> {
        while self.written < self.queue.len() {
            let count = self.stream.write(&self.queue[self.written..]).await?;
            if count == 0 {
                return Err(FrameError::Lost(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.written = 0;
        self.queue.clear();
        self.queue.shrink_to(WRITE_BATCH);
        Ok(())
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
