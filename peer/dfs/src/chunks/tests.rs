use std::os::unix::fs::MetadataExt;

use super::*;
use shoal_common::Uid;
use tokio_util::sync::CancellationToken;

const OWNER: Uid = Uid([1; 16]);

fn sealed(seed: u8, length: usize) -> (OwnedChunk, Bytes) {
    let bytes = Bytes::from(vec![seed; length]);
    (OwnedChunk { owner: OWNER, chunk: ChunkId::of(&bytes) }, bytes)
}

fn rules(root: &std::path::Path) -> BinRules {
    let keep = Duration::from_secs(3_600);
    BinRules { journal: root.join("bin"), keep, daily_percent: 10, restore: false }
}

async fn open(root: &std::path::Path, capacity: u64) -> Chunks {
    open_with(root, capacity, rules(root)).await
}

async fn open_with(root: &std::path::Path, capacity: u64, rules: BinRules) -> Chunks {
    Chunks::open(Arc::new(Folder::open(root, true).unwrap()), capacity, rules).await.unwrap()
}

fn path_of(root: &std::path::Path, chunk: &OwnedChunk) -> std::path::PathBuf {
    let id = chunk.chunk.to_string();
    root.join(chunk.owner.to_string()).join(&id[..2]).join(&id)
}

/// Looks again and again until that is so.
async fn until(done: &dyn Fn() -> bool) {
    let done = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), done).await.unwrap();
}

#[tokio::test]
async fn what_is_put_is_there_after_a_restart_and_apart_for_each_owner() {
    let root = tempfile::tempdir().unwrap();
    let chunks = open(root.path(), 1 << 20).await;
    let (chunk, bytes) = sealed(1, 1_000);
    chunks.put(chunk, bytes.clone()).await.unwrap();
    std::fs::write(root.path().join("tmp/99"), b"cut off").unwrap();
    let error = Folder::open(root.path(), true).unwrap_err().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    drop(chunks);
    let chunks = open(root.path(), 1 << 20).await;
    assert_eq!(chunks.read(chunk, 0, 1_000).await.unwrap(), bytes);
    assert_eq!(chunks.read(chunk, 10, 5).await.unwrap(), bytes[10..15]);
    assert_eq!(chunks.read(chunk, 999, 2).await, Err(Failure::NotFound));
    let stranger = OwnedChunk { owner: Uid([2; 16]), ..chunk };
    assert_eq!(chunks.read(stranger, 0, 1).await, Err(Failure::NotFound));
    assert_eq!(chunks.delete(stranger).await, Ok(false));
    assert!(chunks.holds(&chunk));
    assert!(!root.path().join("tmp/99").exists(), "an interrupted write leaves nothing");
}

#[tokio::test]
async fn capacity_holds_to_the_chunk() {
    let root = tempfile::tempdir().unwrap();
    let chunks = open(root.path(), 25_000).await;
    for seed in 0..2 {
        let (chunk, bytes) = sealed(seed, 10_000);
        chunks.put(chunk, bytes).await.unwrap();
    }
    let (third, bytes) = sealed(2, 10_000);
    assert_eq!(chunks.put(third, bytes.clone()).await, Err(Failure::Full));
    assert_eq!((chunks.room().free, chunks.room().chunks), (5_000, 2));
    let (first, again) = sealed(0, 10_000);
    chunks.put(first, again).await.unwrap();
    assert_eq!(chunks.room().free, 5_000, "what is there already takes no more");
    assert_eq!(chunks.delete(first).await, Ok(true));
    chunks.put(third, bytes).await.unwrap();
    assert_eq!(chunks.room().free, 5_000);
}

#[tokio::test]
async fn a_tiny_chunk_takes_a_block_of_the_capacity() {
    let root = tempfile::tempdir().unwrap();
    let chunks = open(root.path(), 10_000).await;
    for seed in 0..2 {
        let (chunk, bytes) = sealed(seed, 3);
        chunks.put(chunk, bytes).await.unwrap();
    }
    assert_eq!(chunks.room().free, 10_000 - 2 * 4_096);
    let (third, bytes) = sealed(2, 3);
    assert_eq!(chunks.put(third, bytes).await, Err(Failure::Full));
}

#[tokio::test]
async fn wrong_bytes_are_not_taken_and_rot_is_found() {
    let root = tempfile::tempdir().unwrap();
    let chunks = open(root.path(), 1 << 20).await;
    let (chunk, bytes) = sealed(1, 1_000);
    assert_eq!(chunks.put(chunk, Bytes::from_static(b"other")).await, Err(Failure::Damaged));
    chunks.put(chunk, bytes).await.unwrap();
    assert_eq!(chunks.verify(chunk).await, Ok(true));
    let (_, number) = chunks.snapshot();
    let path = path_of(root.path(), &chunk);
    std::fs::write(&path, vec![9; 1_000]).unwrap();
    assert_eq!(chunks.verify(chunk).await, Ok(false));
    assert!(!chunks.holds(&chunk) && !path.exists());
    assert_eq!(chunks.changes_after(number, 10).unwrap().changes, [Change::Gone(chunk)]);
    assert_eq!(std::fs::read_dir(root.path().join("rotten")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_young_chunk_is_not_discarded_and_one_that_is_asked_for_is_young_again() {
    let root = tempfile::tempdir().unwrap();
    let chunks = open(root.path(), 1 << 20).await;
    let (chunk, bytes) = sealed(1, 10);
    chunks.put(chunk, bytes).await.unwrap();
    let hour = Duration::from_secs(3_600);
    assert_eq!(chunks.discard(&[chunk], hour).await, Ok(vec![Discarded::Young]));
    assert!(chunks.holds(&chunk));
    drop(chunks);
    let old = SystemTime::now() - 2 * hour;
    let file = std::fs::File::options().write(true).open(path_of(root.path(), &chunk)).unwrap();
    file.set_modified(old).unwrap();
    let chunks = open(root.path(), 1 << 20).await;
    assert_eq!(chunks.keep(&[chunk]).await, Ok(vec![true]));
    assert_eq!(chunks.discard(&[chunk], hour).await, Ok(vec![Discarded::Young]));
    drop(chunks);
    let chunks = open(root.path(), 1 << 20).await;
    assert_eq!(chunks.discard(&[chunk], hour).await, Ok(vec![Discarded::Young]), "after a restart too");
    file.set_modified(old).unwrap();
    drop(chunks);
    let chunks = open(root.path(), 1 << 20).await;
    assert_eq!(chunks.discard(&[chunk], hour).await, Ok(vec![Discarded::Binned]));
    assert_eq!(chunks.discard(&[chunk], hour).await, Ok(vec![Discarded::Absent]));
}

/// A node with twenty chunks, none of them young.
async fn twenty(root: &std::path::Path, rules: BinRules) -> (Chunks, Vec<(OwnedChunk, Bytes)>) {
    let chunks = open_with(root, 1 << 20, rules).await;
    let all: Vec<(OwnedChunk, Bytes)> = (0..20).map(|seed| sealed(seed, 100)).collect();
    for (chunk, bytes) in &all {
        chunks.put(*chunk, bytes.clone()).await.unwrap();
    }
    (chunks, all)
}

#[tokio::test]
async fn at_most_a_tenth_goes_into_the_bin_in_a_day_also_over_restarts_and_restores() {
    let root = tempfile::tempdir().unwrap();
    let (mut chunks, all) = twenty(root.path(), rules(root.path())).await;
    let ids: Vec<OwnedChunk> = all.iter().map(|(chunk, _)| *chunk).collect();
    for round in 0..3 {
        let done = chunks.discard(&ids, Duration::ZERO).await.unwrap();
        let binned = done.iter().filter(|done| **done == Discarded::Binned).count();
        assert_eq!(binned, if round == 0 { 2 } else { 0 }, "round {round}");
        assert!(all.iter().all(|(chunk, _)| path_of(root.path(), chunk).is_file()), "nothing is removed");
        // What comes out of the bin stays counted.
        assert_eq!(chunks.keep(&ids).await.unwrap(), vec![true; 20]);
        assert_eq!(chunks.bin_len(), 0);
        drop(chunks);
        chunks = open(root.path(), 1 << 20).await;
    }
    assert_eq!(chunks.room().chunks, 20);
}

#[tokio::test]
async fn what_is_in_the_bin_is_there_after_a_restart_takes_its_room_and_comes_back_when_it_is_needed() {
    let root = tempfile::tempdir().unwrap();
    let (chunks, all) = twenty(root.path(), rules(root.path())).await;
    let (chunk, bytes) = all[3].clone();
    let (other, others) = all[4].clone();
    let free = chunks.room().free;
    assert_eq!(chunks.discard(&[chunk, other], Duration::ZERO).await.unwrap(), [Discarded::Binned; 2]);
    drop(chunks);
    let chunks = open(root.path(), 1 << 20).await;
    assert!(!chunks.holds(&chunk) && !chunks.holds(&other));
    assert_eq!((chunks.room().free, chunks.room().chunks), (free, 18));
    let (_, number) = chunks.snapshot();
    // Put again, or read by its owner: no other copy is written.
    let path = path_of(root.path(), &chunk);
    let written = std::fs::metadata(&path).unwrap().ino();
    chunks.put(chunk, bytes).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), written);
    assert_eq!(chunks.read(other, 0, 100).await.unwrap(), others);
    let changes = chunks.changes_after(number, 9).unwrap().changes;
    assert!(changes.contains(&Change::Held(chunk)) && changes.contains(&Change::Held(other)));
    drop(chunks);
    let chunks = open(root.path(), 1 << 20).await;
    assert_eq!((chunks.room().chunks, chunks.bin_len()), (20, 0), "it was said to be held, and is");
}

#[tokio::test]
async fn a_crash_at_any_byte_of_the_journal_leaves_each_chunk_held_or_in_the_bin() {
    let root = tempfile::tempdir().unwrap();
    let all_may_go = BinRules { daily_percent: 100, ..rules(root.path()) };
    let (chunks, all) = twenty(root.path(), all_may_go.clone()).await;
    let ids: Vec<OwnedChunk> = all.iter().map(|(chunk, _)| *chunk).collect();
    chunks.discard(&ids[..8], Duration::ZERO).await.unwrap();
    chunks.keep(&ids[2..4]).await.unwrap();
    assert_eq!(chunks.delete(ids[7]).await, Ok(true));
    drop(chunks);
    let mut journal = std::fs::read(root.path().join("bin")).unwrap();
    journal.truncate(journal.iter().rposition(|&byte| byte != 0).unwrap() + 2);
    for cut in 0..=journal.len() {
        std::fs::write(root.path().join("bin"), &journal[..cut]).unwrap();
        let chunks = open_with(root.path(), 1 << 20, all_may_go.clone()).await;
        assert_eq!(chunks.room().chunks + chunks.bin_len(), 19, "cut at {cut}");
        assert_eq!(chunks.room().free, (1 << 20) - 19 * 4_096, "cut at {cut}");
        for (chunk, bytes) in all.iter().take(7) {
            assert_eq!(chunks.read(*chunk, 0, 100).await.as_ref(), Ok(bytes), "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn an_operator_has_all_of_the_bin_held_again() {
    let root = tempfile::tempdir().unwrap();
    let (chunks, all) = twenty(root.path(), rules(root.path())).await;
    let (chunk, _) = all[0];
    chunks.discard(&[chunk], Duration::ZERO).await.unwrap();
    drop(chunks);
    let restore = BinRules { restore: true, ..rules(root.path()) };
    let chunks = open_with(root.path(), 1 << 20, restore).await;
    assert!(chunks.holds(&chunk));
    let hour = Duration::from_secs(3_600);
    assert_eq!(chunks.discard(&[chunk], hour).await, Ok(vec![Discarded::Young]), "as if just stored");
    drop(chunks);
    assert!(open(root.path(), 1 << 20).await.holds(&chunk), "after another restart too");
}

#[tokio::test]
async fn the_bin_is_emptied_after_its_time_and_what_is_stored_anew_is_not_in_it() {
    let root = tempfile::tempdir().unwrap();
    let short = BinRules { keep: Duration::ZERO, ..rules(root.path()) };
    let (chunks, all) = twenty(root.path(), short.clone()).await;
    let (chunk, bytes) = all[0].clone();
    let free = chunks.room().free;
    chunks.discard(&[chunk], Duration::ZERO).await.unwrap();
    let stop = CancellationToken::new();
    let emptying = tokio::spawn(chunks.clone().keep_bin(stop.clone()));
    until(&|| chunks.bin_len() == 0).await;
    assert!(!path_of(root.path(), &chunk).exists());
    assert_eq!(chunks.room().free, free + 4_096);
    chunks.put(chunk, bytes).await.unwrap();
    stop.cancel();
    emptying.await.unwrap();
    drop(chunks);
    let chunks = open_with(root.path(), 1 << 20, short).await;
    assert!(chunks.holds(&chunk) && chunks.bin_len() == 0);
}

/// A tmpfs over a folder, while it lives.
struct SmallDisk<'a>(&'a std::path::Path);

impl<'a> SmallDisk<'a> {
    fn mount(folder: &'a std::path::Path) -> Option<Self> {
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(folder)
            .status();
        mount.is_ok_and(|status| status.success()).then_some(Self(folder))
    }

    /// Takes all the room that there is.
    fn fill(&self) {
        let file = std::fs::File::create(self.0.join("ballast")).unwrap();
        let filled = std::io::copy(&mut std::io::Read::take(std::io::repeat(1), 4 << 20), &mut &file);
        assert!(filled.is_err());
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[tokio::test]
async fn on_a_full_disk_a_node_opens_bins_and_gives_back_what_is_in_its_bin() {
    let root = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(root.path()) else {
        return println!(
            "SKIPPED: on_a_full_disk_a_node_opens_bins_and_gives_back_what_is_in_its_bin needs root to mount a tmpfs"
        );
    };
    let all_may_go = BinRules { daily_percent: 100, ..rules(root.path()) };
    let (chunks, all) = twenty(root.path(), all_may_go.clone()).await;
    let ids: Vec<OwnedChunk> = all.iter().map(|(chunk, _)| *chunk).collect();
    chunks.discard(&ids[..5], Duration::ZERO).await.unwrap();
    drop(chunks);
    disk.fill();
    let chunks = open_with(root.path(), 1 << 20, all_may_go.clone()).await;
    assert_eq!((chunks.room().chunks, chunks.bin_len()), (15, 5));
    assert_eq!(chunks.discard(&ids[5..10], Duration::ZERO).await.unwrap(), [Discarded::Binned; 5]);
    // Over and over, until there is no room for a record.
    let mut rounds = 0;
    while chunks.discard(&ids[10..], Duration::ZERO).await.is_ok() {
        assert_eq!(chunks.keep(&ids[10..]).await.unwrap(), [true; 10]);
        rounds += 1;
        assert!(rounds < 1_000, "the disk is full");
    }
    for (chunk, bytes) in &all {
        assert_eq!(chunks.read(*chunk, 0, 100).await.as_ref(), Ok(bytes));
    }
    assert_eq!((chunks.room().chunks, chunks.bin_len()), (20, 0), "read, so needed");
    drop(chunks);
    let chunks = open_with(root.path(), 1 << 20, all_may_go).await;
    assert_eq!((chunks.room().chunks, chunks.bin_len()), (20, 0), "after a restart too");
}

/// A folder in which the second removal waits.
struct SlowToDelete {
    folder: Folder,
    first: Mutex<Option<OwnedChunk>>,
    verifier: tokio::sync::Semaphore,
}

impl Backend for SlowToDelete {
    fn list(&self) -> BoxFuture<'_, Result<Vec<Found>, BackendError>> {
        self.folder.list()
    }

    fn put(&self, chunk: OwnedChunk, bytes: Bytes) -> BoxFuture<'_, Result<(), BackendError>> {
        self.folder.put(chunk, bytes)
    }

    fn read(&self, chunk: OwnedChunk, at: u32, length: u32) -> BoxFuture<'_, Result<Bytes, BackendError>> {
        self.folder.read(chunk, at, length)
    }

    fn delete(&self, chunk: OwnedChunk) -> BoxFuture<'_, Result<(), BackendError>> {
        let first = *self.first.lock().unwrap().get_or_insert(chunk);
        Box::pin(async move {
            if chunk != first {
                drop(self.verifier.acquire().await);
            }
            self.folder.delete(chunk).await
        })
    }

    fn touch(&self, chunks: Vec<OwnedChunk>, at: SystemTime) -> BoxFuture<'_, Result<bool, BackendError>> {
        self.folder.touch(chunks, at)
    }

    fn set_aside(&self, chunk: OwnedChunk) -> BoxFuture<'_, Result<(), BackendError>> {
        self.folder.set_aside(chunk)
    }
}

#[tokio::test]
async fn a_chunk_that_is_stored_and_binned_anew_while_the_bin_is_emptied_is_not_lost_sight_of() {
    let root = tempfile::tempdir().unwrap();
    let folder = Folder::open(root.path(), true).unwrap();
    let backend = SlowToDelete { folder, first: Mutex::default(), verifier: tokio::sync::Semaphore::new(0) };
    let backend = Arc::new(backend);
    let short = BinRules { keep: Duration::ZERO, daily_percent: 100, ..rules(root.path()) };
    let chunks = Chunks::open(backend.clone(), 1 << 20, short).await.unwrap();
    let both = [sealed(1, 100), sealed(2, 100)];
    for (chunk, bytes) in &both {
        chunks.put(*chunk, bytes.clone()).await.unwrap();
    }
    chunks.discard(&both.clone().map(|(chunk, _)| chunk), Duration::ZERO).await.unwrap();
    let stop = CancellationToken::new();
    let emptying = tokio::spawn(chunks.clone().keep_bin(stop.clone()));
    // While the second is being removed, nothing holds the first but what is done with it.
    until(&|| backend.first.lock().unwrap().is_some_and(|first| !path_of(root.path(), &first).exists()))
        .await;
    let first = backend.first.lock().unwrap().unwrap();
    let (_, bytes) = both.iter().find(|(chunk, _)| *chunk == first).unwrap();
    let again = async {
        chunks.put(first, bytes.clone()).await.unwrap();
        chunks.discard(&[first], Duration::ZERO).await.unwrap();
    };
    tokio::join!(again, async { backend.verifier.add_permits(9) });
    until(&|| chunks.bin_len() == 0 && !path_of(root.path(), &first).exists()).await;
    assert_eq!((chunks.room().free, chunks.room().chunks), (1 << 20, 0));
    stop.cancel();
    emptying.await.unwrap();
}

#[test]
fn what_could_not_be_put_into_the_bin_takes_nothing_of_the_days_share() {
    let mut index = ChunkIndex::new(u64::MAX, 10);
    let all: Vec<OwnedChunk> = (0..10).map(|seed| sealed(seed, 1).0).collect();
    for chunk in &all {
        index.found(Found { chunk: *chunk, length: 1, stored: SystemTime::UNIX_EPOCH });
    }
    let now = Some(SystemTime::now());
    assert_eq!(index.discard(&all[0], now, 7), Discarded::Binned);
    index.take_back(&all[0], 7);
    assert_eq!(index.discard(&all[1], now, 8), Discarded::Binned);
    assert_eq!(index.discard(&all[2], now, 9), Discarded::Spent);
    assert_eq!((index.room().chunks, index.bin_len()), (9, 1));
}

#[tokio::test]
async fn a_file_that_disappears_is_noticed_when_it_is_read() {
    let root = tempfile::tempdir().unwrap();
    let chunks = open(root.path(), 1 << 20).await;
    let (chunk, bytes) = sealed(1, 10);
    chunks.put(chunk, bytes).await.unwrap();
    std::fs::remove_dir_all(root.path().join(OWNER.to_string())).unwrap();
    assert_eq!(chunks.read(chunk, 0, 10).await, Err(Failure::NotFound));
    assert_eq!((chunks.room().free, chunks.room().chunks), (1 << 20, 0));
}

#[tokio::test]
async fn of_one_user_as_much_is_held_as_is_allowed_also_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let chunks = open(root.path(), 1 << 20).await;
    let allowance = 3 * 4_096;
    let all: Vec<_> = (0..5).map(|seed| sealed(seed, 10)).collect();
    let put = async |chunks: &Chunks, number: usize| {
        let (chunk, bytes) = all[number].clone();
        chunks.put_within(allowance, chunk, bytes).await
    };
    for number in [0, 1, 2, 2] {
        put(&chunks, number).await.unwrap();
    }
    assert_eq!(put(&chunks, 3).await, Err(Failure::Quota));
    drop(chunks);
    let chunks = open(root.path(), 1 << 20).await;
    assert_eq!(put(&chunks, 3).await, Err(Failure::Quota));
    let stranger = OwnedChunk { owner: Uid([2; 16]), ..all[3].0 };
    chunks.put_within(allowance, stranger, all[3].1.clone()).await.unwrap();
    // What is in the bin does not count, and what came out of it does.
    assert_eq!(chunks.discard(&[all[0].0], Duration::ZERO).await, Ok(vec![Discarded::Binned]));
    put(&chunks, 3).await.unwrap();
    assert_eq!(chunks.keep(&[all[0].0]).await, Ok(vec![true]));
    assert_eq!(chunks.delete(all[1].0).await, Ok(true));
    assert_eq!(put(&chunks, 1).await, Err(Failure::Quota));
    assert_eq!(chunks.delete(all[2].0).await, Ok(true));
    put(&chunks, 1).await.unwrap();
    // A copy that trackers order is made in any case.
    chunks.put(all[4].0, all[4].1.clone()).await.unwrap();
}

#[test]
fn changes_are_numbered_and_bounded() {
    let mut index = ChunkIndex::new(u64::MAX, 10);
    let chunk = sealed(1, 1).0;
    for _ in 0..3 {
        index.stored(Found { chunk, length: 1, stored: SystemTime::now() });
    }
    assert!(index.forget(&chunk));
    assert_eq!(index.changes_after(0, 2).unwrap().last, 2);
    assert_eq!(index.changes_after(2, 9).unwrap().changes, [Change::Held(chunk), Change::Gone(chunk)]);
    assert_eq!(index.changes_after(4, 9).unwrap().changes, []);
    assert_eq!(index.changes_after(5, 9), None, "a number that never was");
    for _ in 0..100_001 {
        index.stored(Found { chunk, length: 1, stored: SystemTime::now() });
    }
    assert_eq!(index.changes_after(4, 9), None, "too long ago");
}
