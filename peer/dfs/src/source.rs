//! A storage node as a source of a stored file's pieces: fetches sealed chunks and opens them.
//!
//! A chunk that does not open is never handed over. It is not requested from that node again, and the node is asked to check
//! it. A node that sends several such chunks is not used any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use shoal_common::storage::ChunkRef;
use shoal_common::{Bitfield, Layout, PieceIndex};
use shoal_engine::{Have, Limits, PieceBuf, PieceRun, PieceSource, Run, SourceError};
use tokio::sync::{Semaphore, watch};

use crate::connection::{NodeConnection, RequestError};
use crate::seal::Sealer;
use crate::wire::Failure;

/// Chunks asked of one node at once: one on its way, one being read, and some for the line's delay.
const MAX_IN_FLIGHT: usize = 4;
/// Sealed bytes in memory at once, of all nodes of a download.
const SEALED_BYTES: usize = 32 * 1024 * 1024;
/// Wrong chunks after which a node is not used any more: one may be rot, which the node then mends.
const MAX_WRONG: u32 = 4;
/// When a chunk that a node does not have, or has wrong, may be asked of it again.
const NOT_THERE: Duration = Duration::from_secs(5);
/// When a busy node is asked again.
const BUSY: Duration = Duration::from_millis(200);

/// One version of a stored file, as its sources need it.
#[derive(Debug)]
pub struct Sealed {
    /// How it is cut.
    pub layout: Layout,
    /// Its chunks, one per piece.
    pub chunks: Vec<ChunkRef>,
    /// What opens them.
    pub sealer: Arc<Sealer>,
    memory: Arc<Semaphore>,
}

impl Sealed {
    /// A version; `None` unless there is one chunk per piece, each of its sealed length.
    #[must_use]
    pub fn new(layout: Layout, chunks: Vec<ChunkRef>, sealer: Arc<Sealer>) -> Option<Arc<Self>> {
        let fits = chunks.len() == layout.pieces() as usize
            && layout
                .iter()
                .zip(&chunks)
                .all(|(piece, chunk)| chunk.sealed == layout.length(piece) + sealer.form().overhead());
        fits.then(|| {
            Arc::new(Self { layout, chunks, sealer, memory: Arc::new(Semaphore::new(SEALED_BYTES)) })
        })
    }
}

/// See the module.
#[derive(Debug)]
pub struct NodeSource {
    connection: NodeConnection,
    file: Arc<Sealed>,
    have: watch::Sender<Have>,
    wrong: AtomicU32,
}

impl NodeSource {
    /// A source of the file's chunks that the node at the connection's other end holds.
    #[must_use]
    pub fn new(connection: NodeConnection, file: Arc<Sealed>, have: Bitfield) -> Self {
        let have = if have.is_all() { Have::All } else { Have::Bits(Arc::new(have)) };
        Self { connection, file, have: watch::Sender::new(have), wrong: AtomicU32::new(0) }
    }

    /// The node does not have this piece.
    fn lacks(&self, piece: PieceIndex) -> SourceError {
        self.have.send_modify(|have| {
            let mut bits = match have {
                Have::Bits(bits) => Bitfield::clone(bits),
                Have::All => {
                    let mut all = Bitfield::none(&self.file.layout);
                    self.file.layout.iter().for_each(|piece| {
                        all.insert(piece);
                    });
                    all
                }
            };
            bits.remove(piece);
            *have = Have::Bits(Arc::new(bits));
        });
        SourceError::NotNow { piece, after: NOT_THERE, instead: None }
    }

    fn came_wrong(&self, piece: PieceIndex, chunk: ChunkRef) -> SourceError {
        tracing::warn!(node = %self.connection.peer(), chunk = %chunk.id, "a chunk came wrong; it is taken from another node");
        if self.wrong.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_WRONG {
            return SourceError::Invalid("it sent several chunks that are not what was stored".to_owned());
        }
        // A node that is honest finds the rot, and the trackers have the chunk copied again.
        self.connection.check(chunk.id);
        self.lacks(piece)
    }

    fn refused(&self, piece: PieceIndex, error: RequestError) -> SourceError {
        match error {
            RequestError::Lost(reason) => SourceError::Gone(reason),
            RequestError::Refused { .. } | RequestError::Failed(Failure::NotAllowed) => {
                SourceError::Gone("it does not accept the login any more".to_owned())
            }
            RequestError::Failed(Failure::Busy) => SourceError::Busy(BUSY),
            RequestError::Failed(_) => self.lacks(piece),
        }
    }
}

impl PieceSource for NodeSource {
    fn limits(&self) -> Limits {
        Limits {
            max_in_flight: MAX_IN_FLIGHT,
            min_in_flight: 1,
            max_in_flight_bytes: SEALED_BYTES as u64 / 2,
            run: Run::Single,
        }
    }

    fn have(&self) -> watch::Receiver<Have> {
        self.have.subscribe()
    }

    async fn fetch(&self, want: PieceRun, mut into: PieceBuf) -> Result<PieceBuf, SourceError> {
        let piece = want.first();
        let Some(&chunk) = self.file.chunks.get(piece.as_usize()) else {
            return Err(SourceError::Invalid("it was asked for a piece that the file does not have".into()));
        };
        let memory = self.file.memory.clone().acquire_many_owned(chunk.sealed).await;
        let memory = memory.map_err(|_| SourceError::Busy(BUSY))?;
        let arrivals = Some(into.arrivals());
        let fetched = self.connection.fetch(chunk.id, chunk.sealed, None, arrivals).await;
        let mut sealed = fetched.map_err(|error| self.refused(piece, error))?;
        let sealer = self.file.sealer.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let length = sealer.open(piece.get(), &mut sealed)?.len();
            sealed.truncate(length);
            Ok::<_, crate::seal::NotAuthentic>((sealed, memory))
        });
        let Ok(Ok((plain, _memory))) = opened.await else { return Err(self.came_wrong(piece, chunk)) };
        into.append(&plain).await?;
        Ok(into)
    }
}
