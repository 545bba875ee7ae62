//! What a download writes to: the partial file of a file, or the partial folder of a folder.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shoal_common::Bitfield;

use crate::content::{Content, Target};
use crate::disk::{DiskError, PartFile, PartFolder};
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
    pub(super) fn lock(path: PathBuf, content: &Content) -> Result<Self, DiskError> {
        let layout = content.layout().clone();
        Ok(match content.listing() {
            None => Self::File(PartFile::lock(path, layout)?),
            Some(listing) => Self::Folder(Arc::new(PartFolder::lock(path, layout, listing.clone())?)),
        })
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::File(file) => &file.path,
            Self::Folder(folder) => folder.path(),
        }
    }

    /// Whether nothing was there before, and the pieces that may be there, whole by their length.
    pub(super) fn present(&self) -> Result<(bool, Bitfield), DiskError> {
        match self {
            Self::File(file) => {
                let length = file.length()?;
                let mut present = Bitfield::none(&file.layout);
                for piece in file.layout.iter() {
                    if file.layout.offset(piece) + u64::from(file.layout.length(piece)) <= length {
                        present.insert(piece);
                    }
                }
                Ok((length == 0, present))
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
    pub(super) fn must_fit(&self, written: &Bitfield) -> Result<(), DiskError> {
        match self {
            Self::File(file) => file.must_fit(written),
            Self::Folder(folder) => folder.must_fit(written),
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
    pub(crate) fn finish(&self, target: &Target) -> Result<(), DiskError> {
        match self {
            Self::File(file) => file.finish(target),
            Self::Folder(folder) => folder.finish(target),
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
