//! What is in the bin, on disk: a list of fixed records, appended and synced, rewritten when most of it is void.
//!
//! A record that is cut off or damaged is passed over: its chunk then counts as held, which is the safe side. Blocks on the
//! disk.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use shoal_common::Uid;
use shoal_common::storage::ChunkId;
use shoal_common::tracker_api::storage::OwnedChunk;

/// Bytes of a record: what, owner, chunk, time, checksum.
const RECORD: usize = 64;
/// Bytes of a record before its checksum.
const BODY: usize = 1 + 16 + 32 + 8;

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
        let (whole, rest) = bytes.as_chunks::<RECORD>();
        let found: Vec<Record> = whole.iter().filter_map(decode).collect();
        if !rest.is_empty() || found.len() < whole.len() {
            tracing::warn!(path = %path.display(), "records of the bin cannot be read; their chunks count as held");
        }
        let mut journal = Self { path: path.to_owned(), file, records: whole.len() };
        journal.cut()?;
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
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.records += records.len(),
            // What was written in part must not stand before what comes later.
            Err(_) => self.cut()?,
        }
        written
    }

    /// Replaces the file by one with these records only. A crash leaves the old one or the new one.
    ///
    /// # Errors
    /// When that cannot be; the old one stays.
    pub(super) fn rewrite(&mut self, records: &[Record]) -> io::Result<()> {
        let draft = self.path.with_extension("new");
        let bytes: Vec<u8> = records.iter().flat_map(encode).collect();
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        (self.file, self.records) = (open(&self.path)?, records.len());
        self.cut()
    }

    /// Ends the file behind its last whole record.
    fn cut(&mut self) -> io::Result<()> {
        let end = (self.records * RECORD) as u64;
        self.file.set_len(end)?;
        self.file.seek(SeekFrom::Start(end)).map(drop)
    }
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
        let bytes = fs::read(&path).unwrap();
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
        let (_, found) = Journal::open(&path).unwrap();
        assert_eq!(found, [record(Entry::Counted, 1), record(Entry::Binned, 2)]);
    }
}
