//! A group's file from HTTP mirrors (P10): with no sharer online, and with one mirror that lies.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use shoal_tests::{Client, Trackers, binary, free_port, random_file, same_content, until};

const SIZE: usize = 5 << 20;

/// A `server` that dies with this value.
struct Mirror(Child, String);

impl Mirror {
    fn of(path: &Path, cache: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new(binary("server"));
        command.args(["-i", "0", "-f"]).arg(path).args(["-p", &port.to_string()]);
        command.env("XDG_CACHE_HOME", cache).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Before that it may tell how far it is with the digests.
        assert!(lines.map(Result::unwrap).any(|line| line.starts_with("serving")));
        let name = path.file_name().unwrap().to_str().unwrap();
        Self(child, format!("http://127.0.0.1:{port}/{name}"))
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_file_without_a_sharer_comes_from_its_mirrors_and_a_liar_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    let mut bob = Client::enter(dir.path(), "bob", &trackers.info());
    ann.ok("create_group g");
    ann.let_in("g", &mut [&mut bob]);
    let (right, wrong) = (dir.path().join("m.bin"), dir.path().join("w.bin"));
    random_file(&right, SIZE, 1);
    random_file(&wrong, SIZE, 2);
    let (honest, liar) = (Mirror::of(&right, dir.path()), Mirror::of(&wrong, dir.path()));
    ann.ok(&format!("upload_file {} g --mirror {} --mirror {}", right.display(), liar.1, honest.1));
    ann.ok("logout");
    until("nobody shares it", || bob.sharers("g", "m.bin") == 0);
    let to = dir.path().join("copy.bin");
    // So slowly that the liar is asked, and waited for.
    bob.ok("limit down 500K");
    bob.ok(&format!("download_file g m.bin {}", to.display()));
    bob.until_event("source_banned");
    bob.ok("limit down 0");
    bob.until_download("m.bin", "C");
    assert!(same_content(&right, &to));
}
