//! Folders between real clients: shared, downloaded whole, and hostile ones refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use shoal_common::folder::Entry;
use shoal_common::tracker_api::{Answer, Call};
use shoal_common::{
    Blake3, FileDigest, FileHasher, FileName, FolderRecord, GroupName, ListedFile, Manifest, RequestId, Sha1,
};
use shoal_tests::{Manners, Seeder, World, download, random_file, until};

/// Makes a folder with files of these sizes, an empty file and an empty folder.
fn make(root: &Path, sizes: &[usize]) {
    fs::create_dir_all(root.join("deep/er")).unwrap();
    fs::create_dir_all(root.join("nothing")).unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    for (number, &size) in sizes.iter().enumerate() {
        let folder = ["", "deep/", "deep/er/", "a b\u{e9}/"][number % 4];
        fs::create_dir_all(root.join(folder)).unwrap();
        random_file(&root.join(format!("{folder}file {number}")), size, number as u64);
    }
}

fn same_tree(one: &Path, other: &Path) -> bool {
    Command::new("diff").arg("-r").arg("--no-dereference").args([one, other]).status().unwrap().success()
}

/// Ann shares a folder of that name; its path.
fn share(world: &mut World, name: &str, sizes: &[usize]) -> PathBuf {
    let root = world.path(name);
    make(&root, sizes);
    let shared = world.ann.ok(&format!("upload_file '{}' g", root.display()));
    assert_eq!(
        (shared["file"].as_str(), shared["files"].as_u64()),
        (Some(name), Some(sizes.len() as u64 + 1))
    );
    root
}

/// What lies in a folder.
fn entries(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_folder_is_downloaded_whole_and_shared_on() {
    let mut world = World::new();
    let root = share(&mut world, "album", &[1, 4_096, 70_000, 300_000, 65_536, 1_000_000]);
    let (mut bob, mut cem) = (world.member("bob"), world.member("cem"));
    let (to_bob, to_cem) = (world.path("to bob"), world.path("to cem"));
    fs::create_dir(&to_bob).unwrap();
    let begun = bob.ok(&format!("download_file g album '{}'", to_bob.display()));
    assert_eq!(begun["folder"], true);
    bob.until_download("album", "C");
    assert!(same_tree(&root, &to_bob.join("album")));
    assert_eq!(entries(&to_bob), ["album"], "nothing is left beside it");
    // From bob alone, to a new path, and once more after all have restarted.
    until("bob shares it", || cem.sharers("g", "album") == 2);
    world.ann.ok("stop_share g album");
    until("ann does not", || cem.sharers("g", "album") == 1);
    let bob = bob.kill();
    until("nobody does", || cem.sharers("g", "album") == 0);
    download(&mut cem, "album", &to_cem);
    let mut bob = bob.restart();
    bob.ok("login bob secret");
    cem.until_download("album", "C");
    assert!(same_tree(&root, &to_cem));
    until("cem shares it", || cem.sharers("g", "album") == 2);
    // It is there: nothing is fetched or replaced.
    let again = cem.ok(&format!("download_file g album '{}'", world.path("elsewhere").display()));
    assert_eq!(again["complete"], true);
    cem.ok("stop_share g album");
    cem.ok("cancel_download g album");
    fs::write(to_bob.join("album/empty"), b"mine").unwrap();
    let error = cem.fails(&format!("download_file g album '{}'", to_bob.display()));
    assert!(error.contains("exists and is a different file"), "{error}");
    assert_eq!(fs::read(to_bob.join("album/empty")).unwrap(), b"mine");
}

#[test]
fn a_download_that_is_killed_goes_on_where_it_was() {
    let mut world = World::new();
    let root = share(&mut world, "album", &[100_000; 40]);
    let mut bob = world.member("bob");
    let copy = world.path("copy");
    world.ann.ok("limit up 1M");
    download(&mut bob, "album", &copy);
    bob.until_percent("album", 20.0);
    // What it has after its restart it had before: at this rate no more comes.
    world.ann.ok("limit up 1K");
    let bob = bob.kill();
    let part = world.path("copy.part");
    assert!(part.is_dir());
    let mut bob = bob.restart();
    bob.ok("login bob secret");
    bob.until_percent("album", 15.0);
    world.ann.ok("limit up 1M");
    // The sharer is killed too, and comes back.
    bob.until_percent("album", 40.0);
    let mut ann = world.ann.kill().restart();
    ann.ok("login ann secret");
    ann.ok("limit up 0");
    bob.until_download("album", "C");
    assert!(same_tree(&root, &copy) && !part.exists());
}

#[test]
fn pausing_and_cancelling_leave_what_they_should() {
    let mut world = World::new();
    let root = share(&mut world, "album", &[100_000; 40]);
    let mut bob = world.member("bob");
    let copy = world.path("to/copy");
    fs::create_dir(world.path("to")).unwrap();
    world.ann.ok("limit up 1M");
    download(&mut bob, "album", &copy);
    bob.until_percent("album", 20.0);
    bob.ok("pause_download g album");
    let left = entries(&world.path("to")).into_iter().filter(|name| name != "copy");
    assert_eq!(left.collect::<Vec<_>>(), ["copy.part", "copy.pstate"]);
    bob.ok("resume_download g album");
    bob.until_percent("album", 30.0);
    bob.ok("cancel_download g album");
    assert!(entries(&world.path("to")).iter().all(|name| name == "copy"), "what is whole stays");
    world.ann.ok("limit up 0");
    download(&mut bob, "album", &copy);
    bob.until_download("album", "C");
    assert!(same_tree(&root, &copy));
}

#[test]
fn a_file_that_changes_within_a_shared_folder_is_noticed_and_not_served() {
    let mut world = World::new();
    let root = share(&mut world, "album", &[100_000; 8]);
    let mut bob = world.member("bob");
    let (path, kept) = (root.join("deep/file 1"), world.path("kept"));
    fs::rename(&path, &kept).unwrap();
    let lost = world.ann.until_event("share_lost");
    assert_eq!(lost["file"], "album");
    until("nobody shares it", || bob.sharers("g", "album") == 0);
    fs::rename(&kept, &path).unwrap();
    world.ann.until_event("share_back");
    until("ann shares it", || bob.sharers("g", "album") == 1);
    // Another content: a new version, under the same name.
    random_file(&path, 50_000, 99);
    world.ann.until_event("share_lost");
    world.ann.ok(&format!("upload_file '{}' g", root.display()));
    let copy = world.path("copy");
    download(&mut bob, "album", &copy);
    bob.until_download("album", "C");
    assert!(same_tree(&root, &copy));
}

#[test]
fn links_are_not_shared_and_bad_names_are_refused() {
    let mut world = World::new();
    let root = world.path("album");
    make(&root, &[10]);
    std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
    let shared = world.ann.ok(&format!("upload_file '{}' g", root.display()));
    assert_eq!(shared["left_out"], 1);
    fs::write(root.join("bad\\name"), b"").unwrap();
    let error = world.ann.fails(&format!("upload_file '{}' g", root.display()));
    assert!(error.contains("bad\\\\name") || error.contains("bad\\name"), "{error}");
    let mirror = format!("upload_file '{}' g --mirror http://example.org/a", root.display());
    assert!(world.ann.fails(&mirror).contains("mirrors"));
}

/// A listing with one file of that path, as nobody's client makes it, and a manifest for it.
fn hostile(name: &str, path: &str) -> (Manifest, Vec<u8>, Vec<u8>) {
    let listing = |size: u64| {
        let (sha1, blake3) = (Sha1([1; 20]), Blake3([2; 32]));
        let file = Some(ListedFile { size, sha1, blake3, exec: true, mtime_s: 0 });
        minicbor::to_vec(vec![Entry { path: path.to_owned(), file }]).unwrap()
    };
    // As long as the file that it lists: the seeder serves content of that size.
    let bytes = listing(listing(100).len() as u64);
    let mut hasher = FileHasher::default();
    hasher.update(&bytes);
    let FileDigest { sha1, blake3 } = hasher.finish();
    let piece_list = [Sha1::of(&bytes).0, [1; 20]].concat();
    let size = bytes.len() as u64;
    let folder = FolderRecord {
        listing: blake3,
        listing_bytes: u32::try_from(size).unwrap(),
        files: 1,
        pieces: 1,
        lineage: [0; 16],
        version: 1,
    };
    let manifest = Manifest {
        name: FileName::create(name).unwrap(),
        size,
        piece_length: 65_536,
        sha1,
        blake3,
        piece_list: Blake3::of(&piece_list),
        mirrors: Vec::new(),
        folder: Some(folder),
    };
    (manifest, piece_list, bytes)
}

#[test]
fn a_folder_whose_listing_leads_elsewhere_is_refused() {
    let mut world = World::new();
    let mut bob = world.member("bob");
    fs::create_dir_all(world.path("to/inner")).unwrap();
    let paths = ["../evil", "a/../../../evil", "/tmp/shoal-evil", "a\\..\\evil", "evil\u{7}", "evil/"];
    for (number, path) in paths.into_iter().enumerate() {
        let name = format!("trap{number}");
        let (manifest, piece_list, bytes) = hostile(&name, path);
        let content = world.path(&name);
        fs::write(&content, &bytes).unwrap();
        let mut eve = world.by_hand(&format!("eve{number}"));
        let group = GroupName::create("g").unwrap();
        let call = Call::Share { request: RequestId::random(), group, manifest, piece_list };
        assert!(matches!(eve.done(call), Answer::Shared { .. }));
        let _seeder = Seeder::start(eve, ("g", &name), &content, Manners::Honest, usize::MAX);
        let to = world.path("to/inner");
        let begun = bob.run(&format!("download_file g {name} '{}'", to.display()));
        let error = match begun.answer["ok"] == true {
            false => begun.answer["error"].as_str().unwrap().to_owned(),
            true => bob.until_download(&name, "F")["error"].as_str().unwrap().to_owned(),
        };
        assert!(error.contains("cannot be taken") && error.contains("share it again"), "{path}: {error}");
        bob.run_any(&format!("cancel_download g {name}"));
        assert!(entries(&to).is_empty(), "{path}");
    }
    assert_eq!(entries(&world.path("to")), ["inner"]);
    assert!(!Path::new("/tmp/shoal-evil").exists() && !world.path("evil").exists());
}
