use super::*;

const ALICE: PeerId = PeerId([1; 32]);
const BOB: PeerId = PeerId([2; 32]);
const FILE: (Gid, Fid) = (Gid([3; 16]), Fid([4; 16]));

fn address() -> Listening {
    Listening { address: "10.0.0.1:5".parse().unwrap(), proven: true }
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
    for (listen, address, proven) in [
        ("0.0.0.0:7", "10.1.2.3:7", true),
        ("[::]:7", "10.1.2.3:7", true),
        ("10.1.2.3:7", "10.1.2.3:7", true),
        ("[::ffff:10.1.2.3]:7", "10.1.2.3:7", true),
        ("192.0.2.1:7", "192.0.2.1:7", false),
        ("127.0.0.1:7", "127.0.0.1:7", false),
        ("[2001:db8::1]:7", "[2001:db8::1]:7", false),
    ] {
        let expected = Listening { address: address.parse().unwrap(), proven };
        assert_eq!(reachable_address(listen, seen), Ok(expected), "{listen}");
    }
    for bad in
        ["", "x:1", "10.0.0.1", "10.0.0.1:0", "224.0.0.1:5", "255.255.255.255:5", "[::ffff:224.0.0.1]:5"]
    {
        assert!(reachable_address(bad, seen).is_err(), "{bad}");
    }
    let here = reachable_address("127.0.0.2:7", "127.0.0.1".parse().unwrap()).unwrap();
    assert!(here.proven, "both are this machine's");
}

#[test]
fn a_client_of_a_private_network_is_reached_at_its_router() {
    let behind = |listen: &str, seen: &str| {
        let seen = seen.parse().unwrap();
        let found = behind_router(reachable_address(listen, seen).unwrap(), seen);
        (found.address.to_string(), found.proven)
    };
    assert_eq!(behind("192.168.1.2:7", "::ffff:203.0.113.5"), ("203.0.113.5:7".into(), true));
    assert_eq!(
        behind("198.51.100.9:7", "203.0.113.5"),
        ("198.51.100.9:7".into(), false),
        "a given-out address stays"
    );
    assert_eq!(
        behind("192.168.1.2:7", "192.168.1.1"),
        ("192.168.1.2:7".into(), false),
        "the tracker is near"
    );
    assert_eq!(behind("127.0.0.1:7", "127.0.0.1"), ("127.0.0.1:7".into(), true));
}

#[test]
fn an_unproven_address_is_named_until_three_users_found_nothing_there() {
    let (one, two) = (Presence::default(), Presence::default());
    two.link_up(1);
    let unproven = Listening { proven: false, ..address() };
    let _ = two.online(ALICE, Uid([1; 16]), unproven);
    let _ = two.online(BOB, Uid([2; 16]), address());
    for peer in [ALICE, BOB] {
        two.holds(peer, true, &[holding(Completeness::Complete)]);
    }
    two.take_unsent(1).into_iter().for_each(|delta| one.apply(2, delta));
    let file = FILE;
    let named = |presence: &Presence| -> Vec<(PeerId, bool)> {
        let mut named: Vec<_> = presence
            .holders(file.0, file.1)
            .iter()
            .map(|holder| (holder.peer, holder.address.proven))
            .collect();
        named.sort_unstable();
        named
    };
    let both = named(&two);
    assert_eq!(named(&one), both, "the other tracker knows which is unproven");
    assert!(both.contains(&(ALICE, false)) && both.contains(&(BOB, true)));
    for reporter in [3, 3, 1, 4] {
        one.unreached(Uid([reporter; 16]), file, &[ALICE, BOB]);
        assert_eq!(named(&one), both, "two users, and its own, are too few");
    }
    one.unreached(Uid([5; 16]), (file.0, Fid([77; 16])), &[ALICE]);
    assert_eq!(named(&one), both, "it does not hold that file");
    one.unreached(Uid([5; 16]), file, &[ALICE, BOB]);
    assert_eq!(named(&one), [(BOB, true)], "what is proven stays");
}
