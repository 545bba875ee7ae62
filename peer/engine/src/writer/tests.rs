//! The writer with the whole file's digest in its hands.

use std::fs::File;
use std::os::unix::fs::FileExt;

use shoal_common::{Digests, Layout};
use tempfile::TempDir;

use super::*;
use crate::chosen::Chosen;
use crate::conformance::sample_file;
use crate::content::{Content, Overwrite, Target};
use crate::disk::Opened;
use crate::pool::Pool;

/// Pieces are blocks here.
const PIECE: u32 = 64 * 1024;

/// A download of which the test says what comes when.
struct Desk {
    bytes: Arc<[u8]>,
    context: PartContext,
    target: Target,
    pool: Pool,
    written: Bitfield,
    /// None only while the writer has it.
    prefix: Option<Prefix>,
    _folder: TempDir,
}

impl Desk {
    fn new(pieces: u32) -> Self {
        let (bytes, content) = sample_file((pieces * PIECE) as usize, PIECE, 1);
        let folder = tempfile::tempdir().unwrap();
        let target = Target::new(folder.path().join("file"), Overwrite::Refuse);
        let Opened { part, journal, written, .. } = {
            let what = (&target, &content, &Chosen::all());
            Opened::open(what, &CancellationToken::new()).unwrap()
        };
        let prefix = Some(Prefix::new(&content));
        let context = PartContext { content, part, journal };
        Self { bytes, context, target, pool: Pool::new(64), written, prefix, _folder: folder }
    }

    fn piece(&self, index: u32) -> PieceIndex {
        self.context.content.layout().piece(index).unwrap()
    }

    async fn check(&self, index: u32) -> Job {
        let piece = self.piece(index);
        let mut block = self.pool.block().await;
        let start = (index * PIECE) as usize;
        block.put(PIECE as usize, |into| {
            into.copy_from_slice(&self.bytes[start..start + into.len()]);
            (into.len(), ())
        });
        Job::Check(PieceData { piece, spilled: 0, blocks: vec![block] })
    }

    /// Has these pieces, which came in this order, checked and written.
    async fn work(&mut self, pieces: &[u32]) {
        let mut queue = VecDeque::new();
        for &index in pieces {
            queue.push_back(self.check(index).await);
        }
        let done = self.context.work(next_batch(&mut queue), self.prefix.take(), &self.written);
        assert!(done.result.is_ok() && queue.is_empty());
        for checked in done.checked {
            let Checked::Written(data) = checked else { panic!("{checked:?}") };
            self.written.insert(data.piece);
        }
        self.prefix = done.prefix;
    }

    fn prefix(&mut self) -> &mut Prefix {
        self.prefix.as_mut().unwrap()
    }

    fn covered(&self) -> u64 {
        self.prefix.as_ref().unwrap().covered_bytes() / u64::from(PIECE)
    }

    /// Makes everything on the disk wrong: reading it back gives another digest.
    fn spoil(&self) {
        let file = File::options().write(true).open(self.target.part_path()).unwrap();
        file.write_all_at(&vec![0; self.bytes.len()], 0).unwrap();
    }

    /// The digest, after what is left to be covered was.
    fn finish(mut self) -> Option<Sha1> {
        let prefix = self.prefix.take().unwrap().catch_up(&self.written, &self.context).unwrap();
        prefix.is_done().then(|| prefix.sha1()).flatten()
    }
}

#[tokio::test]
async fn the_digest_of_pieces_that_come_a_little_out_of_order_needs_no_look_at_the_disk() {
    let mut desk = Desk::new(6);
    let whole = Sha1::of(&desk.bytes);
    for pieces in [&[2, 1][..], &[4, 0, 3], &[5]] {
        desk.work(pieces).await;
        desk.spoil();
    }
    assert_eq!(desk.finish(), Some(whole));
}

#[tokio::test]
async fn a_batch_is_in_the_files_order_and_the_digest_goes_along() {
    let mut desk = Desk::new(6);
    desk.work(&[3, 1, 0, 2]).await;
    assert_eq!(desk.covered(), 4);
    desk.work(&[5, 4]).await;
    assert_eq!(desk.covered(), 6);
}

#[tokio::test]
async fn what_got_out_of_memory_is_read_back_beside_the_writers_work() {
    let mut desk = Desk::new(6);
    let whole = Sha1::of(&desk.bytes);
    desk.work(&[1, 2, 3]).await;
    desk.prefix().drop_cached();
    desk.work(&[0]).await;
    assert_eq!(desk.covered(), 4);
    desk.work(&[4, 5]).await;
    assert_eq!(desk.covered(), 6);
    assert_eq!(desk.finish(), Some(whole));
}

#[tokio::test]
async fn jobs_of_one_piece_stay_in_their_order() {
    let desk = Desk::new(4);
    let Job::Check(PieceData { blocks, .. }) = desk.check(1).await else { unreachable!() };
    let spill = Job::Spill(Spill { piece: desk.piece(1), offset: 0, blocks });
    let mut queue = VecDeque::from([desk.check(3).await, spill, desk.check(1).await, desk.check(0).await]);
    let order: Vec<(u32, bool)> =
        next_batch(&mut queue).iter().map(|job| (job.piece().get(), matches!(job, Job::Check(_)))).collect();
    assert_eq!(order, [(0, true), (1, false), (1, true), (3, true)]);
}

#[test]
fn a_digest_that_is_far_behind_is_no_work_for_the_writer() {
    let layout = Layout::new(2_000 * u64::from(PIECE), PIECE).unwrap();
    let mut written = Bitfield::none(&layout);
    let prefix = Prefix::new(&Content::unchecked(layout.clone(), Digests::default()).wanting_sha1(true));
    for (pieces, far) in [(0, false), (1_000, false), (1_100, true)] {
        for piece in layout.iter().take(pieces) {
            written.insert(piece);
        }
        assert_eq!(prefix.is_far(&written), far, "{pieces} pieces");
    }
    // What waits for its first piece could not be covered by anybody.
    written.remove(layout.piece(0).unwrap());
    assert!(!prefix.is_far(&written));
}
