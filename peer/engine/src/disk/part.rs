//! What a download writes to: the partial file of a file, or the partial folder of a folder.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use shoal_common::Bitfield;

use crate::chosen::Chosen;
use crate::content::{Content, Target};
use crate::disk::{DiskError, PartFile, PartFolder, Present};
use crate::pool::Block;

/// See the module.
#[derive(Debug)]
pub(crate) enum Part {
    /// Of a file.
    File(PartFile),
    /// Of a folder.
    Folder(Arc<PartFolder>),
}

/// A partial file or folder, for readers; it stays good after a rename.
#[derive(Debug)]
pub(crate) enum OpenPart {
    /// Of a file.
    File(Arc<File>),
    /// Of a folder.
    Folder(Arc<PartFolder>),
}

impl OpenPart {
    /// Fills `into` with the content from `offset` on, which must be of one piece.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(into, offset),
            Self::Folder(folder) => folder.read_piece(offset, into),
        }
    }
}

impl Part {
    /// Opens or creates it, and locks it against other writers.
    pub(super) fn lock(target: &Target, content: &Content, chosen: &Chosen) -> Result<Self, DiskError> {
        Ok(match content.listing() {
            None => Self::File(PartFile::lock(target.part_path(), content.layout().clone())?),
            Some(listing) => Self::Folder(Arc::new(PartFolder::lock(target, content, listing, chosen)?)),
        })
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(file) => &file.path,
            Self::Folder(folder) => folder.path(),
        }
    }

    /// What is there.
    pub(super) fn present(&self) -> Result<Present, DiskError> {
        match self {
            Self::File(file) => {
                let length = file.length()?;
                let mut present = Bitfield::none(&file.layout);
                for piece in file.layout.iter() {
                    if file.layout.offset(piece) + u64::from(file.layout.length(piece)) <= length {
                        present.insert(piece);
                    }
                }
                Ok(Present { is_new: length == 0, pieces: present, in_place: Vec::new() })
            }
            Self::Folder(folder) => folder.present(),
        }
    }

    /// Removes what was just created.
    pub(super) fn undo(&self) {
        // A folder that is not empty stays.
        let _ = match self {
            Self::File(file) => std::fs::remove_file(&file.path),
            Self::Folder(folder) => std::fs::remove_dir(folder.path()),
        };
    }

    /// Fails unless the drive has room for what is missing.
    pub(super) fn must_fit(&self, written: &Bitfield, chosen: &Chosen) -> Result<(), DiskError> {
        match self {
            Self::File(file) => file.must_fit(written),
            Self::Folder(folder) => folder.must_fit(written, chosen),
        }
    }

    /// Reserves the space where that is possible.
    pub(super) fn allocate(&self) -> Result<(), DiskError> {
        match self {
            Self::File(file) => file.allocate(),
            // Many files of which most are small: reserving would cost as much as writing them.
            Self::Folder(_) => Ok(()),
        }
    }

    /// Lets others open it for writing; readers keep it open.
    pub(crate) fn unlock(&self) {
        match self {
            Self::File(file) => file.unlock(),
            Self::Folder(folder) => folder.unlock(),
        }
    }

    /// It, for readers.
    pub(crate) fn open_part(&self) -> OpenPart {
        match self {
            Self::File(file) => OpenPart::File(file.file()),
            Self::Folder(folder) => OpenPart::Folder(folder.clone()),
        }
    }

    /// Writes blocks of one piece one behind the other, the first at `offset` in the content.
    pub(crate) fn write(&self, offset: u64, blocks: &[Block]) -> Result<(), DiskError> {
        match self {
            Self::File(file) => file.write(offset, blocks),
            Self::Folder(folder) => folder.write(offset, blocks),
        }
    }

    /// Reads exactly `into.len()` bytes of one piece at `offset` in the content.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        match self {
            Self::File(file) => file.read(offset, into),
            Self::Folder(folder) => folder.read(offset, into),
        }
    }

    /// Makes all that was written durable.
    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        match self {
            Self::File(file) => file.sync(),
            Self::Folder(folder) => folder.sync(),
        }
    }

    /// Makes everything durable and puts it in its place, under its final name.
    pub(crate) fn finish(&self, target: &Target, chosen: &Chosen) -> Result<(), DiskError> {
        match self {
            Self::File(file) => file.finish(target),
            Self::Folder(folder) => folder.finish(target, chosen),
        }
    }

    /// Takes a file of a folder at its place for right if nothing of it changed since then; gives whether it does.
    pub(super) fn trust(&self, file: usize, checkpoint: SystemTime) -> bool {
        matches!(self, Self::Folder(folder) if folder.trust(file, checkpoint))
    }

    /// Fails if a folder at the destination is another one.
    pub(super) fn must_be_ours(&self) -> Result<(), DiskError> {
        match self {
            Self::File(_) => Ok(()),
            Self::Folder(folder) => folder.must_be_ours(),
        }
    }

    /// Whether a file of a folder has its name.
    pub(crate) fn has_placed(&self, file: usize) -> bool {
        matches!(self, Self::Folder(folder) if folder.has_placed(file))
    }

    /// Makes what was written durable and gives files of a folder, which are right, their names.
    pub(crate) fn place(&self, files: Vec<usize>) -> Result<Vec<usize>, DiskError> {
        match self {
            Self::File(_) => Ok(files),
            Self::Folder(folder) => folder.place(files),
        }
    }

    /// Removes it.
    pub(crate) fn remove(&self) {
        match self {
            Self::File(file) => file.remove(),
            Self::Folder(folder) => folder.remove(),
        }
    }

    /// Fails unless it is still what its path leads to.
    pub(crate) fn must_be_in_place(&self) -> Result<(), DiskError> {
        match self {
            Self::File(file) => file.must_be_in_place(),
            Self::Folder(folder) => folder.must_be_in_place(),
        }
    }
}
