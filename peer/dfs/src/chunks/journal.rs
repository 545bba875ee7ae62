//! What is in the bin, on disk: a list of fixed records, appended and synced, rewritten when most of it is void.
//!
//! Behind the last record the file has zeros, room for more records: on a disk that is full meanwhile, they can be written
//! still. A file system that never writes where something lies needs room all the same; appending needs none.
//!
//! A record that is cut off or damaged is passed over: its chunk then counts as held, which is the safe side. Blocks on the
//! disk.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use shoal_common::Uid;
use shoal_common::storage::ChunkId;
use shoal_common::tracker_api::storage::OwnedChunk;

/// Bytes of a record: what, owner, chunk, time, checksum.
const RECORD: usize = 64;
/// Bytes of a record before its checksum.
const BODY: usize = 1 + 16 + 32 + 8;

/// Room that is kept for records: 64 KiB.
const SPARE: usize = 1_024;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// The chunk was put into the bin.
    Binned,
    /// It is held again.
    Restored,
    /// It is gone for good.
    Removed,
    /// Some chunk was put into the bin at that time; it counts for the day's share only.
    Counted,
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) entry: Entry,
    pub(super) chunk: OwnedChunk,
    /// When, in milliseconds since 1970 by the node's clock.
    pub(super) at_ms: u64,
}

/// The file.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    records: usize,
    /// Records that the file has room for.
    room: usize,
}

impl Journal {
    /// Opens or makes the file; with what it says, in order.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Record>)> {
        let mut file = open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (all, rest) = bytes.as_chunks::<RECORD>();
        let spare = all.iter().rev().take_while(|record| record.iter().all(|&byte| byte == 0)).count();
        let whole = &all[..all.len() - spare];
        let found: Vec<Record> = whole.iter().filter_map(decode).collect();
        if rest.iter().any(|&byte| byte != 0) || found.len() < whole.len() {
            tracing::warn!(path = %path.display(), "records of the bin cannot be read; their chunks count as held");
        }
        let mut journal = Self { path: path.to_owned(), file, records: whole.len(), room: all.len() };
        journal.clear()?;
        Ok((journal, found))
    }

    /// Records in the file.
    pub(super) fn len(&self) -> usize {
        self.records
    }

    /// Adds records; they are durable when this returns.
    ///
    /// # Errors
    /// When they are not; none of them counts then.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let bytes: Vec<u8> = records.iter().flat_map(encode).collect();
        let end = self.records + records.len();
        // Without more room it may fit all the same.
        if end > self.room
            && let Err(error) = self.grow(end + SPARE)
        {
            tracing::debug!(%error, "no more room for the list of deleted chunks");
        }
        let written = self
            .file
            .write_all_at(&bytes, place(self.records))
            .and_then(|()| shoal_disk::sync_data(&self.file));
        match written {
            Ok(()) => {
                self.records = end;
                self.room = self.room.max(end);
            }
            // What was written in part must not stand before what comes later.
            Err(_) => self.clear()?,
        }
        written
    }

    /// Makes room for so many records in all.
    fn grow(&mut self, records: usize) -> io::Result<()> {
        let zeros = vec![0; records.saturating_sub(self.room) * RECORD];
        let grown =
            self.file.write_all_at(&zeros, place(self.room)).and_then(|()| shoal_disk::sync_file(&self.file));
        match grown {
            Ok(()) => self.room = self.room.max(records),
            Err(_) => self.clear()?,
        }
        grown
    }

    /// Replaces the file by one with these records only. A crash leaves the old one or the new one.
    ///
    /// # Errors
    /// When that cannot be; the old one stays.
    pub(super) fn rewrite(&mut self, records: &[Record]) -> io::Result<()> {
        let draft = self.path.with_extension("new");
        let mut bytes: Vec<u8> = records.iter().flat_map(encode).collect();
        bytes.resize(bytes.len() + SPARE * RECORD, 0);
        if let Err(error) = write(&draft, &bytes) {
            // It would only take room, of which there may be none left.
            let _ = fs::remove_file(&draft);
            return Err(error);
        }
        fs::rename(&draft, &self.path)?;
        if let Some(folder) = self.path.parent() {
            shoal_disk::sync_folder(folder)?;
        }
        (self.file, self.records, self.room) = (open(&self.path)?, records.len(), records.len() + SPARE);
        Ok(())
    }

    /// Leaves nothing but room behind the last whole record.
    fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(place(self.room))?;
        let zeros = vec![0; self.room.saturating_sub(self.records) * RECORD];
        match self.file.write_all_at(&zeros, place(self.records)) {
            Ok(()) => Ok(()),
            Err(_) => {
                self.room = self.records;
                self.file.set_len(place(self.room))
            }
        }
    }
}

/// Where in the file the record of that number begins.
fn place(record: usize) -> u64 {
    (record * RECORD) as u64
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    shoal_disk::sync_file(&file)
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn encode(record: &Record) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    bytes[0] = match record.entry {
        Entry::Binned => 1,
        Entry::Restored => 2,
        Entry::Removed => 3,
        Entry::Counted => 4,
    };
    bytes[1..17].copy_from_slice(&record.chunk.owner.0);
    bytes[17..49].copy_from_slice(&record.chunk.chunk.0);
    bytes[49..BODY].copy_from_slice(&record.at_ms.to_le_bytes());
    let sum = checksum(&bytes);
    bytes[BODY..].copy_from_slice(&sum);
    bytes
}

fn decode(bytes: &[u8; RECORD]) -> Option<Record> {
    let entry = match bytes[0] {
        1 => Entry::Binned,
        2 => Entry::Restored,
        3 => Entry::Removed,
        4 => Entry::Counted,
        _ => return None,
    };
    if bytes[BODY..] != checksum(bytes) {
        return None;
    }
    let owner = Uid(*bytes[1..].first_chunk()?);
    let chunk = ChunkId(*bytes[17..].first_chunk()?);
    let at_ms = u64::from_le_bytes(*bytes[49..].first_chunk()?);
    Some(Record { entry, chunk: OwnedChunk { owner, chunk }, at_ms })
}

fn checksum(bytes: &[u8; RECORD]) -> [u8; RECORD - BODY] {
    let mut sum = [0; RECORD - BODY];
    let hash = blake3::hash(&bytes[..BODY]);
    sum.copy_from_slice(&hash.as_bytes()[..RECORD - BODY]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(entry: Entry, seed: u8) -> Record {
        let chunk = OwnedChunk { owner: Uid([seed; 16]), chunk: ChunkId([seed; 32]) };
        Record { entry, chunk, at_ms: u64::from(seed) << 40 }
    }

    #[test]
    fn what_was_appended_is_read_again_wherever_the_file_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bin");
        let all = [Entry::Binned, Entry::Restored, Entry::Removed, Entry::Counted];
        let all: Vec<Record> = all.into_iter().zip(1..).map(|(entry, seed)| record(entry, seed)).collect();
        let (mut journal, found) = Journal::open(&path).unwrap();
        assert_eq!(found, []);
        journal.append(&all[..1]).unwrap();
        journal.append(&all[1..]).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(all.len() * RECORD);
        for cut in 0..=bytes.len() {
            fs::write(&path, &bytes[..cut]).unwrap();
            let (mut journal, found) = Journal::open(&path).unwrap();
            assert_eq!(found, all[..cut / RECORD], "cut to {cut}");
            journal.append(&all[3..]).unwrap();
            let (_, found) = Journal::open(&path).unwrap();
            assert_eq!(found.len(), cut / RECORD + 1, "what is appended after a cut is whole");
        }
        for at in 0..RECORD {
            let mut bytes = bytes.clone();
            bytes[RECORD + at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let (_, found) = Journal::open(&path).unwrap();
            assert_eq!(found, [all[0], all[2], all[3]], "a damaged record is passed over");
        }
    }

    #[test]
    fn a_rewritten_file_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bin");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.append(&[record(Entry::Binned, 1), record(Entry::Removed, 1)]).unwrap();
        journal.rewrite(&[record(Entry::Counted, 1)]).unwrap();
        journal.append(&[record(Entry::Binned, 2)]).unwrap();
        assert_eq!(journal.len(), 2);
        let (journal, found) = Journal::open(&path).unwrap();
        assert_eq!(found, [record(Entry::Counted, 1), record(Entry::Binned, 2)]);
        assert_eq!((journal.len(), journal.room), (2, 1 + SPARE), "the rest is room");
    }
}
