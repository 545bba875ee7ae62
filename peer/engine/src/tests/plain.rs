//! Downloads in which no source fails.

use std::time::Duration;

use tokio::time::Instant;

use super::{KIB, PATIENCE, World, add, ended, until, until_verified};
use crate::{
    Bottleneck, DownloadError, Engine, EngineConfig, Limits, Outcome, Overwrite, Phase, Run, SourceChange,
    Target,
};

#[tokio::test]
async fn files_of_every_edge_come_whole() {
    let piece = 64 * KIB;
    for size in [0, 1, piece - 1, piece, piece + 1, 5 * piece, 37 * piece + 4_321] {
        let world = World::new(size, 65_536);
        let (first, second) = (world.source(), world.source());
        let (download, _changes) = world.start(&[&first, &second]);
        let outcome = ended(&download).await;
        world.assert_complete(&outcome);
        let progress = download.progress().borrow().clone();
        assert_eq!(
            (progress.phase, progress.verified_bytes, progress.total),
            (Phase::Ended, size as u64, size as u64)
        );
        assert_eq!(progress.fetched_bytes - progress.wasted_bytes, size as u64);
    }
}

#[tokio::test]
async fn an_empty_file_needs_no_source() {
    let world = World::new(0, 65_536);
    let (download, changes) = world.start(&[]);
    drop(changes);
    world.assert_complete(&ended(&download).await);
}

// On the paused clock all four are as quick as each other, however busy the machine is.
#[tokio::test(start_paused = true)]
async fn many_sources_share_the_work() {
    let world = World::new(64 * 1024 * KIB, 256 * 1024);
    let sources: Vec<_> = (0..4).map(|_| world.source().delayed(Duration::from_millis(1))).collect();
    let (download, _changes) = world.start(&sources.iter().collect::<Vec<_>>());
    world.assert_complete(&ended(&download).await);
    for source in &sources {
        assert!(source.served() > world.bytes.len() as u64 / 20, "{}", source.served());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_pieces_come_whole() {
    let world = World::new(8 * 1024 * KIB + 5, 65_536);
    let limits =
        Limits { max_in_flight: 2, min_in_flight: 1, max_in_flight_bytes: u64::MAX, run: Run::UpTo(32) };
    let sources: Vec<_> = (0..3).map(|_| world.source().limited(limits)).collect();
    let (download, _changes) = world.start(&sources.iter().collect::<Vec<_>>());
    world.assert_complete(&ended(&download).await);
    let requests: u64 = sources.iter().map(crate::conformance::FakeSource::requests).sum();
    assert!(requests < 100, "{requests} requests for 129 pieces");
}

#[tokio::test]
async fn a_download_waits_for_a_source_and_says_so() {
    let world = World::new(100 * KIB, 65_536);
    let (download, changes) = world.start(&[]);
    until(&download, |progress| progress.phase == Phase::Waiting && progress.limit == Bottleneck::NoSource)
        .await;
    changes.send(add(0, &world.source())).await.unwrap();
    world.assert_complete(&ended(&download).await);
}

#[tokio::test]
async fn without_any_source_to_come_it_fails_and_can_go_on() {
    let world = World::new(300 * KIB, 65_536);
    let half = world.source();
    half.hold_pieces(0..2);
    let (download, changes) = world.start(&[&half]);
    until_verified(&download, 2).await;
    changes.send(SourceChange::Remove(crate::SourceId(0))).await.unwrap();
    drop(changes);
    let missing = (300 - 128) * KIB as u64;
    let outcome = ended(&download).await;
    assert!(
        matches!(&outcome, Outcome::Failed(DownloadError::NoSources { missing: bytes }) if *bytes == missing),
        "{outcome:?}"
    );
    let rest = world.source();
    let (download, _changes) = world.start(&[&rest]);
    world.assert_complete(&ended(&download).await);
    assert_eq!(rest.served(), missing);
}

#[tokio::test]
async fn sources_that_hold_parts_complete_each_other() {
    let world = World::new(20 * 64 * KIB, 65_536);
    let (even, odd) = (world.source(), world.source());
    even.hold_pieces((0..20).step_by(2));
    odd.hold_pieces(std::iter::empty());
    let (download, _changes) = world.start(&[&even, &odd]);
    until_verified(&download, 10).await;
    odd.hold_pieces((1..20).step_by(2));
    world.assert_complete(&ended(&download).await);
    assert_eq!((even.served(), odd.served()), (10 * 65_536, 10 * 65_536));
}

#[tokio::test]
async fn verified_pieces_can_be_read_meanwhile_and_after() {
    let world = World::new(3 * 64 * KIB, 65_536);
    let source = world.source();
    source.hold_pieces([1]);
    let (download, _changes) = world.start(&[&source]);
    let reader = download.reader();
    let layout = world.content.layout();
    let (first, second) = (layout.piece(0).unwrap(), layout.piece(1).unwrap());
    until_verified(&download, 1).await;
    let mut bytes = vec![0; 1_000];
    reader.read(second, 5, &mut bytes).unwrap();
    assert_eq!(bytes, world.bytes[65_541..66_541]);
    assert!(matches!(reader.read(first, 0, &mut bytes), Err(crate::PieceReadError::Missing)));
    assert!(matches!(reader.read(second, 65_000, &mut bytes), Err(crate::PieceReadError::Range)));
    source.hold(crate::Have::All);
    world.assert_complete(&ended(&download).await);
    reader.read(first, 0, &mut bytes).unwrap();
    assert_eq!(bytes, world.bytes[..1_000]);
}

#[tokio::test]
async fn an_existing_file_is_replaced_only_when_asked() {
    let world = World::new(100 * KIB, 65_536);
    std::fs::write(world.path(), b"mine").unwrap();
    let (download, _changes) = world.start(&[&world.source()]);
    let outcome = ended(&download).await;
    assert!(
        matches!(&outcome, Outcome::Failed(DownloadError::Disk(error)) if matches!(**error, crate::DiskError::Exists(_))),
        "{outcome:?}"
    );
    assert_eq!(
        (std::fs::read(world.path()).unwrap(), world.files()),
        (b"mine".to_vec(), vec!["file".to_owned()])
    );
    let (changes, receiver) = tokio::sync::mpsc::channel(1);
    changes.send(add(0, &world.source())).await.unwrap();
    let target = Target::new(world.path(), Overwrite::Replace);
    let download = Engine::new(EngineConfig::default()).start(world.content.clone(), target, receiver);
    world.assert_complete(&ended(&download).await);
}

#[tokio::test(start_paused = true)]
async fn the_limit_holds_and_can_be_lifted() {
    let world = World::new(1024 * KIB, 65_536);
    let engine = Engine::new(EngineConfig { download_limit: Some(500_000), ..EngineConfig::default() });
    let source = world.source();
    let started = Instant::now();
    let (download, _changes) = world.start_on(&engine, &[&source]);
    until_verified(&download, 7).await;
    // Six pieces must be paid for before the seventh is whole, less what may pass at once.
    assert!(started.elapsed() >= Duration::from_millis(600), "{:?}", started.elapsed());
    assert!(source.served() < 1024 * KIB as u64);
    engine.set_download_limit(None);
    let lifted = Instant::now();
    world.assert_complete(&ended(&download).await);
    assert!(lifted.elapsed() < PATIENCE / 10);
}

#[tokio::test]
async fn two_downloads_share_an_engine() {
    let engine = Engine::new(EngineConfig::default());
    let (one, two) = (World::new(3_000 * KIB, 65_536), World::new(2_000 * KIB, 131_072));
    let (first, _one) = one.start_on(&engine, &[&one.source()]);
    let (second, _two) = two.start_on(&engine, &[&two.source()]);
    one.assert_complete(&ended(&first).await);
    two.assert_complete(&ended(&second).await);
    // With the last of them the memory is given back.
    let given_back = async {
        while engine.kept_blocks() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, given_back).await.unwrap();
}
