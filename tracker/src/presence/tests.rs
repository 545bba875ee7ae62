use super::*;

const ALICE: PeerId = PeerId([1; 32]);
const BOB: PeerId = PeerId([2; 32]);
const FILE: (Gid, Fid) = (Gid([3; 16]), Fid([4; 16]));

fn address() -> SocketAddr {
    "10.0.0.1:5".parse().unwrap()
}

fn holding(completeness: Completeness) -> Holding {
    Holding { group: FILE.0, file: FILE.1, completeness }
}

fn completeness_of(presence: &Presence) -> Vec<(PeerId, Completeness)> {
    let mut holders: Vec<_> =
        presence.holders(FILE.0, FILE.1).iter().map(|h| (h.peer, h.completeness)).collect();
    holders.sort_by_key(|holder| holder.0);
    holders
}

/// Carries everything untold from one to the other.
fn carry(from: (&Presence, u8), to: (&Presence, u8)) {
    for delta in from.0.take_unsent(to.1) {
        to.0.apply(from.1, delta);
    }
}

#[test]
fn trackers_tell_each_other_of_their_clients() {
    let (one, two) = (Presence::default(), Presence::default());
    let login = one.online(ALICE, Uid([1; 16]), address());
    one.holds(ALICE, true, &[holding(Completeness::Some)]);
    one.link_up(2);
    carry((&one, 1), (&two, 2));
    assert_eq!(completeness_of(&two), [(ALICE, Completeness::Some)]);

    one.holds(ALICE, false, &[holding(Completeness::Complete)]);
    carry((&one, 1), (&two, 2));
    assert_eq!(completeness_of(&two), [(ALICE, Completeness::Complete)]);

    one.offline(ALICE, login);
    carry((&one, 1), (&two, 2));
    assert_eq!(completeness_of(&two), []);
    assert_eq!(two.count(), 0);
}

#[test]
fn a_client_that_moved_is_not_removed_by_its_old_tracker() {
    let (one, two) = (Presence::default(), Presence::default());
    let login = one.online(ALICE, Uid([1; 16]), address());
    one.link_up(2);
    carry((&one, 1), (&two, 2));
    let _ = two.online(ALICE, Uid([1; 16]), address());
    two.holds(ALICE, true, &[holding(Completeness::Complete)]);
    one.offline(ALICE, login);
    carry((&one, 1), (&two, 2));
    two.forget(1);
    assert_eq!(completeness_of(&two), [(ALICE, Completeness::Complete)]);
}

#[test]
fn a_tracker_that_links_up_is_told_even_if_nothing_changes_any_more() {
    let presence = Presence::default();
    let _ = presence.online(ALICE, Uid([1; 16]), address());
    presence.link_up(2);
    assert!(presence.changed().has_changed().unwrap());
}

#[test]
fn leases_are_known_to_all_trackers_once_they_are_linked() {
    let (one, two) = (Presence::default(), Presence::default());
    let (user, life) = (Uid([1; 16]), Duration::from_secs(60));
    assert!(one.lease(user, RequestId([1; 16]), life));
    one.link_up(2);
    assert!(!two.has_reported(1) && !two.has_lease(user));
    carry((&one, 1), (&two, 2));
    assert!(two.has_reported(1) && two.has_lease(user));
    assert!(one.lease(user, RequestId([1; 16]), Duration::ZERO));
    carry((&one, 1), (&two, 2));
    assert!(!two.has_lease(user));
    two.link_down(1);
    assert!(!two.has_reported(1));
}

#[test]
fn an_old_connection_that_breaks_late_does_not_take_the_new_one_offline() {
    let presence = Presence::default();
    let old = presence.online(ALICE, Uid([1; 16]), address());
    let _ = presence.online(ALICE, Uid([1; 16]), address());
    presence.offline(ALICE, old);
    assert_eq!(presence.count(), 1);
}

#[test]
fn a_reset_voids_what_was_announced_before() {
    let presence = Presence::default();
    let _ = presence.online(BOB, Uid([1; 16]), address());
    presence.holds(BOB, true, &[holding(Completeness::Complete)]);
    presence.holds(BOB, true, &[]);
    assert_eq!(completeness_of(&presence), []);
}

#[test]
fn addresses_are_completed_and_checked() {
    let seen = "::ffff:10.1.2.3".parse().unwrap();
    assert_eq!(reachable_address("0.0.0.0:7", seen).unwrap().to_string(), "10.1.2.3:7");
    assert_eq!(reachable_address("192.0.2.1:7", seen).unwrap().to_string(), "192.0.2.1:7");
    for bad in ["", "x:1", "10.0.0.1", "10.0.0.1:0", "224.0.0.1:5"] {
        assert!(reachable_address(bad, seen).is_err(), "{bad}");
    }
}
