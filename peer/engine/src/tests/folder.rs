//! Downloads of folders.

use std::path::Path;
use std::sync::Arc;

use shoal_common::Listing;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{World, ended, until_verified};
use crate::conformance::{Behaviour, FakeSource};
use crate::folder::{HashedFolder, compare, hash_folder};
use crate::{
    Chosen, Content, DiskError, Download, DownloadError, Engine, EngineConfig, Outcome, Overwrite,
    SourceChange, Target,
};

/// A folder with large, small and empty files, to be downloaded.
fn world() -> (World, tempfile::TempDir, HashedFolder) {
    let source = tempfile::TempDir::new().unwrap();
    let at = |name: &str| source.path().join(name);
    std::fs::create_dir_all(at("deep/er")).unwrap();
    std::fs::create_dir_all(at("nothing/here")).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let sizes = [0, 1, 65_536, 200_000, 65_537].into_iter().chain((0..200).map(|number| number * 37));
    for (number, size) in sizes.enumerate() {
        let mut bytes = vec![0; size];
        random.fill(&mut bytes);
        let folder = ["", "deep/", "deep/er/"][number % 3];
        std::fs::write(at(&format!("{folder}{number}")), bytes).unwrap();
    }
    let hashed = hash_folder(source.path(), |_, _| {}, &CancellationToken::new()).unwrap();
    let packed: Vec<u8> =
        hashed.listing.files().flat_map(|(path, _)| std::fs::read(at(path)).unwrap()).collect();
    let content = content(&hashed, hashed.listing.clone());
    let folder = tempfile::TempDir::new().unwrap();
    (World { bytes: packed.into(), content, folder }, source, hashed)
}

fn content(hashed: &HashedFolder, listing: Arc<Listing>) -> Content {
    Content::folder(hashed.layout.clone(), hashed.pieces.clone().into(), listing).unwrap()
}

fn assert_same(world: &World, hashed: &HashedFolder, outcome: &Outcome) {
    assert!(matches!(outcome, Outcome::Complete { path, .. } if *path == world.path()), "{outcome:?}");
    assert_eq!(world.files(), ["file"], "nothing is left beside the folder");
    assert!(same(&world.path(), &hashed.listing));
    let again = hash_folder(&world.path(), |_, _| {}, &CancellationToken::new()).unwrap();
    let paths = |listing: &Listing| listing.entries().iter().map(|e| e.path.clone()).collect::<Vec<_>>();
    assert_eq!(paths(&again.listing), paths(&hashed.listing), "and nothing else is in it");
}

fn same(root: &Path, listing: &Listing) -> bool {
    compare(root, listing, |_, _| {}, &CancellationToken::new()).unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_comes_file_by_file_and_uploads_read_it_meanwhile() {
    let (world, _source, hashed) = world();
    let (first, second) = (world.source(), world.source());
    first.hold_pieces(0..100);
    let (download, _changes) = world.start(&[&first]);
    until_verified(&download, 100).await;
    let (layout, reader) = (world.content.layout().clone(), download.reader());
    for piece in layout.iter().take(100) {
        let mut bytes = vec![0; layout.length(piece) as usize];
        reader.read(piece, 0, &mut bytes).unwrap();
        assert!(bytes == crate::conformance::piece_of(&world.bytes, &layout, piece));
    }
    assert!(matches!(download.pause().await, Outcome::Paused));
    let beside: Vec<String> = world.files().into_iter().filter(|name| name != "file").collect();
    assert_eq!(beside, ["file.part", "file.pstate"]);
    let (download, _changes) = world.start(&[&second]);
    assert_same(&world, &hashed, &ended(&download).await);
    assert_eq!(second.served(), world.bytes.len() as u64 - first.served());
    let last = layout.iter().next_back().unwrap();
    let mut bytes = vec![0; layout.length(last) as usize];
    download.reader().read(last, 0, &mut bytes).unwrap();
}

#[test]
fn a_killed_folder_fetches_only_what_was_not_written() {
    let (world, _source, hashed) = world();
    let first = world.source().behaving(Behaviour::SilentAfter(600_000));
    let had = {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (download, changes) = runtime.block_on(async { world.start(&[&first]) });
        runtime.block_on(until_verified(&download, 50));
        let verified = download.verified();
        // Everything is dropped where it stands, without a checkpoint.
        drop(runtime);
        drop((download, changes));
        verified.borrow().bytes(world.content.layout())
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let second = world.source();
    let (download, _changes) = runtime.block_on(async { world.start(&[&second]) });
    assert_same(&world, &hashed, &runtime.block_on(ended(&download)));
    assert!(second.served() <= world.bytes.len() as u64 - had);
}

#[tokio::test]
async fn a_file_that_is_damaged_while_it_waits_is_mended() {
    let (world, _source, hashed) = world();
    let first = world.source();
    first.hold_pieces(0..150);
    let (download, _changes) = world.start(&[&first]);
    until_verified(&download, 150).await;
    download.pause().await;
    let layout = world.content.layout();
    let large =
        (0..layout.files()).find(|&file| layout.extent(file).end - layout.extent(file).start == 200_000);
    let path = world.target().part_path().join(hashed.listing.file(large.unwrap()).unwrap().0);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[70_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let second = world.source();
    let (download, _changes) = world.start(&[&second]);
    assert_same(&world, &hashed, &ended(&download).await);
}

#[tokio::test]
async fn a_listing_with_a_wrong_digest_is_found_out() {
    let (mut world, _source, hashed) = world();
    let mut entries = hashed.listing.entries().to_vec();
    let wrong = entries.iter_mut().find(|entry| entry.path == "deep/1").unwrap();
    wrong.file.as_mut().unwrap().blake3.0[0] ^= 1;
    world.content = content(&hashed, Arc::new(Listing::new(entries).unwrap()));
    let source = world.source();
    let (download, _changes) = world.start(&[&source]);
    let outcome = ended(&download).await;
    let found = matches!(&outcome, Outcome::Failed(DownloadError::ListedDigest { path }) if path == "deep/1");
    assert!(found && !world.path().exists(), "{outcome:?}");
}

#[tokio::test]
async fn nothing_that_is_there_is_replaced_or_followed() {
    let (world, source_folder, _hashed) = world();
    let source = world.source();
    let disk_error = |outcome: Outcome| match outcome {
        Outcome::Failed(DownloadError::Disk(error)) => error,
        other => panic!("{other:?}"),
    };
    // At its place.
    std::fs::write(world.path(), b"kept").unwrap();
    let (download, _changes) = world.start(&[&source]);
    assert!(matches!(*disk_error(ended(&download).await), DiskError::Exists(_)));
    std::fs::remove_file(world.path()).unwrap();
    // Another folder, and one with another file and a link where files of ours go.
    std::fs::create_dir_all(world.path().join("deep")).unwrap();
    std::fs::write(world.path().join("mine"), b"kept").unwrap();
    let (download, _changes) = world.start(&[&source]);
    assert!(matches!(*disk_error(ended(&download).await), DiskError::OtherFolder(_)));
    std::fs::write(world.path().join("deep/1"), b"kept").unwrap();
    let (download, _changes) = world.start(&[&source]);
    let error = disk_error(ended(&download).await);
    assert!(
        matches!(&*error, DiskError::Different { path, others: 0 } if path.ends_with("deep/1")),
        "{error}"
    );
    std::fs::remove_file(world.path().join("deep/1")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", world.path().join("deep/1")).unwrap();
    let (download, _changes) = world.start(&[&source]);
    let error = disk_error(ended(&download).await);
    assert!(matches!(*error, DiskError::Foreign(_)), "{error}");
    assert_eq!((world.files(), source.served()), (vec!["file".to_owned()], 0));
    assert_eq!(std::fs::read(world.path().join("mine")).unwrap(), b"kept");
    std::fs::remove_dir_all(world.path()).unwrap();
    // A folder of somebody's, a file, and a link where the partial folder goes.
    let part = world.target().part_path();
    std::fs::create_dir(&part).unwrap();
    std::fs::write(part.join("precious"), b"kept").unwrap();
    for _ in 0..2 {
        let (download, _changes) = world.start(&[&source]);
        assert!(matches!(*disk_error(ended(&download).await), DiskError::Foreign(_)));
        assert_eq!(std::fs::read(part.join("precious")).unwrap(), b"kept");
    }
    std::fs::remove_dir_all(&part).unwrap();
    std::os::unix::fs::symlink(source_folder.path(), &part).unwrap();
    let (download, _changes) = world.start(&[&source]);
    assert!(matches!(*disk_error(ended(&download).await), DiskError::Foreign(_)));
    std::fs::remove_file(&part).unwrap();
    // A link within, made by somebody while it runs: nothing is written through it.
    let outside = tempfile::TempDir::new().unwrap();
    source.hold_pieces(0..1);
    let (download, _changes) = world.start(&[&source]);
    until_verified(&download, 1).await;
    std::os::unix::fs::symlink(outside.path(), part.join("deep")).unwrap();
    source.hold(crate::Have::All);
    assert!(matches!(*disk_error(ended(&download).await), DiskError::Foreign(_)));
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(matches!(download.cancel().await, Outcome::Cancelled));
    assert!(world.files().is_empty(), "{:?}", world.files());
    assert!(std::fs::read_dir(source_folder.path()).unwrap().count() > 0);
}

/// Starts a download of these files.
fn start_chosen(
    world: &World,
    (source, chosen): (&FakeSource, Chosen),
    overwrite: Overwrite,
) -> (Download, mpsc::Sender<SourceChange>, watch::Sender<Chosen>) {
    let (changes, receiver) = mpsc::channel(8);
    changes.try_send(super::add(0, source)).unwrap();
    let (sender, chosen) = watch::channel(chosen);
    let engine = Engine::new(EngineConfig::default());
    let target = Target::new(world.path(), overwrite);
    let limiter = crate::rate::Limiter::new(None);
    (engine.start_chosen(world.content.clone(), target, receiver, limiter, chosen), changes, sender)
}

#[tokio::test]
async fn only_chosen_files_are_asked_for_and_the_choice_may_change() {
    let (world, _source, hashed) = world();
    let layout = world.content.layout();
    let of = |wanted: &dyn Fn(&str) -> bool| {
        Chosen::of(hashed.listing.files().map(|(path, _)| wanted(path)).collect())
    };
    let deep = of(&|path| path.starts_with("deep/"));
    let source = world.source();
    let (download, _changes, _chosen) = start_chosen(&world, (&source, deep.clone()), Overwrite::Refuse);
    assert!(matches!(ended(&download).await, Outcome::Complete { .. }));
    assert_eq!(source.served(), deep.bytes(layout), "nothing else was asked for");
    let count = |folder: &Path| {
        hash_folder(folder, |_, _| {}, &CancellationToken::new()).unwrap().listing.files().count()
    };
    assert_eq!(count(&world.path()), deep.files(layout).count());
    assert_eq!(world.files(), ["file"]);
    let progress = download.progress().borrow().clone();
    assert_eq!((progress.total, progress.verified_bytes), (deep.bytes(layout), deep.bytes(layout)));
    // More, then fewer, then all, while it runs.
    let second = world.source();
    second.hold_pieces(0..0);
    let (download, _changes, chosen) = start_chosen(&world, (&second, Chosen::all()), Overwrite::Refuse);
    until_verified(&download, deep.pieces(layout).count()).await;
    chosen.send_replace(of(&|path| path.starts_with("deep/") || path.ends_with('9')));
    second.hold(crate::Have::All);
    assert!(matches!(ended(&download).await, Outcome::Complete { .. }));
    let both = of(&|path| path.starts_with("deep/") || path.ends_with('9'));
    assert_eq!(second.served(), both.bytes(layout) - deep.bytes(layout));
    let third = world.source();
    let (download, _changes, _chosen) = start_chosen(&world, (&third, Chosen::all()), Overwrite::Refuse);
    assert_same(&world, &hashed, &ended(&download).await);
    assert_eq!(third.served(), world.bytes.len() as u64 - both.bytes(layout));
}

#[tokio::test]
async fn what_is_there_in_part_is_used_and_replaced_only_when_it_is_whole() {
    let (world, source_folder, hashed) = world();
    let layout = world.content.layout();
    std::fs::create_dir_all(world.path().join("deep/er")).unwrap();
    let large =
        (0..layout.files()).find(|&file| layout.extent(file).end - layout.extent(file).start == 200_000);
    let name = hashed.listing.file(large.unwrap()).unwrap().0;
    let mut bytes = std::fs::read(source_folder.path().join(name)).unwrap();
    bytes[70_000] ^= 1;
    bytes.extend(b"and more");
    std::fs::write(world.path().join(name), &bytes).unwrap();
    let right = hashed.listing.file(large.unwrap() + 1).unwrap();
    std::fs::copy(source_folder.path().join(right.0), world.path().join(right.0)).unwrap();
    let source = world.source();
    source.hold_pieces(0..0);
    let (download, _changes, _chosen) = start_chosen(&world, (&source, Chosen::all()), Overwrite::Replace);
    until_verified(&download, 4).await;
    assert_eq!(std::fs::read(world.path().join(name)).unwrap(), bytes);
    source.hold(crate::Have::All);
    assert_same(&world, &hashed, &ended(&download).await);
    assert_eq!(source.served(), world.bytes.len() as u64 - right.1.size - (200_000 - 65_536));
}

#[tokio::test]
async fn a_file_that_was_changed_after_it_got_its_name_is_not_served_and_not_replaced() {
    let (world, _source, _hashed) = world();
    let layout = world.content.layout().clone();
    let source = world.source();
    let (download, _changes, _chosen) = start_chosen(&world, (&source, Chosen::all()), Overwrite::Refuse);
    assert!(matches!(ended(&download).await, Outcome::Complete { .. }));
    let reader = download.reader();
    let piece = layout.iter().next_back().unwrap();
    let mut buffer = vec![0; layout.length(piece) as usize];
    reader.read(piece, 0, &mut buffer).unwrap();
    let path = world.content.listing().unwrap().file(layout.file_of(piece)).unwrap().0.to_owned();
    std::fs::write(world.path().join(&path), b"mine").unwrap();
    assert!(reader.read(piece, 0, &mut buffer).is_err());
    let (again, _changes, _chosen) = start_chosen(&world, (&source, Chosen::all()), Overwrite::Refuse);
    let outcome = ended(&again).await;
    assert!(
        matches!(&outcome, Outcome::Failed(DownloadError::Disk(error)) if matches!(**error, DiskError::Different { .. })),
        "{outcome:?}"
    );
    assert_eq!(std::fs::read(world.path().join(&path)).unwrap(), b"mine");
}
