//! The simulation of whole clusters on the tracker's real database. `SHOAL_SEEDS=n` runs that many seeds, `SHOAL_SEED=x` one of
//! them; a failing one is shrunk and shown.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::rc::Rc;

use shoal_replica::{After, BlobHash, Kind, MetaEntry, Row, Rows, Stamp, WriterId};
use shoal_sim::{Broken, Campaign, Disk, look, replay, run};
use shoal_tracker::store::{Store, StoreError};

/// The database of one tracker, in a folder of its own.
struct Database {
    // First, so that it is closed before its folder goes.
    store: Store,
    dir: tempfile::TempDir,
}

/// In memory where the system has such a folder: the simulation decides what is lost, not a real disk.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Copies a database as a power cut leaves it: with its log, without closing it first.
fn copy(from: &Path, to: &Path) {
    for file in ["tracker.db", "tracker.db-wal"] {
        match std::fs::copy(from.join(file), to.join(file)) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("{file}: {error}"),
        }
    }
}

impl Database {
    fn with(from: Option<&PathBuf>) -> Self {
        let dir = folder();
        if let Some(from) = from {
            copy(from, dir.path());
        }
        Self { store: Store::open(dir.path()).unwrap(), dir }
    }
}

impl Disk for Database {
    type Backup = Rc<tempfile::TempDir>;

    fn blank() -> Self {
        Self::with(None)
    }

    fn begin(&mut self) {
        self.store.begin().unwrap();
    }

    fn commit(&mut self) {
        self.store.commit().unwrap();
    }

    fn rollback(&mut self) {
        self.store.rollback().unwrap();
    }

    fn crash(&mut self) {
        let crashed = Self::with(Some(&self.dir.path().to_owned()));
        *self = crashed;
    }

    fn backup(&self) -> Self::Backup {
        let dir = folder();
        copy(self.dir.path(), dir.path());
        Rc::new(dir)
    }

    fn restore(backup: &Self::Backup) -> Self {
        Self::with(Some(&backup.path().to_owned()))
    }
}

impl Rows for Database {
    type Error = StoreError;

    fn get(&self, kind: Kind, key: &[u8]) -> Result<Option<Row>, StoreError> {
        self.store.get(kind, key)
    }

    fn place_for(&self, _kind: Kind, name: &[u8]) -> Vec<u8> {
        look(name)
    }

    fn put(&mut self, row: &Row) -> Result<(), StoreError> {
        self.store.put(row)
    }

    fn remove(&mut self, kind: Kind, key: &[u8]) -> Result<(), StoreError> {
        self.store.remove(kind, key)
    }

    fn above(&self, writer: WriterId, seq: u64, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.store.above(writer, seq, limit)
    }

    fn scan(
        &self,
        kind: Kind,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        self.store.scan(kind, prefix, after, limit)
    }

    fn tombstones(&self, from: Stamp, before: Stamp, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.store.tombstones(from, before, limit)
    }

    fn bucket_sums(&self) -> Result<Vec<u128>, StoreError> {
        self.store.bucket_sums()
    }

    fn bucket_rows(&self, bucket: u16, after: After<'_>, limit: usize) -> Result<Vec<Row>, StoreError> {
        self.store.bucket_rows(bucket, after, limit)
    }

    fn meta(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.meta(key)
    }

    fn put_meta(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.store.put_meta(key, value)
    }

    fn remove_meta(&mut self, key: &[u8]) -> Result<(), StoreError> {
        self.store.remove_meta(key)
    }

    fn scan_meta(&self, prefix: &[u8], limit: usize) -> Result<Vec<MetaEntry>, StoreError> {
        self.store.scan_meta(prefix, limit)
    }

    fn blob_len(&self, hash: BlobHash) -> Result<Option<u64>, StoreError> {
        self.store.blob_len(hash)
    }

    fn read_blob(&self, hash: BlobHash, offset: u64, limit: usize) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.read_blob(hash, offset, limit)
    }

    fn put_blob(&mut self, hash: BlobHash, content: &[u8]) -> Result<(), StoreError> {
        self.store.put_blob(hash, content)
    }

    fn remove_blob(&mut self, hash: BlobHash) -> Result<(), StoreError> {
        self.store.remove_blob(hash)
    }

    fn missing_blobs(&self, limit: usize) -> Result<Vec<BlobHash>, StoreError> {
        self.store.missing_blobs(limit)
    }

    fn unnamed_blobs(&self, after: Option<BlobHash>, limit: usize) -> Result<Vec<BlobHash>, StoreError> {
        self.store.unnamed_blobs(after, limit)
    }
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

#[test]
fn clusters_on_sqlite_stay_in_step_whatever_happens() {
    let found = match number("SHOAL_SEED") {
        Some(seed) => Some(seed),
        None => {
            let seeds = number("SHOAL_SEEDS").unwrap_or(200);
            let campaign = Campaign { from: 0, seeds, broken: Broken::Nothing, threads: 0 };
            run::<Database>(&campaign, |done| println!("{done} seeds")).found.map(|found| found.seed)
        }
    };
    let Some(seed) = found else { return };
    if let Err((found, trace)) = replay::<Database>(seed, Broken::Nothing) {
        trace.iter().for_each(|line| println!("{line}"));
        panic!(
            "seed {seed}: {}\nreplay with: SHOAL_SEED={seed} cargo test -p shoal-tracker --test simulation",
            found.problem
        );
    }
}

#[test]
fn a_life_on_sqlite_is_the_same_as_in_memory() {
    let campaign = Campaign { from: 90_000, seeds: 12, broken: Broken::Nothing, threads: 0 };
    let in_memory = run::<shoal_replica::memory::Memory>(&campaign, |_| ());
    let on_sqlite = run::<Database>(&campaign, |_| ());
    assert!(on_sqlite.found.is_none(), "{:?}", on_sqlite.found);
    assert_eq!(in_memory.tally.to_string(), on_sqlite.tally.to_string());
}
