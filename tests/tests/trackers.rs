//! Tracker processes: how they leave, come back, and keep what they acknowledged (T1, T2, T4–T6, T9).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::fs::File;
use std::process::{ChildStdin, Stdio};
use std::time::{Duration, Instant};

use shoal_common::tracker_api::{Answer, Call};
use shoal_common::{Gid, GroupName};
use shoal_tests::{Member, Trackers, finish, free_port, tracker_command, until};

fn create_group(member: &mut Member, name: &str) -> bool {
    let call = Call::CreateGroup { id: Gid::random(), name: GroupName::create(name).unwrap() };
    match member.done(call) {
        Answer::Created { provisional } => provisional,
        other => panic!("{other:?}"),
    }
}

fn groups(member: &mut Member) -> Vec<String> {
    match member.done(Call::ListGroups { after: None }) {
        Answer::Groups { groups, .. } => groups.iter().map(|entry| entry.name.to_string()).collect(),
        other => panic!("{other:?}"),
    }
}

/// One tracker alone, started by hand with a pipe on its input.
fn piped(dir: &std::path::Path) -> (std::process::Child, ChildStdin, u16) {
    let port = free_port();
    std::fs::write(dir.join("info.txt"), format!("127.0.0.1:{port}\n")).unwrap();
    let log = File::create(dir.join("log")).unwrap();
    let mut command = tracker_command(&dir.join("info.txt"), 1, &dir.join("data"));
    let mut child =
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    until("the tracker listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let input = child.stdin.take().unwrap();
    (child, input, port)
}

#[test]
fn quit_or_the_end_of_input_down_a_pipe_closes_cleanly() {
    for words in ["quit\n", "QUIT\n", ""] {
        let dir = tempfile::tempdir().unwrap();
        let (mut child, mut input, port) = piped(dir.path());
        Member::connect(port).enter("ann");
        std::io::Write::write_all(&mut input, words.as_bytes()).unwrap();
        let held = (!words.is_empty()).then_some(input);
        let started = Instant::now();
        until("it leaves", || child.try_wait().unwrap().is_some());
        assert!(child.wait().unwrap().success(), "after {words:?}");
        assert!(started.elapsed() < Duration::from_secs(10));
        drop(held);
    }
}

#[test]
fn without_a_terminal_and_a_pipe_it_runs_until_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    // The harness gives it no input at all: /dev/null, as a service manager does.
    let mut trackers = Trackers::start(dir.path(), 1);
    for round in 0..3 {
        Member::connect(trackers.port(1)).enter(&format!("user-{round}"));
        assert!(trackers.stop(1), "SIGTERM ends it with 0");
        let started = Instant::now();
        trackers.restart(1);
        assert!(started.elapsed() < Duration::from_secs(10), "restart is fast");
    }
    for round in 0..3 {
        Member::connect(trackers.port(1)).login(&format!("user-{round}"), "secret").unwrap();
    }
}

#[test]
fn what_one_acknowledged_the_other_shows_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let (mut here, mut there) = (Member::connect(trackers.port(1)), Member::connect(trackers.port(2)));
    here.enter("ann");
    there.enter("bob");
    for number in 0..30 {
        let (writer, reader) =
            if number % 2 == 0 { (&mut here, &mut there) } else { (&mut there, &mut here) };
        let name = format!("group-{number}");
        assert!(!create_group(writer, &name), "with both trackers up a name is definite");
        assert!(groups(reader).contains(&name), "{name} was acknowledged, so the other tracker has it");
    }
}

#[test]
fn an_acknowledged_write_survives_the_death_of_the_tracker_that_took_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    for round in 0..4 {
        let (dies, stays) = if round % 2 == 0 { (1, 2) } else { (2, 1) };
        let name = format!("survivor-{round}");
        let mut member = Member::connect(trackers.port(dies));
        member.enter(&name);
        create_group(&mut member, &name);
        trackers.kill(dies);
        let mut other = Member::connect(trackers.port(stays));
        other.login(&name, "secret").unwrap();
        assert!(groups(&mut other).contains(&name), "round {round}");
        // Alone it writes too, and the one that was away catches up by itself.
        let alone = format!("alone-{round}");
        create_group(&mut other, &alone);
        trackers.restart(dies);
        let mut back = Member::connect(trackers.port(dies));
        until("the tracker that was away has the group", || groups(&mut back).contains(&alone));
        trackers.until_in_step();
    }
}

#[test]
fn an_acknowledged_write_survives_kill_9_of_all_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let mut names = Vec::new();
    for round in 0..3 {
        let mut member = Member::connect(trackers.port(1 + round % 2));
        let name = format!("user-{round}");
        member.enter(&name);
        for number in 0..10 {
            let group = format!("group-{round}-{number}");
            create_group(&mut member, &group);
            names.push(group);
        }
        trackers.kill(1);
        trackers.kill(2);
        trackers.restart(1);
        trackers.restart(2);
        // What one acknowledged before the two had found each other, the other has once they are in step.
        trackers.until_in_step();
        for number in 1..=2 {
            let mut member = Member::connect(trackers.port(number));
            member.login(&name, "secret").unwrap();
            let mut all = groups(&mut member);
            all.retain(|name| name.starts_with("group-"));
            assert_eq!(all.len(), names.len(), "tracker {number} has all that was acknowledged");
        }
    }
}

#[test]
fn a_blank_replacement_catches_up_and_serves_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let mut member = Member::connect(trackers.port(1));
    member.enter("ann");
    for number in 0..200 {
        create_group(&mut member, &format!("group-{number:03}"));
    }
    trackers.kill(2);
    std::fs::remove_dir_all(trackers.data(2)).unwrap();
    create_group(&mut member, "while-it-was-away");
    trackers.restart(2);
    // It has a new key, which nobody believes before the operator said so.
    trackers.accept(1, 2);
    let started = Instant::now();
    let mut blank = Member::connect(trackers.port(2));
    until("the blank tracker has everything", || groups(&mut blank).len() == 201);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    // Now it serves alone, under another key than before.
    trackers.kill(1);
    let mut blank = Member::connect(trackers.port(2));
    blank.login("ann", "secret").unwrap();
    create_group(&mut blank, "on-the-replacement");
    trackers.restart(1);
    let mut first = Member::connect(trackers.port(1));
    until("the first has it too", || groups(&mut first).contains(&"on-the-replacement".to_owned()));
}

#[test]
fn a_tracker_that_comes_back_is_in_step_within_a_second_and_a_half() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let mut member = Member::connect(trackers.port(1));
    member.enter("ann");
    // A busy machine may be slow once; a tracker that takes longer always does.
    let mut took = Vec::new();
    for round in 1..=3 {
        trackers.kill(2);
        for number in 0..300 {
            create_group(&mut member, &format!("group-{round}-{number:03}"));
        }
        trackers.restart(2);
        let reachable = Instant::now();
        let mut back = Member::connect(trackers.port(2));
        until("it has all that it missed", || groups(&mut back).len() == round * 300);
        took.push(reachable.elapsed());
        if took.last() < Some(&Duration::from_millis(1_500)) {
            return;
        }
    }
    panic!("in sync after {took:?}");
}

#[test]
fn a_silent_tracker_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let mut member = Member::connect(trackers.port(1));
    member.enter("ann");
    let silent = rustix::process::Pid::from_raw(i32::try_from(trackers.pid(2)).unwrap()).unwrap();
    rustix::process::kill_process(silent, rustix::process::Signal::STOP).unwrap();
    let started = Instant::now();
    create_group(&mut member, "acknowledged");
    let took = started.elapsed();
    rustix::process::kill_process(silent, rustix::process::Signal::CONT).unwrap();
    assert!(took < Duration::from_secs(4), "1.5 s of silence end the wait; it took {took:?}");
    let mut back = Member::connect(trackers.port(2));
    until("it catches up", || groups(&mut back).contains(&"acknowledged".to_owned()));
}

#[test]
fn a_start_that_cannot_be_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let info = trackers.info();
    let failed = |command: &mut std::process::Command, code: i32, words: &[&str]| {
        let finished = finish(command, "");
        assert_eq!(finished.code, Some(code), "{finished:?}");
        let line = finished.stderr.trim_end();
        assert!(code == 2 || line.lines().count() == 1, "one clear line: {line:?}");
        for word in words {
            assert!(line.to_lowercase().contains(&word.to_lowercase()), "{word:?} in {line:?}");
        }
        assert!(!line.contains("panicked"), "{line}");
    };
    // The same port, and the same folder.
    let other = dir.path().join("elsewhere");
    failed(&mut tracker_command(&info, 1, &other), 1, &["in use", &trackers.port(1).to_string()]);
    let second = dir.path().join("second.txt");
    std::fs::write(&second, format!("127.0.0.1 {}\n", free_port())).unwrap();
    failed(&mut tracker_command(&second, 1, &trackers.data(1)), 1, &["in use"]);
    // A number that the file does not have, a file that does not exist, and one with a bad line 3.
    failed(&mut tracker_command(&info, 2, &other), 1, &["2"]);
    failed(&mut tracker_command(&dir.path().join("no-such.txt"), 1, &other), 1, &["no-such.txt"]);
    let bad = dir.path().join("bad.txt");
    std::fs::write(&bad, "# trackers\n127.0.0.1 9001\n127.0.0.1 nine\n").unwrap();
    failed(&mut tracker_command(&bad, 1, &other), 1, &["bad.txt", "line 3"]);
    failed(&mut tracker_command(&info, 0, &other), 2, &[]);
    let mut nothing = std::process::Command::new(shoal_tests::binary("tracker"));
    failed(&mut nothing, 2, &["usage"]);
    for option in ["--help", "--version"] {
        let finished = finish(std::process::Command::new(shoal_tests::binary("tracker")).arg(option), "");
        assert_eq!(finished.code, Some(0));
        assert!(finished.stdout.contains("tracker"), "{finished:?}");
    }
}
