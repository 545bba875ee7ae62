//! Lets the uploads read verified pieces of a file while it is being downloaded.

use std::io;
use std::sync::{Arc, OnceLock};

use shoal_common::{Bitfield, Layout, PieceIndex};
use tokio::sync::watch;

use crate::disk::OpenPart;

/// Reads verified pieces of a download. Cheap to clone. It works also after the download was paused, or is complete and the
/// file has its final name.
#[derive(Debug, Clone)]
pub struct PieceReader {
    layout: Layout,
    part: Arc<OnceLock<OpenPart>>,
    verified: watch::Receiver<Arc<Bitfield>>,
}

/// Why a piece cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PieceReadError {
    /// The piece is not verified yet.
    #[error("the piece is not there yet")]
    Missing,
    /// The range does not lie within the piece.
    #[error("the range is not within the piece")]
    Range,
    /// The disk failed.
    #[error("cannot read the file: {0}")]
    Io(#[from] io::Error),
}

impl PieceReader {
    pub(crate) fn new(
        layout: Layout,
        part: Arc<OnceLock<OpenPart>>,
        verified: watch::Receiver<Arc<Bitfield>>,
    ) -> Self {
        Self { layout, part, verified }
    }

    /// Fills `into` with the bytes of `piece` from `offset`, counted from the piece's start. Blocking.
    ///
    /// # Errors
    /// When the piece is not verified, the range not within it, or the disk fails.
    pub fn read(&self, piece: PieceIndex, offset: u32, into: &mut [u8]) -> Result<(), PieceReadError> {
        let Some(part) = self.part.get() else { return Err(PieceReadError::Missing) };
        if piece.get() >= self.layout.pieces() || !self.verified.borrow().has(piece) {
            return Err(PieceReadError::Missing);
        }
        let end = u64::from(offset).saturating_add(into.len() as u64);
        if end > u64::from(self.layout.length(piece)) {
            return Err(PieceReadError::Range);
        }
        Ok(part.read(self.layout.offset(piece) + u64::from(offset), into)?)
    }
}
