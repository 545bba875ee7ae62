//! Who decides about a group when its owner changes while trackers do not reach each other.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::Path;

use shoal_common::tracker_api::{Answer, Call, RefusalKind};
use shoal_common::{GroupName, RequestId, UserName};
use shoal_net::Identity;
use shoal_tests::{Member, Trackers, until};

/// Users by name, each with one client.
struct Users(Vec<(String, Identity)>);

impl Users {
    fn create(trackers: &Trackers, names: &[&str]) -> Self {
        let create = |&name: &&str| {
            let mut member = Member::connect(trackers.port(1));
            member.create_user(name, "secret");
            (name.to_owned(), member.identity().clone())
        };
        Self(names.iter().map(create).collect())
    }

    /// That user at that tracker.
    fn at(&self, trackers: &Trackers, number: usize, name: &str) -> Member {
        let (_, identity) = self.0.iter().find(|(known, _)| known == name).unwrap();
        let mut member = Member::connect_as(identity.clone(), trackers.port(number));
        member.login(name, "secret").unwrap();
        member
    }
}

fn group() -> GroupName {
    GroupName::refer("g").unwrap()
}

fn decide(user: &str, accept: bool) -> Call {
    Call::Decide {
        request: RequestId::random(),
        group: group(),
        user: UserName::refer(user).unwrap(),
        accept,
    }
}

fn leave() -> Call {
    Call::LeaveGroup { request: RequestId::random(), group: group() }
}

fn members(member: &mut Member) -> Vec<String> {
    match member.done(Call::ListMembers { group: group(), after: None }) {
        Answer::Users { users, .. } => users.into_iter().map(|user| user.name.to_string()).collect(),
        other => panic!("{other:?}"),
    }
}

/// Two trackers of which one at most is up from now on: a partition to everyone. The first is up.
fn parted(dir: &Path, names: &[&str]) -> (Trackers, Users) {
    let mut trackers = Trackers::start(dir, 2);
    trackers.until_in_step();
    let users = Users::create(&trackers, names);
    let mut ann = users.at(&trackers, 1, "ann");
    ann.create_group("g");
    for name in &names[1..] {
        users.at(&trackers, 1, name).join("g");
    }
    ann.done(decide("bob", true));
    trackers.kill(2);
    (trackers, users)
}

/// From the first tracker's side of the partition to the second's.
fn cross(trackers: &mut Trackers) {
    trackers.kill(1);
    trackers.restart(2);
}

fn heal(trackers: &mut Trackers) {
    trackers.restart(1);
    trackers.until_in_step();
}

#[test]
fn what_an_owner_who_left_decides_in_a_partition_does_not_stand_against_the_owners_word() {
    let dir = tempfile::tempdir().unwrap();
    let (mut trackers, users) = parted(dir.path(), &["ann", "bob", "eve", "fay", "dan", "gil"]);
    // Here ann has left, and bob is the owner.
    users.at(&trackers, 1, "ann").done(leave());
    let mut bob = users.at(&trackers, 1, "bob");
    for (name, accept) in [("eve", false), ("fay", false), ("dan", true)] {
        bob.done(decide(name, accept));
    }
    cross(&mut trackers);
    // There she is the owner still, and decides later than bob did; fay even asks again.
    let mut ann = users.at(&trackers, 2, "ann");
    let mut fay = users.at(&trackers, 2, "fay");
    fay.done(leave());
    fay.join("g");
    for (name, accept) in [("eve", true), ("fay", true), ("dan", false), ("gil", true)] {
        ann.done(decide(name, accept));
    }
    assert_eq!(members(&mut ann), ["ann", "bob", "eve", "fay", "gil"]);
    heal(&mut trackers);
    for number in [1, 2] {
        let mut bob = users.at(&trackers, number, "bob");
        // Of gil, about whom bob said nothing, nothing else is known.
        until("bob's word stands", || members(&mut bob) == ["bob", "dan", "gil"]);
        for name in ["ann", "eve", "fay"] {
            let mut out = users.at(&trackers, number, name);
            assert!(out.renew().tickets.is_empty(), "{name} at {number}");
            let refusal = out.refused(Call::ListMembers { group: group(), after: None });
            assert_eq!(refusal.kind, RefusalKind::NotAllowed);
        }
    }
    // Life goes on: who was turned down asks again, and is let in by the owner.
    users.at(&trackers, 2, "eve").join("g");
    let mut bob = users.at(&trackers, 1, "bob");
    bob.done(decide("eve", true));
    assert_eq!(members(&mut users.at(&trackers, 2, "eve")), ["bob", "dan", "eve", "gil"]);
}

#[test]
fn a_founder_who_came_back_is_heard_over_an_owner_who_does_not_know_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut trackers, users) = parted(dir.path(), &["ann", "bob", "cid", "eve"]);
    trackers.restart(2);
    trackers.until_in_step();
    let mut bob = users.at(&trackers, 1, "bob");
    let mut ann = users.at(&trackers, 1, "ann");
    ann.done(decide("cid", true));
    ann.done(leave());
    ann.join("g");
    trackers.kill(2);
    bob.done(decide("ann", true));
    ann.done(decide("eve", false));
    cross(&mut trackers);
    // There ann has not come back: bob is the owner, leaves, and cid after him lets eve in.
    users.at(&trackers, 2, "bob").done(leave());
    let mut cid = users.at(&trackers, 2, "cid");
    cid.done(decide("eve", true));
    assert_eq!(members(&mut cid), ["cid", "eve"]);
    heal(&mut trackers);
    for number in [1, 2] {
        let mut ann = users.at(&trackers, number, "ann");
        until("the founder's word stands", || members(&mut ann) == ["ann", "cid"]);
    }
}
