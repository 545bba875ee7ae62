//! What somebody has of the content at its destination already. Right files of a folder stay where they are; of files that will
//! be replaced, the right pieces are used.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use shoal_common::{Bitfield, PieceIndex, Sha1};
use tokio_util::sync::CancellationToken;

use crate::chosen::Chosen;
use crate::content::{Content, Overwrite, Target};
use crate::disk::{DiskError, Journal, Part, PartFile, io_error};

/// What is right at the destination.
#[derive(Debug)]
pub(super) struct Adopted {
    /// The pieces of files that stay.
    pub(super) whole: Bitfield,
    /// Pieces of files that are to be replaced.
    pub(super) pieces: Vec<PieceIndex>,
}

impl Part {
    /// Reads what is at the destination: of a folder these files, or the file that is to be replaced if `is_new`. Stops early
    /// when cancelled.
    pub(super) fn adopt(
        &self,
        (target, content): (&Target, &Content),
        (is_new, files, chosen): (bool, &[usize], &Chosen),
        cancelled: &CancellationToken,
    ) -> Result<Adopted, DiskError> {
        let none = Adopted { whole: Bitfield::none(content.layout()), pieces: Vec::new() };
        match self {
            Self::Folder(folder) => folder.adopt(content, (files, chosen), cancelled),
            Self::File(_)
                if is_new && target.overwrite() == Overwrite::Replace && content.hashes_pieces() =>
            {
                let pieces = right_pieces(target, content, cancelled);
                let pieces = pieces.map_err(|error| io_error("read", target.path(), error))?;
                Ok(Adopted { pieces, ..none })
            }
            Self::File(_) => Ok(none),
        }
    }

    /// Copies right pieces of what is to be replaced; gives those that are there now.
    pub(super) fn copy(
        &self,
        (target, content, journal): (&Target, &Content, &Journal),
        pieces: &[PieceIndex],
    ) -> Result<Bitfield, DiskError> {
        let (layout, mut copied, mut bytes) =
            (content.layout(), Bitfield::none(content.layout()), Vec::new());
        for &piece in pieces {
            bytes.resize(layout.length(piece) as usize, 0);
            let read = match self {
                Self::Folder(folder) => folder.read_there(piece, &mut bytes),
                Self::File(_) => File::open(target.path())
                    .and_then(|file| file.read_exact_at(&mut bytes, layout.offset(piece))),
            };
            // It was right a moment ago, and may have been written to.
            if read.is_ok() && content.matches(piece, &Sha1::of(&bytes)) {
                journal.list(piece)?;
                match self {
                    Self::Folder(folder) => folder.write_bytes(layout.offset(piece), &bytes)?,
                    Self::File(file) => file.write_bytes(layout.offset(piece), &bytes)?,
                }
                copied.insert(piece);
            }
        }
        Ok(copied)
    }
}

impl PartFile {
    fn write_bytes(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_all_at(bytes, offset).map_err(|error| self.error("write", error))
    }
}

fn right_pieces(
    target: &Target,
    content: &Content,
    cancelled: &CancellationToken,
) -> io::Result<Vec<PieceIndex>> {
    let mut right = Vec::new();
    let file = match File::open(target.path()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(right),
        file => file?,
    };
    if !file.metadata()?.is_file() {
        return Ok(right);
    }
    let (layout, mut bytes) = (content.layout(), Vec::new());
    for piece in layout.iter() {
        bytes.resize(layout.length(piece) as usize, 0);
        match file.read_exact_at(&mut bytes, layout.offset(piece)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            read => read?,
        }
        if cancelled.is_cancelled() {
            break;
        }
        if content.matches(piece, &Sha1::of(&bytes)) {
            right.push(piece);
        }
    }
    Ok(right)
}
