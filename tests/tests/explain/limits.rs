//! Limits that the user set: of one download, of all, by the time of day, and how many run.

use shoal_tests::{World, download};

use super::{MIB, Seen};

pub(crate) const CAUSES: &[&str] = &["own_limit", "queued", "schedule_limit"];

#[test]
fn which_of_the_users_limits_holds() {
    let mut seen = Seen::new(CAUSES);
    let mut world = World::new();
    let mut bob = world.member("bob");
    for file in ["one.bin", "two.bin"] {
        world.ann.share("g", file, 16 * MIB);
    }
    bob.ok("limit down 100K");
    download(&mut bob, "one.bin", &world.path("one.copy"));
    bob.ok("limit_download g one.bin 40K");
    let own = seen.download(&mut bob, "one.bin", "own_limit");
    assert_eq!(own["command"], serde_json::json!(["limit_download", "g", "one.bin", "0"]));
    bob.ok("limit_download g one.bin 0");
    bob.ok("schedule add daily 00:00-24:00 down 50K");
    let scheduled = seen.download(&mut bob, "one.bin", "schedule_limit");
    assert!(scheduled["text"].as_str().unwrap().contains("50.0 KiB/s"), "{scheduled}");

    bob.ok("set active_downloads 1");
    download(&mut bob, "two.bin", &world.path("two.copy"));
    let queued = seen.download(&mut bob, "two.bin", "queued");
    assert_eq!(queued["command"], serde_json::json!(["prioritize", "g", "two.bin", "first"]));
}
