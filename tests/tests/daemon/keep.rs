//! `login --keep`: a session that outlives its process, and what ends it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::json;
use shoal_tests::{Client, Service, Trackers, free_port, run_script, same_content, until};

fn log_in(service: &Service, user: &str, password: &str) {
    let answered = service.ask(&json!({ "line": format!("login {user} --keep"), "passwords": [password] }));
    assert_eq!(answered.status, 200, "{answered:?}");
}

/// A service in which ann has an account, and is logged in for good.
fn kept(dir: &Path, trackers: &Trackers) -> Service {
    let ann = Service::start(dir, "ann", &trackers.info(), &[]);
    ann.enter("ann");
    log_in(&ann, "ann", "secret");
    ann
}

fn user(service: &Service) -> serde_json::Value {
    service.ok("whoami")["user"].clone()
}

#[test]
fn after_kill_9_it_is_logged_in_again_and_shares_though_trackers_come_up_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 1);
    let port = free_port();
    let mut ann = Service::start_at(dir.path(), "ann", &trackers.info(), port, &[]);
    ann.enter("ann");
    let file = dir.path().join("ann/session.key");
    assert!(!file.exists(), "nothing is kept unless it is asked for");
    log_in(&ann, "ann", "secret");
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    ann.ok("create_group g");
    let shared = dir.path().join("a.bin");
    shoal_tests::random_file(&shared, 1 << 20, 4);
    ann.ok(&format!("upload_file '{}' g", shared.display()));
    let mut bob = Client::enter(dir.path(), "bob", &trackers.info());
    bob.ok("join_group g");
    ann.ok("accept_request g bob");

    trackers.kill(1);
    ann.kill();
    let ann = Service::start_at(dir.path(), "ann", &trackers.info(), port, &[]);
    assert_eq!(user(&ann), json!(null), "no tracker answers yet");
    assert!(file.exists());
    trackers.restart(1);
    until("it is logged in again", || user(&ann) == "ann");
    until("it shares again", || bob.sharers("g", "a.bin") == 1);
    let copy = dir.path().join("copy.bin");
    bob.ok(&format!("download_file g a.bin '{}'", copy.display()));
    bob.until_download("a.bin", "C");
    assert!(same_content(&shared, &copy));
    until("it is said", || ann.log().contains("logged in again as ann"));
}

#[test]
fn an_orderly_end_keeps_it_and_logout_here_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let file = dir.path().join("ann/session.key");
    let mut ann = kept(dir.path(), &trackers);
    ann.stop();
    drop(ann);
    let mut ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    until("it is logged in again", || user(&ann) == "ann");
    ann.ok("logout");
    assert!(!file.exists());
    ann.stop();
    drop(ann);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    assert_eq!(user(&ann), json!(null));
    // A changed password ends it here too.
    log_in(&ann, "ann", "secret");
    let changed = ann.ask(&json!({ "line": "change_password", "passwords": ["secret", "another"] }));
    assert_eq!((changed.status, file.exists()), (200, false), "{changed:?}");
    assert_eq!(user(&ann), "ann", "the session itself goes on");
    log_in(&ann, "ann", "another");
    assert!(file.exists());
    // One that still waits for a tracker can be ended.
    drop(ann);
    let mut trackers = trackers;
    trackers.kill(1);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    let ended = ann.ok("logout");
    assert_eq!((&ended["user"], &ended["untold"]), (&json!("ann"), &json!(true)), "no tracker was told");
    assert!(!file.exists());
}

#[test]
fn a_copy_of_the_file_is_of_no_use_after_a_logout() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 2);
    let file = dir.path().join("ann/session.key");
    let mut ann = kept(dir.path(), &trackers);
    let copy = std::fs::read(&file).unwrap();
    // A crash left one that was being written, too.
    std::fs::write(file.with_extension("new"), &copy).unwrap();
    assert_eq!(ann.ok("logout")["untold"], json!(null), "trackers were told");
    assert!(!file.exists() && !file.with_extension("new").exists());
    assert!(!ann.log().contains("logged out"), "who logs out is not told that somebody did: {}", ann.log());
    ann.stop();
    drop(ann);
    std::fs::write(&file, &copy).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    until("it is refused", || !file.exists());
    assert_eq!(user(&ann), json!(null));
    // The right password still logs in here.
    log_in(&ann, "ann", "secret");
    assert_eq!(user(&ann), "ann");
}

#[test]
fn a_script_waits_for_the_session_that_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = kept(dir.path(), &trackers);
    ann.ok("create_group g");
    ann.stop();
    drop(ann);
    let ended = run_script(dir.path(), "ann", &trackers.info(), &["--json"], "list_files g\n");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ended = run_script(dir.path(), "ann", &trackers.info(), &["--json", "--exec", "list_files g"], "");
    assert!(ended.stdout.contains("\"ok\":true") && !ended.stdout.contains("log in first"), "{ended:?}");
}

#[test]
fn logout_and_a_new_password_elsewhere_end_it_running_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let file = dir.path().join("ann/session.key");
    let mut laptop = Client::enter(dir.path(), "laptop", &trackers.info());
    laptop.ok("logout");
    let mut ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    ann.enter("ann");
    laptop.ok("login ann secret");
    let peer = ann.ok("whoami")["peer"].as_str().unwrap().to_owned();
    let out = format!("logout ann@{peer}");

    log_in(&ann, "ann", "secret");
    laptop.ok(&out);
    until("it ends while it runs", || user(&ann) == json!(null) && !file.exists());
    log_in(&ann, "ann", "secret");
    ann.kill();
    laptop.ok(&out);
    drop(ann);
    let mut ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    until("it ends though it did not run", || !file.exists());
    assert_eq!(user(&ann), json!(null));

    log_in(&ann, "ann", "secret");
    laptop.ok("change_password another");
    until("it ends while it runs", || user(&ann) == json!(null) && !file.exists());
    log_in(&ann, "ann", "another");
    ann.kill();
    laptop.ok("change_password third");
    drop(ann);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    until("it ends though it did not run", || !file.exists());
    assert_eq!(user(&ann), json!(null));
    until("it is said", || ann.log().contains("password was changed elsewhere"));
}

#[test]
fn a_file_that_others_may_read_or_that_is_spoilt_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let file = dir.path().join("ann/session.key");
    let mut ann = kept(dir.path(), &trackers);
    ann.kill();
    drop(ann);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    until("it is said", || ann.log().contains("others may read it"));
    assert_eq!(user(&ann), json!(null));
    drop(ann);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&file, "spoilt").unwrap();
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    until("it is said again", || ann.log().matches("others may read it").count() == 2);
    assert_eq!(user(&ann), json!(null));
    log_in(&ann, "ann", "secret");
    let kept = std::fs::read(&file).unwrap();
    assert!(kept.len() > 100 && !kept.windows(6).any(|window| window == b"secret"));
}

#[test]
fn a_service_whose_kept_session_cannot_be_used_says_so_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let file = dir.path().join("ann/session.key");
    let mut ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    ann.enter("ann");
    ann.stop();
    drop(ann);
    std::fs::write(&file, "spoilt").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let arguments = ["--headless", "--exec", "whoami"];
    let ended = run_script(dir.path(), "ann", &trackers.info(), &arguments, "");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let said = ended.stdout + &ended.stderr;
    assert!(said.contains("not logged in again") && said.contains("nobody is logged in"), "{said}");
    // Another's login leaves nothing of it.
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    ann.enter("bob");
    assert!(!file.exists());
}
