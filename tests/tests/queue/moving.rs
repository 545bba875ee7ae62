//! Finished downloads that are moved.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shoal_tests::{Client, Mount, World, bytes_read, download, root_or_skip, same_content, skip, until};

const MIB: usize = 1 << 20;

/// A folder on another file system than the test's own.
fn other_drive(test: &str, dir: &Path) -> Option<tempfile::TempDir> {
    let there = tempfile::tempdir_in("/dev/shm").ok();
    let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev()).ok();
    let there = there.filter(|there| device(there.path()) != device(dir));
    if there.is_none() {
        skip(test, "needs /dev/shm on another file system than the folder for temporary files");
    }
    there
}

fn complete(client: &mut Client, file: &str, path: &Path) {
    download(client, file, path);
    client.until_download(file, "C");
}

fn move_to(client: &mut Client, file: &str, folder: &Path) -> PathBuf {
    let moved = client.ok(&format!("move_download g {file} '{}'", folder.display()));
    moved["path"].as_str().unwrap().into()
}

#[test]
fn a_moved_download_is_renamed_shared_on_and_not_read_again() {
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "a.bin", 32 * MIB);
    let mut bob = world.member("bob");
    let (old, folder) = (world.path("bob.bin"), world.path("archive"));
    complete(&mut bob, "a.bin", &old);
    until("both share it", || bob.sharers("g", "a.bin") == 2);
    let read = bytes_read(bob.pid());
    let new = move_to(&mut bob, "a.bin", &world.path("archive/"));
    assert_eq!(new, folder.join("bob.bin"), "the folder is made, and the name stays");
    assert!(same_content(&path, &new) && !old.exists());
    assert_eq!(bob.download("a.bin")["path"], new.to_str().unwrap());
    assert_eq!(bob.sharers("g", "a.bin"), 2, "it is shared on");
    // Ann leaves: only the moved file can be the source.
    world.ann.ok("stop_share g a.bin");
    let mut carol = world.member("carol");
    complete(&mut carol, "a.bin", &world.path("carol.bin"));
    assert!(same_content(&path, &world.path("carol.bin")));
    let more = bytes_read(bob.pid()) - read;
    assert!(more < 40 * MIB as u64, "{more} bytes were read, and 32 MiB were sent");

    // Restarted, it knows the new place.
    let mut bob = bob.kill().start();
    bob.ok("login bob secret");
    assert_eq!(bob.download("a.bin")["path"], new.to_str().unwrap());
    until("it is shared again", || bob.sharers("g", "a.bin") == 2);

    // What cannot be is said, and changes nothing.
    std::fs::create_dir(world.path("full")).unwrap();
    std::fs::write(world.path("full/bob.bin"), b"another").unwrap();
    for (folder, part) in [
        (world.path("full"), "is not replaced"),
        (folder.clone(), "is there already"),
        (world.path("missing"), "is not a folder"),
        (world.path("full/bob.bin"), "is not a folder"),
    ] {
        let error = bob.fails(&format!("move_download g a.bin '{}'", folder.display()));
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(std::fs::read(world.path("full/bob.bin")).unwrap(), b"another");
    assert!(same_content(&path, &new));
    assert!(bob.fails("move_download g nothing.bin /tmp").contains("there is no download"));
    std::fs::remove_file(&new).unwrap();
    let error = bob.fails(&format!("move_download g a.bin '{}'", world.path("full").display()));
    assert!(error.contains("is no file any more"), "{error}");
}

#[test]
fn a_download_that_is_moved_to_another_drive_is_copied_compared_and_then_removed() {
    let mut world = World::new();
    let test = "a_download_that_is_moved_to_another_drive_is_copied_compared_and_then_removed";
    let Some(there) = other_drive(test, &world.path("")) else { return };
    let (path, _) = world.ann.share("g", "a.bin", 8 * MIB);
    let mut bob = world.member("bob");
    let old = world.path("bob.bin");
    complete(&mut bob, "a.bin", &old);
    let modified = std::fs::metadata(&old).unwrap().modified().unwrap();
    let new = move_to(&mut bob, "a.bin", there.path());
    assert!(same_content(&path, &new) && !old.exists());
    assert_eq!(std::fs::metadata(&new).unwrap().modified().unwrap(), modified);
    assert_eq!(std::fs::read_dir(there.path()).unwrap().count(), 1, "nothing else is left");
    world.ann.ok("stop_share g a.bin");
    let mut carol = world.member("carol");
    complete(&mut carol, "a.bin", &world.path("carol.bin"));
    // What was written to since is not moved there.
    let mut content = std::fs::read(&path).unwrap();
    content[5] ^= 1;
    std::fs::write(world.path("carol.bin"), &content).unwrap();
    let error = carol.fails(&format!("move_download g a.bin '{}/sub/'", there.path().display()));
    assert!(error.contains("not what was downloaded"), "{error}");
    assert_eq!(std::fs::read(world.path("carol.bin")).unwrap(), content);
    assert_eq!(std::fs::read_dir(there.path().join("sub")).unwrap().count(), 0);
}

#[test]
fn a_full_drive_leaves_a_download_where_it_is() {
    if !root_or_skip("a_full_drive_leaves_a_download_where_it_is") {
        return;
    }
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "a.bin", 8 * MIB);
    let mut bob = world.member("bob");
    complete(&mut bob, "a.bin", &world.path("bob.bin"));
    let small = world.path("small");
    let _mount = Mount::new(&small, "size=4m");
    let error = bob.fails(&format!("move_download g a.bin '{}'", small.display()));
    assert!(error.contains("No space left") && error.contains("stays where it is"), "{error}");
    assert_eq!(std::fs::read_dir(&small).unwrap().count(), 0, "nothing is left there");
    assert!(same_content(&path, &world.path("bob.bin")));
    assert_eq!(bob.sharers("g", "a.bin"), 2);
}

#[test]
fn kill_9_in_the_middle_of_moves_loses_nothing() {
    let mut world = World::new();
    let test = "kill_9_in_the_middle_of_moves_loses_nothing";
    let Some(there) = other_drive(test, &world.path("")) else { return };
    let (path, _) = world.ann.share("g", "a.bin", 24 * MIB);
    let mut bob = world.member("bob");
    let here = world.path("here");
    std::fs::create_dir(&here).unwrap();
    complete(&mut bob, "a.bin", &here.join("a.bin"));
    let rename = world.path("renamed");
    std::fs::create_dir(&rename).unwrap();
    for round in 0..8u64 {
        let now = PathBuf::from(bob.download("a.bin")["path"].as_str().unwrap());
        // By turns to another drive and within one.
        let folders = [there.path(), &here, &rename, &here];
        let to = folders.into_iter().find(|folder| !now.starts_with(folder)).unwrap();
        let to = if round % 2 == 0 {
            to
        } else {
            folders.into_iter().rfind(|folder| !now.starts_with(folder)).unwrap()
        };
        let killed = bob.kill_during(
            &format!("move_download g a.bin '{}'", to.display()),
            Duration::from_millis(5 * round * round),
        );
        bob = killed.start();
        bob.ok("login bob secret");
        let now = PathBuf::from(bob.download("a.bin")["path"].as_str().unwrap());
        assert!(same_content(&path, &now), "round {round}: {} is not whole", now.display());
        until("it is shared again", || bob.sharers("g", "a.bin") == 2);
        let all: Vec<PathBuf> = [there.path(), &here, &rename]
            .into_iter()
            .flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
            .collect();
        assert_eq!(all, [now], "round {round}: one file is there, and no part of another");
    }
}
