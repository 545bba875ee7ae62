//! A source in memory with a chosen behaviour, for tests of the engine and of its callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shoal_common::{Bitfield, Layout, PieceIndex, Sha1};
use tokio::sync::watch;

use crate::buffer::PieceBuf;
use crate::content::Content;
use crate::source::PieceSource;
use shoal_engine_core::{Have, Limits, PieceRun, Run, SourceError};

/// How a remote party behaves towards requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// It serves what it is asked for.
    Honest,
    /// It ends each answer one byte early, as if that were all.
    Short,
    /// It sends more bytes than it was asked for.
    Long,
    /// It serves the bytes of another piece, or wrong ones.
    Wrong,
    /// It falls silent, with the connection open, after that many bytes in all.
    SilentAfter(u64),
    /// It is gone after that many bytes in all.
    GoneAfter(u64),
    /// It is always busy for that time.
    Busy(Duration),
    /// It refuses every piece for that time, and names another that it would serve.
    Refuses(Duration),
    /// It said that it holds the whole file, and does not have the piece of this number any more.
    Lost(u32),
    /// It says what it holds again and again, thousands of times, before each answer; where its kind says that at all.
    Floods,
}

/// How often one that [floods](Behaviour::Floods) says the same.
pub const FLOOD: usize = 2_000;

/// Makes a file of `size` bytes that no two pieces of which are equal, and its description.
///
/// # Panics
/// For a size that no layout has.
#[must_use]
#[expect(clippy::expect_used, reason = "a test's own figures")]
pub fn sample_file(size: usize, piece_length: u32, seed: u64) -> (Arc<[u8]>, Content) {
    let layout = Layout::new(size as u64, piece_length).expect("a layout");
    let mut bytes = vec![0; size];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    let pieces = layout.iter().map(|piece| Sha1::of(piece_of(&bytes, &layout, piece))).collect();
    let mut hasher = shoal_common::FileHasher::default();
    hasher.update(&bytes);
    let content = Content::new(layout, pieces, hasher.finish()).expect("a digest a piece");
    (bytes.into(), content)
}

/// The bytes of one piece of a file.
///
/// # Panics
/// When `bytes` is not a file of that layout.
#[must_use]
pub fn piece_of<'a>(bytes: &'a [u8], layout: &Layout, piece: PieceIndex) -> &'a [u8] {
    let start = usize::try_from(layout.offset(piece)).unwrap_or(usize::MAX);
    &bytes[start..start + layout.length(piece) as usize]
}

/// See the module. Clones are the same source.
#[derive(Debug, Clone)]
pub struct FakeSource {
    shared: Arc<FakeState>,
    behaviour: Behaviour,
    limits: Limits,
    /// Time for each 16 KiB block.
    block_time: Duration,
    latency: Duration,
}

#[derive(Debug)]
struct FakeState {
    layout: Layout,
    bytes: Arc<[u8]>,
    have: watch::Sender<Have>,
    served: AtomicU64,
    requests: AtomicU64,
}

const BLOCK: usize = 16 * 1024;

impl FakeSource {
    /// An honest source of the whole file, as fast as memory.
    #[must_use]
    pub fn new(bytes: Arc<[u8]>, layout: Layout) -> Self {
        Self {
            shared: Arc::new(FakeState {
                layout,
                bytes,
                have: watch::Sender::new(Have::All),
                served: AtomicU64::new(0),
                requests: AtomicU64::new(0),
            }),
            behaviour: Behaviour::Honest,
            limits: Limits {
                max_in_flight: 256,
                min_in_flight: 1,
                max_in_flight_bytes: 16 << 20,
                run: Run::Single,
            },
            block_time: Duration::ZERO,
            latency: Duration::ZERO,
        }
    }

    /// Behaves so.
    #[must_use]
    pub fn behaving(mut self, behaviour: Behaviour) -> Self {
        self.behaviour = behaviour;
        self
    }

    /// Allows so much.
    #[must_use]
    pub fn limited(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Takes that time for each 16 KiB, each request by itself.
    #[must_use]
    pub fn paced(mut self, block_time: Duration) -> Self {
        self.block_time = block_time;
        self
    }

    /// Takes that time before it answers.
    #[must_use]
    pub fn delayed(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    /// Holds these pieces from now on.
    pub fn hold(&self, have: Have) {
        self.shared.have.send_replace(have);
    }

    /// Holds the pieces of these numbers from now on; numbers that are no piece are left out.
    pub fn hold_pieces(&self, pieces: impl IntoIterator<Item = u32>) {
        let mut bits = Bitfield::none(&self.shared.layout);
        for piece in pieces.into_iter().filter_map(|index| self.shared.layout.piece(index)) {
            bits.insert(piece);
        }
        self.hold(Have::Bits(Arc::new(bits)));
    }

    /// Bytes that were served.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// Requests that came.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    fn holds(&self, piece: PieceIndex) -> bool {
        match &*self.shared.have.borrow() {
            Have::All => true,
            Have::Bits(bits) => bits.has(piece),
        }
    }

    async fn send(&self, bytes: &[u8], into: &mut PieceBuf) -> Result<(), SourceError> {
        for block in bytes.chunks(BLOCK) {
            if !self.block_time.is_zero() {
                tokio::time::sleep(self.block_time).await;
            }
            match self.behaviour {
                Behaviour::Floods => {
                    (0..FLOOD).for_each(|_| {
                        self.hold_pieces([]);
                        self.hold(Have::All);
                    });
                    into.append(block).await?;
                }
                Behaviour::SilentAfter(bytes) if self.served() >= bytes => std::future::pending().await,
                Behaviour::GoneAfter(bytes) if self.served() >= bytes => {
                    return Err(SourceError::Gone("the connection broke".into()));
                }
                Behaviour::Wrong => {
                    let wrong: Vec<u8> = block.iter().map(|byte| !byte).collect();
                    into.append(&wrong).await?;
                }
                _ => into.append(block).await?,
            }
            self.shared.served.fetch_add(block.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl PieceSource for FakeSource {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn have(&self) -> watch::Receiver<Have> {
        self.shared.have.subscribe()
    }

    async fn fetch(&self, want: PieceRun, mut into: PieceBuf) -> Result<PieceBuf, SourceError> {
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
        match self.behaviour {
            Behaviour::Busy(time) => return Err(SourceError::Busy(time)),
            Behaviour::Refuses(after) => {
                let instead = self.shared.layout.piece(want.first().get() + 1);
                return Err(SourceError::NotNow { piece: want.first(), after, instead });
            }
            _ => {}
        }
        for piece in want.pieces() {
            if !self.holds(piece) || self.behaviour == Behaviour::Lost(piece.get()) {
                return Err(SourceError::NotNow { piece, after: Duration::from_secs(1), instead: None });
            }
            let bytes = piece_of(&self.shared.bytes, &self.shared.layout, piece);
            let bytes = if self.behaviour == Behaviour::Short { &bytes[..bytes.len() - 1] } else { bytes };
            self.send(bytes, &mut into).await?;
            if self.behaviour == Behaviour::Short {
                return Ok(into);
            }
        }
        if self.behaviour == Behaviour::Long {
            self.send(&[0], &mut into).await?;
        }
        Ok(into)
    }
}
