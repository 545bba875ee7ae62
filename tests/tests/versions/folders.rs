//! Folders beside programs of a version that does not know them: it refuses them, passes them on whole, and keeps working.

use std::path::{Path, PathBuf};

use shoal_tests::{Client, Earlier, Trackers, binary, random_file, same_content, until};

const TEST: &str = "folders beside an earlier version";

/// Whether a client of an earlier version shares folders: nothing is to be tried with it then.
fn knows_folders(client: &mut Client, album: &Path) -> bool {
    let shared = client.run(&format!("upload_file '{}' g", album.display())).answer;
    if shared["ok"] == true {
        shoal_tests::skip(TEST, "the earlier version knows folders");
    }
    shared["ok"] == true
}

fn folder(dir: &Path) -> PathBuf {
    let path = dir.join("album");
    std::fs::create_dir_all(path.join("one")).unwrap();
    random_file(&path.join("one/a.bin"), 200_000, 6);
    random_file(&path.join("b.bin"), 10, 7);
    path
}

/// Downloads the folder and compares a file of it.
fn take(client: &mut Client, dir: &Path, album: &Path) {
    until("it is listed", || client.sharers("g", "album") > 0);
    client.ok(&format!("download_file g album {}/copies/", dir.display()));
    client.until_download("album", "C");
    assert!(same_content(&album.join("one/a.bin"), &dir.join("copies/album/one/a.bin")));
}

#[test]
fn an_earlier_client_refuses_a_folder_and_takes_it_once_it_is_updated() {
    let Some(earlier) = Earlier::or_skip(TEST) else { return };
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann =
        Client::start_program(dir.path(), "ann", &trackers.info(), earlier.program("client")).entered();
    let mut bob = Client::enter(dir.path(), "bob", &trackers.info());
    bob.ok("create_group g");
    bob.let_in("g", &mut [&mut ann]);
    let album = folder(dir.path());
    if knows_folders(&mut ann, &album) {
        return;
    }
    bob.ok(&format!("upload_file '{}' g", album.display()));
    let error = ann.fails(&format!("download_file g album {}/copies/", dir.path().display()));
    assert!(error.contains("album"), "{error}");
    for command in ["list_files g", "show_peers g album", "show_downloads -v", "whoami"] {
        ann.ok(command);
    }
    let mut ann = ann.quit().0.restart_as(None);
    ann.ok("login ann secret");
    take(&mut ann, dir.path(), &album);
}

#[test]
fn earlier_trackers_refuse_a_folder_and_pass_on_those_of_others() {
    let Some(earlier) = Earlier::or_skip(TEST) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::stopped(dir.path(), 2);
    trackers.set_program(1, earlier.program("tracker"));
    trackers.restart(1);
    trackers.restart(2);
    trackers.until_in_step();
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info_of(1));
    let mut bob = Client::enter(dir.path(), "bob", &trackers.info_of(2));
    bob.ok("create_group g");
    bob.let_in("g", &mut [&mut ann]);
    let album = folder(dir.path());
    let mut zoe =
        Client::start_program(dir.path(), "zoe", &trackers.info_of(1), earlier.program("client")).entered();
    bob.let_in("g", &mut [&mut zoe]);
    if knows_folders(&mut zoe, &album) {
        return;
    }
    let error = ann.fails(&format!("upload_file '{}' g", album.display()));
    assert!(error.contains("ask its operator to update it"), "{error}");
    bob.ok(&format!("upload_file '{}' g", album.display()));
    trackers.until_in_step();
    ann.ok("list_files g");
    // Both ran the earlier version for a while.
    assert!(trackers.stop(2));
    trackers.set_program(2, earlier.program("tracker"));
    trackers.restart(2);
    trackers.until_in_step();
    for number in [1, 2] {
        assert!(trackers.stop(number));
        trackers.set_program(number, binary("tracker"));
        trackers.restart(number);
    }
    trackers.until_in_step();
    take(&mut ann, dir.path(), &album);
    for number in [1, 2] {
        assert_eq!(trackers.status(number)["alarms"], 0, "{}", trackers.log(number));
    }
}
