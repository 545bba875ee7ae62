//! Sources that lie, die, stall or refuse. The clock is paused wherever rates count: it moves on only when
//! no task has anything left to do, blocking threads included, so that a busy machine makes no source slower than another.

use std::sync::Arc;
use std::time::Duration;

use super::{KIB, World, add, ended, until, until_verified};
use crate::conformance::{Behaviour, sample_file};
use crate::{Bottleneck, Content, DownloadError, Engine, EngineConfig, Outcome, Run, SourceId, SourceState};

#[tokio::test(start_paused = true)]
async fn a_liar_is_banned_and_the_file_right() {
    for behaviour in [Behaviour::Wrong, Behaviour::Short, Behaviour::Long] {
        let world = World::new(64 * 64 * KIB, 65_536);
        let (liar, honest) =
            (world.source().behaving(behaviour), world.source().paced(Duration::from_millis(5)));
        let (download, changes) = world.start(&[&liar, &honest]);
        let is_banned =
            |row: &crate::SourceRow| row.id == SourceId(0) && matches!(row.state, SourceState::Banned(_));
        if behaviour != Behaviour::Long {
            until(&download, |progress| progress.rows.iter().any(is_banned)).await;
            // It does not come back under the same id.
            let before = liar.requests();
            changes.send(add(0, &liar)).await.unwrap();
            world.assert_complete(&ended(&download).await);
            assert_eq!(liar.requests(), before);
        }
        world.assert_complete(&ended(&download).await);
    }
}

#[tokio::test]
async fn with_liars_only_nothing_is_ever_complete() {
    let world = World::new(10 * 64 * KIB, 65_536);
    let liars: Vec<_> = (0..3).map(|_| world.source().behaving(Behaviour::Wrong)).collect();
    let (download, changes) = world.start(&liars.iter().collect::<Vec<_>>());
    drop(changes);
    let outcome = ended(&download).await;
    assert!(matches!(outcome, Outcome::Failed(DownloadError::NoSources { missing: 655_360 })), "{outcome:?}");
    assert!(!world.path().exists());
    let progress = download.progress().borrow().clone();
    assert!(progress.wasted_bytes > 0 && progress.wasted_bytes == progress.fetched_bytes);
}

#[tokio::test(start_paused = true)]
async fn sources_that_die_cost_their_own_share_only() {
    let world = World::new(200 * 64 * KIB, 65_536);
    let dying =
        |bytes| world.source().behaving(Behaviour::GoneAfter(bytes)).paced(Duration::from_micros(100));
    let (one, two) = (dying(1_000_000), dying(2_000_000));
    let stays = world.source().paced(Duration::from_micros(100));
    let (download, _changes) = world.start(&[&one, &two, &stays]);
    world.assert_complete(&ended(&download).await);
    let served = one.served() + two.served() + stays.served();
    let wasted = served - world.bytes.len() as u64;
    assert!(wasted < 40 * 65_536, "{wasted} bytes were fetched twice");
}

#[tokio::test(start_paused = true)]
async fn a_stalled_source_does_not_hold_the_file_up() {
    let world = World::new(40 * 64 * KIB, 65_536);
    let stalled = world.source().behaving(Behaviour::SilentAfter(100_000));
    let (download, _changes) = world.start(&[&stalled, &world.source()]);
    let outcome = tokio::time::timeout(Duration::from_secs(4), download.wait()).await;
    world.assert_complete(&outcome.expect("the endgame takes over before the silence is over"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_does_not_hold_the_file_up() {
    let world = World::new(40 * 256 * KIB, 256 * 1024);
    // Each piece takes it four seconds.
    let slow = world.source().paced(Duration::from_millis(250));
    let (download, changes) = world.start(&[&slow]);
    until(&download, |progress| progress.fetched_bytes > 0).await;
    let fast = world.source().paced(Duration::from_micros(10));
    changes.send(add(1, &fast)).await.unwrap();
    let outcome = tokio::time::timeout(Duration::from_millis(3_500), download.wait()).await;
    world.assert_complete(&outcome.expect("the last piece is asked of the fast one too"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_source_loses_its_pieces_to_another() {
    let world = World::new(4 * 64 * KIB, 65_536);
    let limits = crate::Limits {
        max_in_flight: 4,
        min_in_flight: 1,
        max_in_flight_bytes: u64::MAX,
        run: Run::UpTo(4),
    };
    let silent = world.source().behaving(Behaviour::SilentAfter(0)).limited(limits);
    let other = world.source();
    other.hold_pieces([3]);
    let (download, _changes) = world.start(&[&silent]);
    until(&download, |progress| progress.rows.iter().any(|row| row.requests > 0)).await;
    _changes.send(add(1, &other)).await.unwrap();
    until(&download, |progress| progress.rows.iter().any(|row| row.state == SourceState::BackingOff)).await;
    other.hold(crate::Have::All);
    world.assert_complete(&ended(&download).await);
}

#[tokio::test(start_paused = true)]
async fn patience_is_shown_and_refusals_are_survived() {
    let world = World::new(6 * 64 * KIB, 65_536);
    let busy = world.source().behaving(Behaviour::Busy(Duration::from_millis(300)));
    let refusing = world.source().behaving(Behaviour::Refuses(Duration::from_millis(100)));
    let (download, changes) = world.start(&[&busy, &refusing]);
    until(&download, |progress| progress.limit == Bottleneck::SourcesBusy).await;
    // Ten seconds of the paused clock.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let asked = (busy.requests(), refusing.requests());
    assert!(asked.0 <= 80 && asked.1 <= 1_000, "{asked:?} requests in 10 s");
    changes.send(add(2, &world.source())).await.unwrap();
    world.assert_complete(&ended(&download).await);
}

#[tokio::test]
async fn a_source_whose_bitfield_is_of_another_file_is_banned() {
    let world = World::new(6 * 64 * KIB, 65_536);
    let (_, other) = sample_file(70 * 64 * KIB, 65_536, 2);
    let wrong = world.source();
    wrong.hold(crate::Have::Bits(Arc::new(shoal_common::Bitfield::all(other.layout()))));
    let (download, _changes) = world.start(&[&wrong]);
    until(&download, |progress| progress.rows.iter().any(|row| matches!(row.state, SourceState::Banned(_))))
        .await;
    assert_eq!(wrong.requests(), 0);
}

#[tokio::test]
async fn a_description_that_contradicts_itself_is_never_complete() {
    let world = World::new(6 * 64 * KIB, 65_536);
    let (_, other) = sample_file(6 * 64 * KIB, 65_536, 2);
    let crate::Verification::Sha1(pieces) = world.content.verification() else { unreachable!() };
    let content = Content::new(world.content.layout().clone(), pieces.clone(), *other.digest()).unwrap();
    let lying = World { content, bytes: world.bytes.clone(), folder: tempfile::TempDir::new().unwrap() };
    for _ in 0..2 {
        let (download, _changes) = lying.start(&[&lying.source()]);
        let outcome = ended(&download).await;
        assert!(matches!(outcome, Outcome::Failed(DownloadError::Digest { .. })), "{outcome:?}");
        assert_eq!(lying.files(), ["file.part", "file.pinfo", "file.pstate"]);
    }
    lying.target().discard().unwrap();
    assert!(lying.files().is_empty());
}

#[tokio::test(start_paused = true)]
async fn slow_sources_do_not_starve_a_fast_one_of_memory() {
    // Eighty slow sources with pieces of 1 MiB: more than twice the pool if each kept what it has.
    let world = World::new(160 * 1024 * KIB, 1 << 20);
    let slow: Vec<_> = (0..80)
        .map(|_| {
            world.source().paced(Duration::from_millis(25)).behaving(Behaviour::SilentAfter(700 * KIB as u64))
        })
        .collect();
    let (download, changes) = world.start(&slow.iter().collect::<Vec<_>>());
    until(&download, |progress| progress.fetched_bytes > 25 << 20).await;
    let fast = world.source();
    changes.send(add(100, &fast)).await.unwrap();
    world.assert_complete(&ended(&download).await);
    assert!(fast.served() >= 80 << 20);
}

#[tokio::test(start_paused = true)]
async fn more_slow_pieces_than_memory_all_come_whole() {
    // Eighty pieces of 1 MiB at once, each from a source of its own, through a pool of 32 MiB.
    let world = World::new(80 * 1024 * KIB, 1 << 20);
    let slow: Vec<_> = (0..80).map(|_| world.source().paced(Duration::from_millis(10))).collect();
    let (download, _changes) = world.start(&slow.iter().collect::<Vec<_>>());
    world.assert_complete(&ended(&download).await);
    let wasted = download.progress().borrow().wasted_bytes;
    assert!(wasted < 20 << 20, "{wasted} bytes were given up for want of memory");
}

#[tokio::test(start_paused = true)]
async fn large_pieces_come_whole_through_little_memory() {
    let engine = Engine::new(EngineConfig { memory: 24 << 20, ..EngineConfig::default() });
    let world = World::new(64 * 1024 * KIB, 16 << 20);
    let sources: Vec<_> = (0..4).map(|_| world.source().paced(Duration::from_millis(1))).collect();
    let (download, _changes) = world.start_on(&engine, &sources.iter().collect::<Vec<_>>());
    world.assert_complete(&ended(&download).await);
}

#[tokio::test]
async fn bytes_spoilt_on_the_disk_are_fetched_again() {
    use std::os::unix::fs::FileExt;
    let world = World::new(8 * 64 * KIB, 65_536);
    let source = world.source();
    source.hold_pieces([0, 2, 3, 4, 5, 6, 7]);
    let (download, _changes) = world.start(&[&source]);
    until_verified(&download, 7).await;
    download.pause().await;
    let part = std::fs::OpenOptions::new().write(true).open(world.target().part_path()).unwrap();
    part.write_all_at(b"spoilt", 5 * 65_536).unwrap();
    let source = world.source();
    let (download, _changes) = world.start(&[&source]);
    world.assert_complete(&ended(&download).await);
    assert_eq!(source.served(), 2 * 65_536);
}
