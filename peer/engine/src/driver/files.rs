//! Checks the files of a folder by their own digests, each one as soon as all of its pieces are written, and gives those that
//! are right their names: many of them with one durability point, none with one of its own.

use std::collections::VecDeque;
use std::time::Duration;

use shoal_common::{Bitfield, FileHasher, Layout, PieceIndex};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::chosen::Chosen;
use crate::disk::DiskError;
use crate::driver::{Driver, Work};
use crate::part::PartContext;
use crate::progress::{DownloadError, FilesProgress};
use shoal_engine_core::Event;

/// What one job reads at most, unless one file is longer, so that pausing never waits long for one.
const STEP_BYTES: u64 = 8 * 1024 * 1024;
/// Files of one job at most.
const STEP_FILES: usize = 256;
/// Files that are right get their names after this time, or when all are there. A durability point writes all that the system
/// holds back for the disk, so there must not be many.
const PLACE_EVERY: Duration = Duration::from_secs(2);

/// How far a file of a folder came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileState {
    /// So many of its pieces are not written.
    Missing(u32),
    /// It is whole, and is being checked or waits for it.
    Whole,
    /// It is right, and gets its name.
    Right,
    /// It has its name.
    Placed,
}

/// How far the files of a folder came. Of content that is one file there is nothing to do here.
#[derive(Debug)]
pub(super) struct Files {
    /// Of each file.
    states: Vec<FileState>,
    chosen: Chosen,
    /// Whole files that wait to be checked.
    ready: VecDeque<usize>,
    /// Whether some are being checked.
    checking: bool,
    /// Files that are right and wait for their names.
    right: Vec<usize>,
    /// Whether some get their names.
    placing: bool,
    /// When the last ones did.
    placed: Instant,
    /// Chosen files, and those of them that have their names.
    count: (usize, usize),
}

/// What the checking of some files showed.
pub(super) struct FilesChecked {
    right: Vec<usize>,
    wrong: Vec<WrongFile>,
    /// Files that were not reached.
    left: Vec<usize>,
}

/// A file that is not what the listing says.
struct WrongFile {
    file: usize,
    path: String,
    /// Those of its pieces that are wrong on the disk; none if all are what the piece list says.
    pieces: Vec<PieceIndex>,
}

impl Files {
    /// The files of some content, of which these pieces are there.
    pub(super) fn new(context: &PartContext, written: &Bitfield) -> Self {
        let (states, ready, right, chosen) = (Vec::new(), VecDeque::new(), Vec::new(), Chosen::all());
        let (placed, count) = (Instant::now(), (0, 0));
        let mut files = Self { states, chosen, ready, checking: false, right, placing: false, placed, count };
        if context.content.listing().is_none() {
            return files;
        }
        let layout = context.content.layout();
        for file in 0..layout.files() {
            let missing = layout.pieces_of(file).filter(|&piece| !written.has(piece)).count();
            files.states.push(match u32::try_from(missing).unwrap_or(u32::MAX) {
                0 if context.part.has_placed(file) => FileState::Placed,
                // An empty file's digests were checked with the listing. It is made at the end.
                0 if layout.extent(file).is_empty() => FileState::Placed,
                0 => {
                    files.ready.push_back(file);
                    FileState::Whole
                }
                missing => FileState::Missing(missing),
            });
        }
        files
    }

    /// Only these files are fetched from now on.
    pub(super) fn choose(&mut self, chosen: &Chosen) {
        self.chosen = chosen.clone();
        let mut count = (0, 0);
        for (_, state) in self.states.iter().enumerate().filter(|(file, _)| chosen.has(*file)) {
            count.0 += 1;
            count.1 += usize::from(*state == FileState::Placed);
        }
        self.count = count;
    }

    /// The files that are fetched.
    pub(super) fn chosen(&self) -> Chosen {
        self.chosen.clone()
    }

    /// A piece was written.
    pub(super) fn written(&mut self, layout: &Layout, piece: PieceIndex) {
        if self.states.is_empty() {
            return;
        }
        let file = layout.file_of(piece);
        if let Some(state) = self.states.get_mut(file)
            && let FileState::Missing(missing) = state
        {
            *missing = missing.saturating_sub(1);
            if *missing == 0 {
                *state = FileState::Whole;
                self.ready.push_back(file);
            }
        }
    }

    /// Whether all chosen files have their names.
    pub(super) fn are_placed(&self) -> bool {
        self.count.0 == self.count.1 && !self.placing
    }

    /// These files have their names.
    pub(super) fn placed(&mut self, files: &[usize]) {
        (self.placing, self.placed) = (false, Instant::now());
        for &file in files {
            if let Some(state) = self.states.get_mut(file) {
                *state = FileState::Placed;
                self.count.1 += usize::from(self.chosen.has(file));
            }
        }
    }

    /// How many are there; `None` for content that is one file.
    pub(super) fn progress(&self) -> Option<FilesProgress> {
        let (chosen, done) = self.count;
        let all = self.states.len();
        (all > 0).then(|| FilesProgress { which: self.chosen.clone(), done, chosen, all })
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

    /// The files that get their names now. `all_there`: no other piece is to come.
    fn next_to_place(&mut self, all_there: bool) -> Vec<usize> {
        let last = all_there && !self.checking && self.ready.is_empty();
        if self.placing || self.right.is_empty() || !(last || self.placed.elapsed() >= PLACE_EVERY) {
            return Vec::new();
        }
        self.placing = true;
        std::mem::take(&mut self.right)
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

    /// Gives files that are right their names.
    pub(super) fn place_files(&mut self) {
        let next = self.files.next_to_place(self.core.is_complete());
        if !next.is_empty() {
            let context = self.context.clone();
            self.work.spawn_blocking(move || Work::FilesPlaced(context.part.place(next)));
        }
    }

    /// Some files were checked. The wrong pieces of wrong files are fetched again.
    pub(super) fn files_checked(&mut self, checked: FilesChecked) -> Result<(), DownloadError> {
        let FilesChecked { right, wrong, left } = checked;
        self.files.checking = false;
        for &file in &right {
            self.files.states[file] = FileState::Right;
        }
        self.files.right.extend(right);
        self.files.ready.extend(left);
        for WrongFile { file, path, pieces } in wrong {
            if pieces.is_empty() {
                return Err(DownloadError::ListedDigest { path });
            }
            tracing::warn!(path, pieces = pieces.len(), "a file is wrong on the disk; fetching pieces again");
            let mut missing = 0;
            for piece in pieces {
                if self.written.remove(piece) {
                    missing += 1;
                    self.handle(Event::Lost(piece));
                }
            }
            self.files.states[file] = FileState::Missing(missing);
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
        let mut checked = FilesChecked { right: Vec::new(), wrong: Vec::new(), left: Vec::new() };
        for file in files {
            match self.check_file(file, cancelled)? {
                None => checked.left.push(file),
                Some(Ok(())) => checked.right.push(file),
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
        Ok(Some(Err(WrongFile { file, path: path.to_owned(), pieces })))
    }
}
