//! Daemons that do not answer, and those that cannot be found where they were: what `shoal` says then.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use shoal_tests::{Service, Trackers, binary, client_command, finish, free_port, root_or_skip, until};

#[test]
fn a_stopped_daemon_is_said_by_every_command_and_does_not_hide_another() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    ann.freeze();
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
        said.contains("(it does not answer)") && said.contains("(nobody is logged in, data in ")
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
fn a_daemon_that_is_stopped_in_the_middle_of_an_answer_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("daemon.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    for arguments in [&["whoami"][..], &["watch"], &["web"]] {
        let mut shoal = Command::new(binary("shoal"));
        shoal.args(arguments).env("SHOAL_SOCKET", &socket).env_remove("SHOAL_PASSWORD");
        let said = std::thread::scope(|scope| {
            let said = scope.spawn(|| finish(&mut shoal, ""));
            let (mut answered, _) = listener.accept().unwrap();
            assert_ne!(answered.read(&mut [0; 4096]).unwrap(), 0);
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            answered.write_all(head.as_bytes()).unwrap();
            // From here on it does nothing: it does not take the caller's next connection, either.
            let said = said.join().unwrap();
            drop(answered);
            said
        });
        assert_eq!(said.code, Some(1), "{arguments:?}: {said:?}");
        assert!(said.stderr.contains("does not answer; is it stopped?"), "{arguments:?}: {said:?}");
        // What the caller asked meanwhile.
        drop(listener.accept().unwrap());
    }
}

#[test]
fn a_daemon_is_found_after_its_runtime_folder_went_and_by_programs_that_never_knew_it() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let shoal = |arguments: &[&str], runtime: Option<&str>| {
        let mut command = Command::new(binary("shoal"));
        command.args(arguments).env("XDG_DATA_HOME", &home).env_remove("XDG_RUNTIME_DIR");
        command.env_remove("SHOAL_SOCKET").env_remove("SHOAL_PASSWORD");
        runtime.map(|runtime| command.env("XDG_RUNTIME_DIR", dir.path().join(runtime)));
        command
    };
    let listen = format!("127.0.0.1:{}", free_port());
    let command = shoal(&["up", "--listen", &listen, "--join", "127.0.0.1 9"], None);
    let _ann = Service::launch(dir.path(), "ann", command);
    for runtime in [Some("run-ann"), None, Some("another")] {
        let said = finish(&mut shoal(&["whoami"], runtime), "");
        assert_eq!(said.code, Some(0), "{runtime:?}: {said:?}");
    }
    std::fs::remove_dir_all(dir.path().join("run-ann")).unwrap();
    let said = finish(&mut shoal(&["whoami"], Some("run-ann")), "");
    assert_eq!(said.code, Some(0), "{said:?}");
    // Whoever starts it again is told what works in every case.
    let again = finish(&mut shoal(&["up"], Some("run-ann")), "");
    let socket = home.join("shoal/client/shoal.sock");
    assert!(again.stderr.contains(&format!("shoal --socket {} whoami", socket.display())), "{again:?}");
    let said = finish(&mut shoal(&["--socket", socket.to_str().unwrap(), "whoami"], None), "");
    assert_eq!(said.code, Some(0), "{said:?}");
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
