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

/// Says whose a connection is and names those that give way, at a time at which only what was used lately is not idle.
fn recognise(admission: &mut Tested, name: u32, user: u8) -> Result<Vec<u32>, LimitScope> {
    let recognised = admission.recognise(name, Uid([user; 16]), LATE_MS);
    recognised.map(|gone| gone.into_iter().map(|(name, ())| name).collect()).map_err(|refused| refused.0)
}

const LATE_MS: u64 = 1_000_000;

fn used(admission: &Tested, names: &[u32], at_ms: u64) {
    names.iter().for_each(|&name| admission.activity(name).unwrap().store(at_ms, Ordering::Relaxed));
}

/// Lets a member in whose connection is in use.
fn admit_member(admission: &mut Tested, name: u32, (user, who): (u8, u8)) -> Result<Vec<u32>, LimitScope> {
    admit(admission, name, 1, who)?;
    used(admission, &[name], LATE_MS);
    recognise(admission, name, user)
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
    assert_eq!(recognise(&mut admission, 1, 1), Ok(vec![]));
    assert_eq!(recognise(&mut admission, 1, 2), Ok(vec![]), "it is the first user's");
    assert_eq!(admission.count(Group::User(Uid([2; 16]))), 0);
    assert_eq!(admit(&mut admission, 3, 1, 1), Ok(vec![]));
    assert_eq!(admit(&mut admission, 4, 1, 1), Ok(vec![2]));
    assert_eq!(recognise(&mut admission, 2, 1), Err(LimitScope::Strangers), "it has given way already");
    assert_eq!(admission.count(Group::Strangers), 2);
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
        scopes in prop::collection::vec((0_usize..6, 1_usize..5, 0_usize..3), 0..4),
    ) {
        let of_all = [
            Full::Refuse,
            Full::OldestGivesWay,
            Full::LargestAddressGivesWay,
        ];
        let limits: Vec<Limit> = scopes
            .into_iter()
            .map(|(scope, most, full)| match scope {
                0 => Limit::new(LimitScope::All, most, of_all[full]),
                1 => Limit::new(LimitScope::Address, most, Full::OldestGivesWay),
                2 => Limit::new(LimitScope::Peer, most, Full::OldestGivesWay),
                3 => Limit::new(LimitScope::Strangers, most, Full::LargestStrangersGiveWay),
                4 => Limit::new(LimitScope::StrangersAtAddress, most, Full::OldestGivesWay),
                _ => Limit::new(LimitScope::Members, most, Full::LargestUserGivesWay),
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
                2 => {
                    let held = admission.places.contains_key(&name);
                    let gone = recognise(&mut admission, name, who).unwrap_or_default();
                    prop_assert!(!gone.contains(&name));
                    prop_assert_eq!(held, admission.places.contains_key(&name));
                }
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

const FIVE_MEMBERS: Limit = Limit::new(LimitScope::Members, 5, Full::LargestUserGivesWay);

#[test]
fn a_user_with_many_keys_has_no_more_places_than_others_who_want_them() {
    let mut admission = Tested::new(vec![FIVE_MEMBERS]);
    for name in 1..=5 {
        // The last key has two connections.
        assert_eq!(admit_member(&mut admission, name, (1, u8::try_from(name).unwrap().min(4))), Ok(vec![]));
    }
    assert_eq!(
        admit_member(&mut admission, 6, (1, 9)),
        Err(LimitScope::Members),
        "another key of the same user"
    );
    admission.leave(6);
    assert_eq!(admit_member(&mut admission, 7, (2, 20)), Ok(vec![5]), "of the key that has most");
    assert_eq!(admit_member(&mut admission, 8, (2, 21)), Ok(vec![4]));
    assert_eq!(admit_member(&mut admission, 9, (2, 22)), Err(LimitScope::Members), "three and two is fair");
    admission.leave(9);
    assert_eq!(admit_member(&mut admission, 10, (3, 30)), Ok(vec![3]));
    assert_eq!(admission.count(Group::Members), 5);
}

#[test]
fn idle_places_give_way_first_and_not_to_those_who_have_as_many() {
    let mut admission = Tested::new(vec![FIVE_MEMBERS]);
    for name in 1..=5 {
        assert_eq!(admit_member(&mut admission, name, (1, u8::try_from(name).unwrap())), Ok(vec![]));
    }
    used(&admission, &[2], LATE_MS - 20_000);
    assert_eq!(admit_member(&mut admission, 6, (2, 6)), Ok(vec![2]));
    // Each has one now, but the first user, who has two.
    for (name, user) in [(7, 3), (8, 4)] {
        admit_member(&mut admission, name, (user, user)).unwrap();
    }
    assert_eq!(admission.count(Group::User(Uid([1; 16]))), 2);
    used(&admission, &[7], LATE_MS - 30_000);
    used(&admission, &[8], LATE_MS - 20_000);
    assert_eq!(admit_member(&mut admission, 9, (3, 3)), Err(LimitScope::Members), "three has one already");
    admission.leave(9);
    assert_eq!(
        admit_member(&mut admission, 10, (5, 5)).map(|gone| gone.len()),
        Ok(1),
        "the first user has two"
    );
    assert_eq!(admit_member(&mut admission, 11, (6, 6)), Ok(vec![7]), "idle for longest");
    assert_eq!(admit_member(&mut admission, 12, (7, 7)), Ok(vec![8]));
    assert_eq!(admit_member(&mut admission, 13, (8, 8)), Err(LimitScope::Members), "all are in use");
}

#[test]
fn strangers_at_one_address_leave_room_for_strangers_from_elsewhere() {
    let mut admission = Tested::new(vec![
        Limit::new(LimitScope::StrangersAtAddress, 3, Full::OldestGivesWay),
        Limit::new(LimitScope::Strangers, 4, Full::LargestStrangersGiveWay),
    ]);
    for name in 1..=3 {
        assert_eq!(admit(&mut admission, name, 1, 1), Ok(vec![]));
    }
    assert_eq!(admit(&mut admission, 4, 1, 2), Ok(vec![1]), "its own share");
    assert_eq!(admit(&mut admission, 5, 2, 3), Ok(vec![]));
    assert_eq!(admit(&mut admission, 6, 3, 4), Ok(vec![2]), "the share of the most crowded");
    assert_eq!(recognise(&mut admission, 3, 1), Ok(vec![]));
    assert_eq!(admit(&mut admission, 7, 1, 5), Ok(vec![]), "a member is no stranger");
}
