//! Whatever takes a sharer away for a while: a download that waits for it goes on soon after it is back, without a command
//! (D2, D6).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use shoal_tests::{Client, Stopped, Trackers, download, same_content, until};

const MIB: usize = 1 << 20;
/// Longer than a source that refuses connections was ever tried again.
const AWAY: Duration = Duration::from_secs(15);
/// Longer than one was that takes connections and says nothing, as one that hangs does.
const HUNG: Duration = Duration::from_secs(45);
/// From when the trackers name the sharer until pieces come again: 5 s, and what a busy machine needs.
const WITHIN: Duration = Duration::from_secs(12);

/// Ann shares, and bob has got some of it, slowly.
struct Halfway {
    ann: Option<Client>,
    bob: Client,
    trackers: Trackers,
    path: PathBuf,
    copy: PathBuf,
    _dir: tempfile::TempDir,
}

impl Halfway {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trackers = Trackers::start(dir.path(), 1);
        let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
        let (path, _) = ann.share("g", "a.bin", 4 * MIB);
        ann.ok("limit up 100K");
        let copy = dir.path().join("copy.bin");
        download(&mut bob, "a.bin", &copy);
        bob.until_percent("a.bin", 4.0);
        Self { ann: Some(ann), bob, trackers, path, copy, _dir: dir }
    }

    fn ann(&mut self) -> &mut Client {
        self.ann.as_mut().unwrap()
    }

    fn kill_ann(&mut self) -> Stopped {
        self.ann.take().unwrap().kill()
    }

    fn percent(&mut self) -> f64 {
        self.bob.download("a.bin")["percent"].as_f64().unwrap()
    }

    /// Waits until bob has no source, and then until ann was away for long.
    fn long_away(&mut self, since: Instant, away: Duration) {
        until("bob has no source", || self.bob.download("a.bin")["sources"] == 0);
        until("it says what it waits for", || self.bob.activity("a.bin") == "waiting for a sharer");
        until("the others gave it up long ago", || since.elapsed() > away);
    }

    /// Pieces come soon.
    fn goes_on(&mut self) {
        let (named, before) = (Instant::now(), self.percent());
        self.bob.until_percent("a.bin", before + 1.0);
        assert!(named.elapsed() < WITHIN, "it took {:?} until it went on", named.elapsed());
    }

    /// Ann is named: pieces come soon, and then the rest.
    fn completes(mut self) {
        until("ann is named", || self.bob.sharers("g", "a.bin") == 1);
        self.goes_on();
        self.ann().ok("limit up 0");
        self.bob.until_download("a.bin", "C");
        assert!(same_content(&self.path, &self.copy));
    }
}

#[test]
fn a_sharer_that_was_killed_and_comes_back_after_long_is_used_again() {
    let mut halfway = Halfway::new();
    let (killed, stopped) = (Instant::now(), halfway.kill_ann());
    halfway.long_away(killed, AWAY);
    halfway.ann = Some(stopped.restart());
    halfway.ann().ok("login ann secret");
    halfway.completes();
}

#[test]
fn a_sharer_that_comes_back_at_another_port_is_found_there() {
    let mut halfway = Halfway::new();
    halfway.ann = Some(halfway.kill_ann().restart_elsewhere());
    halfway.ann().ok("login ann secret");
    halfway.completes();
}

#[test]
fn a_file_that_is_not_shared_for_a_while_goes_on_when_it_is_again() {
    let mut halfway = Halfway::new();
    let stopped = Instant::now();
    halfway.ann().ok("stop_share g a.bin");
    halfway.long_away(stopped, AWAY);
    let path = halfway.path.clone();
    halfway.ann().ok(&format!("upload_file '{}' g", path.display()));
    halfway.completes();
}

#[test]
fn a_sharer_that_logs_out_and_in_is_used_again() {
    let mut halfway = Halfway::new();
    let away = Instant::now();
    halfway.ann().ok("logout");
    halfway.long_away(away, AWAY);
    halfway.ann().ok("login ann secret");
    halfway.completes();
}

#[test]
fn a_sharer_that_hung_for_long_is_used_again() {
    // The time that they hang is the same.
    std::thread::scope(|scope| {
        scope.spawn(hangs_without_a_tracker);
        scope.spawn(hangs_and_is_named_again);
    });
}

fn hangs_without_a_tracker() {
    let mut halfway = Halfway::new();
    halfway.ann().signal(Signal::STOP);
    let hung = Instant::now();
    // Nobody can name ann any more, so she is not forgotten either.
    halfway.trackers.kill(1);
    until("it says what it waits for", || {
        halfway.bob.activity("a.bin").starts_with("ann does not answer at 127.0.0.1:")
    });
    until("the others gave it up long ago", || hung.elapsed() > HUNG);
    halfway.ann().signal(Signal::CONT);
    halfway.goes_on();
    halfway.trackers.restart(1);
    halfway.completes();
}

fn hangs_and_is_named_again() {
    let mut halfway = Halfway::new();
    halfway.ann().signal(Signal::STOP);
    halfway.long_away(Instant::now(), HUNG);
    halfway.ann().signal(Signal::CONT);
    halfway.completes();
}

#[test]
fn a_downloader_that_was_stopped_for_long_goes_on() {
    let halfway = Halfway::new();
    halfway.bob.signal(Signal::STOP);
    let stopped = Instant::now();
    until("the others gave it up long ago", || stopped.elapsed() > AWAY);
    halfway.bob.signal(Signal::CONT);
    halfway.completes();
}
