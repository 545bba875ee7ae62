//! What somebody has of a folder at its destination already: read and compared, file by file. Files that are right stay where
//! they are. Of those that are not, the right pieces are used where they may be replaced.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use shoal_common::{Bitfield, PieceIndex};
use tokio_util::sync::CancellationToken;

use super::PartFolder;
use crate::chosen::Chosen;
use crate::content::Content;
use crate::disk::{Adopted, DiskError, io_error};
use crate::folder::{hash_one, in_parallel};
use crate::hash::{FileIdentity, HashError};

/// What a file at the destination is.
enum Found {
    /// The very file.
    Right,
    /// Another one, with these right pieces.
    Other(Vec<PieceIndex>),
    /// There is none any more, or the reading was stopped.
    Nothing,
}

impl PartFolder {
    /// Reads those files at their places. Fails if a chosen one is different and must not be replaced.
    pub(in crate::disk) fn adopt(
        &self,
        content: &Content,
        (files, chosen): (&[usize], &Chosen),
        cancelled: &CancellationToken,
    ) -> Result<Adopted, DiskError> {
        let mut adopted = Adopted { whole: Bitfield::none(&self.layout), pieces: Vec::new() };
        let work = |number: usize| {
            let file = files.get(number).copied().unwrap_or_default();
            let found = match chosen.has(file) {
                // Nobody wants it now, and nobody is told of it.
                false => self.look_at(content, file, cancelled).unwrap_or(Found::Nothing),
                true => self.look_at(content, file, cancelled)?,
            };
            Ok::<_, HashError>((file, found))
        };
        let all = in_parallel(files.len(), work).map_err(|error| self.hash_error(error))?;
        let mut different = Vec::new();
        for (file, found) in all {
            match found {
                Found::Nothing => {}
                Found::Right => self.layout.pieces_of(file).for_each(|piece| {
                    adopted.whole.insert(piece);
                }),
                Found::Other(_) if !chosen.has(file) => {}
                Found::Other(pieces) if self.place.replaces() => adopted.pieces.extend(pieces),
                Found::Other(_) => different.push(file),
            }
        }
        if !self.place.replaces() {
            different.extend(self.not_empty(chosen)?);
            different.sort_unstable();
        }
        match different.first() {
            Some(&first) => {
                let others = different.len() - 1;
                Err(DiskError::Different { path: self.place.path.join(self.name(first)), others })
            }
            None => Ok(adopted),
        }
    }

    /// The chosen files that are to be empty, and are not.
    fn not_empty(&self, chosen: &Chosen) -> Result<Vec<usize>, DiskError> {
        let fault = |error| io_error("look at", &self.place.path, error);
        if self.place.tree().map_err(fault)?.is_none() {
            return Ok(Vec::new());
        }
        let empty = chosen.files(&self.layout).filter(|&file| self.layout.extent(file).is_empty());
        let is_other = |file: &usize| match self.place.look(self.name(*file)) {
            Ok(None) => false,
            Ok(Some(found)) => !found.metadata().is_ok_and(|found| found.is_file() && found.len() == 0),
            Err(_) => true,
        };
        Ok(empty.filter(is_other).collect())
    }

    fn look_at(
        &self,
        content: &Content,
        file: usize,
        cancelled: &CancellationToken,
    ) -> Result<Found, HashError> {
        let (name, path) = (self.name(file), self.place.path.join(self.name(file)));
        let unreadable = |error| HashError::Unreadable { path: path.clone(), error };
        let Some(mut opened) = self.place.look(name).map_err(unreadable)? else { return Ok(Found::Nothing) };
        let Some((_, listed)) = self.listing.file(file) else { return Ok(Found::Nothing) };
        let before = FileIdentity::of_open(&opened).map_err(unreadable)?;
        if before.size != listed.size {
            let pieces = self.right_pieces(content, file, &opened, cancelled).map_err(unreadable)?;
            return Ok(Found::Other(pieces));
        }
        let hashed =
            hash_one(&mut opened, &path, (before.size, self.layout.piece_length()), &|_| {}, cancelled);
        let (pieces, digest) = match hashed {
            Err(HashError::Cancelled) => return Ok(Found::Nothing),
            // It is being written to.
            Err(HashError::Changed(_)) => return Ok(Found::Other(Vec::new())),
            hashed => hashed?,
        };
        if before != FileIdentity::of_open(&opened).map_err(unreadable)? {
            return Ok(Found::Other(Vec::new()));
        }
        if digest == listed.digest() {
            self.place.keep(file, &opened, listed.exec).map_err(unreadable)?;
            return Ok(Found::Right);
        }
        let all = self.layout.pieces_of(file).zip(pieces);
        Ok(Found::Other(
            all.filter(|(piece, sha1)| content.matches(*piece, sha1)).map(|(piece, _)| piece).collect(),
        ))
    }

    /// The right pieces of a file that is longer or shorter than it should be.
    fn right_pieces(
        &self,
        content: &Content,
        file: usize,
        opened: &File,
        cancelled: &CancellationToken,
    ) -> io::Result<Vec<PieceIndex>> {
        let (mut right, mut bytes) = (Vec::new(), Vec::new());
        let start = self.layout.extent(file).start;
        for piece in self.layout.pieces_of(file) {
            bytes.resize(self.layout.length(piece) as usize, 0);
            match opened.read_exact_at(&mut bytes, self.layout.offset(piece) - start) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                read => read?,
            }
            if cancelled.is_cancelled() {
                break;
            }
            if content.matches(piece, &shoal_common::Sha1::of(&bytes)) {
                right.push(piece);
            }
        }
        Ok(right)
    }

    /// Reads a piece of the file that is at its place, whatever it is.
    pub(in crate::disk) fn read_there(&self, piece: PieceIndex, into: &mut [u8]) -> io::Result<()> {
        let (file, at) = self.locate(self.layout.offset(piece))?;
        let opened = self.place.look(self.name(file))?.ok_or(io::ErrorKind::NotFound)?;
        opened.read_exact_at(into, at)
    }

    fn hash_error(&self, error: HashError) -> DiskError {
        match error {
            HashError::Unreadable { path, error } => self.error_at("read", path, error),
            other => io_error("read", &self.place.path, io::Error::other(other.to_string())),
        }
    }
}
