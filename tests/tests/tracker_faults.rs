//! Trackers under load while processes die, stop, and lose their disks: an independent checker compares everything that any
//! was acknowledged to a client with what each tracker alone serves afterwards (T5, T6, T7).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::io::{Seek, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use shoal_common::tracker_api::{Call, RefusalKind};
use shoal_common::{GroupName, UserName};
use shoal_tests::{
    Client, Load, Member, Mount, Network, Promises, Trackers, finish, in_own_network, long_or_skip,
    root_or_skip, tracker_command, until,
};

fn addresses(trackers: &Trackers) -> Vec<SocketAddr> {
    (1..=trackers.count()).map(|number| trackers.address(number)).collect()
}

/// Nothing happened that must not, and each tracker has everything with all others away.
fn check_each_alone(trackers: &mut Trackers, promises: &Promises) {
    trackers.until_in_step();
    promises.check_each_alone(trackers, 1..=trackers.count());
    for number in 1..=trackers.count() {
        assert_eq!(trackers.logged(number, "stopping:"), 0, "tracker {number} gave up");
    }
}

fn kill_in_loops(kills: usize) {
    let seed = std::env::var("SHOAL_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    eprintln!("SHOAL_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 3);
    let load = Load::start(&addresses(&trackers), 4);
    let mut killed = 0;
    while killed < kills {
        let seen = load.acknowledged();
        if killed % 10 == 0 {
            until("clients are answered", || load.acknowledged() > seen);
        }
        // Killed at any moment, and down for any while: these two times are the fault.
        std::thread::sleep(Duration::from_millis(rng.u64(0..120)));
        // One, two or all three at once.
        let mut victims = vec![1, 2, 3];
        rng.shuffle(&mut victims);
        victims.truncate([1, 1, 1, 2, 3][rng.usize(..5)]);
        victims.iter().for_each(|&victim| trackers.kill(victim));
        std::thread::sleep(Duration::from_millis(rng.u64(0..60)));
        victims.iter().for_each(|&victim| trackers.restart(victim));
        killed += victims.len();
    }
    let promises = load.stop();
    eprintln!("{killed} kills, {} acknowledged writes", promises.count());
    assert!(promises.count() > kills, "the clients were at work");
    check_each_alone(&mut trackers, &promises);
}

#[test]
fn two_hundred_kills_under_load_lose_nothing() {
    kill_in_loops(200);
}

#[test]
fn thousands_of_kills_under_load_lose_nothing() {
    if long_or_skip("thousands_of_kills_under_load_lose_nothing") {
        kill_in_loops(3_000);
    }
}

#[test]
fn a_tracker_stopped_for_ten_seconds_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let load = Load::start(&addresses(&trackers), 2);
    until("clients are answered", || load.acknowledged() > 20);
    let stopped = Pid::from_raw(i32::try_from(trackers.pid(2)).unwrap()).unwrap();
    kill_process(stopped, Signal::STOP).unwrap();
    let before = load.acknowledged();
    std::thread::sleep(Duration::from_secs(10));
    until("the other one goes on alone", || load.acknowledged() > before + 20);
    kill_process(stopped, Signal::CONT).unwrap();
    let promises = load.stop();
    promises.until_served(trackers.port(2));
    check_each_alone(&mut trackers, &promises);
}

#[test]
fn a_network_cut_one_way_and_healed_loses_nothing() {
    if !in_own_network("a_network_cut_one_way_and_healed_loses_nothing") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let network = Arc::new(Network::new(3));
    let mut trackers = Trackers::start_on(&network, dir.path(), 3);
    trackers.until_in_step();
    let load = Load::start(&addresses(&trackers), 3);
    // What the first sends to the second is lost; then all that the third sends; then the second is cut off both ways.
    for lost in [&[(1, 2)][..], &[(3, 1), (3, 2)], &[(1, 2), (2, 1), (2, 3), (3, 2)]] {
        lost.iter().for_each(|&(from, to)| network.cut(from, to));
        for number in 1..=3 {
            // Each goes on answering, and what two sides of a cut both hear of goes round through the third.
            let name = format!("cut-{}-{number}", lost.len());
            until("each tracker takes writes", || {
                let mut member = Member::connect(trackers.address(number));
                let (_, _, account) = shoal_common::credentials::Secrets::create("secret").unwrap();
                let name = UserName::create(&name).unwrap();
                member.call(Call::create_user(name, account).1).is_ok()
            });
        }
        if lost.len() == 1 {
            until("the way round is found", || {
                let mut second = Member::connect(trackers.address(2));
                second.login("cut-1-1", "secret").is_ok()
            });
        }
        lost.iter().for_each(|&(from, to)| network.heal(from, to));
        trackers.until_in_step();
    }
    let promises = load.stop();
    assert!(promises.count() > 20, "the clients were at work");
    (1..=3).for_each(|number| promises.until_served(trackers.address(number)));
    check_each_alone(&mut trackers, &promises);
}

#[test]
fn clocks_days_apart_and_jumping_lose_nothing() {
    const DAY_MS: i64 = 24 * 3_600 * 1_000;
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 3);
    trackers.until_in_step();
    let load = Load::start(&addresses(&trackers), 2);
    // Days ahead, days behind, and a jump from one to the other.
    for (number, days) in [(2, 3), (3, -2), (2, -4), (1, 5)] {
        assert!(trackers.stop(number));
        trackers.set_arguments(number, &["--clock-offset", &(days * DAY_MS).to_string()]);
        trackers.restart(number);
        let seen = load.acknowledged();
        until("clients are answered", || load.acknowledged() > seen + 20);
        trackers.until_in_step();
    }
    let promises = load.stop();
    // The last of several changes counts, whichever clock it was made by.
    let mut old = "secret".to_owned();
    Member::connect(trackers.address(1)).create_user("anna", &old);
    for number in [1, 2, 3, 2, 1, 3] {
        let new = format!("{old}-{number}");
        let mut member = Member::connect(trackers.address(number));
        member.login("anna", &old).unwrap();
        member.change_password("anna", &old, &new);
        old = new;
    }
    for number in 1..=3 {
        let mut member = Member::connect(trackers.address(number));
        member.login("anna", &old).unwrap();
    }
    (1..=3).for_each(|number| promises.until_served(trackers.address(number)));
    check_each_alone(&mut trackers, &promises);
    assert!(trackers.logged(3, "ClockSkew") > 0, "the operator can see it");
}

#[test]
fn a_tracker_that_is_started_on_a_full_disk_says_what_to_do() {
    if !root_or_skip("a_tracker_that_is_started_on_a_full_disk_says_what_to_do") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let small = Mount::new(&dir.path().join("tracker-1"), "size=8m");
    let mut trackers = Trackers::start(dir.path(), 1);
    assert!(trackers.stop(1));
    let ballast = small.path().join("ballast");
    fill(&ballast);
    let started = finish(&mut tracker_command(&trackers.info(), 1, &trackers.data(1)), "");
    assert_eq!(started.code, Some(1), "{started:?}");
    let expected = format!("the disk of {} is full: make room", trackers.data(1).display());
    assert!(started.stderr.contains(&expected), "{started:?}");
    std::fs::remove_file(&ballast).unwrap();
    trackers.restart(1);
    trackers.until_in_step();
}

#[test]
fn a_full_disk_refuses_writes_and_answers_reads_until_there_is_room() {
    if !root_or_skip("a_full_disk_refuses_writes_and_answers_reads_until_there_is_room") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // While this one's disk is full the other takes writes as fast as the machine bears: in six seconds some 5,000 accounts,
    // whose records and their log are more than 6 MiB. There has to be room for those afterwards.
    let small = Mount::new(&dir.path().join("tracker-1"), "size=32m");
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let load = Load::start(&addresses(&trackers), 2);
    until("clients are answered", || load.acknowledged() > 20);
    let ballast = small.path().join("ballast");
    fill(&ballast);
    until("the disk is full", || trackers.logged(1, "disk is full") > 0);
    // The other one takes writes meanwhile, and this one answers what it knows and refuses what it cannot keep.
    let before = load.acknowledged();
    until("clients are answered elsewhere", || load.acknowledged() > before + 20);
    let (_, _, account) = shoal_common::credentials::Secrets::create("secret").unwrap();
    let mut member = Member::connect(trackers.port(1));
    let create = |name: &str| {
        let name = UserName::create(name).unwrap();
        Call::create_user(name, account.clone()).1
    };
    until("a write is refused", || {
        let name = format!("full-{:x}", fastrand::u64(..));
        member.call(create(&name)).is_err_and(|refusal| refusal.kind == RefusalKind::Unavailable)
    });
    member.done(Call::Challenge { name: UserName::refer("user-0-1").unwrap(), candidate: 0 });
    std::fs::remove_file(&ballast).unwrap();
    until("writes are taken again", || {
        let name = format!("room-{:x}", fastrand::u64(..));
        member.call(create(&name)).is_ok()
    });
    let promises = load.stop();
    promises.until_served(trackers.port(1));
    check_each_alone(&mut trackers, &promises);
    // The mount goes after the processes.
    drop(trackers);
}

#[test]
fn the_log_leaves_room_for_the_database_on_a_small_disk() {
    if !root_or_skip("the_log_leaves_room_for_the_database_on_a_small_disk") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Each account adds some 20 KiB to the log until it is carried over, and a tenth of that to the database.
    let small = Mount::new(&dir.path().join("tracker-1"), "size=16m");
    let mut trackers = Trackers::start(dir.path(), 1);
    let load = Load::start(&addresses(&trackers), 2);
    until("more was logged than there is room for", || load.acknowledged() > 1_500);
    let promises = load.stop();
    assert_eq!(trackers.logged(1, "disk is full"), 0);
    check_each_alone(&mut trackers, &promises);
    drop(trackers);
    drop(small);
}

/// Fills a disk to its last byte.
fn fill(ballast: &Path) {
    let mut file = std::fs::File::create(ballast).unwrap();
    for size in [64 * 1024, 4096, 1] {
        let block = vec![7; size];
        while file.write_all(&block).is_ok() {}
    }
}

#[test]
fn a_damaged_database_is_set_aside_and_filled_again_by_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let load = Load::start(&addresses(&trackers), 2);
    until("clients are answered", || load.acknowledged() > 300);
    let promises = load.stop();
    let damages: [(&str, Damage); 4] = [
        ("cut short", |path| {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("its header lost a bit", |path| overwrite(path, 3, &[b'Q' ^ 1])),
        ("pages turned to nothing", |path| {
            let pages = std::fs::metadata(path).unwrap().len() / 4096;
            (2..pages).step_by(3).for_each(|page| overwrite(path, page * 4096, &[0; 4096]));
        }),
        ("deleted", |path| std::fs::remove_file(path).unwrap()),
    ];
    for (what, damage) in damages {
        eprintln!("{what}");
        // Ended in peace, so that everything lies in the file that is damaged.
        assert!(trackers.stop(2));
        let database = trackers.data(2).join("tracker.db");
        damage(&database);
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(trackers.data(2).join(format!("tracker.db{suffix}")));
        }
        trackers.restart(2);
        promises.until_served(trackers.port(2));
        trackers.until_in_step();
        trackers.kill(1);
        promises.check(trackers.port(2));
        trackers.restart(1);
        trackers.until_in_step();
        assert_eq!(trackers.logged(2, "panicked"), 0, "{what}");
    }
    assert_eq!(trackers.logged(1, "alarm="), 0);
}

/// What is done to a database's file.
type Damage = fn(&Path);

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = std::fs::File::options().write(true).open(path).unwrap();
    file.seek(std::io::SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn two_who_took_one_name_in_a_partition_agree_and_the_later_goes_on_under_another() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let (first_info, second_info) = (trackers.info_of(1), trackers.info_of(2));
    // Never are both up while the two accounts come into being: that is a partition to everybody.
    trackers.kill(2);
    let mut first = Client::start(dir.path(), "first", &first_info);
    assert_eq!(first.ok("create_user anna one")["provisional"], true);
    first.ok("login anna one");
    first.ok("create_group ours");
    trackers.kill(1);
    trackers.restart(2);
    let mut second = Client::start(dir.path(), "second", &second_info);
    assert_eq!(second.ok("create_user anna two")["provisional"], true);
    second.ok("login anna two");
    second.ok("create_group ours");
    second.ok("create_group mine");
    trackers.restart(1);
    trackers.until_in_step();
    // Both log in with their own passwords at either tracker; the later one learns its new name, and keeps what it owns.
    for info in [&first_info, &second_info] {
        let tag = format!("again-{}", fastrand::u32(..));
        let mut winner = Client::start(dir.path(), &format!("winner-{tag}"), info);
        let answer = winner.ok("login anna one");
        assert_eq!(answer["user"], "anna", "{answer}");
        let mut loser = Client::start(dir.path(), &format!("loser-{tag}"), info);
        let answer = loser.ok("login anna two").to_string();
        assert!(answer.contains("anna~"), "{answer}");
        let groups = loser.ok("list_groups").to_string();
        assert!(groups.contains("mine") && groups.contains("ours~"), "{groups}");
        assert!(GroupName::create("ours~0a1b2c").is_err(), "nobody can make up such a name");
    }
}
