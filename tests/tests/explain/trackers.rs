//! Trackers that do not answer, sessions that there are not, and addresses that lead nowhere.

use std::net::{IpAddr, UdpSocket};
use std::process::{Child, Stdio};

use shoal_tests::{Client, Trackers, World, download, free_port, skip, tracker_command, until};

use super::{MIB, Seen};

pub(crate) const CAUSES: &[&str] = &["no_tracker", "not_logged_in", "only_tracker", "provisional_name"];

#[test]
fn what_is_the_matter_with_trackers_and_the_session() {
    let mut seen = Seen::new(CAUSES);
    let mut world = World::new();
    let mut bob = world.member("bob");
    let mut dan = Client::start(&world.path("."), "dan", &world.trackers.info());
    let login = seen.client(&mut dan, "not_logged_in");
    assert_eq!(login["command"], serde_json::json!(["login", "USER"]));
    world.ann.share("g", "a.bin", MIB);
    bob.ok("limit down 20K");
    download(&mut bob, "a.bin", &world.path("copy"));
    world.trackers.kill(1);
    seen.share(&mut world.ann, "a.bin", "only_tracker");
    // Transfers go on without trackers; it waits when its sharer is gone, too.
    drop(world.ann);
    let only = seen.download(&mut bob, "a.bin", "only_tracker");
    assert!(only["text"].as_str().unwrap().contains("127.0.0.1"), "{only}");

    let dir = tempfile::tempdir().unwrap();
    let mut two = Trackers::stopped(dir.path(), 2);
    two.restart(1);
    let mut eve = Client::enter(dir.path(), "eve", &two.info());
    seen.client(&mut eve, "provisional_name");
    eve.ok("create_group g");
    eve.share("g", "e.bin", MIB);
    two.kill(1);
    let none = seen.share(&mut eve, "e.bin", "no_tracker");
    assert!(none["text"].as_str().unwrap().contains("None of the 2 trackers"), "{none}");
}

pub(crate) const ONE: &[&str] = &["loopback_only"];

/// A tracker that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This machine's address in its network. Nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

#[test]
fn a_client_that_gives_out_an_address_of_loopback_to_a_tracker_elsewhere() {
    let Some(ip) = own_address() else {
        return skip("a_client_that_gives_out_an_address_of_loopback", "needs an address in a network");
    };
    let mut seen = Seen::new(ONE);
    let dir = tempfile::tempdir().unwrap();
    let info = dir.path().join("tracker_info.txt");
    std::fs::write(&info, format!("{ip} {}\n", free_port())).unwrap();
    let mut command = tracker_command(&info, 1, &dir.path().join("tracker"));
    let log = std::fs::File::create(dir.path().join("tracker.log")).unwrap();
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
    let _tracker = Running(command.spawn().unwrap());
    let mut ann = Client::start(dir.path(), "ann", &info);
    until("the tracker answers", || !ann.ok("whoami")["tracker"].is_null());
    let mut ann = ann.entered();
    ann.ok("create_group g");
    ann.share("g", "a.bin", MIB);
    seen.share(&mut ann, "a.bin", "loopback_only");
}
