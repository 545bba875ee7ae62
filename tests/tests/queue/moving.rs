//! Finished downloads that are moved.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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
    let mut bob = bob.kill().restart();
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
fn what_is_written_to_a_file_while_it_moves_to_another_drive_stays() {
    let mut world = World::new();
    let test = "what_is_written_to_a_file_while_it_moves_to_another_drive_stays";
    let Some(there) = other_drive(test, &world.path("")) else { return };
    world.ann.share("g", "a.bin", 64 * MIB);
    let mut bob = world.member("bob");
    let old = world.path("bob.bin");
    complete(&mut bob, "a.bin", &old);
    let (folder, file) = (there.path().to_owned(), old.clone());
    let writes = std::thread::spawn(move || {
        // The copy is whole and is read again: the file is written to behind it.
        until("the copy is whole", || {
            let copies =
                std::fs::read_dir(&folder).unwrap().filter_map(|entry| entry.unwrap().metadata().ok());
            copies.map(|copy| copy.len()).max() == Some(64 * MIB as u64) || !file.exists()
        });
        let file = std::fs::OpenOptions::new().append(true).open(file);
        file.is_ok_and(|mut file| std::io::Write::write_all(&mut file, b"more").is_ok())
    });
    bob.run(&format!("move_download g a.bin '{}'", there.path().display()));
    // On a machine that was faster the file is gone already, and nothing was written.
    if writes.join().unwrap() {
        assert!(std::fs::read(&old).unwrap().ends_with(b"more"));
    }
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
    until("both share it", || bob.sharers("g", "a.bin") == 2);
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
    let renamed = world.path("renamed");
    std::fs::create_dir(&renamed).unwrap();
    let folders = [there.path().to_owned(), here.clone(), renamed.clone()];
    let place = |bob: &mut Client| PathBuf::from(bob.download("a.bin")["path"].as_str().unwrap());
    for (other_drive, moment) in [
        (true, Moment::Begun),
        (true, Moment::CopyBegun),
        (true, Moment::CopyWhole),
        (true, Moment::AtTarget),
        (true, Moment::SourceGone),
        (false, Moment::Begun),
        (false, Moment::AtTarget),
    ] {
        let source = place(&mut bob);
        let is_there = source.starts_with(there.path());
        let to = match (other_drive, is_there) {
            (true, false) => there.path().to_owned(),
            (true, true) => here.clone(),
            // Within one drive, back and forth.
            (false, true) => there.path().join("sub"),
            (false, false) if source.starts_with(&here) => renamed.clone(),
            (false, false) => here.clone(),
        };
        std::fs::create_dir_all(&to).unwrap();
        let command = format!("move_download g a.bin '{}'", to.display());
        bob = bob.kill_when(&command, || moment.has_come(&source, &to)).restart();
        bob.ok("login bob secret");
        let now = place(&mut bob);
        assert!(same_content(&path, &now), "{moment:?}: {} is not whole", now.display());
        until("it is shared again", || bob.sharers("g", "a.bin") == 2);
        let all: Vec<PathBuf> = folders
            .iter()
            .chain([&there.path().join("sub")])
            .filter_map(|folder| std::fs::read_dir(folder).ok())
            .flatten()
            .map(|entry| entry.unwrap().path())
            .filter(|path| !path.is_dir())
            .collect();
        assert_eq!(all, [now], "{moment:?}: one file is there, and no part of another");
    }
}

/// How far a move came.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Begun,
    CopyBegun,
    CopyWhole,
    AtTarget,
    SourceGone,
}

impl Moment {
    fn has_come(self, source: &Path, to: &Path) -> bool {
        let target = to.join("a.bin").exists();
        let is_copy = |path: &Path| path.file_name().unwrap().to_string_lossy().starts_with(".shoal-move");
        let mut there = std::fs::read_dir(to).unwrap().map(|entry| entry.unwrap().path());
        let copied = there.find(|path| is_copy(path)).and_then(|path| Some(path.metadata().ok()?.len()));
        match self {
            Self::Begun => true,
            // It may be over before it is seen.
            Self::CopyBegun => copied.is_some() || target,
            Self::CopyWhole => copied == Some(24 * MIB as u64) || target,
            Self::AtTarget => target,
            Self::SourceGone => target && !source.exists(),
        }
    }
}
