//! Downloads that are interrupted and go on.

use std::time::Duration;

use super::{KIB, World, ended, until_verified};
use crate::conformance::{Behaviour, sample_file};
use crate::{DiskError, DownloadError, Have, Outcome, Overwrite, Target};

fn disk_error(outcome: &Outcome) -> &DiskError {
    match outcome {
        Outcome::Failed(DownloadError::Disk(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_download_goes_on_where_it_was() {
    let world = World::new(100 * 64 * KIB, 65_536);
    let first = world.source().behaving(Behaviour::SilentAfter(50 * 65_536));
    let (download, _changes) = world.start(&[&first]);
    until_verified(&download, 40).await;
    assert!(matches!(download.pause().await, Outcome::Paused));
    let had = download.verified().borrow().count();
    assert_eq!(world.files(), ["file.part", "file.pinfo", "file.pstate"]);
    let second = world.source();
    let (download, _changes) = world.start(&[&second]);
    world.assert_complete(&ended(&download).await);
    assert_eq!(second.served(), u64::from(100 - had) * 65_536);
}

#[test]
fn a_killed_download_fetches_only_what_was_not_written() {
    let world = World::new(100 * 64 * KIB + 17, 65_536);
    let first = world.source().behaving(Behaviour::SilentAfter(60 * 65_536));
    let had = {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (download, changes) = runtime.block_on(async { world.start(&[&first]) });
        runtime.block_on(until_verified(&download, 50));
        let verified = download.verified();
        // Everything is dropped where it stands, without a checkpoint.
        drop(runtime);
        drop((download, changes));
        let layout = world.content.layout();
        verified.borrow().iter(layout).map(|piece| u64::from(layout.length(piece))).sum::<u64>()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let second = world.source();
    let (download, _changes) = runtime.block_on(async { world.start(&[&second]) });
    world.assert_complete(&runtime.block_on(ended(&download)));
    let missing = world.bytes.len() as u64 - had;
    assert!(second.served() <= missing, "{} bytes for {missing}", second.served());
}

#[tokio::test]
async fn doubtful_pieces_are_hashed_and_wrong_ones_fetched_again() {
    use std::io::Write;
    use std::os::unix::fs::FileExt;
    let world = World::new(10 * 64 * KIB, 65_536);
    let first = world.source();
    first.hold_pieces(0..4);
    let (download, _changes) = world.start(&[&first]);
    until_verified(&download, 4).await;
    download.pause().await;
    // Pieces 4 and 5 were listed; only 4 was written. Behind them a torn entry, and one that is no piece.
    let part = std::fs::OpenOptions::new().write(true).open(world.target().part_path()).unwrap();
    part.write_all_at(&world.bytes[4 * 65_536..5 * 65_536], 4 * 65_536).unwrap();
    let mut state = std::fs::OpenOptions::new().append(true).open(world.target().state_path()).unwrap();
    state.write_all(&[4, 0, 0, 0, 5, 0, 0, 0, 77, 0, 0, 0, 6, 0]).unwrap();
    let second = world.source();
    let (download, _changes) = world.start(&[&second]);
    world.assert_complete(&ended(&download).await);
    assert_eq!(second.served(), 5 * 65_536);
}

#[tokio::test]
async fn a_damaged_state_costs_hashing_and_nothing_else() {
    let world = World::new(10 * 64 * KIB, 65_536);
    let first = world.source();
    first.hold_pieces(0..6);
    let (download, _changes) = world.start(&[&first]);
    until_verified(&download, 6).await;
    download.pause().await;
    let state = std::fs::read(world.target().state_path()).unwrap();
    for damage in [state[..state.len() - 3].to_vec(), state[..7].to_vec(), {
        let mut flipped = state.clone();
        flipped[49] ^= 1;
        flipped
    }] {
        std::fs::write(world.target().state_path(), damage).unwrap();
        let (download, _changes) = world.start(&[]);
        until_verified(&download, 6).await;
        download.pause().await;
    }
    let second = world.source();
    let (download, _changes) = world.start(&[&second]);
    world.assert_complete(&ended(&download).await);
    assert_eq!(second.served(), 4 * 65_536);
}

#[tokio::test]
async fn cancelling_leaves_nothing_whenever_it_comes() {
    let world = World::new(10 * 64 * KIB, 65_536);
    let source = world.source();
    source.hold_pieces(0..3);
    for pause_first in [false, true] {
        let (download, _changes) = world.start(&[&source]);
        until_verified(&download, 3).await;
        if pause_first {
            download.pause().await;
        }
        assert!(matches!(download.cancel().await, Outcome::Cancelled));
        assert!(world.files().is_empty(), "{:?}", world.files());
    }
    source.hold(Have::All);
    let (download, _changes) = world.start(&[&source]);
    let outcome = ended(&download).await;
    world.assert_complete(&outcome);
    world.assert_complete(&download.cancel().await);
}

#[tokio::test]
async fn a_dropped_handle_pauses() {
    let world = World::new(10 * 64 * KIB, 65_536);
    let source = world.source();
    source.hold_pieces(0..3);
    let (download, _changes) = world.start(&[&source]);
    until_verified(&download, 3).await;
    let mut progress = download.progress();
    drop(download);
    let ended = async { while progress.changed().await.is_ok() {} };
    tokio::time::timeout(super::PATIENCE, ended).await.unwrap();
    assert_eq!(world.files(), ["file.part", "file.pinfo", "file.pstate"]);
}

#[tokio::test]
async fn two_downloads_to_one_place_are_refused() {
    let world = World::new(10 * 64 * KIB, 65_536);
    let source = world.source();
    source.hold_pieces(0..3);
    let (download, _changes) = world.start(&[&source]);
    until_verified(&download, 3).await;
    let (second, _more) = world.start(&[&source]);
    assert!(matches!(disk_error(&ended(&second).await), DiskError::Locked(_)));
    assert!(matches!(world.target().discard(), Err(DiskError::Locked(_))));
    source.hold(Have::All);
    world.assert_complete(&ended(&download).await);
}

#[tokio::test]
async fn other_content_and_foreign_files_are_refused_and_kept() {
    let world = World::new(10 * 64 * KIB, 65_536);
    let source = world.source();
    source.hold_pieces(0..3);
    let (download, _changes) = world.start(&[&source]);
    until_verified(&download, 3).await;
    download.pause().await;
    let (bytes, content) = sample_file(10 * 64 * KIB, 65_536, 99);
    let mut other = World { bytes, content, folder: world.folder };
    let (download, _changes) = other.start(&[&other.source()]);
    assert!(matches!(disk_error(&ended(&download).await), DiskError::OtherContent(_)));
    // Cancelling this one does not touch the other.
    assert!(matches!(download.cancel().await, Outcome::Cancelled));
    assert_eq!(other.files(), ["file.part", "file.pinfo", "file.pstate"]);

    other.folder = tempfile::TempDir::new().unwrap();
    std::fs::write(other.target().part_path(), b"somebody's").unwrap();
    let (download, _changes) = other.start(&[&other.source()]);
    assert!(matches!(disk_error(&ended(&download).await), DiskError::Foreign(_)));
    assert_eq!(std::fs::read(other.target().part_path()).unwrap(), b"somebody's");

    other.folder = tempfile::TempDir::new().unwrap();
    std::fs::write(other.target().state_path(), b"somebody's").unwrap();
    let (download, _changes) = other.start(&[&other.source()]);
    assert!(matches!(disk_error(&ended(&download).await), DiskError::Foreign(_)));
    assert!(matches!(other.target().discard(), Err(DiskError::Foreign(_))));
    assert_eq!(std::fs::read(other.target().state_path()).unwrap(), b"somebody's");

    other.folder = tempfile::TempDir::new().unwrap();
    std::os::unix::fs::symlink("/dev/null", other.target().part_path()).unwrap();
    let (download, _changes) = other.start(&[&other.source()]);
    assert!(matches!(disk_error(&ended(&download).await), DiskError::Foreign(_)));
}

#[tokio::test]
async fn a_destination_that_is_no_place_for_a_file_is_an_error() {
    let world = World::new(100, 65_536);
    let engine = crate::Engine::new(crate::EngineConfig::default());
    let start = |path: std::path::PathBuf| {
        let (_changes, receiver) = tokio::sync::mpsc::channel(1);
        engine.start(world.content.clone(), Target::new(path, Overwrite::Replace), receiver)
    };
    let missing = start(world.folder.path().join("missing/file"));
    assert!(matches!(disk_error(&ended(&missing).await), DiskError::Folder { .. }));
    let folder = start(world.folder.path().to_owned());
    assert!(matches!(disk_error(&ended(&folder).await), DiskError::NotAFile(_)));
    std::fs::write(world.path(), b"a file").unwrap();
    let within = start(world.path().join("file"));
    assert!(matches!(disk_error(&ended(&within).await), DiskError::Folder { .. }));
    assert_eq!(world.files(), ["file"]);
}

#[tokio::test]
async fn a_file_that_appears_meanwhile_is_kept_and_so_are_the_pieces() {
    let world = World::new(4 * 64 * KIB, 65_536);
    let source = world.source();
    source.hold_pieces(0..3);
    let (download, _changes) = world.start(&[&source]);
    until_verified(&download, 3).await;
    std::fs::write(world.path(), b"mine").unwrap();
    source.hold(Have::All);
    assert!(matches!(disk_error(&ended(&download).await), DiskError::Exists(_)));
    assert_eq!(std::fs::read(world.path()).unwrap(), b"mine");
    std::fs::remove_file(world.path()).unwrap();
    let (download, _changes) = world.start(&[]);
    world.assert_complete(&ended(&download).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_again_and_again_loses_nothing() {
    let world = World::new(120 * 64 * KIB, 65_536);
    let source = world.source().paced(Duration::from_micros(300));
    // One piece is missing, so that it cannot end before it is paused.
    source.hold_pieces(0..119);
    let mut rounds = 0;
    loop {
        let (download, _changes) = world.start(&[&source]);
        if rounds == 6 {
            source.hold(Have::All);
            break world.assert_complete(&ended(&download).await);
        }
        until_verified(&download, rounds * 20 + 5).await;
        assert!(matches!(download.pause().await, Outcome::Paused));
        rounds += 1;
    }
}

/// A tmpfs of a few bytes over a folder, while it lives.
struct SmallDisk<'a>(&'a std::path::Path);

impl<'a> SmallDisk<'a> {
    fn mount(folder: &'a std::path::Path, size: &str) -> Option<Self> {
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder)
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(folder))
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let status = std::process::Command::new("mount").args(["-o", &options]).arg(self.0).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_a_clear_error_and_can_be_resumed() {
    let world = World::new(40 * 64 * KIB, 65_536);
    let Some(disk) = SmallDisk::mount(world.folder.path(), "1m") else {
        return println!(
            "SKIPPED: a_full_disk_is_a_clear_error_and_can_be_resumed needs root to mount a tmpfs"
        );
    };
    // It shows before anything is fetched.
    let source = world.source();
    let (download, _changes) = world.start(&[&source]);
    assert!(matches!(disk_error(&ended(&download).await), DiskError::Full { .. }));
    assert_eq!((world.files().len(), source.requests()), (0, 0));
    // It fills up while pieces come.
    disk.resize("4m");
    source.hold_pieces(0..20);
    let (download, _changes) = world.start(&[&source]);
    until_verified(&download, 20).await;
    let free = std::fs::File::create(world.folder.path().join("other")).unwrap();
    let filled = std::io::copy(&mut std::io::Read::take(std::io::repeat(1), 16 << 20), &mut &free);
    assert!(filled.is_err());
    drop(free);
    source.hold(Have::All);
    assert!(matches!(disk_error(&ended(&download).await), DiskError::Full { .. }));
    // With space again it goes on.
    std::fs::remove_file(world.folder.path().join("other")).unwrap();
    let rest = world.source();
    let (download, _changes) = world.start(&[&rest]);
    world.assert_complete(&ended(&download).await);
    assert!(rest.served() <= 20 * 65_536, "{}", rest.served());
}
