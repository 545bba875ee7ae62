//! Sends what a requester gets: answers at once, pieces block by block as they come from the disk. Pieces are read off
//! the reactor, some hundred kilobytes ahead of what is being written, so that disk and network work side by side.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shoal_common::PieceIndex;
use shoal_common::limits::{BLOCK, MAX_PEER_DATA};
use shoal_common::peer_wire::{DATA, DataHead, Refused, TO_REQUESTER, ToRequester};
use shoal_net::Place;
use shoal_net::bulk::frame::{FrameError, FrameWriter};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::table::Table;
use crate::price;
use crate::served::{ReadFailure, Source};
use crate::uploads::{Out, Uploads};
use shoal_policy::ChannelId;

/// A requester that takes no byte for so long is gone, or means harm.
const STALLED: Duration = Duration::from_secs(15);
/// Bytes read from the disk at once: whole small pieces, and what fits the processor's cache.
const BATCH: u32 = 512 * 1024;
/// Batches read ahead.
const BATCHES: usize = 2;
/// A block that went out within this time is followed by a larger one: what a frame costs matters on fast links only.
const QUICK: Duration = Duration::from_millis(2);
/// Under a rate limit blocks are what passes in this part of a second, so that bytes come evenly.
const BLOCKS_PER_SECOND: u64 = 10;
/// The smallest block that a rate limit leads to.
const MIN_BLOCK: u64 = 1024;
/// When a piece that is not here after all may be asked for again, in milliseconds.
const NOT_HERE_MS: u32 = 1_000;
/// Piece numbers in one message: five bytes each at most, so that it is far below [`shoal_common::limits::MAX_PEER_MESSAGE`].
const MAX_PIECES: usize = 4_096;

/// Why writing ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the requester takes nothing")]
    Stalled,
    #[error("closed here")]
    Closed,
}

/// A piece that is to be sent.
#[derive(Debug)]
struct Job {
    number: u64,
    channel: ChannelId,
    wire: u32,
    piece: PieceIndex,
    source: Arc<Source>,
    length: u32,
    /// Bytes that are read or being read.
    read: u32,
    /// Bytes that are written.
    written: u32,
}

/// A part of a piece within a batch.
#[derive(Debug)]
struct Part {
    job: u64,
    piece: PieceIndex,
    source: Arc<Source>,
    offset: u32,
    length: u32,
}

/// Parts that are read together, and how far that succeeded.
#[derive(Debug)]
struct Batch {
    parts: Vec<Part>,
    bytes: Vec<u8>,
    failure: Option<(usize, ReadFailure)>,
}

impl Batch {
    /// Reads all parts, up to one that fails. Blocking.
    fn read(mut self) -> Self {
        let mut rest = &mut self.bytes[..];
        for (index, part) in self.parts.iter().enumerate() {
            let (into, behind) = rest.split_at_mut(part.length as usize);
            if let Err(failure) = part.source.read(part.piece, part.offset, into) {
                self.failure = Some((index, failure));
                break;
            }
            rest = behind;
        }
        self
    }
}

/// See the module.
pub(super) struct Writer<W> {
    frames: FrameWriter<W>,
    table: Arc<Table>,
    uploads: Uploads,
    place: Arc<Place>,
    jobs: VecDeque<Job>,
    numbers: u64,
    batches: VecDeque<JoinHandle<Batch>>,
    /// Buffers that were used before.
    spare: Vec<Vec<u8>>,
    block: u32,
    /// Whether something written waits to be flushed.
    dirty: bool,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(super) fn new(
        frames: FrameWriter<W>,
        table: Arc<Table>,
        uploads: Uploads,
        place: Arc<Place>,
    ) -> Self {
        Self {
            frames,
            table,
            uploads,
            place,
            jobs: VecDeque::new(),
            numbers: 0,
            batches: VecDeque::new(),
            spare: Vec::new(),
            block: BLOCK,
            dirty: false,
        }
    }

    /// Writes until the connection ends.
    pub(super) async fn run(&mut self, mut outbox: mpsc::Receiver<Out>) -> Ended {
        loop {
            if let Err(ended) = self.step(&mut outbox).await {
                return ended;
            }
        }
    }

    async fn step(&mut self, outbox: &mut mpsc::Receiver<Out>) -> Result<(), Ended> {
        self.read_ahead();
        let ready = self.batches.front().is_some_and(JoinHandle::is_finished) || !outbox.is_empty();
        if self.dirty && !ready {
            self.dirty = false;
            within(self.frames.flush()).await?;
        }
        let expiry = self.table.next_expiry();
        tokio::select! {
            biased;
            out = outbox.recv() => self.handle(out.ok_or(Ended::Closed)?).await,
            batch = front(&mut self.batches) => {
                self.batches.pop_front();
                match batch {
                    Some(batch) => self.write(batch, outbox).await,
                    None => Err(Ended::Closed),
                }
            }
            () = sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => {
                for id in self.table.expired(Instant::now()) {
                    self.uploads.close(id, Some(Refused::Expired));
                }
                Ok(())
            }
        }
    }

    async fn handle(&mut self, out: Out) -> Result<(), Ended> {
        match out {
            Out::Serve { channel, wire, piece, source } => {
                let length = source.layout().length(piece);
                self.jobs.push_back(Job {
                    number: self.numbers,
                    channel,
                    wire,
                    piece,
                    source,
                    length,
                    read: 0,
                    written: 0,
                });
                self.numbers += 1;
                Ok(())
            }
            Out::Say(message) => self.say(&message).await,
            Out::Stop { wire, piece } => {
                let Some(at) = self.jobs.iter().position(|job| job.wire == wire && job.piece == piece) else {
                    return Ok(());
                };
                self.abort(at, 0).await
            }
            Out::Haves { wire, waits } => {
                waits.store(false, Ordering::Release);
                let pieces = self
                    .table
                    .with(wire, |channel| channel.log.since(&mut channel.cursor))
                    .unwrap_or_default();
                for some in pieces.chunks(MAX_PIECES) {
                    let pieces = some.iter().map(|piece| piece.get()).collect();
                    self.say(&ToRequester::Have { channel: wire, pieces }).await?;
                }
                Ok(())
            }
            Out::Shut { channel, wire, reason } => {
                self.jobs.retain(|job| job.channel != channel);
                self.table.remove(wire, channel);
                match reason {
                    Some(refusal) => self.say(&refusal.on(wire)).await,
                    None => Ok(()),
                }
            }
        }
    }

    async fn say(&mut self, message: &ToRequester) -> Result<(), Ended> {
        if let ToRequester::NotNow { channel, piece, .. } | ToRequester::Busy { channel, piece, .. } =
            *message
        {
            let known = self.table.with(channel, |channel| Some((channel.id, channel.layout.piece(piece)?)));
            known.flatten().into_iter().for_each(|(id, piece)| self.table.end(id, piece));
        }
        let payload = minicbor::to_vec(message).expect("a vector takes every write");
        self.dirty = true;
        within(self.frames.control(TO_REQUESTER, &payload)).await
    }

    /// Gives a piece up, and says that it is not coming.
    async fn abort(&mut self, at: usize, after_ms: u32) -> Result<(), Ended> {
        let Some(job) = self.jobs.remove(at) else { return Ok(()) };
        self.uploads.aborted(job.channel, job.piece);
        self.say(&ToRequester::NotNow { channel: job.wire, piece: job.piece.get(), after_ms, instead: None })
            .await
    }

    /// Starts to read what is to be sent next.
    fn read_ahead(&mut self) {
        while self.batches.len() < BATCHES {
            let mut parts = Vec::new();
            let mut room = BATCH;
            for job in self.jobs.iter_mut().filter(|job| job.read < job.length) {
                let length = room.min(job.length - job.read);
                let (piece, source) = (job.piece, job.source.clone());
                parts.push(Part { job: job.number, piece, source, offset: job.read, length });
                job.read += length;
                room -= length;
                if room == 0 {
                    break;
                }
            }
            if parts.is_empty() {
                return;
            }
            let mut bytes = self.spare.pop().unwrap_or_default();
            bytes.resize((BATCH - room) as usize, 0);
            let batch = Batch { parts, bytes, failure: None };
            self.batches.push_back(tokio::task::spawn_blocking(move || batch.read()));
        }
    }

    async fn write(&mut self, batch: Batch, outbox: &mut mpsc::Receiver<Out>) -> Result<(), Ended> {
        let Batch { parts, bytes, failure } = batch;
        let mut sent = Vec::new();
        let mut rest = &bytes[..];
        for (index, part) in parts.iter().enumerate() {
            match &failure {
                Some((at, failure)) if *at == index => self.failed(part, failure).await?,
                // What stands behind the failed part was not read.
                Some((at, _)) if *at < index => self.read_again(part),
                _ => {
                    let (now, behind) = rest.split_at(part.length as usize);
                    rest = behind;
                    self.write_part(part, now, outbox, &mut sent).await?;
                }
            }
        }
        if !sent.is_empty() {
            self.uploads.sent(&sent);
        }
        if self.spare.len() < BATCHES {
            self.spare.push(bytes);
        }
        Ok(())
    }

    async fn write_part(
        &mut self,
        part: &Part,
        bytes: &[u8],
        outbox: &mut mpsc::Receiver<Out>,
        sent: &mut Vec<(ChannelId, PieceIndex)>,
    ) -> Result<(), Ended> {
        let mut done = 0;
        while done < part.length {
            // The piece may have been taken back meanwhile, or the file stopped.
            while let Ok(out) = outbox.try_recv() {
                self.handle(out).await?;
            }
            let Some(at) = self.jobs.iter().position(|job| job.number == part.job) else { return Ok(()) };
            let count = self.next_block().min(part.length - done);
            let job = &mut self.jobs[at];
            if job.written != part.offset + done {
                // Behind a part that has to be read again.
                return Ok(());
            }
            let head = DataHead { channel: job.wire, piece: job.piece.get(), offset: job.written };
            job.written += count;
            if job.written == job.length {
                self.table.end(job.channel, job.piece);
                self.table.earn(price::earned(job.length));
                sent.push((job.channel, job.piece));
                self.jobs.remove(at);
            }
            let block = &bytes[done as usize..(done + count) as usize];
            self.write_block(head, block).await?;
            done += count;
        }
        Ok(())
    }

    async fn write_block(&mut self, head: DataHead, block: &[u8]) -> Result<(), Ended> {
        let limited = self.uploads.limiter().rate().is_some();
        self.uploads.limiter().acquire(block.len() as u64).await;
        let start = Instant::now();
        within(self.frames.data(DATA, &head.to_bytes(), block)).await?;
        self.place.is_used();
        self.dirty = true;
        if limited {
            within(self.frames.flush()).await?;
        }
        self.block = if start.elapsed() < QUICK { MAX_BLOCK } else { BLOCK };
        Ok(())
    }

    fn next_block(&self) -> u32 {
        match self.uploads.limiter().rate() {
            None => self.block,
            Some(rate) => {
                let even = (rate / BLOCKS_PER_SECOND).clamp(MIN_BLOCK, u64::from(BLOCK));
                u32::try_from(even).unwrap_or(BLOCK)
            }
        }
    }

    async fn failed(&mut self, part: &Part, failure: &ReadFailure) -> Result<(), Ended> {
        let Some(at) = self.jobs.iter().position(|job| job.number == part.job) else { return Ok(()) };
        let channel = self.jobs[at].channel;
        self.abort(at, NOT_HERE_MS).await?;
        self.uploads.unreadable(channel, &part.source, failure);
        Ok(())
    }

    /// Lets a part be read once more.
    fn read_again(&mut self, part: &Part) {
        if let Some(job) = self.jobs.iter_mut().find(|job| job.number == part.job) {
            job.read = job.read.min(part.offset);
        }
    }
}

/// The largest block: data frames of [`MAX_PEER_DATA`], in whole blocks.
#[expect(clippy::cast_possible_truncation, reason = "64 KiB")]
const MAX_BLOCK: u32 = MAX_PEER_DATA as u32;

/// The batch that is to be written next; never while there is none. `None` if reading it was cut off. Cancel-safe.
async fn front(batches: &mut VecDeque<JoinHandle<Batch>>) -> Option<Batch> {
    match batches.front_mut() {
        Some(batch) => batch.await.ok(),
        None => std::future::pending().await,
    }
}

async fn within(write: impl Future<Output = Result<(), FrameError>>) -> Result<(), Ended> {
    match timeout(STALLED, write).await {
        Ok(written) => Ok(written?),
        Err(_) => Err(Ended::Stalled),
    }
}
