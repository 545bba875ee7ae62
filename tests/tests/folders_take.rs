//! Folders between real clients: parts of them are chosen, files come one by one, and what is there already is used.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use shoal_tests::{Client, Mount, World, download, random_file, root_or_skip, same_content, until};

const MIB: usize = 1 << 20;

/// Ann shares a folder with these files.
fn share(world: &mut World, name: &str, files: &[(&str, usize)]) -> PathBuf {
    let root = world.path(name);
    for (number, (path, size)) in files.iter().enumerate() {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        random_file(&path, *size, number as u64);
    }
    world.ann.ok(&format!("upload_file '{}' g", root.display()));
    root
}

/// The files below a folder, by their paths.
fn files(root: &Path) -> Vec<String> {
    let found = Command::new("find").args([".", "-type", "f"]).current_dir(root).output().unwrap();
    let text = String::from_utf8(found.stdout).unwrap();
    let mut paths: Vec<String> = text.lines().map(|line| line.trim_start_matches("./").to_owned()).collect();
    paths.sort();
    paths
}

fn same_tree(one: &Path, other: &Path) -> bool {
    Command::new("diff").args(["-r", "--no-dereference"]).args([one, other]).status().unwrap().success()
}

/// Files of a download that are there, and that are fetched.
fn counts(client: &mut Client, file: &str) -> (u64, u64) {
    let row = client.download(file);
    (row["files"]["done"].as_u64().unwrap_or(0), row["files"]["chosen"].as_u64().unwrap())
}

#[test]
fn chosen_files_come_and_more_are_chosen_later() {
    let mut world = World::new();
    let all = [
        ("cover.jpg", 5_000),
        ("season 1/e1.mkv", MIB),
        ("season 1/e2.mkv", MIB),
        ("season 2/[x] e1.mkv", MIB),
        ("season 2/e2.mkv", MIB),
        ("z", 0),
    ];
    let root = share(&mut world, "show", &all);
    let mut bob = world.member("bob");
    // What is in it is told before anything of it is downloaded.
    let listed = bob.ok("list_files g show/");
    let paths: Vec<&str> =
        listed["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert_eq!(paths, all.map(|(path, _)| path));
    assert_eq!((listed["total"].as_u64(), listed["next"].as_u64()), (Some(6), None));
    let inside = bob.ok("list_files g 'show/season 2' --from 1");
    assert_eq!(
        (inside["total"].as_u64(), inside["files"][0]["path"].as_str()),
        (Some(2), Some("season 2/e2.mkv"))
    );
    let error = bob.fails("list_files g none/");
    assert!(error.contains("none"), "{error}");
    // Nothing matches; then a part.
    let to = world.path("to");
    let error = bob.fails(&format!("download_file g show '{}' --only '*.avi'", to.display()));
    assert!(error.contains("*.avi") && error.contains("list_files"), "{error}");
    let begun =
        format!("download_file g show '{}' --only 'season 2/[x] e1.mkv' --only cover.jpg", to.display());
    bob.ok(&begun);
    bob.until_download("show", "C");
    assert_eq!(files(&to), ["cover.jpg", "season 2/[x] e1.mkv"]);
    assert_eq!(counts(&mut bob, "show"), (2, 2));
    assert!(!world.path("to.part").exists() && !world.path("to.pstate").exists());
    assert_eq!(bob.sharers("g", "show"), 1, "bob has a part of it");
    let skipped = bob.ok("list_files g show/cover.jpg");
    assert!(skipped["files"][0].get("skipped").is_none());
    // More, while it is complete, and after a restart.
    bob.ok("choose g show --add 'season 1/' --drop 'season 1/e2.mkv'");
    bob.until_download("show", "C");
    assert_eq!(files(&to), ["cover.jpg", "season 1/e1.mkv", "season 2/[x] e1.mkv"]);
    let mut bob = bob.kill().restart();
    bob.ok("login bob secret");
    assert_eq!(counts(&mut bob, "show"), (3, 3));
    let error = bob.fails("choose g show --drop '*'");
    assert!(error.contains("cancel_download"), "{error}");
    // A file that was removed and is not wanted any more does not come back.
    fs::remove_file(to.join("cover.jpg")).unwrap();
    bob.ok("choose g show --add 'season 2/' --drop cover.jpg");
    bob.until_download("show", "C");
    assert_eq!(files(&to), ["season 1/e1.mkv", "season 2/[x] e1.mkv", "season 2/e2.mkv"]);
    bob.ok("choose g show --add '**'");
    bob.until_download("show", "C");
    assert!(same_tree(&root, &to));
    until("bob shares all of it", || bob.sharers("g", "show") == 2);
}

#[test]
fn each_file_has_its_name_early_and_a_kill_loses_none() {
    let mut world = World::new();
    let names: Vec<String> = (0..60).map(|number| format!("{number:02}")).collect();
    let list: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 100_000)).collect();
    let root = share(&mut world, "album", &list);
    let mut bob = world.member("bob");
    let (to, part) = (world.path("to"), world.path("to.part"));
    world.ann.ok("limit up 700K");
    download(&mut bob, "album", &to);
    let whole = |to: &Path| {
        let there = if to.exists() { files(to) } else { Vec::new() };
        assert!(there.iter().all(|name| same_content(&root.join(name), &to.join(name))), "{there:?}");
        there
    };
    until("some files are there", || !whole(&to).is_empty());
    assert_eq!(bob.download("album")["state"], "D");
    assert!(part.is_dir());
    let before = whole(&to).len();
    world.ann.ok("limit up 1K");
    let bob = bob.kill();
    let there = whole(&to);
    assert!(there.len() >= before && there.len() < 60);
    let mut bob = bob.restart();
    bob.ok("login bob secret");
    until("they count", || counts(&mut bob, "album").0 >= there.len() as u64);
    bob.ok("choose g album --drop '[45]?'");
    world.ann.ok("limit up 0");
    bob.until_download("album", "C");
    let there = whole(&to);
    let (done, chosen) = counts(&mut bob, "album");
    assert_eq!((done, chosen), (40, 40));
    assert!(names[..40].iter().all(|name| there.contains(name)));
    // What came before it was dropped stays; of what was not whole nothing is left.
    assert!(!part.exists());
    bob.ok("cancel_download g album");
    assert_eq!(whole(&to), there, "they stay");
}

#[test]
fn what_is_there_is_used_and_nothing_is_replaced_unasked() {
    let mut world = World::new();
    let all = [("a", 3 * MIB), ("deep/b", 3 * MIB), ("deep/c", 4 * MIB), ("d", 100_000), ("e", 0)];
    let root = share(&mut world, "data", &all);
    let mut bob = world.member("bob");
    let to = world.path("to/data");
    fs::create_dir_all(to.join("deep")).unwrap();
    fs::write(to.join("mine"), b"mine").unwrap();
    bob.ok("list_files g data/");
    // A folder that has nothing of it but its name.
    let error = bob.fails(&format!("download_file g data '{}'", to.parent().unwrap().display()));
    assert!(error.contains("none of them") && files(&to) == ["mine"], "{error}");
    fs::copy(root.join("a"), to.join("a")).unwrap();
    // One byte is other; one is half of it.
    let mut other = fs::read(root.join("deep/c")).unwrap();
    other[100] ^= 1;
    fs::write(to.join("deep/c"), &other).unwrap();
    let half = &fs::read(root.join("deep/b")).unwrap()[..2 * MIB];
    fs::write(to.join("deep/b"), half).unwrap();
    let error = bob.fails(&format!("download_file g data '{}'", to.parent().unwrap().display()));
    assert!(
        error.contains("deep/b") && error.contains("so is another") && error.contains("--overwrite"),
        "{error}"
    );
    assert_eq!((fs::read(to.join("deep/c")).unwrap(), files(&to).len()), (other.clone(), 4));
    assert!(!world.path("to/data.part").exists());
    // At this rate what is lacking comes in time, and all of it would not.
    world.ann.ok("limit up 200K");
    let leave =
        format!("download_file g data '{}' --skip deep/c --skip deep/b", to.parent().unwrap().display());
    bob.ok(&leave);
    bob.until_download("data", "C");
    assert_eq!(fs::read(to.join("deep/c")).unwrap(), other, "it was left out");
    assert!(same_content(&root.join("d"), &to.join("d")) && to.join("e").exists());
    bob.ok("cancel_download g data");
    bob.ok(&format!("download_file --overwrite g data '{}'", to.parent().unwrap().display()));
    bob.until_download("data", "C");
    fs::remove_file(to.join("mine")).unwrap();
    assert!(same_tree(&root, &to));
    assert_eq!(files(&world.path("to")).iter().filter(|path| !path.starts_with("data/")).count(), 0);
}

#[test]
fn of_a_single_file_that_is_replaced_only_what_is_wrong_comes() {
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "film.bin", 12 * MIB);
    let mut bob = world.member("bob");
    let to = world.path("copy.bin");
    let mut bytes = fs::read(&path).unwrap();
    bytes[5 * MIB] ^= 1;
    bytes.truncate(11 * MIB + 17);
    fs::write(&to, &bytes).unwrap();
    world.ann.ok("limit up 200K");
    let error = bob.fails(&format!("download_file g film.bin '{}'", to.display()));
    assert!(error.contains("--overwrite") && fs::read(&to).unwrap() == bytes, "{error}");
    bob.ok(&format!("download_file --overwrite g film.bin '{}'", to.display()));
    until("most of it counts", || bob.download("film.bin")["percent"].as_u64() >= Some(85));
    assert_eq!(fs::read(&to).unwrap(), bytes, "it stays until the new one is whole");
    world.ann.ok("limit up 0");
    bob.until_download("film.bin", "C");
    assert!(same_content(&path, &to));
}

#[test]
fn modes_and_other_names_are_given_where_they_are_asked_for() {
    let mut world = World::new();
    let root = share(&mut world, "tools", &[("bin/run", 70_000), ("bin/a:b", 10), ("read me", 10)]);
    fs::set_permissions(root.join("bin/run"), fs::Permissions::from_mode(0o755)).unwrap();
    world.ann.ok(&format!("upload_file '{}' g", root.display()));
    let (mut bob, mut cem) = (world.member("bob"), world.member("cem"));
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o111;
    let (to_bob, to_cem) = (world.path("bobs"), world.path("cems"));
    download(&mut bob, "tools", &to_bob);
    bob.until_download("tools", "C");
    assert_eq!(mode(to_bob.join("bin/run")), 0);
    let command = format!("download_file --keep-modes g tools '{}' --rename 'bin/a:b=a-b'", to_cem.display());
    cem.ok(&command);
    cem.until_download("tools", "C");
    assert_ne!(mode(to_cem.join("bin/run")), 0);
    assert_eq!(mode(to_cem.join("read me")), 0);
    assert_eq!(files(&to_cem), ["bin/a-b", "bin/run", "read me"]);
    let error = cem.fails("download_file g tools /tmp --rename 'bin/a:b=../x'");
    assert!(error.contains("more than a name"), "{error}");
}

#[test]
fn a_disk_that_is_full_in_the_middle_is_waited_for() {
    if !root_or_skip("a_disk_that_is_full_in_the_middle_is_waited_for") {
        return;
    }
    let mut world = World::new();
    let names: Vec<String> = (0..40).map(|number| format!("{number:02}")).collect();
    let list: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 200_000)).collect();
    let root = share(&mut world, "album", &list);
    let mut bob = world.member("bob");
    let small = world.path("small");
    let _mount = Mount::new(&small, "size=12m");
    world.ann.ok("limit up 1M");
    download(&mut bob, "album", &small.join("album"));
    bob.until_percent("album", 10.0);
    fs::write(small.join("ballast"), vec![1; 12 * MIB]).unwrap_err();
    until("it waits for room", || bob.activity("album").contains("waiting"));
    world.ann.ok("limit up 0");
    fs::remove_file(small.join("ballast")).unwrap();
    bob.run_any("resume_download g album");
    bob.until_download("album", "C");
    assert!(same_tree(&root, &small.join("album")));
    // One that cannot fit waits, and nothing is fetched; a part of it fits.
    fs::write(small.join("ballast"), vec![1; MIB]).unwrap();
    bob.ok("cancel_download g album");
    bob.ok("stop_share g album");
    let begun = bob.ok(&format!("download_file g album '{}'", small.join("again").display()));
    assert!(begun["activity"].as_str().unwrap().contains("no space"), "{begun}");
    assert!(!small.join("again").exists());
    bob.ok("choose g album --drop '[123]?'");
    bob.until_download("album", "C");
    assert_eq!(files(&small.join("again")).len(), 10);
}
