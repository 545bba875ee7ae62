//! Under a service manager: what it is told, and the units.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use shoal_tests::{PATIENCE, Service, Trackers, binary, client_command, free_port, skip, until};

/// Waits for that message of a service, past others.
fn heard(manager: &UnixDatagram, wanted: &str) {
    let mut message = [0; 1_024];
    loop {
        let length = manager.recv(&mut message).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
        let text = String::from_utf8_lossy(&message[..length]).into_owned();
        if text.lines().any(|line| line == wanted) {
            return;
        }
        assert!(["READY=1", "WATCHDOG=1", "STOPPING=1"].contains(&text.trim()), "{text}");
    }
}

#[test]
fn a_service_manager_learns_that_it_is_ready_still_runs_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut client = client_command(dir.path(), "client", &trackers.info(), free_port());
    client.arg("--headless");
    let mut up = Command::new(binary("shoal"));
    up.args(["up", "--listen", &format!("127.0.0.1:{}", free_port()), "--join"]);
    up.arg(format!("127.0.0.1 {}", trackers.port(1))).arg("--data").arg(dir.path().join("up"));
    for (name, mut command) in [("client", client), ("up", up)] {
        let path = dir.path().join(format!("notify-{name}"));
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000").env_remove("WATCHDOG_PID");
        let mut service = Service::launch(dir.path(), name, command);
        heard(&manager, "READY=1");
        for _ in 0..3 {
            heard(&manager, "WATCHDOG=1");
        }
        service.signal(Signal::TERM);
        heard(&manager, "STOPPING=1");
        until("it ends", || service.child().try_wait().unwrap().is_some());
        assert!(service.child().wait().unwrap().success(), "{name}");
    }
}

#[test]
fn a_stopped_process_is_silent_so_that_the_watchdog_bites() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = client_command(dir.path(), "client", &trackers.info(), free_port());
    command.arg("--headless").env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    let service = Service::launch(dir.path(), "client", command);
    heard(&manager, "WATCHDOG=1");
    service.signal(Signal::STOP);
    manager.set_read_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
    let mut message = [0; 64];
    // What was on its way, and then nothing for three times as long as it may take.
    while manager.recv(&mut message).is_ok() {}
    service.signal(Signal::CONT);
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    heard(&manager, "WATCHDOG=1");
}

#[test]
fn systemd_takes_the_units() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        skip("systemd_takes_the_units", "needs systemd-analyze");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (unit, installed, program, user) in [
        ("shoal.service", "/usr/local/bin/shoal", "shoal", true),
        ("shoal-client.service", "/usr/local/bin/shoal-client", "client", false),
    ] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/deploy").join(unit);
        let text = std::fs::read_to_string(source).unwrap();
        let path = dir.path().join(unit);
        let start = format!("ExecStart={} ", binary(program).display());
        std::fs::write(&path, text.replace(&format!("ExecStart={installed} "), &start)).unwrap();
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no", if user { "--user" } else { "--system" }]).arg(&path);
        let checked = verify.env("XDG_RUNTIME_DIR", dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stderr);
        let ours: Vec<&str> = said.lines().filter(|line| line.contains(unit)).collect();
        assert!(ours.is_empty(), "{unit}: {said}");
        assert!(text.contains("Type=notify") && text.contains("WatchdogSec="), "{unit}");
    }
}
