//! A right is checked where it is used: sessions end with what they rest on, on every tracker, whatever their client does.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::time::Duration;

use shoal_common::credentials::{Account, Secrets};
use shoal_common::tracker_api::storage::StoreCall;
use shoal_common::tracker_api::{Answer, Call, RefusalKind};
use shoal_common::{GroupName, PeerId, RequestId, Uid};
use shoal_net::Identity;
use shoal_tests::{Client, Member, Trackers, until};

/// A session that no longer holds ends within this time, on every connected tracker.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

fn group(name: &str) -> GroupName {
    GroupName::refer(name).unwrap()
}

/// A change of the password to what it is already, proven by nothing.
fn empty_change(present: Account) -> Call {
    let request = RequestId::random();
    Call::ChangePassword { request, signature: [0; 64], account: present, change: None }
}

/// What an attacker with an old session would like to do; `present` is what the account is by then.
fn attempts(user: Uid, present: Account) -> Vec<Call> {
    vec![
        empty_change(present),
        Call::ListFiles { group: group("g"), after: None },
        Call::ListMembers { group: group("g"), after: None },
        Call::ListRequests { group: group("g"), after: None },
        Call::create_group(user, GroupName::create("mine").unwrap()).1,
        Call::JoinGroup { request: RequestId::random(), group: group("g") },
        Call::LeaveGroup { request: RequestId::random(), group: group("g") },
        Call::ListGroups { after: None },
        Call::Announce { reset: true, holdings: vec![] },
        Call::TicketKeys,
        Call::Renew,
        Call::Store(StoreCall::Ticket),
        Call::Store(StoreCall::List { after: None }),
        Call::Store(StoreCall::Lease { id: RequestId::random(), end: false }),
        Call::Store(StoreCall::Status),
        Call::Sessions,
        Call::SignOut { request: RequestId::random(), peer: PeerId([7; 32]) },
    ]
}

#[test]
fn an_old_session_can_do_nothing_once_the_password_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 3);
    trackers.until_in_step();
    let mut ann = Member::connect(trackers.port(1));
    let session = ann.enter("ann");
    ann.done(Call::create_group(session.user, GroupName::create("g").unwrap()).1);
    for number in 1..=3 {
        for attempt in 0..attempts(session.user, session.account.clone()).len() {
            let mut old = Member::connect(trackers.port(number));
            old.login("ann", "secret").unwrap();
            let mut owner = Member::connect(trackers.port(1));
            owner.login("ann", "secret").unwrap();
            let present = owner.change_password("ann", "secret", "other").account;
            let attempt = attempts(session.user, present).remove(attempt);
            let refusal = old.try_call(attempt.clone());
            // The connection may have been closed by then, which is as good.
            assert!(
                !matches!(&refusal, Ok(Ok(_))),
                "tracker {number} did {attempt:?} for a session of the old password: {refusal:?}"
            );
            owner.change_password("ann", "other", "secret");
        }
    }
    // The group still has its member.
    let mut ann = Member::connect(trackers.port(2));
    ann.login("ann", "secret").unwrap();
    let Answer::Users { users, .. } = ann.done(Call::ListMembers { group: group("g"), after: None }) else {
        panic!("no members")
    };
    assert_eq!(users.len(), 1);
}

#[test]
fn a_silent_old_session_ends_on_every_tracker_without_its_client() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 3);
    trackers.until_in_step();
    let mut ann = Member::connect(trackers.port(1));
    ann.enter("ann");
    let mut old: Vec<(Member, Vec<u8>)> = (1..=3)
        .map(|number| {
            let mut member = Member::connect(trackers.port(number));
            let token = member.login("ann", "secret").unwrap().token;
            (member, token)
        })
        .collect();
    ann.change_password("ann", "secret", "other");
    for (number, (member, _)) in old.iter_mut().enumerate() {
        assert!(member.is_left_within(ENDS_WITHIN), "tracker {} keeps the session", number + 1);
    }
    // The other trackers say so in a moment.
    until(
        "the others are offline",
        || matches!(ann.done(Call::Sessions), Answer::Sessions(sessions) if sessions.len() == 1),
    );
    // Nor does a token of before count, also after a restart.
    for number in 1..=3 {
        trackers.kill(number);
        trackers.restart(number);
    }
    trackers.until_in_step();
    for number in 1..=3 {
        for (member, token) in &old {
            let mut thief = Member::connect_as(member.identity().clone(), trackers.port(number));
            assert_eq!(thief.refused(Call::Resume { token: token.clone() }).kind, RefusalKind::NotLoggedIn);
        }
    }
}

#[test]
fn a_client_that_was_signed_out_comes_back_with_the_password_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let mut ann = Member::connect(trackers.port(1));
    ann.enter("ann");
    let lost = Identity::generate();
    let mut laptop = Member::connect_as(lost.clone(), trackers.port(2));
    let first = laptop.login("ann", "secret").unwrap().token;
    let renewed = laptop.renew().token;
    ann.done(Call::SignOut { request: RequestId::random(), peer: lost.peer_id() });
    assert!(laptop.is_left_within(ENDS_WITHIN));
    trackers.kill(2);
    trackers.restart(2);
    trackers.until_in_step();
    for number in 1..=2 {
        let mut laptop = Member::connect_as(lost.clone(), trackers.port(number));
        for token in [&first, &renewed] {
            let refusal = laptop.refused(Call::Resume { token: token.clone() });
            assert_eq!(refusal.kind, RefusalKind::SignedOut);
        }
    }
    let mut laptop = Member::connect_as(lost.clone(), trackers.port(2));
    let again = laptop.login("ann", "secret").unwrap().token;
    laptop.renew();
    // And that session can be ended too, by its token at another tracker as well.
    ann.done(Call::SignOut { request: RequestId::random(), peer: lost.peer_id() });
    assert!(laptop.is_left_within(ENDS_WITHIN));
    let mut laptop = Member::connect_as(lost, trackers.port(1));
    assert_eq!(laptop.refused(Call::Resume { token: again }).kind, RefusalKind::SignedOut);
    // Nobody else's sessions are anybody's business.
    let mut eve = Member::connect(trackers.port(1));
    eve.enter("eve");
    eve.done(Call::SignOut { request: RequestId::random(), peer: ann.identity().peer_id() });
    ann.renew();
}

#[test]
fn a_client_that_was_signed_out_gets_no_session_by_a_change_of_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let mut ann = Member::connect(trackers.port(1));
    ann.enter("ann");
    let mut laptop = Member::connect(trackers.port(2));
    let account = laptop.login("ann", "secret").unwrap().account;
    // While it may be there it goes on with the session that it has, and with no newer one.
    laptop.done(empty_change(account.clone()));
    let lost = laptop.identity().peer_id();
    ann.done(Call::SignOut { request: RequestId::random(), peer: lost });
    // The tracker ends the session by itself, within a second or two: this comes before.
    let change = laptop.try_call(empty_change(account));
    assert!(!matches!(&change, Ok(Ok(_))), "{change:?}");
    let mut laptop = Member::connect_as(laptop.identity().clone(), trackers.port(2));
    assert_eq!(laptop.refused(Call::Renew).kind, RefusalKind::NotLoggedIn);
    laptop.login("ann", "secret").unwrap();
}

#[test]
fn a_client_of_the_version_before_is_told_in_its_own_words_that_it_was_signed_out() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Member::connect(trackers.port(1));
    ann.enter("ann");
    let mut laptop = Member::connect(trackers.port(1));
    let token = laptop.login("ann", "secret").unwrap().token;
    let lost = laptop.identity().clone();
    ann.done(Call::SignOut { request: RequestId::random(), peer: lost.peer_id() });
    let mut old = Member::connect_as(lost.clone(), trackers.port(1));
    old.done(Call::Hello { listen: old.listen().to_string(), revision: None });
    let refusal = old.refused(Call::Resume { token: token.clone() });
    assert_eq!(refusal.kind, RefusalKind::NotAllowed, "it knows that kind, and does not log in by itself");
    assert!(refusal.text.contains("signed out") && refusal.text.contains("update"), "{refusal:?}");
    old.login("ann", "secret").unwrap();
    let mut new = Member::connect_as(lost, trackers.port(1));
    assert_eq!(new.refused(Call::Resume { token }).kind, RefusalKind::SignedOut);
}

#[test]
fn a_stolen_session_guesses_the_password_no_faster_than_a_stranger() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Member::connect(trackers.port(1));
    ann.enter("ann");
    let change = empty_change(Secrets::create("mine").unwrap().2);
    let mut kinds = Vec::new();
    while kinds.len() < 12 && kinds.last() != Some(&RefusalKind::Wait) {
        kinds.push(ann.try_change_password("ann", "guess", "mine").unwrap_err().kind);
    }
    assert_eq!(kinds.pop(), Some(RefusalKind::Wait), "{kinds:?}");
    assert!(kinds.len() >= 5 && kinds.iter().all(|kind| *kind == RefusalKind::WrongPassword), "{kinds:?}");
    // A client that answers the challenge before is asked to wait as well.
    assert_eq!(ann.refused(change).kind, RefusalKind::Wait);
}

#[test]
fn sessions_are_listed_and_one_is_logged_out_from_another_client() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 2);
    trackers.until_in_step();
    let mut home = Client::start(dir.path(), "home", &trackers.info());
    home.ok("create_user ann secret");
    home.ok("login ann secret");
    home.ok("create_group g");
    let mut laptop = Client::start(dir.path(), "laptop", &trackers.info());
    laptop.ok("login ann secret");
    let listed = home.ok("sessions");
    let sessions = listed["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2, "{listed}");
    assert_eq!(sessions[0]["self"], true);
    let key = sessions[1]["peer"].as_str().unwrap().to_owned();
    assert!(home.fails("logout bob@abc").contains("only the clients of the account"));
    assert!(home.fails("logout ann@nosuchkey").contains("see: sessions"));
    home.ok(&format!("logout ann@{}", &key[key.len() - 8..]));
    let ended = laptop.until_event("session_ended");
    assert!(ended["reason"].as_str().unwrap().contains("signed out"), "{ended}");
    until("it stays out", || laptop.ok("whoami")["user"].is_null());
    assert_eq!(home.ok("sessions")["sessions"].as_array().unwrap().len(), 1);
    laptop.ok("login ann secret");
    assert_eq!(home.ok("whoami")["user"], "ann");
}
