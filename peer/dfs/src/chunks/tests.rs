use super::*;
use shoal_common::Uid;

const OWNER: Uid = Uid([1; 16]);

fn sealed(seed: u8, length: usize) -> (OwnedChunk, Bytes) {
    let bytes = Bytes::from(vec![seed; length]);
    (OwnedChunk { owner: OWNER, chunk: ChunkId::of(&bytes) }, bytes)
}

async fn open(root: &std::path::Path, capacity: u64) -> Chunks {
    Chunks::open(Arc::new(Folder::open(root, true).unwrap()), capacity).await.unwrap()
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
    assert_eq!(chunks.delete(stranger, Duration::ZERO).await, Ok(false));
    assert!(chunks.holds(&chunk));
    assert!(!root.path().join("tmp/99").exists(), "an interrupted write leaves nothing");
}

#[tokio::test]
async fn capacity_holds_to_the_chunk() {
    let root = tempfile::tempdir().unwrap();
    let chunks = open(root.path(), 2_500).await;
    for seed in 0..2 {
        let (chunk, bytes) = sealed(seed, 1_000);
        chunks.put(chunk, bytes).await.unwrap();
    }
    let (third, bytes) = sealed(2, 1_000);
    assert_eq!(chunks.put(third, bytes.clone()).await, Err(Failure::Full));
    assert_eq!(chunks.room(), Room { capacity: 2_500, free: 500, chunks: 2 });
    let (first, again) = sealed(0, 1_000);
    chunks.put(first, again).await.unwrap();
    assert_eq!(chunks.room().free, 500, "what is there already takes no more");
    assert_eq!(chunks.delete(first, Duration::ZERO).await, Ok(true));
    chunks.put(third, bytes).await.unwrap();
    assert_eq!(chunks.room().free, 500);
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
    let id = chunk.chunk.to_string();
    let path = root.path().join(OWNER.to_string()).join(&id[..2]).join(&id);
    std::fs::write(&path, vec![9; 1_000]).unwrap();
    assert_eq!(chunks.verify(chunk).await, Ok(false));
    assert!(!chunks.holds(&chunk) && !path.exists());
    assert_eq!(chunks.changes_after(number, 10).unwrap().changes, [Change::Gone(chunk)]);
    assert_eq!(std::fs::read_dir(root.path().join("rotten")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_young_chunk_is_not_deleted() {
    let root = tempfile::tempdir().unwrap();
    let chunks = open(root.path(), 1 << 20).await;
    let (chunk, bytes) = sealed(1, 10);
    chunks.put(chunk, bytes).await.unwrap();
    assert_eq!(chunks.delete(chunk, Duration::from_secs(3_600)).await, Ok(false));
    assert!(chunks.holds(&chunk));
    assert_eq!(chunks.delete(chunk, Duration::ZERO).await, Ok(true));
    assert!(!chunks.holds(&chunk));
}

#[tokio::test]
async fn a_file_that_disappears_is_noticed_when_it_is_read() {
    let root = tempfile::tempdir().unwrap();
    let chunks = open(root.path(), 1 << 20).await;
    let (chunk, bytes) = sealed(1, 10);
    chunks.put(chunk, bytes).await.unwrap();
    std::fs::remove_dir_all(root.path().join(OWNER.to_string())).unwrap();
    assert_eq!(chunks.read(chunk, 0, 10).await, Err(Failure::NotFound));
    assert_eq!(chunks.room(), Room { capacity: 1 << 20, free: 1 << 20, chunks: 0 });
}

#[test]
fn changes_are_numbered_and_bounded() {
    let mut ledger = Ledger::new(u64::MAX);
    let chunk = sealed(1, 1).0;
    for _ in 0..3 {
        ledger.stored(Found { chunk, length: 1, stored: SystemTime::now() });
    }
    assert!(ledger.forget(&chunk));
    assert_eq!(ledger.changes_after(0, 2).unwrap().last, 2);
    assert_eq!(ledger.changes_after(2, 9).unwrap().changes, [Change::Held(chunk), Change::Gone(chunk)]);
    assert_eq!(ledger.changes_after(4, 9).unwrap().changes, []);
    assert_eq!(ledger.changes_after(5, 9), None, "a number that never was");
    for _ in 0..100_001 {
        ledger.stored(Found { chunk, length: 1, stored: SystemTime::now() });
    }
    assert_eq!(ledger.changes_after(4, 9), None, "too long ago");
}
