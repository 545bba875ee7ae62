use ed25519_dalek::{Signer, SigningKey};
use proptest::prelude::*;

use super::*;
use crate::TrackerInfo;

fn signing(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// The key of that seed.
fn key(seed: u8) -> PeerId {
    PeerId(signing(seed).verifying_key().to_bytes())
}

/// Three trackers at `t1:1` to `t3:1`.
fn lines() -> Vec<Numbered> {
    lines_of("t1:1\nt2:1\nt3:1\n")
}

fn lines_of(text: &str) -> Vec<Numbered> {
    TrackerInfo::parse(text).unwrap().iter().map(|(number, line)| (number, line.clone())).collect()
}

/// What the bearer of that seed's key says: the key of each tracker, by its seed; 0 for one that it does not know.
fn list(signer: u8, made_ms: u64, says: &[(u8, u8)]) -> SignedList {
    let trackers = says
        .iter()
        .map(|&(number, seed)| ListedTracker {
            number,
            address: format!("T{number}:1"),
            key: (seed > 0).then(|| key(seed)),
        })
        .collect();
    let sign = |message: &[u8]| signing(signer).sign(message).to_bytes();
    SignedList(tokens::seal(&TrackerList { made_ms, trackers }, key(signer), sign))
}

/// Pins of trackers that were met: number and seed of the key.
fn met(pairs: &[(usize, u8)]) -> Pins {
    let (mut pins, lines) = (Pins::default(), lines());
    for &(number, seed) in pairs {
        assert_eq!(pins.meet(&lines[number - 1].1, key(seed), &lines), Met::First);
    }
    pins
}

fn learn(pins: &mut Pins, lines: &[Numbered], lists: &[SignedList], scope: Scope) -> Vec<News> {
    pins.learn(lines, lists, &mut BTreeMap::new(), scope)
}

fn keys(pins: &Pins) -> Vec<Option<PeerId>> {
    lines().iter().map(|(_, line)| pins.key(line)).collect()
}

const HONEST: [(u8, u8); 3] = [(1, 1), (2, 2), (3, 3)];

#[test]
fn the_first_contact_is_pinned_and_another_key_is_not() {
    let (mut pins, lines) = (met(&[(1, 1)]), lines());
    let line = &lines[0].1;
    assert_eq!(pins.expected(line), Expected::Pinned(key(1)));
    assert_eq!(pins.meet(line, key(9), &lines), Met::Other(key(1)));
    assert_eq!(pins.meet(line, key(1), &lines), Met::Known);
    assert_eq!(pins.expected(&lines[1].1), Expected::Anyone);
    pins.accept(line, key(9), &lines);
    assert_eq!(pins.expected(line), Expected::Pinned(key(9)));
}

#[test]
fn a_key_in_the_file_overrides_what_is_pinned_and_what_others_say() {
    let lines = lines_of(&format!("t1:1 {}\nt2:1\nt3:1\n", key(7)));
    let mut pins = met(&[(1, 1), (2, 2), (3, 3)]);
    assert_eq!(pins.expected(&lines[0].1), Expected::Named(key(7)));
    learn(&mut pins, &lines, &[list(2, 1, &HONEST), list(3, 1, &HONEST)], Scope::All);
    assert_eq!(pins.key(&lines[0].1), Some(key(7)));
    assert_eq!(pins.meet(&lines[0].1, key(7), &lines), Met::Known);
    assert_eq!(keys(&pins)[0], Some(key(7)), "and is known when the file names it no more");
}

#[test]
fn the_first_tracker_met_makes_the_others_known() {
    let mut pins = met(&[(1, 1)]);
    let news = learn(&mut pins, &lines(), &[list(1, 1, &HONEST)], Scope::All);
    assert_eq!(keys(&pins), [Some(key(1)), Some(key(2)), Some(key(3))]);
    assert!(news.len() == 2 && news.iter().all(|news| news.before.is_none()));
}

#[test]
fn only_most_of_the_others_change_a_known_key() {
    let says: [(u8, u8); 3] = [(1, 1), (2, 22), (3, 3)];
    for (lists, changed) in [
        (vec![list(1, 1, &says), list(3, 1, &says)], true),
        (vec![list(1, 1, &says)], false),
        (vec![list(1, 1, &says), list(3, 1, &HONEST)], false),
        // Its own word, a stranger's, and the same word twice, count nothing.
        (vec![list(1, 1, &says), list(2, 1, &says)], false),
        (vec![list(1, 1, &says), list(9, 1, &says)], false),
        (vec![list(1, 1, &says), list(1, 2, &says)], false),
    ] {
        let mut pins = met(&[(1, 1), (2, 2), (3, 3)]);
        let news = learn(&mut pins, &lines(), &lists, Scope::All);
        assert_eq!((keys(&pins)[1] == Some(key(22)), news.len() == 1), (changed, changed), "{lists:?}");
        pins = met(&[(1, 1), (2, 2), (3, 3)]);
        assert!(
            learn(&mut pins, &lines(), &lists, Scope::New).is_empty(),
            "a tracker waits for its operator"
        );
    }
}

#[test]
fn a_known_key_is_changed_by_most_of_the_listed_trackers_not_of_those_that_are_known() {
    // The first and the second were met; the third has not shown itself yet.
    let says: [(u8, u8); 3] = [(1, 1), (2, 22), (3, 0)];
    let mut pins = met(&[(1, 1), (2, 2)]);
    assert!(learn(&mut pins, &lines(), &[list(1, 1, &says)], Scope::All).is_empty());
    let gone: [(u8, u8); 1] = [(1, 1)];
    assert!(learn(&mut pins, &lines(), &[list(1, 2, &gone)], Scope::All).is_empty());
    assert_eq!(pins.expected(&lines()[1].1), Expected::Pinned(key(2)));
    // Once the third is known, both together may.
    pins.meet(&lines()[2].1, key(3), &lines());
    let both = [list(1, 3, &says), list(3, 1, &[(1, 1), (2, 22), (3, 3)])];
    assert_eq!(learn(&mut pins, &lines(), &both, Scope::All).len(), 1);
    assert_eq!(pins.expected(&lines()[1].1), Expected::Pinned(key(22)));
    // Of two listed trackers the other one is enough.
    let two = lines_of("t1:1\nt2:1\n-\n");
    let mut pins = met(&[(1, 1), (2, 2)]);
    assert_eq!(learn(&mut pins, &two, &[list(1, 1, &[(1, 1), (2, 22)])], Scope::All).len(), 1);
}

#[test]
fn a_tracker_takes_a_new_lines_key_from_most_of_all_others_itself_counted() {
    // Its own line is not among these: it is the fourth, and the third is new.
    let says: [(u8, u8); 3] = [(1, 1), (2, 2), (3, 3)];
    let mut pins = met(&[(1, 1), (2, 2)]);
    assert!(learn(&mut pins, &lines(), &[list(1, 1, &says)], Scope::New).is_empty());
    assert_eq!(learn(&mut pins, &lines(), &[list(1, 1, &says), list(2, 1, &says)], Scope::New).len(), 1);
    // Where there is only one other, that one says nothing to it: who answers the first dial decides.
    let two = lines_of("t1:1\nt2:1\n-\n");
    let mut pins = met(&[(1, 1)]);
    assert!(learn(&mut pins, &two, &[list(1, 1, &HONEST)], Scope::New).is_empty());
    assert_eq!(learn(&mut pins, &two, &[list(1, 1, &HONEST)], Scope::All).len(), 1);
}

#[test]
fn what_one_said_before_counts_beside_what_another_says_now() {
    let (mut pins, mut heard) = (met(&[(1, 1), (2, 2), (3, 3)]), BTreeMap::new());
    let says: [(u8, u8); 3] = [(1, 1), (2, 22), (3, 3)];
    assert!(
        pins.learn(&lines(), &[list(1, 1, &says), list(3, 1, &HONEST)], &mut heard, Scope::All).is_empty()
    );
    assert_eq!(pins.learn(&lines(), &[list(3, 2, &says)], &mut heard, Scope::All).len(), 1);
}

#[test]
fn an_older_list_is_a_replay() {
    let mut pins = met(&[(1, 1)]);
    learn(&mut pins, &lines(), &[list(1, 10, &[(1, 1), (2, 22)])], Scope::All);
    assert!(learn(&mut pins, &lines(), &[list(1, 9, &HONEST)], Scope::All).is_empty());
    assert_eq!(keys(&pins)[1], Some(key(22)));
}

#[test]
fn a_tracker_that_the_others_list_no_more_is_none() {
    let mut pins = met(&[(1, 1), (2, 2), (3, 3)]);
    let without: [(u8, u8); 2] = [(1, 1), (3, 3)];
    // Who does not know every key cannot say that one is nobody's: addresses may be written differently.
    let unsure = [list(1, 1, &[(1, 1), (3, 0)]), list(3, 1, &without)];
    assert!(learn(&mut pins, &lines(), &unsure, Scope::All).is_empty());
    let news = learn(&mut pins, &lines(), &[list(1, 2, &without), list(3, 2, &without)], Scope::All);
    assert_eq!(news[0].now, None);
    assert_eq!(pins.expected(&lines()[1].1), Expected::Nobody);
    // It is listed again.
    learn(&mut pins, &lines(), &[list(1, 3, &HONEST), list(3, 3, &HONEST)], Scope::All);
    assert_eq!(keys(&pins)[1], Some(key(2)));
}

#[test]
fn a_tracker_that_was_replaced_is_found_by_its_number_where_its_address_is_written_differently() {
    // The trackers' file has names where this one has addresses.
    let mine = lines_of("10.0.0.1:1\n10.0.0.2:1\n10.0.0.3:1\n");
    let known = || {
        let mut pins = Pins::default();
        for (number, line) in &mine {
            pins.meet(line, key(*number), &mine);
        }
        pins
    };
    let both = |says: &[(u8, u8)]| [list(1, 1, says), list(3, 1, says)];
    let mut pins = known();
    assert!(learn(&mut pins, &mine, &both(&HONEST), Scope::All).is_empty());
    learn(&mut pins, &mine, &both(&[(1, 1), (2, 22), (3, 3)]), Scope::All);
    assert_eq!(pins.expected(&mine[1].1), Expected::Pinned(key(22)));
    // Neither its key nor its number is listed: it is gone, also where another tracker has its number there.
    for without in [[(1, 1), (3, 3)], [(1, 1), (2, 3)]] {
        let mut pins = known();
        learn(&mut pins, &mine, &both(&without), Scope::All);
        assert_eq!(pins.expected(&mine[1].1), Expected::Nobody);
    }
    // One whose new key is not known yet may be it.
    let mut pins = known();
    assert!(learn(&mut pins, &mine, &both(&[(1, 1), (2, 0), (3, 3)]), Scope::All).is_empty());
}

#[test]
fn what_a_removed_tracker_vouched_for_goes_with_it_unless_it_was_met() {
    let mut pins = met(&[(1, 1)]);
    learn(&mut pins, &lines(), &[list(1, 1, &HONEST)], Scope::All);
    pins.meet(&lines()[2].1, key(3), &lines());
    let left = lines_of("-\nt2:1\nt3:1\n");
    pins.forget_unfounded(&left);
    assert_eq!(pins.expected(&left[0].1), Expected::Anyone);
    assert_eq!(pins.expected(&left[1].1), Expected::Pinned(key(3)));
    // Another cluster's trackers, which this file does not list, stay as they were.
    assert_eq!(keys(&pins)[0], Some(key(1)));
}

#[test]
fn the_file_reads_back_and_can_be_written_by_hand() {
    let mut pins = met(&[(1, 1), (3, 3)]);
    learn(&mut pins, &lines(), &[list(1, 5, &HONEST), list(3, 6, &HONEST)], Scope::All);
    learn(&mut pins, &lines(), &[list(1, 7, &[(1, 1), (3, 3)]), list(3, 8, &[(1, 1), (3, 3)])], Scope::All);
    let text = pins.to_string();
    assert!(text.contains(&format!("\nt1:1 {}\n", key(1))), "{text}");
    assert_eq!(Pins::parse(&text), Ok(pins));
    assert_eq!(Pins::parse(&format!("# mine\n\nT1:1  {}  # the first\n", key(1))), Ok(met(&[(1, 1)])));
    for wrong in ["t1:1", "t1:1 key", "list-of 5", "t1:1 removed x", "t1:1 12D3 vouched-by"] {
        assert_eq!(Pins::parse(&format!("# a\n{wrong}\n")), Err(PinsError { line: 2 }), "{wrong}");
    }
}

#[test]
fn pins_are_bounded_and_the_listed_ones_stay() {
    let mut pins = met(&[(1, 1)]);
    for number in 0..2 * MAX_PINS {
        let other = lines_of(&format!("other{number}:1\n"));
        pins.meet(&other[0].1, key(5), &lines());
    }
    assert_eq!(pins.pins.len(), MAX_PINS);
    assert_eq!(keys(&pins)[0], Some(key(1)));
    assert!((pins.to_string().len() as u64) < MAX_PINS_BYTES);
}

#[test]
fn the_longest_list_is_taken() {
    let trackers = (1..=MAX_TRACKERS).map(|number| ListedTracker {
        number: u8::try_from(number).unwrap(),
        address: format!("{}:65535", "x".repeat(253)),
        key: Some(key(1)),
    });
    let long = TrackerList { made_ms: u64::MAX, trackers: trackers.collect() };
    let sealed = tokens::seal(&long, key(1), |message| signing(1).sign(message).to_bytes());
    assert_eq!(tokens::open::<TrackerList>(&sealed, |_| true), Ok(long));
}

proptest! {
    #[test]
    fn no_text_and_no_list_panics(text in "[0-9a-z:.# \n-]{0,200}|.{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Pins::parse(&text);
        learn(&mut met(&[(1, 1)]), &lines(), &[SignedList(bytes)], Scope::All);
    }
}
