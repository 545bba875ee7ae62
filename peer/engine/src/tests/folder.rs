//! Downloads of folders.

use std::path::Path;
use std::sync::Arc;

use shoal_common::Listing;
use tokio_util::sync::CancellationToken;

use super::{World, ended, until_verified};
use crate::conformance::Behaviour;
use crate::folder::{HashedFolder, compare, hash_folder};
use crate::{Content, DiskError, DownloadError, Outcome};

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
async fn a_folder_comes_whole_or_not_at_all_and_uploads_read_it_meanwhile() {
    let (world, _source, hashed) = world();
    let (first, second) = (world.source(), world.source());
    first.hold_pieces(0..100);
    let (download, _changes) = world.start(&[&first]);
    until_verified(&download, 100).await;
    assert!(!world.path().exists());
    let (layout, reader) = (world.content.layout().clone(), download.reader());
    for piece in layout.iter().take(100) {
        let mut bytes = vec![0; layout.length(piece) as usize];
        reader.read(piece, 0, &mut bytes).unwrap();
        assert!(bytes == crate::conformance::piece_of(&world.bytes, &layout, piece));
    }
    assert!(matches!(download.pause().await, Outcome::Paused));
    assert_eq!(world.files(), ["file.part", "file.pstate"]);
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
    std::fs::create_dir(world.path()).unwrap();
    let (download, _changes) = world.start(&[&source]);
    assert!(matches!(*disk_error(ended(&download).await), DiskError::Exists(_)));
    std::fs::remove_dir(world.path()).unwrap();
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
