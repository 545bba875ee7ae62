//! Downloads when things go wrong: peers die, lie and change their files, the downloader is killed (D2, D4,
//! D6, D8). What is lacking for a while is in `shortage.rs`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use shoal_tests::{
    Client, Manners, Mount, World, download, random_file, root_or_skip, same_content, sha1_of, until,
};

const MIB: usize = 1 << 20;
const PIECE: usize = 64 * 1024;

/// Everything in a folder, hidden files too.
fn list(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn two_of_three_seeders_are_killed_and_it_goes_on() {
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "a.bin", 6 * MIB);
    let mut seeders = vec![world.member("bob"), world.member("carol")];
    for seeder in &mut seeders {
        let copy = world.path(&format!("{}.bin", seeder.name()));
        download(seeder, "a.bin", &copy);
        seeder.until_download("a.bin", "C");
        seeder.ok("limit up 200K");
    }
    world.ann.ok("limit up 200K");
    let mut dave = world.member("dave");
    let copy = world.path("dave.bin");
    until("three share it", || dave.sharers("g", "a.bin") == 3);
    download(&mut dave, "a.bin", &copy);
    until("all three serve", || dave.download("a.bin")["sources"] == 3);
    dave.until_percent("a.bin", 20.0);
    assert_eq!(dave.download("a.bin")["state"], "D");
    until("it says what limits it", || dave.activity("a.bin") == "limited by its sources");
    for seeder in seeders {
        seeder.kill();
    }
    world.ann.ok("limit up 1M");
    dave.until_download("a.bin", "C");
    assert!(same_content(&path, &copy));
}

#[test]
fn a_liar_is_dropped_and_the_file_is_right() {
    let mut world = World::new();
    world.ann.ok("limit up 100K");
    let (path, _) = world.ann.share("g", "a.bin", 2 * MIB);
    let liar = world.seeder("liar", "a.bin", &path, Manners::Lies, 1);
    let mut bob = world.member("bob");
    until("both are offered", || bob.sharers("g", "a.bin") == 2);
    let copy = world.path("copy.bin");
    download(&mut bob, "a.bin", &copy);
    let banned = bob.until_event("source_banned");
    assert_eq!(banned["file"], "a.bin");
    world.ann.ok("limit up 0");
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &copy));
    // One bad piece was enough, and what else was asked of it came from the other.
    assert_eq!(liar.sent(), 1);
}

#[test]
fn one_lie_in_a_thousand_pieces_is_found_and_costs_the_liar_its_place() {
    const PIECES: usize = 1_000;
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "a.bin", PIECES * PIECE);
    // Alone, so that it is asked for every piece until it lies.
    let liar = world.seeder("liar", "a.bin", &path, Manners::LiesIn(700), usize::MAX);
    let mut bob = world.member("bob");
    world.ann.ok("logout");
    until("only the liar is offered", || bob.sharers("g", "a.bin") == 1);
    let copy = world.path("copy.bin");
    download(&mut bob, "a.bin", &copy);
    bob.until_event("source_banned");
    let stopped = bob.download("a.bin");
    assert_eq!(stopped["state"], "D");
    assert!(stopped["percent"].as_u64().unwrap() >= 60, "what was right is kept: {stopped}");
    // What it had been asked for before is sent until it learns that nobody listens.
    until("its connections are closed", || liar.open() == 0);
    let before = liar.sent();
    world.ann.ok("login ann secret");
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &copy));
    assert_eq!(liar.sent(), before, "it was asked for more");
}

#[test]
fn sources_that_hang_or_crawl_do_not_hold_the_file_up() {
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "a.bin", 4 * MIB);
    // Of four sources one sends nothing at all, one is stopped in the middle, one crawls.
    let silent = world.seeder("silent", "a.bin", &path, Manners::Honest, 0);
    let mut others = vec![world.member("stopped"), world.member("crawling")];
    for (other, limit) in others.iter_mut().zip(["200K", "10K"]) {
        let copy = world.path(&format!("{}.bin", other.name()));
        download(other, "a.bin", &copy);
        other.until_download("a.bin", "C");
        other.ok(&format!("limit up {limit}"));
    }
    let stopped = others.remove(0);
    world.ann.ok("limit up 400K");
    let mut bob = world.member("bob");
    until("all four share it", || bob.sharers("g", "a.bin") == 4);
    let copy = world.path("copy.bin");
    download(&mut bob, "a.bin", &copy);
    until("all four are asked", || bob.download("a.bin")["sources"] == 4);
    bob.until_percent("a.bin", 10.0);
    stopped.signal(Signal::STOP);
    world.ann.ok("limit up 0");
    bob.until_download("a.bin", "C");
    stopped.signal(Signal::CONT);
    assert!(same_content(&path, &copy));
    assert_eq!(silent.sent(), 0);
}

/// What a client's downloads of these files show as percentage once the first goes on, and an instant before it did.
fn next_percents<const N: usize>(client: &mut Client, files: [&str; N]) -> ([f64; N], Instant) {
    let mut percents = || {
        let rows = client.ok("show_downloads")["downloads"].clone();
        files.map(|file| {
            let row = rows.as_array().unwrap().iter().find(|row| row["file"] == file);
            row.unwrap()["percent"].as_f64().unwrap()
        })
    };
    let (first, mut asked) = (percents(), [Instant::now(); 2]);
    let mut now = first;
    until("it goes on", || {
        asked = [asked[1], Instant::now()];
        now = percents();
        now[0] > first[0]
    });
    (now, asked[0])
}

#[test]
fn a_limit_is_kept_and_changes_while_a_download_runs() {
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "a.bin", 12 * MIB);
    let mut bob = world.member("bob");
    bob.ok("limit down 2M");
    let copy = world.path("copy.bin");
    download(&mut bob, "a.bin", &copy);
    bob.until_percent("a.bin", 10.0);
    until("it says what limits it", || bob.activity("a.bin") == "at the rate limit");
    // Six mebibytes at two a second: never faster than 5 % over it; how much slower is the machine's affair.
    let ([from], started) = next_percents(&mut bob, ["a.bin"]);
    bob.until_percent("a.bin", 60.0);
    let (to, took) = (bob.download("a.bin")["percent"].as_f64().unwrap(), started.elapsed());
    let rate = (to - from) / 100.0 * 12.0 / took.as_secs_f64();
    assert!(rate < 2.0 * 1.05 + 0.25, "{rate} MiB/s where 2 are allowed");
    // With this one it would take longer than anything is waited for.
    bob.ok("limit down 10K");
    bob.ok("limit down 0");
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &copy));
}

#[test]
fn two_downloads_share_a_limit_fairly_and_keep_it_over_ten_seconds() {
    const SIZE: usize = 32 * MIB;
    const FILES: [&str; 2] = ["a.bin", "b.bin"];
    let mut world = World::new();
    let mut bob = world.member("bob");
    bob.ok("limit down 4M");
    for file in FILES {
        world.ann.share("g", file, SIZE);
        let copy = world.path(file);
        download(&mut bob, file, &copy);
    }
    FILES.iter().for_each(|file| bob.until_percent(file, 6.0));
    let (before, started) = next_percents(&mut bob, FILES);
    // The time is what is measured.
    std::thread::sleep(Duration::from_secs(10));
    let (after, _) = next_percents(&mut bob, FILES);
    let took = started.elapsed().as_secs_f64();
    let came = [0, 1].map(|file| (after[file] - before[file]) / 100.0 * SIZE as f64);
    let allowed = 4.0 * MIB as f64 * took;
    eprintln!("{came:?} of {allowed}");
    assert!(came[0] + came[1] < allowed * 1.05, "{came:?} where {allowed} is allowed");
    assert!((0.8..1.25).contains(&(came[0] / came[1])), "{came:?} is not fair");
}

#[test]
fn with_only_a_liar_nothing_is_ever_called_complete() {
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "a.bin", MIB);
    let _liar = world.seeder("liar", "a.bin", &path, Manners::Lies, usize::MAX);
    let mut bob = world.member("bob");
    world.ann.ok("logout");
    until("only the liar is offered", || bob.sharers("g", "a.bin") == 1);
    let folder = world.path("folder");
    std::fs::create_dir(&folder).unwrap();
    download(&mut bob, "a.bin", &folder);
    bob.until_event("source_banned");
    let download = bob.download("a.bin");
    assert_eq!(
        (&download["state"], &download["percent"]),
        (&"D".into(), &0.into()),
        "it waits for an honest one"
    );
    until("it says so", || bob.activity("a.bin") == "waiting for a sharer");
    assert!(!folder.join("a.bin").exists());
    world.ann.ok("login ann secret");
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &folder.join("a.bin")));
    assert_eq!(list(&folder), ["a.bin"], "no partial file is left");
}

#[test]
fn a_killed_downloader_fetches_only_what_it_had_not() {
    let mut world = World::new();
    let pieces = 64;
    let (path, _) = world.ann.share("g", "a.bin", pieces * PIECE);
    let seeder = world.seeder("seeder", "a.bin", &path, Manners::Honest, pieces / 2);
    let mut bob = world.member("bob");
    world.ann.ok("logout");
    until("only the seeder that counts is there", || bob.sharers("g", "a.bin") == 1);
    let copy = world.path("copy.bin");
    download(&mut bob, "a.bin", &copy);
    bob.until_percent("a.bin", 50.0);
    assert_eq!(seeder.sent(), pieces / 2);
    let bob = bob.kill();
    until("its connections are closed", || seeder.open() == 0);
    let mut bob = bob.restart();
    assert!(!copy.exists());
    bob.ok("login bob secret");
    until("it knows what it has", || bob.download("a.bin")["percent"].as_f64() >= Some(49.0));
    seeder.allow(usize::MAX);
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &copy));
    let again = seeder.sent() - pieces;
    assert_eq!(again, 0, "{again} of {pieces} pieces were fetched twice");
}

#[test]
fn killed_fifty_times_it_fetches_the_file_and_what_was_under_way() {
    let mut world = World::new();
    let pieces = 120;
    let (path, _) = world.ann.share("g", "a.bin", pieces * PIECE - 1);
    let seeder = world.seeder("seeder", "a.bin", &path, Manners::Honest, 0);
    let mut bob = world.member("bob");
    world.ann.ok("logout");
    let copy = world.path("copy.bin");
    until("only the seeder that counts is there", || bob.sharers("g", "a.bin") == 1);
    download(&mut bob, "a.bin", &copy);
    // At each kill pieces are being sent, verified and written: at most those under way may be lost.
    let rounds = 50;
    for _ in 1..=rounds {
        let sent = seeder.sent();
        seeder.allow(sent + 2);
        until("pieces are on their way", || seeder.sent() > sent);
        bob = bob.kill().restart();
        bob.ok("login bob secret");
    }
    seeder.allow(usize::MAX);
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &copy));
    assert!(seeder.sent() <= pieces + rounds * 2, "{} pieces were sent for {pieces}", seeder.sent());
}

#[test]
fn a_file_that_changes_or_shrinks_while_it_is_served() {
    for shrink in [false, true] {
        let mut world = World::new();
        world.ann.ok("limit up 1M");
        let (path, sha1) = world.ann.share("g", "a.bin", 4 * MIB);
        let keep = world.path("keep.bin");
        std::fs::copy(&path, &keep).unwrap();
        let mut bob = world.member("bob");
        let folder = world.path("folder");
        std::fs::create_dir(&folder).unwrap();
        download(&mut bob, "a.bin", &folder);
        bob.until_percent("a.bin", 10.0);
        if shrink {
            std::fs::File::options().write(true).open(&path).unwrap().set_len(MIB as u64).unwrap();
        } else {
            random_file(&path, 4 * MIB, 99);
        }
        // The sharer notices, gets an event, and stops; the downloader waits, with nothing wrong under the file's name.
        world.ann.until_event("share_lost");
        until("it is not offered any more", || bob.sharers("g", "a.bin") == 0);
        assert_eq!(bob.download("a.bin")["state"], "D");
        assert!(!folder.join("a.bin").exists());
        // The right content comes back: it goes on.
        let again = world.path("again/a.bin");
        std::fs::create_dir(again.parent().unwrap()).unwrap();
        std::fs::rename(&keep, &again).unwrap();
        let mut carol = world.member("carol");
        carol.ok(&format!("upload_file {} g", again.display()));
        bob.until_download("a.bin", "C");
        assert_eq!(sha1_of(&folder.join("a.bin")), sha1);
    }
}

#[test]
fn a_file_replaced_under_the_same_size_and_time_spreads_no_wrong_byte() {
    let mut world = World::new();
    let (path, sha1) = world.ann.share("g", "a.bin", 2 * MIB);
    let mut carol = world.member("carol");
    download(&mut carol, "a.bin", &world.path("carol.bin"));
    carol.until_download("a.bin", "C");
    // Written in place with the old time: no look at size and time can tell.
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    random_file(&path, 2 * MIB, 99);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let mut bob = world.member("bob");
    until("both are offered", || bob.sharers("g", "a.bin") >= 1);
    let copy = world.path("copy.bin");
    download(&mut bob, "a.bin", &copy);
    bob.until_download("a.bin", "C");
    assert_eq!(sha1_of(&copy), sha1);
}

#[test]
fn what_is_at_the_destination_is_never_overwritten() {
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "a.bin", MIB);
    let mut bob = world.member("bob");
    // A different file, as the path itself and inside the folder.
    let folder = world.path("folder");
    std::fs::create_dir(&folder).unwrap();
    let other = folder.join("a.bin");
    std::fs::write(&other, b"mine").unwrap();
    for destination in [&other, &folder] {
        let error = bob.fails(&format!("download_file g a.bin {}", destination.display()));
        assert!(error.contains("--overwrite"), "it says how to ask for it: {error}");
        assert_eq!(std::fs::read(&other).unwrap(), b"mine");
        assert_eq!(list(&folder), ["a.bin"]);
    }
    // One that appears while it is downloaded.
    let late = world.path("late.bin");
    bob.ok("limit down 50K");
    download(&mut bob, "a.bin", &late);
    bob.until_percent("a.bin", 10.0);
    std::fs::write(&late, b"mine too").unwrap();
    bob.ok("limit down 0");
    let failed = bob.until_download("a.bin", "F");
    assert!(!failed["error"].as_str().unwrap().is_empty());
    assert_eq!(std::fs::read(&late).unwrap(), b"mine too");
    // Asked for, it is.
    bob.ok("cancel_download g a.bin");
    assert_eq!(std::fs::read(&late).unwrap(), b"mine too");
    bob.ok(&format!("download_file g a.bin {} --overwrite", other.display()));
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &other));
    bob.ok("cancel_download g a.bin");
    // The same content is there already: nothing is to be done.
    bob.ok(&format!("download_file g a.bin {}", folder.display()));
    bob.until_download("a.bin", "C");
}

#[test]
fn destinations_that_cannot_be() {
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "a.bin", MIB);
    let mut bob = world.member("bob");
    let file = world.path("file");
    std::fs::write(&file, b"a file").unwrap();
    // Below a file, and in a folder that does not exist.
    for destination in [file.join("a.bin"), world.path("no/such/folder/a.bin")] {
        let answer = bob.run(&format!("download_file g a.bin {}", destination.display())).answer;
        if answer["ok"] == true {
            // Making the folder is a user's wish as well.
            bob.until_download("a.bin", "C");
            assert!(same_content(&path, &destination));
            bob.ok("cancel_download g a.bin");
        } else {
            assert!(
                answer["error"]
                    .as_str()
                    .unwrap()
                    .contains(&destination.parent().unwrap().display().to_string()),
                "{answer}"
            );
        }
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"a file");
    let error = bob.fails("download_file g a.bin /proc/a.bin");
    assert!(error.contains("/proc"), "{error}");
}

#[test]
fn a_read_only_destination_is_one_clear_line() {
    if !root_or_skip("a_read_only_destination_is_one_clear_line") {
        return;
    }
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "a.bin", MIB);
    let mut bob = world.member("bob");
    let mount = Mount::new(&world.path("readonly"), "ro,size=4m");
    let error = bob.fails(&format!("download_file g a.bin {}", mount.path().display()));
    assert!(error.to_lowercase().contains("read-only") && error.contains("readonly"), "{error}");
    let elsewhere = world.path("copy.bin");
    download(&mut bob, "a.bin", &elsewhere);
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &elsewhere));
}

#[test]
fn files_of_every_size() {
    let mut world = World::new();
    let mut bob = world.member("bob");
    let folder = world.path("folder");
    std::fs::create_dir(&folder).unwrap();
    for (number, size) in
        [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE, 5 * PIECE + 1].into_iter().enumerate()
    {
        let file = format!("file-{number}.bin");
        let (path, _) = world.ann.share("g", &file, size);
        download(&mut bob, &file, &folder);
        bob.until_download(&file, "C");
        assert!(same_content(&path, &folder.join(&file)), "{size} bytes");
        until("both share it", || bob.sharers("g", &file) == 2);
    }
    assert_eq!(list(&folder).len(), 7, "{:?}", list(&folder));
}
