//! Who may create an account, and by what.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use shoal_tests::{Client, Trackers, until};

#[test]
fn an_invitation_of_one_tracker_makes_one_account_at_another() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    for number in 1..=2 {
        assert!(trackers.stop(number));
        trackers.set_arguments(number, &["--registration", "invite"]);
        trackers.restart(number);
    }
    trackers.say(1, "invite_user 3");
    until("the code is shown", || trackers.said(1).contains("--invite "));
    let said = trackers.said(1);
    let code = said.split("--invite ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let mut ann = Client::start(dir.path(), "ann", &trackers.info_of(2));
    assert!(ann.fails("create_user ann secret").contains("--invite CODE"));
    assert!(ann.fails("create_user ann secret --invite wrong").contains("not known"));
    // The two were restarted one after the other and may not be linked yet.
    let create = format!("create_user ann secret --invite {code}");
    until("the other tracker knows the invitation", || ann.run_any(&create)["ok"] == true);
    ann.ok("login ann secret");
    assert!(ann.fails(&format!("create_user bob secret --invite {code}")).contains("was used"));
    // The code is not there for who reads a tracker's disk.
    let database = std::fs::read(trackers.data(2).join("tracker.db")).unwrap();
    assert!(!database.windows(code.len()).any(|bytes| bytes == code.as_bytes()));
}

#[test]
fn a_tracker_that_is_closed_makes_no_accounts_and_lets_users_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    assert!(trackers.stop(1));
    trackers.set_arguments(1, &["--registration", "closed"]);
    trackers.restart(1);
    until("ann is back", || ann.run_any("list_groups")["ok"] == true);
    assert!(ann.fails("create_user bob secret").contains("no accounts are created here"));
    ann.ok("create_group g");
}
