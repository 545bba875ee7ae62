//! Daemons that do not answer, and those that cannot be found where they were: what `shoal` says then.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use shoal_tests::{Service, Trackers, binary, client_command, finish, free_port, root_or_skip, until};

#[test]
fn a_stopped_daemon_is_said_by_every_command_and_does_not_hide_another() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    ann.signal(Signal::STOP);
    for arguments in [&["whoami"][..], &["watch"], &["web"]] {
        let begun = Instant::now();
        let said = ann.run(arguments, "");
        assert_eq!(said.code, Some(1), "{arguments:?}: {said:?}");
        assert!(said.stderr.contains("does not answer; is it stopped?"), "{arguments:?}: {said:?}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{arguments:?}: {:?}", begun.elapsed());
    }
    let mut other = client_command(dir.path(), "other", &trackers.info(), free_port());
    other.arg("--headless").env("XDG_RUNTIME_DIR", dir.path().join("run-ann"));
    let mut other = other.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("both are named", || {
        let said = ann.run(&["whoami"], "").stderr;
        said.contains("(it does not answer)") && said.contains("(nobody is logged in)")
    });
    other.kill().unwrap();
    other.wait().unwrap();
    ann.signal(Signal::CONT);
    until("it goes on", || ann.run(&["whoami"], "").code == Some(0));
}

#[test]
fn a_command_may_take_longer_than_the_head_of_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 1);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    ann.enter("ann");
    // It waits for a tracker that is gone, for longer than a daemon may be silent.
    trackers.kill(1);
    let begun = Instant::now();
    let said = ann.run(&["list_groups"], "");
    assert!(begun.elapsed() > Duration::from_secs(5), "{:?}: {said:?}", begun.elapsed());
    assert!(said.code == Some(1) && !said.stderr.contains("is it stopped?"), "{said:?}");
}

#[test]
fn what_another_user_put_into_a_shared_folder_is_not_asked() {
    if !root_or_skip("what_another_user_put_into_a_shared_folder_is_not_asked") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let script = "use IO::Socket::UNIX; mkdir $ARGV[0] or die $!; \
                  my $s = IO::Socket::UNIX->new(Local => \"$ARGV[0]/b.sock\", Listen => 1) or die $!; sleep 600;";
    let mut stranger = Command::new("setpriv");
    stranger.args(["--reuid=65534", "--regid=65534", "--clear-groups", "perl", "-e", script]);
    let mut stranger = stranger.arg(dir.path().join("shoal")).spawn().unwrap();
    until("it listens", || dir.path().join("shoal/b.sock").exists());
    let mut whoami = Command::new(binary("shoal"));
    whoami.arg("whoami").env("XDG_RUNTIME_DIR", dir.path()).env("XDG_DATA_HOME", dir.path().join("data"));
    let said = finish(whoami.env_remove("SHOAL_SOCKET"), "");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    assert!(said.stderr.contains("no client runs in the background"), "{said:?}");
}
