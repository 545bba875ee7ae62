//! Sessions over time: logout and login, leaving and coming back, trackers that go and return (P2, P14, P18, P20, P21).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::time::{Duration, Instant};

use rustix::process::Signal;
use shoal_common::UserName;
use shoal_common::tracker_api::{Answer, Call, RefusalKind};
use shoal_tests::{Client, Member, Trackers, bytes_read, same_content, until};

const MIB: usize = 1 << 20;

#[test]
fn login_shares_again_what_is_there_and_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    let untouched = ann.share("g", "untouched.bin", MIB).0;
    let changed = ann.share("g", "changed.bin", MIB).0;
    let removed = ann.share("g", "removed.bin", MIB).0;
    let stopped = ann.share("g", "stopped.bin", MIB).0;
    ann.ok("stop_share g stopped.bin");
    until("three are shared", || {
        bob.sharers("g", "untouched.bin") + bob.sharers("g", "changed.bin") + bob.sharers("g", "removed.bin")
            == 3
    });
    ann.ok("logout");
    for file in ["untouched.bin", "changed.bin", "removed.bin"] {
        until("nothing is shared after logout", || bob.sharers("g", file) == 0);
    }
    // A byte in the middle changes, size and everything else stay.
    let mut bytes = std::fs::read(&changed).unwrap();
    bytes[MIB / 2] ^= 1;
    std::fs::write(&changed, bytes).unwrap();
    std::fs::remove_file(&removed).unwrap();
    ann.ok("login ann secret");
    until("the untouched file is shared again", || bob.sharers("g", "untouched.bin") == 1);
    let lost: Vec<_> = [ann.until_event("share_lost")["file"].clone(), {
        until("both know it", || {
            ann.ok("whoami");
            ann.events().iter().filter(|event| event["event"] == "share_lost").count() == 2
        });
        ann.events().iter().rfind(|event| event["event"] == "share_lost").unwrap()["file"].clone()
    }]
    .into();
    assert!(lost.contains(&"changed.bin".into()) && lost.contains(&"removed.bin".into()), "{lost:?}");
    for file in ["changed.bin", "removed.bin", "stopped.bin"] {
        assert_eq!(bob.sharers("g", file), 0, "{file}");
    }
    assert!(stopped.exists());
    let copy = dir.path().join("copy.bin");
    bob.ok(&format!("download_file g untouched.bin {}", copy.display()));
    bob.until_download("untouched.bin", "C");
    assert!(same_content(&untouched, &copy));
}

#[test]
fn logout_pauses_downloads_until_the_next_login() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    let (path, _) = ann.share("g", "a.bin", 4 * MIB);
    bob.ok("limit down 1M");
    let copy = dir.path().join("copy.bin");
    bob.ok(&format!("download_file g a.bin {}", copy.display()));
    bob.until_percent("a.bin", 25.0);
    bob.ok("logout");
    let before = bytes_read(ann.pid());
    // Another user's session shows and moves nothing of it (P18).
    bob.ok("create_user carol secret");
    bob.ok("login carol secret");
    assert_eq!(bob.ok("show_downloads")["downloads"], serde_json::json!([]));
    bob.ok("logout");
    assert!(!copy.exists());
    assert!(bytes_read(ann.pid()) - before < MIB as u64, "nothing more is fetched");
    bob.ok("login bob secret");
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &copy));
    // A paused one stays paused over a logout.
    ann.share("g", "b.bin", 2 * MIB);
    bob.ok(&format!("download_file g b.bin {}", dir.path().join("b.bin").display()));
    bob.ok("pause_download g b.bin");
    bob.ok("logout");
    bob.ok("login bob secret");
    assert_eq!(bob.download("b.bin")["state"], "P");
    assert_eq!(bob.download("a.bin")["state"], "C", "finished downloads stay listed");
}

#[test]
fn a_restarted_client_shares_and_lists_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    let (path, _) = ann.share("g", "a.bin", MIB);
    bob.ok(&format!("download_file g a.bin {}", dir.path().join("copy.bin").display()));
    bob.until_download("a.bin", "C");
    until("both share it", || bob.sharers("g", "a.bin") == 2);
    let (stopped, well) = ann.quit();
    assert!(well, "the end of its input ends it with 0");
    let left = Instant::now();
    until("the one who quit is offline", || bob.sharers("g", "a.bin") == 1);
    assert!(left.elapsed() < Duration::from_secs(5));
    let mut ann = stopped.restart();
    ann.ok("login ann secret");
    until("it is shared again", || bob.sharers("g", "a.bin") == 2);
    let mut bob = bob.kill().restart();
    bob.ok("login bob secret");
    assert_eq!(bob.download("a.bin")["state"], "C");
    until("the finished download is shared again", || ann.sharers("g", "a.bin") == 2);
    // Out of what the restarted one serves.
    ann.ok("stop_share g a.bin");
    let copy = dir.path().join("second.bin");
    ann.ok(&format!("download_file g a.bin {}", copy.display()));
    ann.until_download("a.bin", "C");
    assert!(same_content(&path, &copy));
}

#[test]
fn whoever_is_killed_is_offline_within_five_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let (mut ann, bob) = Client::pair(dir.path(), &trackers.info());
    let mut bob = bob.quit().0.restart();
    bob.ok("login bob secret");
    let mut other = Client::start(dir.path(), "other", &trackers.info_of(2));
    other.ok("login bob secret");
    for kill in [true, false] {
        ann.share("g", "a.bin", 100_000);
        for client in [&mut bob, &mut other] {
            until("it is online", || client.sharers("g", "a.bin") == 1);
        }
        let broke = Instant::now();
        if kill {
            let stopped = ann.kill();
            for client in [&mut bob, &mut other] {
                until("it is offline at both trackers", || client.sharers("g", "a.bin") == 0);
                assert!(broke.elapsed() < Duration::from_secs(6), "{:?}", broke.elapsed());
            }
            ann = stopped.restart();
            ann.ok("login ann secret");
        } else {
            // Frozen, its connections stay open and say nothing.
            ann.signal(Signal::STOP);
            for client in [&mut bob, &mut other] {
                until("it is offline at both trackers", || client.sharers("g", "a.bin") == 0);
                assert!(broke.elapsed() < Duration::from_secs(8), "{:?}", broke.elapsed());
            }
            return;
        }
    }
}

#[test]
fn without_any_tracker_a_command_fails_after_fifteen_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    trackers.kill(1);
    trackers.kill(2);
    let started = Instant::now();
    let error = ann.fails("create_group g");
    let took = started.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_secs(20)).contains(&took), "{took:?}");
    for number in 1..=2 {
        assert!(error.contains(&trackers.port(number).to_string()), "it names the trackers: {error}");
    }
    assert_eq!(ann.ok("whoami")["user"], "ann", "the session goes on");
    trackers.restart(2);
    ann.ok("create_group g");
    assert_eq!(ann.ok("whoami")["user"], "ann");
}

#[test]
fn a_download_finishes_without_trackers_and_the_session_comes_back_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let (mut ann, mut bob) = Client::pair(dir.path(), &trackers.info());
    ann.ok("limit up 1M");
    let (path, _) = ann.share("g", "a.bin", 4 * MIB);
    let copy = dir.path().join("copy.bin");
    bob.ok(&format!("download_file g a.bin {}", copy.display()));
    bob.until_percent("a.bin", 10.0);
    trackers.kill(1);
    trackers.kill(2);
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &copy));
    trackers.restart(1);
    trackers.restart(2);
    // Nobody logs in again by hand: both are online, and the finished download is shared.
    until("both share it", || bob.run("list_files g").answer["files"][0]["sharers"] == 2);
    assert_eq!(ann.ok("whoami")["user"], "ann");
    ann.ok("create_group after");
}

#[test]
fn after_five_failed_logins_further_tries_wait() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::start(dir.path(), "ann", &trackers.info());
    ann.ok("create_user ann secret");
    ann.ok("create_user bob secret");
    let started = Instant::now();
    for _ in 0..5 {
        ann.fails("login ann wrong");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "five tries go at once");
    let started = Instant::now();
    let answer = ann.run("login ann secret").answer;
    // It is made to wait, or asked to.
    assert!(started.elapsed() > Duration::from_millis(500) || answer["ok"] == false, "{answer}");
    if answer["ok"] == true {
        ann.ok("logout");
    } else {
        assert!(
            answer["error"].as_str().unwrap().contains("wait")
                || answer["error"].as_str().unwrap().contains("again"),
            "{answer}"
        );
    }
    // Another account is not locked out, and this one only for a while.
    ann.ok("login bob secret");
    ann.ok("logout");
    until("the right password gets in", || ann.run("login ann secret").answer["ok"] == true);
    assert!(started.elapsed() < Duration::from_secs(35));
}

#[test]
fn a_login_to_a_name_without_an_account_is_answered_alike_at_every_tracker_and_guesses_at_it_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let said = |trackers: &Trackers, number| {
        let mut stranger = Member::connect(trackers.port(number));
        let name = UserName::refer("nobody").unwrap();
        let challenge = stranger.done(Call::Challenge { name, candidate: 0 });
        let Answer::Challenge { salt, .. } = challenge else { panic!("{challenge:?}") };
        let refusal = stranger.login("nobody", "secret").unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::WrongPassword);
        (salt, refusal.text)
    };
    let first = said(&trackers, 1);
    assert!(
        first.1.contains("there is no such user") && first.1.contains("create_user nobody"),
        "{}",
        first.1
    );
    assert_eq!(said(&trackers, 2), first);
    trackers.kill(2);
    trackers.restart(2);
    assert_eq!(said(&trackers, 2), first, "after a restart");
    // Guesses at it are counted as those at an account are, by each connection of the address together.
    let mut stranger = Member::connect(trackers.port(1));
    let kinds: Vec<_> = (0..8).map(|_| stranger.login("nobody", "secret").unwrap_err().kind).collect();
    assert!(kinds.contains(&RefusalKind::Wait), "{kinds:?}");
    stranger.create_user("ann", "secret");
    let refusal = stranger.login("ann", "other").unwrap_err();
    assert_eq!(refusal.text, first.1.replace("nobody", "ann"), "the words do not say which it is");
}
