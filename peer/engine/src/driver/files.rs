//! Checks the files of a folder by their own digests: each one as soon as all of its pieces are written.

use std::collections::VecDeque;

use shoal_common::{Bitfield, FileHasher, Layout, PieceIndex};
use tokio_util::sync::CancellationToken;

use crate::content::Content;
use crate::disk::DiskError;
use crate::driver::{Driver, Work};
use crate::part::PartContext;
use crate::progress::DownloadError;
use shoal_engine_core::Event;

/// What one job reads at most, unless one file is longer, so that pausing never waits long for one.
const STEP_BYTES: u64 = 8 * 1024 * 1024;
/// Files of one job at most.
const STEP_FILES: usize = 256;

/// Which files of a folder are whole, and which of them were checked. Of content that is one file there is nothing to check
/// here.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Pieces of each file that are not written.
    missing: Vec<u32>,
    /// Whole files that wait to be checked.
    ready: VecDeque<usize>,
    /// Whether some are being checked.
    checking: bool,
    /// Files that are not known to be right.
    unchecked: usize,
}

/// What the checking of some files showed.
pub(super) struct FilesChecked {
    right: usize,
    wrong: Vec<WrongFile>,
    /// Files that were not reached.
    left: Vec<usize>,
}

/// A file that is not what the listing says.
struct WrongFile {
    path: String,
    /// Those of its pieces that are wrong on the disk; none if all are what the piece list says.
    pieces: Vec<PieceIndex>,
}

impl Files {
    /// The files of `content`, of which these pieces are there.
    pub(super) fn new(content: &Content, written: &Bitfield) -> Self {
        let mut files = Self::default();
        if content.listing().is_none() {
            return files;
        }
        let layout = content.layout();
        for file in 0..layout.files() {
            let missing = layout.pieces_of(file).filter(|&piece| !written.has(piece)).count();
            files.missing.push(u32::try_from(missing).unwrap_or(u32::MAX));
            // An empty file's digests were checked with the listing.
            if !layout.extent(file).is_empty() {
                files.unchecked += 1;
                files.ready.extend((missing == 0).then_some(file));
            }
        }
        files
    }

    /// A piece was written.
    pub(super) fn written(&mut self, layout: &Layout, piece: PieceIndex) {
        if self.missing.is_empty() {
            return;
        }
        let file = layout.file_of(piece);
        if let Some(missing) = self.missing.get_mut(file) {
            *missing = missing.saturating_sub(1);
            if *missing == 0 {
                self.ready.push_back(file);
            }
        }
    }

    /// Whether all files were checked.
    pub(super) fn are_right(&self) -> bool {
        self.unchecked == 0
    }

    /// The next files to check, if none are being checked.
    fn next(&mut self, layout: &Layout) -> Vec<usize> {
        let (mut next, mut bytes) = (Vec::new(), 0);
        while !self.checking
            && bytes < STEP_BYTES
            && next.len() < STEP_FILES
            && let Some(file) = self.ready.pop_front()
        {
            let extent = layout.extent(file);
            bytes += extent.end - extent.start;
            next.push(file);
        }
        self.checking |= !next.is_empty();
        next
    }
}

impl Driver {
    /// Has the next whole files checked.
    pub(super) fn check_files(&mut self) {
        let next = self.files.next(self.context.content.layout());
        if !next.is_empty() {
            let (context, stop) = (self.context.clone(), self.stop_work.clone());
            self.work.spawn_blocking(move || Work::FilesChecked(context.check_files(next, &stop)));
        }
    }

    /// Some files were checked. The wrong pieces of wrong files are fetched again.
    pub(super) fn files_checked(&mut self, checked: FilesChecked) -> Result<(), DownloadError> {
        let FilesChecked { right, wrong, left } = checked;
        self.files.checking = false;
        self.files.unchecked = self.files.unchecked.saturating_sub(right);
        self.files.ready.extend(left);
        for WrongFile { path, pieces } in wrong {
            if pieces.is_empty() {
                return Err(DownloadError::ListedDigest { path });
            }
            tracing::warn!(path, pieces = pieces.len(), "a file is wrong on the disk; fetching pieces again");
            for piece in pieces {
                if self.written.remove(piece) {
                    let file = self.context.content.layout().file_of(piece);
                    if let Some(missing) = self.files.missing.get_mut(file) {
                        *missing += 1;
                    }
                    self.handle(Event::Lost(piece));
                }
            }
        }
        self.publish_verified();
        Ok(())
    }
}

impl PartContext {
    /// Reads whole files and compares them with the listing. Blocking; stops early when cancelled.
    fn check_files(
        &self,
        files: Vec<usize>,
        cancelled: &CancellationToken,
    ) -> Result<FilesChecked, DiskError> {
        let mut checked = FilesChecked { right: 0, wrong: Vec::new(), left: Vec::new() };
        for file in files {
            match self.check_file(file, cancelled)? {
                None => checked.left.push(file),
                Some(Ok(())) => checked.right += 1,
                Some(Err(wrong)) => checked.wrong.push(wrong),
            }
        }
        Ok(checked)
    }

    /// `None` when it was cancelled.
    fn check_file(
        &self,
        file: usize,
        cancelled: &CancellationToken,
    ) -> Result<Option<Result<(), WrongFile>>, DiskError> {
        let layout = self.content.layout();
        let mut hasher = FileHasher::default();
        for piece in layout.pieces_of(file) {
            if cancelled.is_cancelled() {
                return Ok(None);
            }
            self.read(layout.offset(piece), layout.length(piece).into(), |bytes| hasher.update(bytes))?;
        }
        let listed = self.content.listing().and_then(|listing| listing.file(file));
        let Some((path, listed)) = listed else { return Ok(Some(Ok(()))) };
        if hasher.finish() == listed.digest() {
            return Ok(Some(Ok(())));
        }
        let all: Vec<PieceIndex> = layout.pieces_of(file).collect();
        let right = self.rehash(&all, cancelled)?;
        if cancelled.is_cancelled() {
            return Ok(None);
        }
        let pieces = all.into_iter().filter(|&piece| !right.has(piece)).collect();
        Ok(Some(Err(WrongFile { path: path.to_owned(), pieces })))
    }
}
