//! Sharers that cannot be asked, or whose copies are not what they were.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpListener;

use shoal_common::RequestId;
use shoal_common::tracker_api::{Call, Completeness, Holding, REVISION};
use shoal_tests::{Client, Member, World, download, free_port, until};

use super::{MIB, Seen};

pub(crate) const CAUSES: &[&str] = &[
    "copy_changed",
    "copy_missing",
    "file_unknown",
    "left_group",
    "nobody_shares",
    "sharer_other_key",
    "sharer_refuses",
    "sharer_silent",
    "sharer_stopped",
];

/// A member who says that they share a file of ann's and are reached at that port; ann takes hers back.
fn only_at(world: &mut World, name: &str, file: &str, port: u16) -> Member {
    world.ann.share("g", file, MIB);
    let mut member = Member::connect(world.trackers.port(1));
    member.done(Call::Hello { listen: format!("127.0.0.1:{port}"), revision: Some(REVISION) });
    member.enter(name);
    member.join("g");
    world.ann.ok(&format!("accept_request g {name}"));
    let (group, id, _) = member.find("g", file);
    member.done(Call::ShareKnown { request: RequestId::random(), group, file: id });
    let holdings = vec![Holding { group, file: id, completeness: Completeness::Complete }];
    member.done(Call::Announce { reset: true, holdings });
    world.ann.ok(&format!("stop_share g {file}"));
    member
}

#[test]
fn why_a_sharer_cannot_be_asked() {
    let mut seen = Seen::new(CAUSES);
    let mut world = World::new();
    let mut bob = world.member("bob");
    let folder = world.path("bobs");
    fs::create_dir(&folder).unwrap();

    // Nobody listens there; something listens and says nothing; another client listens.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = Client::start(&world.path("."), "other", &world.trackers.info());
    let ports = [free_port(), silent.local_addr().unwrap().port(), other.port()];
    let mut members = Vec::new();
    for (name, port) in ["refuses", "silent", "other"].into_iter().zip(ports) {
        members.push(only_at(&mut world, &format!("{name}user"), &format!("{name}.bin"), port));
        download(&mut bob, &format!("{name}.bin"), &folder);
    }

    // Carol shares, and leaves.
    let mut carol = world.member("carol");
    for file in ["offline.bin", "gone.bin", "copied.bin"] {
        carol.share("g", file, MIB);
    }
    bob.ok("limit down 20K");
    let mut paths = Vec::new();
    for file in ["moved.bin", "changed.bin", "left.bin"] {
        paths.push(world.ann.share("g", file, 4 * MIB).0);
        download(&mut bob, file, &folder);
    }
    download(&mut bob, "gone.bin", &folder);
    until("it runs", || bob.activity("gone.bin") == "at the rate limit");
    carol.ok("stop_share g gone.bin");
    // At first it is known who had it.
    seen.download(&mut bob, "gone.bin", "sharer_stopped");
    bob.ok("pause_download g gone.bin");
    bob.ok("resume_download g gone.bin");
    seen.download(&mut bob, "gone.bin", "file_unknown");
    carol.ok("logout");
    until("nobody shares it", || bob.sharers("g", "offline.bin") == 0);
    download(&mut bob, "offline.bin", &folder);
    let nobody = seen.download(&mut bob, "offline.bin", "nobody_shares");
    assert_eq!(nobody["command"], serde_json::json!(["list_members", "g"]));

    fs::rename(&paths[0], world.path("elsewhere")).unwrap();
    let moved = seen.download(&mut bob, "moved.bin", "copy_missing");
    assert!(moved["next"].as_str().unwrap().contains("ask ann"), "{moved}");
    OpenOptions::new().append(true).open(&paths[1]).unwrap().write_all(b"more").unwrap();
    seen.download(&mut bob, "changed.bin", "copy_changed");

    seen.download(&mut bob, "refuses.bin", "sharer_refuses");
    seen.download(&mut bob, "silent.bin", "sharer_silent");
    seen.download(&mut bob, "other.bin", "sharer_other_key");

    bob.ok("leave_group g");
    seen.download(&mut bob, "left.bin", "left_group");
}
