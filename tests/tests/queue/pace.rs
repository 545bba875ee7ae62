//! Limits of one download, and by time of day.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use shoal_tests::{Client, World, download, until};

const MIB: usize = 1 << 20;

/// A time zone in which it is 07:59:57 now, as POSIX writes it.
fn zone_before_eight() -> String {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    // What is west of Greenwich is positive, and no more than a day.
    let west = (now - (8 * 3600 - 3)).rem_euclid(24 * 3600);
    let west = if west > 12 * 3600 { west - 24 * 3600 } else { west };
    let sign = if west < 0 { "-" } else { "" };
    let west = west.abs();
    format!("XXX{sign}{}:{:02}:{:02}", west / 3600, west / 60 % 60, west % 60)
}

#[test]
fn a_download_has_a_limit_of_its_own_beside_that_of_all_also_after_kill_9() {
    let mut world = World::new();
    world.ann.share("g", "slow.bin", 4 * MIB);
    world.ann.share("g", "fast.bin", 4 * MIB);
    let mut bob = world.member("bob");
    bob.ok("limit down 20K");
    for file in ["slow.bin", "fast.bin"] {
        download(&mut bob, file, &world.path(file));
    }
    let answer = bob.ok("limit_download g slow.bin 100K");
    assert_eq!((&answer["file"], &answer["limit"]), (&"slow.bin".into(), &(100 << 10).into()));
    let mut bob = bob.kill().restart();
    bob.ok("login bob secret");
    assert_eq!(bob.download("slow.bin")["limit"], 100 << 10);
    let (begun, had) = (Instant::now(), bob.download("slow.bin")["percent"].as_u64().unwrap());
    bob.ok("limit down 0");
    bob.until_download("fast.bin", "C");
    until("its own limit is what holds it up", || {
        let row = bob.download("slow.bin");
        row["speed_limited"] == true && bob.activity("slow.bin") == "at the rate limit"
    });
    bob.until_percent("slow.bin", 25.0);
    let (took, had) = (begun.elapsed(), had * 4 * MIB as u64 / 100);
    let least = Duration::from_secs_f64((MIB as u64).saturating_sub(had) as f64 / f64::from(100 << 10) * 0.7);
    assert!(took > least, "{took:?} for a quarter of which {had} bytes were there");
    bob.ok("limit_download g slow.bin 0");
    bob.until_download("slow.bin", "C");
    assert_eq!(bob.download("slow.bin").get("limit"), None);
}

#[test]
fn a_window_of_the_schedule_is_switched_to_when_it_begins_and_the_usual_limits_hold_again_without_it() {
    let mut world = World::new();
    let zone = zone_before_eight();
    let mut bob =
        Client::start_in(world.path("").as_path(), "bob", &world.trackers.info(), &[("TZ", &zone)]).entered();
    world.ann.let_in("g", &mut [&mut bob]);
    bob.ok("limit down 5M");
    let added = bob.ok("schedule add daily 08:00-09:00 up 300K down 2M");
    let windows =
        json!([{ "days": "daily", "from": "08:00", "to": "09:00", "up": 300 << 10, "down": 2 << 20 }]);
    assert_eq!(added["schedule"], windows);
    until("the window holds", || bob.ok("limit").get("down_now").is_some());
    let now = bob.ok("limit");
    assert_eq!(
        (&now["down"], &now["down_now"], &now["up_now"]),
        (&(5 << 20).into(), &(2 << 20).into(), &(300 << 10).into())
    );
    // The usual limit waits for the window's end.
    bob.ok("limit down 9M");
    assert_eq!(bob.ok("limit")["down_now"], 2 << 20);
    // Several hold: the lowest counts. They stay over a restart.
    bob.ok("schedule add daily 00:00-24:00 down 100K");
    let mut bob = bob.kill().restart();
    bob.ok("login bob secret");
    assert_eq!(bob.ok("limit")["down_now"], 100 << 10);
    let row = |bob: &mut Client| bob.download("x.bin");
    world.ann.share("g", "x.bin", MIB);
    download(&mut bob, "x.bin", &world.path("x.bin"));
    until("the schedule holds it up", || row(&mut bob)["speed_limited"] == true);
    assert!(bob.fails("schedule remove 3").contains("there is no window"));
    bob.ok("schedule remove 2");
    bob.until_download("x.bin", "C");
    bob.ok("schedule remove 1");
    let now = bob.ok("limit");
    assert_eq!((&now["down"], now.get("down_now")), (&(9 << 20).into(), None), "{now}");
    for (line, part) in [
        ("schedule add someday 08:00-09:00 up 1", "names no days"),
        ("schedule add mon 08:00-09:00", "limits something"),
        ("schedule add", "not understood"),
        ("schedule remove", "schedule remove 1"),
        ("schedule list all", "too much"),
    ] {
        assert!(bob.fails(line).contains(part), "{line}");
    }
    for _ in 0..32 {
        bob.ok("schedule add mon 08:00-09:00 up 1M");
    }
    assert!(bob.fails("schedule add mon 08:00-09:00 up 1M").contains("32 windows at most"));
}
