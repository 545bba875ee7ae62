//! One bulk connection: a byte stream to a proven peer, encrypted both ways. Each half has its own keys and buffer, so two
//! tasks use them without a lock; what is written is copied once, into the record that goes to the socket, and what is
//! read once, out of the record that came from it.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use rustls::ConnectionTrafficSecrets;
use shoal_common::PeerId;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::handshake::{Established, KeySource};
use super::record::{
    Content, HEADER, MAX_PLAIN, MAX_RECORD, Opened, Opener, RecordError, Sealer, record_length,
};
use super::record_budget::RecordBudget;
use crate::admission::Place;

/// Room for records from the socket: as many as a system call brings. It begins with one record and grows to sixteen
/// while the socket fills it, so that the many connections over which little comes cost little.
const READ_BUFFER: usize = 32 * 1024;
const MAX_READ_BUFFER: usize = 256 * 1024;
/// Sealed bytes at which the writer goes to the socket: eight records for one system call. Of 32 to 256 KiB, 128
/// and 256 cost the least CPU (measured 2026-11-21 on two cores of an EPYC), and 128 is less memory.
const WRITE_BATCH: usize = 128 * 1024;
/// Bytes that one call of `poll_write` takes at most; with [`WRITE_BATCH`] this bounds the writer's memory.
const WRITE_AT_ONCE: usize = 128 * 1024;
/// Records under one key. AES-GCM keeps its margin up to 2^24.5 full records (RFC 8446, section 5.5).
const REKEY_AFTER: u64 = if cfg!(test) { 1 << 8 } else { 1 << 23 };
/// `close_notify` (RFC 8446, section 6.1).
const CLOSE_NOTIFY: u8 = 0;
/// `user_canceled`, which says nothing.
const USER_CANCELED: u8 = 90;
/// Handshake messages that may come after the handshake (section 4).
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// A byte stream to a proven peer over the halves of a socket, TCP's unless said otherwise. Shut it down before dropping it, else the other
/// side reads an `UnexpectedEof` and cannot tell the end from a cut.
#[derive(Debug)]
pub struct BulkStream<R = OwnedReadHalf, W = OwnedWriteHalf> {
    reader: BulkReader<R>,
    writer: BulkWriter<W>,
    peer: PeerId,
    reversed: bool,
}

/// What both halves of a connection hold on to.
#[derive(Default)]
struct Common {
    keys: Mutex<Option<KeySource>>,
    /// The other end wants us to take new keys too.
    update_wanted: AtomicBool,
    place: Mutex<Option<Place>>,
}

impl std::fmt::Debug for Common {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Common")
    }
}

impl Common {
    fn renew(
        &self,
        next: impl FnOnce(&mut KeySource) -> Result<(u64, ConnectionTrafficSecrets), rustls::Error>,
    ) -> io::Result<(u64, ConnectionTrafficSecrets)> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = keys.as_mut().ok_or_else(|| broken(RecordError::Exhausted))?;
        next(keys).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl<R, W> BulkStream<R, W> {
    /// A connection whose handshake is done.
    pub(super) fn new(input: R, output: W, established: Established) -> io::Result<Self> {
        let Established { peer, reversed, secrets, keys, plain, incoming } = established;
        let shared = Arc::new(Common { keys: Mutex::new(Some(keys)), ..Common::default() });
        let reader =
            BulkReader::new(input, Opener::new(secrets.rx).map_err(broken)?, &plain, &incoming, &shared);
        let writer = BulkWriter {
            socket: output,
            sealer: Sealer::new(secrets.tx).map_err(broken)?,
            buffer: Vec::new(),
            sent: 0,
            open: None,
            closed: false,
            shared,
        };
        Ok(Self { reader, writer, peer, reversed })
    }

    /// Keeps the place for as long as the connection lives.
    pub(super) fn admitted(self, place: Place) -> Self {
        *self.writer.shared.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        self
    }

    /// The proven id of the other end.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Whether the end that dialled serves, and the end that accepted asks.
    #[must_use]
    pub fn is_reversed(&self) -> bool {
        self.reversed
    }

    /// Two halves for two tasks; the connection closes when both are gone.
    #[must_use]
    pub fn into_split(self) -> (BulkReader<R>, BulkWriter<W>) {
        (self.reader, self.writer)
    }
}

/// The reading half, for a task of its own.
#[derive(Debug)]
pub struct BulkReader<R = OwnedReadHalf> {
    socket: R,
    opener: Opener,
    buffer: Box<[u8]>,
    /// Opened bytes that were not taken yet; what is sealed begins behind them.
    plain: Range<usize>,
    /// Bytes from the socket that are still sealed.
    sealed: Range<usize>,
    ended: bool,
    budget: RecordBudget,
    shared: Arc<Common>,
}

impl<R> BulkReader<R> {
    fn new(socket: R, opener: Opener, plain: &[u8], sealed: &[u8], shared: &Arc<Common>) -> Self {
        let (start, end) = (plain.len(), plain.len() + sealed.len());
        let mut buffer = vec![0; READ_BUFFER.max(end)].into_boxed_slice();
        buffer[..start].copy_from_slice(plain);
        buffer[start..end].copy_from_slice(sealed);
        Self {
            socket,
            opener,
            buffer,
            plain: 0..start,
            sealed: start..end,
            ended: false,
            budget: RecordBudget::new(),
            shared: shared.clone(),
        }
    }

    /// Opens the record of `length` bytes that is next.
    fn open(&mut self, length: usize) -> io::Result<()> {
        let start = self.sealed.start;
        let Opened { content, length: plain } =
            self.opener.open(&mut self.buffer[start..start + length]).map_err(broken)?;
        self.sealed.start += length;
        self.budget.count(if content == Content::Data { plain } else { 0 })?;
        let plain = start + HEADER..start + HEADER + plain;
        match content {
            Content::Data => self.plain = plain,
            Content::Alert => match &self.buffer[plain] {
                [_, CLOSE_NOTIFY] => self.ended = true,
                [_, USER_CANCELED] => {}
                _ => return Err(unexpected("the peer ended the connection with an alert")),
            },
            Content::Handshake => self.after_handshake(plain)?,
        }
        Ok(())
    }

    /// Handles what comes after a handshake: tickets, of which we make no use, and new keys.
    fn after_handshake(&mut self, messages: Range<usize>) -> io::Result<()> {
        let mut rest = &self.buffer[messages];
        let mut update = None;
        while let Some((&[kind, a, b, c], behind)) = rest.split_first_chunk::<4>() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let Some((message, behind)) = behind.split_at_checked(length) else { break };
            match (kind, message) {
                (NEW_SESSION_TICKET, _) => {}
                // Nothing may follow it under the old keys.
                (KEY_UPDATE, &[wanted @ (0 | 1)]) if behind.is_empty() => update = Some(wanted == 1),
                _ => return Err(unexpected("a message that has no place after the handshake")),
            }
            rest = behind;
        }
        if !rest.is_empty() {
            return Err(unexpected("a handshake message in parts"));
        }
        if let Some(wanted) = update {
            let secrets = self.shared.renew(KeySource::next_receiving)?;
            self.opener = Opener::new(secrets).map_err(broken)?;
            self.shared.update_wanted.fetch_or(wanted, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl<R: AsyncRead + Unpin> BulkReader<R> {
    /// Makes opened bytes available, unless the other side ended the connection.
    fn poll_plain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.plain.is_empty() && !self.ended {
            ready!(self.budget.poll_paid(cx));
            match record_length(&self.buffer[self.sealed.clone()]).map_err(broken)? {
                Some(length) if length <= self.sealed.len() => self.open(length)?,
                _ => ready!(self.poll_more(cx))?,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once from the socket.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.sealed.is_empty() {
            self.sealed = 0..0;
        } else if self.buffer.len() - self.sealed.start < MAX_RECORD {
            // Less than a record.
            self.buffer.copy_within(self.sealed.clone(), 0);
            self.sealed = 0..self.sealed.len();
        }
        self.plain = 0..0;
        let mut into = ReadBuf::new(&mut self.buffer[self.sealed.end..]);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut into))?;
        let count = into.filled().len();
        if count == 0 {
            // An end without close_notify is a cut.
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.sealed.end += count;
        if self.sealed.end == self.buffer.len() && self.buffer.len() < MAX_READ_BUFFER {
            let mut larger = vec![0; MAX_READ_BUFFER.min(2 * self.buffer.len())].into_boxed_slice();
            larger[self.sealed.clone()].copy_from_slice(&self.buffer[self.sealed.clone()]);
            self.buffer = larger;
        }
        Poll::Ready(Ok(()))
    }
}

impl<R: AsyncRead + Unpin> AsyncBufRead for BulkReader<R> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let reader = self.get_mut();
        ready!(reader.poll_plain(cx))?;
        Poll::Ready(Ok(&reader.buffer[reader.plain.clone()]))
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        self.plain.start = self.plain.end.min(self.plain.start + count);
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for BulkReader<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let plain = ready!(self.as_mut().poll_fill_buf(cx))?;
        let count = plain.len().min(into.remaining());
        into.put_slice(&plain[..count]);
        self.consume(count);
        Poll::Ready(Ok(()))
    }
}

/// The writing half, for a task of its own. Nothing goes to the socket before a batch has come together, or a flush.
#[derive(Debug)]
pub struct BulkWriter<W = OwnedWriteHalf> {
    socket: W,
    sealer: Sealer,
    /// Sealed records, and behind them the one that is being filled.
    buffer: Vec<u8>,
    /// Bytes at its start that the socket has taken.
    sent: usize,
    /// Where the record that is being filled begins.
    open: Option<usize>,
    /// Whether we have said that nothing more comes.
    closed: bool,
    shared: Arc<Common>,
}

impl<W> BulkWriter<W> {
    /// Copies bytes into records, sealing those that get full.
    fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let start = *self.open.get_or_insert_with(|| {
                let start = self.buffer.len();
                self.buffer.extend_from_slice(&[0; HEADER]);
                start
            });
            let room = start + HEADER + MAX_PLAIN - self.buffer.len();
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            self.buffer.extend_from_slice(now);
            if now.len() == room {
                self.seal()?;
            }
            bytes = rest;
        }
        Ok(())
    }

    /// Seals the record that is being filled.
    fn seal(&mut self) -> io::Result<()> {
        let Some(start) = self.open.take() else { return Ok(()) };
        self.sealer.seal(&mut self.buffer, start, Content::Data).map_err(broken)?;
        if self.sealer.sealed() >= REKEY_AFTER || self.shared.update_wanted.load(Ordering::Relaxed) {
            self.shared.update_wanted.store(false, Ordering::Relaxed);
            self.update_keys()?;
        }
        Ok(())
    }

    /// Tells the other side that what follows is under new keys, and takes them.
    fn update_keys(&mut self) -> io::Result<()> {
        self.say(Content::Handshake, &[KEY_UPDATE, 0, 0, 1, 0])?;
        let secrets = self.shared.renew(KeySource::next_sending)?;
        self.sealer = Sealer::new(secrets).map_err(broken)?;
        Ok(())
    }

    /// A record of its own.
    fn say(&mut self, content: Content, bytes: &[u8]) -> io::Result<()> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; HEADER]);
        self.buffer.extend_from_slice(bytes);
        self.sealer.seal(&mut self.buffer, start, content).map_err(broken)
    }
}

impl<W: AsyncWrite + Unpin> BulkWriter<W> {
    /// Gives everything to the socket.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.seal()?;
        while self.sent < self.buffer.len() {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, &self.buffer[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        self.buffer.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for BulkWriter<W> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    /// Takes all slices at once while they are no more than [`WRITE_AT_ONCE`].
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let writer = self.get_mut();
        if writer.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if writer.buffer.len() >= WRITE_BATCH {
            ready!(writer.poll_drain(cx))?;
        }
        let mut room = WRITE_AT_ONCE;
        for slice in slices {
            let now = slice.len().min(room);
            writer.put(&slice[..now])?;
            room -= now;
        }
        Poll::Ready(Ok(WRITE_AT_ONCE - room))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let writer = self.get_mut();
        if !writer.closed {
            writer.seal()?;
            writer.say(Content::Alert, &[1, CLOSE_NOTIFY])?;
            writer.closed = true;
        }
        ready!(writer.poll_drain(cx))?;
        Pin::new(&mut writer.socket).poll_shutdown(cx)
    }
}

impl<R: AsyncRead + Unpin, W: Unpin> AsyncRead for BulkStream<R, W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buffer)
    }
}

impl<R: AsyncRead + Unpin, W: Unpin> AsyncBufRead for BulkStream<R, W> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Pin::new(&mut self.get_mut().reader).poll_fill_buf(cx)
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        Pin::new(&mut self.reader).consume(count);
    }
}

impl<R: Unpin, W: AsyncWrite + Unpin> AsyncWrite for BulkStream<R, W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}

fn broken(error: RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn unexpected(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
