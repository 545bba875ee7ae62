//! The buffer of one request. The fetch owns a [`PieceBuf`]; the driver sees the same request through its [`Filling`], from
//! which it takes slow pieces' blocks when the pool is empty.

mod arrivals;

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use shoal_common::PieceIndex;
use shoal_engine_core::{PieceRun, RequestId, SourceError};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

pub use crate::buffer::arrivals::{Arrivals, Waiting};
use crate::pool::{BLOCK_BYTES, Block, Pool};
use crate::rate::Limiters;

/// All bytes of one piece, unverified: a prefix that was spilled to the partial file, and the rest in memory.
#[derive(Debug)]
pub(crate) struct PieceData {
    pub(crate) piece: PieceIndex,
    /// Bytes at the piece's start that are in the partial file and not here.
    pub(crate) spilled: u32,
    pub(crate) blocks: Vec<Block>,
}

/// A piece whose last byte came.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) request: RequestId,
    pub(crate) data: PieceData,
}

/// Blocks taken from an unfinished piece, on their way to the partial file.
#[derive(Debug)]
pub(crate) struct Spill {
    pub(crate) piece: PieceIndex,
    /// Where in the piece the first block begins.
    pub(crate) offset: u32,
    pub(crate) blocks: Vec<Block>,
}

/// What the driver reads from a running request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Bytes of the whole run that came.
    pub(crate) received: u64,
    /// When the first of them came.
    pub(crate) first_byte: Option<Instant>,
    /// Whether this side makes the source wait, for memory or by the rate limit.
    pub(crate) held_up: bool,
}

/// The state of one running request, shared by the fetch that fills it and the driver that watches it.
#[derive(Debug)]
pub(crate) struct Filling {
    run: PieceRun,
    held_up: AtomicBool,
    /// Wakes the waits of a request that is closed meanwhile.
    closed: Notify,
    state: Mutex<FillState>,
}

#[derive(Debug, Default)]
struct FillState {
    /// Which piece of the run is being filled, counted from 0.
    position: u32,
    /// Bytes of that piece that came, spilled ones included.
    filled: u32,
    spilled: u32,
    blocks: Vec<Block>,
    /// Bytes of the run that were put into blocks.
    taken: u64,
    /// Bytes of the run that came: those, or as many as were announced.
    received: u64,
    first_byte: Option<Instant>,
    closed: bool,
}

impl Filling {
    /// Ends the request: its memory is freed and nothing more is taken from the source.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.blocks.clear();
        drop(state);
        self.closed.notify_waiters();
    }

    pub(crate) fn sample(&self) -> Sample {
        let state = self.state();
        Sample {
            received: state.received,
            first_byte: state.first_byte,
            held_up: self.held_up.load(Ordering::Relaxed),
        }
    }

    /// Bytes of the pool that the request holds.
    pub(crate) fn held_bytes(&self) -> usize {
        self.state().blocks.len() * BLOCK_BYTES
    }

    /// The piece that is being filled; `None` once the run is whole.
    pub(crate) fn piece(&self) -> Option<PieceIndex> {
        let position = self.state().position;
        self.run.at(position)
    }

    /// Takes the unfinished piece's blocks. The caller must write them to the partial file before anything else of that
    /// piece, or close the request.
    pub(crate) fn spill(&self) -> Option<Spill> {
        let mut state = self.state();
        let piece = self.run.at(state.position)?;
        let blocks = std::mem::take(&mut state.blocks);
        let filled = state.filled;
        let offset = std::mem::replace(&mut state.spilled, filled);
        (filled > offset).then_some(Spill { piece, offset, blocks })
    }

    fn state(&self) -> MutexGuard<'_, FillState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Length of the piece at the state's position; 0 behind the run's end.
    fn piece_length(&self, state: &FillState) -> u32 {
        let piece = self.run.at(state.position);
        piece.map_or(0, |piece| self.run.layout().length(piece))
    }

    /// Whether bytes can be taken at once, need a block first, or must not come any more.
    fn room(&self) -> Result<bool, BufferError> {
        let state = self.state();
        if state.closed {
            return Err(BufferError::Closed);
        }
        if state.position >= self.run.count() {
            return Err(BufferError::TooLong);
        }
        Ok(state.blocks.last().is_some_and(Block::has_room))
    }

    fn add_block(&self, block: Block) {
        let mut state = self.state();
        if !state.closed {
            state.blocks.push(block);
        }
    }

    /// Lets `write` put bytes into the free part of the last block; `None` if there is no such block.
    fn put<T>(&self, write: impl FnOnce(&mut [u8]) -> (usize, T)) -> Option<(usize, T, Option<PieceData>)> {
        let mut state = self.state();
        let wanted = (self.piece_length(&state) - state.filled) as usize;
        let closed = state.closed;
        let block = state.blocks.last_mut().filter(|block| !closed && block.has_room())?;
        let (count, result) = block.put(wanted, write);
        Some((count, result, self.advance(&mut state, count)))
    }

    /// Accounts for `count` more bytes; gives the piece out if they were its last.
    fn advance(&self, state: &mut FillState, count: usize) -> Option<PieceData> {
        let piece = self.run.at(state.position)?;
        let count = u32::try_from(count).expect("a block is smaller than 4 GiB");
        if count > 0 {
            state.first_byte.get_or_insert_with(Instant::now);
        }
        state.taken += u64::from(count);
        state.received = state.received.max(state.taken);
        state.filled += count;
        if state.filled < self.run.layout().length(piece) {
            return None;
        }
        state.position += 1;
        state.filled = 0;
        Some(PieceData {
            piece,
            spilled: std::mem::take(&mut state.spilled),
            blocks: std::mem::take(&mut state.blocks),
        })
    }
}

/// Why a buffer takes no more bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BufferError {
    /// The run is whole: the source sends more than it was asked for.
    #[error("more bytes than were asked for")]
    TooLong,
    /// The request was cancelled.
    #[error("the request was cancelled")]
    Closed,
}

impl From<BufferError> for SourceError {
    fn from(error: BufferError) -> Self {
        match error {
            BufferError::TooLong => Self::Invalid("sent more bytes than were asked for".into()),
            BufferError::Closed => Self::Gone("the request was cancelled".into()),
        }
    }
}

/// Why nothing could be read into a buffer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// See [`BufferError`].
    #[error(transparent)]
    Buffer(#[from] BufferError),
    /// The reader failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Receives the bytes of one request, in order. Pieces leave it for the engine as they become whole.
#[derive(Debug)]
pub struct PieceBuf {
    filling: Arc<Filling>,
    request: RequestId,
    pool: Pool,
    limiters: Limiters,
    arrived: mpsc::Sender<Arrived>,
}

impl PieceBuf {
    /// The buffer of a request and the driver's view of it. `arrived` must hold [`POOL_BLOCKS`] messages: each owns a
    /// block, so it can never be full.
    pub(crate) fn new(
        request: RequestId,
        run: PieceRun,
        pool: Pool,
        limiters: Limiters,
        arrived: mpsc::Sender<Arrived>,
    ) -> (Self, Arc<Filling>) {
        let filling = Arc::new(Filling {
            run,
            held_up: AtomicBool::new(false),
            closed: Notify::new(),
            state: Mutex::default(),
        });
        (Self { filling: filling.clone(), request, pool, limiters, arrived }, filling)
    }

    /// Bytes of the run that are still to come.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.filling.run.length() - self.filling.state().taken
    }

    /// For reporting bytes that cannot be appended as they come.
    #[must_use]
    pub fn arrivals(&self) -> Arrivals {
        Arrivals::new(self.filling.clone())
    }

    /// Takes the next bytes of the run, waiting for memory and for the download rate limit. If the future is dropped,
    /// a part of the bytes may have been taken.
    ///
    /// # Errors
    /// When the run is whole, or the request cancelled.
    pub async fn append(&mut self, mut bytes: &[u8]) -> Result<(), BufferError> {
        while !bytes.is_empty() {
            let charged = bytes.len().min(BLOCK_BYTES);
            self.charge(charged).await?;
            let (mut now, rest) = bytes.split_at(charged);
            while !now.is_empty() {
                self.ready().await?;
                let put = self.filling.put(|room| {
                    let count = room.len().min(now.len());
                    room[..count].copy_from_slice(&now[..count]);
                    (count, ())
                });
                if let Some((count, (), whole)) = put {
                    now = &now[count..];
                    self.hand_over(whole)?;
                }
            }
            bytes = rest;
        }
        Ok(())
    }

    /// Reads once from `reader`, at most `limit` bytes, straight into the buffer. 0 means the reader's end, or a `limit`
    /// of 0. If the future is dropped, bytes may have been
    /// taken into the buffer.
    ///
    /// # Errors
    /// When the run is whole, the request cancelled, or the reader fails.
    pub async fn read_from<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        limit: usize,
    ) -> Result<usize, ReadError> {
        loop {
            self.ready().await?;
            // None: the block was spilled while the reader had nothing.
            let read = std::future::poll_fn(|context| {
                let put = self.filling.put(|room| {
                    let end = room.len().min(limit);
                    let mut into = ReadBuf::new(&mut room[..end]);
                    let polled = Pin::new(&mut *reader).poll_read(context, &mut into);
                    (into.filled().len(), polled)
                });
                match put {
                    None => Poll::Ready(None),
                    Some((_, Poll::Pending, _)) => Poll::Pending,
                    Some((count, Poll::Ready(result), whole)) => Poll::Ready(Some((count, result, whole))),
                }
            })
            .await;
            if let Some((count, result, whole)) = read {
                self.hand_over(whole)?;
                result?;
                self.charge(count).await?;
                return Ok(count);
            }
        }
    }

    /// Makes sure that there is a block with room.
    async fn ready(&self) -> Result<(), BufferError> {
        if !self.filling.room()? {
            let block = self.unless_closed(self.pool.block()).await?;
            self.filling.add_block(block);
        }
        Ok(())
    }

    async fn charge(&self, bytes: usize) -> Result<(), BufferError> {
        self.unless_closed(self.limiters.acquire(bytes as u64)).await
    }

    /// Waits for memory or the rate limit, marked as held up by this side, until the request is closed.
    async fn unless_closed<T>(&self, ours: impl Future<Output = T>) -> Result<T, BufferError> {
        let closed = self.filling.closed.notified();
        if self.filling.state().closed {
            return Err(BufferError::Closed);
        }
        let _held_up = HeldUp::new(&self.filling);
        tokio::select! {
            biased;
            done = ours => Ok(done),
            () = closed => Err(BufferError::Closed),
        }
    }

    fn hand_over(&self, whole: Option<PieceData>) -> Result<(), BufferError> {
        let Some(data) = whole else { return Ok(()) };
        self.arrived.try_send(Arrived { request: self.request, data }).map_err(|_| BufferError::Closed)
    }
}

/// Marks a request as held up by this side while it lives.
struct HeldUp<'a>(&'a Filling);

impl<'a> HeldUp<'a> {
    fn new(filling: &'a Filling) -> Self {
        filling.held_up.store(true, Ordering::Relaxed);
        Self(filling)
    }
}

impl Drop for HeldUp<'_> {
    fn drop(&mut self) {
        self.0.held_up.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::POOL_BLOCKS;
    use shoal_common::Layout;
    use shoal_common::limits::MIN_PIECE_LENGTH;

    const PIECE: usize = BLOCK_BYTES;

    struct Bench {
        pool: Pool,
        buffer: PieceBuf,
        filling: Arc<Filling>,
        arrived: mpsc::Receiver<Arrived>,
    }

    /// A buffer for `pieces` pieces of a file of 2.5 pieces of 128 KiB.
    fn bench(pool_blocks: usize, pieces: u32) -> Bench {
        let layout = Layout::new(5 * PIECE as u64, 2 * MIN_PIECE_LENGTH).unwrap();
        let run = PieceRun::new(layout.clone(), layout.piece(0).unwrap(), pieces);
        let pool = Pool::new(pool_blocks);
        let (sender, arrived) = mpsc::channel(POOL_BLOCKS);
        let (buffer, filling) = PieceBuf::new(RequestId(1), run, pool.clone(), Limiters::none(), sender);
        Bench { pool, buffer, filling, arrived }
    }

    fn content(data: &PieceData) -> Vec<u8> {
        data.blocks.iter().flat_map(|block| block.bytes().to_vec()).collect()
    }

    #[tokio::test]
    async fn pieces_leave_as_they_become_whole() {
        let mut bench = bench(16, 3);
        let bytes: Vec<u8> = (0..=250).cycle().take(5 * PIECE).collect();
        for chunk in bytes.chunks(10_000) {
            bench.buffer.append(chunk).await.unwrap();
        }
        assert_eq!(bench.buffer.remaining(), 0);
        assert_eq!(bench.buffer.append(&[1]).await, Err(BufferError::TooLong));
        for (index, range) in [(0, 0..2 * PIECE), (1, 2 * PIECE..4 * PIECE), (2, 4 * PIECE..5 * PIECE)] {
            let arrived = bench.arrived.try_recv().unwrap();
            assert_eq!(
                (arrived.request, arrived.data.piece.get(), arrived.data.spilled),
                (RequestId(1), index, 0)
            );
            assert!(content(&arrived.data) == bytes[range]);
        }
        assert_eq!(bench.pool.available(), 16);
    }

    #[tokio::test]
    async fn reading_stops_at_the_limit_and_the_end() {
        let mut bench = bench(16, 1);
        let bytes = vec![7; 3 * PIECE];
        let mut reader = &bytes[..];
        assert_eq!(bench.buffer.read_from(&mut reader, 1_000).await.unwrap(), 1_000);
        while bench.buffer.remaining() > 0 {
            assert!(bench.buffer.read_from(&mut reader, usize::MAX).await.unwrap() > 0);
        }
        assert_eq!(reader.len(), PIECE, "nothing is read beyond the run");
        assert!(matches!(
            bench.buffer.read_from(&mut reader, 1).await,
            Err(ReadError::Buffer(BufferError::TooLong))
        ));
        let mut other = self::bench(16, 1);
        assert_eq!(other.buffer.read_from(&mut &[][..], 1_000).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn what_is_announced_counts_as_received_once() {
        let mut bench = bench(16, 1);
        bench.buffer.arrivals().received(100_000);
        assert_eq!((bench.filling.sample().received, bench.buffer.remaining()), (100_000, 2 * PIECE as u64));
        bench.buffer.arrivals().received(u64::MAX);
        bench.buffer.append(&vec![7; 2 * PIECE]).await.unwrap();
        assert_eq!((bench.filling.sample().received, bench.buffer.remaining()), (2 * PIECE as u64, 0));
        assert_eq!(content(&bench.arrived.try_recv().unwrap().data), vec![7; 2 * PIECE]);
    }

    #[tokio::test]
    async fn a_closed_buffer_holds_nothing_and_takes_nothing() {
        let mut bench = bench(16, 1);
        bench.buffer.append(&[1; 100]).await.unwrap();
        assert_eq!(bench.pool.available(), 15);
        bench.filling.close();
        assert_eq!(bench.pool.available(), 16);
        assert_eq!(bench.buffer.append(&[1]).await, Err(BufferError::Closed));
        assert!(bench.buffer.read_from(&mut &[1_u8][..], 1).await.is_err());
        assert_eq!(bench.pool.available(), 16);
    }

    #[tokio::test]
    async fn what_is_spilled_is_missing_from_the_memory_of_the_piece() {
        let mut bench = bench(2, 1);
        bench.buffer.append(&[1; 100_000]).await.unwrap();
        assert_eq!((bench.pool.available(), bench.filling.held_bytes()), (0, 2 * BLOCK_BYTES));
        let spill = bench.filling.spill().unwrap();
        let spilled: usize = spill.blocks.iter().map(|block| block.bytes().len()).sum();
        assert_eq!((spill.offset, spilled), (0, 100_000));
        drop(spill);
        assert!(bench.filling.spill().is_none(), "nothing came since");
        bench.buffer.append(&[2; 100]).await.unwrap();
        let spill = bench.filling.spill().unwrap();
        assert_eq!((spill.offset, spill.blocks[0].bytes()), (100_000, &[2; 100][..]));
        drop(spill);
        bench.buffer.append(&vec![3; 2 * PIECE - 100_100]).await.unwrap();
        let data = bench.arrived.try_recv().unwrap().data;
        assert_eq!((data.spilled, content(&data)), (100_100, vec![3; 2 * PIECE - 100_100]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_memory_raises_an_alarm_and_counts_as_held_up() {
        let mut bench = bench(1, 1);
        let mut pressure = bench.pool.pressure();
        bench.buffer.append(&[1; BLOCK_BYTES]).await.unwrap();
        let filling = bench.filling.clone();
        let waiting = tokio::spawn(async move { bench.buffer.append(&[2]).await });
        pressure.changed().await.unwrap();
        assert!(filling.sample().held_up);
        drop(filling.spill());
        waiting.await.unwrap().unwrap();
        assert!(!filling.sample().held_up);
    }
}
