use super::*;
use proptest::prelude::*;

type Tested = Admission<u32, ()>;

fn address(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

fn peer(number: u8) -> PeerId {
    PeerId([number; 32])
}

/// Lets a connection in and names those that give way.
fn admit(admission: &mut Tested, name: u32, from: u8, who: u8) -> Result<Vec<u32>, LimitScope> {
    let admitted = admission.admit(name, (), address(from), Some(peer(who)));
    admitted.map(|gone| gone.into_iter().map(|(name, ())| name).collect()).map_err(|refused| refused.0)
}

#[test]
fn one_address_leaves_room_for_others() {
    let mut admission = Tested::new(vec![
        Limit::new(LimitScope::All, 5, Full::Refuse),
        Limit::new(LimitScope::Address, 2, Full::Refuse),
    ]);
    for (name, from) in [(1, 1), (2, 1), (4, 2)] {
        assert_eq!(admit(&mut admission, name, from, 1), Ok(vec![]));
    }
    assert_eq!(admit(&mut admission, 3, 1, 1), Err(LimitScope::Address));
    admission.leave(1);
    for (name, from) in [(5, 1), (6, 3), (7, 3)] {
        assert_eq!(admit(&mut admission, name, from, 1), Ok(vec![]));
    }
    assert_eq!(admit(&mut admission, 8, 4, 1), Err(LimitScope::All));
}

#[test]
fn a_peers_newest_connection_replaces_its_oldest_also_when_all_is_full() {
    let mut admission = Tested::new(vec![
        Limit::new(LimitScope::Peer, 2, Full::OldestGivesWay),
        Limit::new(LimitScope::All, 3, Full::Refuse),
    ]);
    for name in 1..=2 {
        assert_eq!(admit(&mut admission, name, 1, 1), Ok(vec![]));
    }
    assert_eq!(admit(&mut admission, 3, 1, 2), Ok(vec![]));
    assert_eq!(admit(&mut admission, 4, 1, 3), Err(LimitScope::All));
    assert_eq!(admit(&mut admission, 5, 1, 1), Ok(vec![1]));
    assert_eq!(admit(&mut admission, 6, 1, 1), Ok(vec![2]));
    admission.leave(1);
    assert_eq!(admission.there.len(), 3, "one that gave way leaves nothing behind");
}

#[test]
fn an_address_over_its_share_loses_its_oldest_and_the_most_crowded_loses_when_all_is_full() {
    let mut admission = Tested::new(vec![
        Limit::new(LimitScope::Address, 3, Full::OldestGivesWay),
        Limit::new(LimitScope::All, 4, Full::LargestAddressGivesWay),
    ]);
    for (name, from) in [(1, 1), (2, 2), (3, 2), (4, 2)] {
        assert_eq!(admit(&mut admission, name, from, 1), Ok(vec![]));
    }
    assert_eq!(admit(&mut admission, 5, 2, 1), Ok(vec![2]), "its own share");
    assert_eq!(admit(&mut admission, 6, 3, 1), Ok(vec![3]), "the share of the most crowded");
    admission.leave(4);
    assert_eq!(admit(&mut admission, 7, 4, 1), Ok(vec![]));
}

#[test]
fn a_strangers_place_is_taken_by_strangers_and_not_by_those_recognised() {
    let mut admission = Tested::new(vec![Limit::new(LimitScope::Strangers, 2, Full::OldestGivesWay)]);
    for name in 1..=2 {
        assert_eq!(admit(&mut admission, name, 1, 1), Ok(vec![]));
    }
    admission.recognise(1);
    admission.recognise(1);
    assert_eq!(admit(&mut admission, 3, 1, 1), Ok(vec![]));
    assert_eq!(admit(&mut admission, 4, 1, 1), Ok(vec![2]));
    assert_eq!(admission.count(Group::Strangers), 2);
}

#[test]
fn a_peer_with_two_more_than_the_newcomer_shares_its_places() {
    let mut admission = Tested::new(vec![Limit::new(LimitScope::All, 4, Full::LargestPeerGivesWay)]);
    for (name, who) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
        assert_eq!(admit(&mut admission, name, 1, who), Ok(vec![]));
    }
    assert_eq!(admit(&mut admission, 5, 1, 3).map(|gone| gone.len()), Ok(1));
    assert_eq!(admit(&mut admission, 6, 1, 4).map(|gone| gone.len()), Ok(1));
    assert_eq!(admit(&mut admission, 7, 1, 5), Err(LimitScope::All), "each has one");
}

#[test]
fn places_are_given_back_and_those_who_give_way_are_told() {
    let limits = ConnectionLimits::new(vec![
        Limit::new(LimitScope::Peer, 2, Full::OldestGivesWay),
        Limit::new(LimitScope::All, 2, Full::Refuse),
    ]);
    let ends: [CancellationToken; 3] = std::array::from_fn(|_| CancellationToken::new());
    let first = limits.admit(address(1), peer(1), ends[0].clone()).unwrap();
    let _second = limits.admit(address(1), peer(1), ends[1].clone()).unwrap();
    let third = limits.admit(address(1), peer(1), ends[2].clone()).unwrap();
    assert_eq!(ends.each_ref().map(CancellationToken::is_cancelled), [true, false, false]);
    drop(first);
    let stranger = || limits.admit(address(1), peer(2), CancellationToken::new());
    assert_eq!(stranger().err(), Some(Refused(LimitScope::All)));
    drop(third);
    assert!(stranger().is_ok());
}

proptest! {
    #[test]
    fn the_limits_hold_and_the_counts_end_at_nothing(
        steps in prop::collection::vec((0_u8..4, 0_u32..20, 0_u8..4, 0_u8..4), 0..200),
        scopes in prop::collection::vec((0_usize..4, 1_usize..5, 0_usize..4), 0..4),
    ) {
        let of_all = [
            Full::Refuse,
            Full::OldestGivesWay,
            Full::LargestAddressGivesWay,
            Full::LargestPeerGivesWay,
        ];
        let limits: Vec<Limit> = scopes
            .into_iter()
            .map(|(scope, most, full)| match scope {
                0 => Limit::new(LimitScope::All, most, of_all[full]),
                1 => Limit::new(LimitScope::Address, most, Full::OldestGivesWay),
                2 => Limit::new(LimitScope::Peer, most, Full::OldestGivesWay),
                _ => Limit::new(LimitScope::Strangers, most, Full::OldestGivesWay),
            })
            .collect();
        let mut admission = Tested::new(limits.clone());
        for (step, name, from, who) in steps {
            match step {
                0 | 1 if !admission.places.contains_key(&name) => {
                    if let Ok(gone) = admit(&mut admission, name, from, who) {
                        prop_assert!(!gone.contains(&name));
                        prop_assert!(admission.places.contains_key(&name));
                    }
                }
                2 => admission.recognise(name),
                _ => admission.leave(name),
            }
            let mut counts: HashMap<Group, usize> = HashMap::new();
            for group in admission.there.values().flat_map(Connection::groups) {
                *counts.entry(group).or_default() += 1;
            }
            prop_assert_eq!(&counts, &admission.counts);
            prop_assert_eq!(admission.places.len(), admission.there.len());
            for limit in &limits {
                let held = counts.iter().filter(|(group, _)| admission.there.values().any(|other| {
                    other.group(limit.scope) == Some(**group)
                }));
                prop_assert!(held.into_iter().all(|(_, count)| *count <= limit.most), "{limit:?}");
            }
        }
        for name in 0..20 {
            admission.leave(name);
        }
        prop_assert!(admission.counts.is_empty() && admission.there.is_empty());
    }
}
