//! The steps of docs/operating.md, as an operator takes them, with the real binary and clients at work meanwhile.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use shoal_tests::{Load, Trackers, binary, finish, skip, tracker_command, until};

/// Stops a tracker, does something to it, and waits until it is back in step; clients are answered afterwards.
fn with_one_down(trackers: &mut Trackers, number: usize, load: &Load, change: impl FnOnce(&mut Trackers)) {
    assert!(trackers.stop(number));
    change(trackers);
    trackers.restart(number);
    trackers.until_in_step();
    let seen = load.acknowledged();
    until("clients are answered", || load.acknowledged() > seen);
}

fn addresses(trackers: &Trackers, numbers: &[usize]) -> Vec<SocketAddr> {
    numbers.iter().map(|&number| trackers.address(number)).collect()
}

#[test]
fn a_cluster_key_is_introduced_one_restart_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let load = Load::start(&addresses(&trackers, &[1, 2]), 2);
    // The peer ids first.
    let lines: Vec<String> =
        [1, 2].map(|number| format!("{} {}", trackers.address(number), trackers.peer_id(number))).into();
    trackers.write_info(&lines);
    for number in [1, 2] {
        with_one_down(&mut trackers, number, &load, |_| {});
    }
    // Then the key.
    let key = dir.path().join("cluster.key");
    std::fs::write(&key, "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    for number in [1, 2] {
        with_one_down(&mut trackers, number, &load, |trackers| {
            trackers.set_arguments(number, &["--cluster-key", key.to_str().unwrap()]);
        });
    }
    // From here on the key is enough.
    trackers.write_info(&[1, 2].map(|number| trackers.address(number).to_string()));
    for number in [1, 2] {
        with_one_down(&mut trackers, number, &load, |_| {});
    }
    // A disk is lost: the key says that what comes in its place is that tracker.
    with_one_down(&mut trackers, 2, &load, |trackers| std::fs::remove_dir_all(trackers.data(2)).unwrap());
    assert_eq!(trackers.logged(1, "the cluster key proves it"), 1);
    let promises = load.stop();
    promises.check_each_alone(&mut trackers, [1, 2]);
}

#[test]
fn a_tracker_is_replaced_another_removed_and_a_third_added() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::stopped(dir.path(), 4);
    let mut lines = [1, 2, 3].map(|number| trackers.address(number).to_string()).to_vec();
    trackers.write_info(&lines);
    for number in 1..=3 {
        trackers.restart(number);
    }
    trackers.until_in_step();
    let load = Load::start(&addresses(&trackers, &[1, 2]), 2);
    for number in 1..=3 {
        lines[number - 1] = format!("{} {}", trackers.address(number), trackers.peer_id(number));
    }
    trackers.write_info(&lines);
    for number in 1..=3 {
        with_one_down(&mut trackers, number, &load, |_| {});
    }
    // The second's disk is lost. The new one has a new key, which its first start names.
    trackers.kill(2);
    std::fs::remove_dir_all(trackers.data(2)).unwrap();
    let refused = finish(&mut tracker_command(&trackers.info(), 2, &trackers.data(2)), "");
    let said = refused.stderr.split("this tracker's is ").nth(1).unwrap_or_else(|| panic!("{refused:?}"));
    lines[1] = format!("{} {}", trackers.address(2), said.split(';').next().unwrap());
    trackers.write_info(&lines);
    trackers.restart(2);
    for number in [1, 3] {
        assert!(trackers.stop(number));
        trackers.restart(number);
    }
    trackers.until_in_step();
    // The third goes for good.
    assert!(trackers.stop(3));
    lines[2] = "-".to_owned();
    trackers.write_info(&lines);
    for number in [1, 2] {
        with_one_down(&mut trackers, number, &load, |_| {});
    }
    // A fourth comes.
    lines.push(trackers.address(4).to_string());
    trackers.write_info(&lines);
    for number in [1, 2] {
        assert!(trackers.stop(number));
        trackers.restart(number);
    }
    trackers.restart(4);
    trackers.until_in_step();
    let promises = load.stop();
    promises.check_each_alone(&mut trackers, [1, 2, 4]);
}

#[test]
fn systemd_takes_the_unit_as_it_stands_and_with_a_cluster_key() {
    let test = "systemd_takes_the_unit_as_it_stands_and_with_a_cluster_key";
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        skip(test, "needs systemd-analyze");
        return;
    }
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/deploy/shoal-tracker@.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    let unit = unit.replace("/usr/local/bin/shoal-tracker", binary("tracker").to_str().unwrap());
    let with_key = unit.replace("#ExecStart", "ExecStart").replace("#LoadCredential", "LoadCredential");
    assert_ne!(unit, with_key);
    for unit in [unit, with_key] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shoal-tracker@1.service");
        std::fs::write(&path, unit).unwrap();
        let checked =
            Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(path).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stderr);
        let about_it: Vec<&str> = said.lines().filter(|line| line.contains("shoal-tracker")).collect();
        assert!(checked.status.success() && about_it.is_empty(), "{said}");
    }
}
