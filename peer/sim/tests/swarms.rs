//! What the swarm's rules are for, over the real core and policy.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use shoal_swarm_sim::{Manners, Scenario, run};

#[test]
fn equal_leechers_come_near_the_bound_and_plain_rarest_first_does_not() {
    for seed in 1..=3 {
        let scenario = Scenario::equal(seed, 8);
        let (ours, naive) = (run(&scenario), run(&Scenario { naive: true, ..scenario }));
        assert!(ours.over_bound() <= 1.1 && ours.seeder_copies <= 1.1, "seed {seed}: {ours:?}");
        assert!(naive.over_bound() > ours.over_bound() + 0.1, "seed {seed}: {naive:?} beside {ours:?}");
    }
}

#[test]
fn slow_and_lying_leechers_among_twenty_cost_the_others_little() {
    for seed in 1..=3 {
        let mut scenario = Scenario::equal(seed, 20);
        scenario.leechers[0].uplink /= 10;
        scenario.leechers[1].uplink /= 10;
        scenario.leechers[2].manners = Manners::Lies;
        let (ours, naive) = (run(&scenario), run(&Scenario { naive: true, ..scenario }));
        assert!(ours.over_bound() <= 1.2 && ours.seeder_copies <= 1.25, "seed {seed}: {ours:?}");
        assert!(naive.over_bound() > ours.over_bound() + 0.2, "seed {seed}: {naive:?} beside {ours:?}");
    }
}

#[test]
fn a_hundred_leechers_come_near_the_bound() {
    let outcome = run(&Scenario::equal(1, 100));
    assert!(outcome.over_bound() <= 1.15 && outcome.seeder_copies <= 1.15, "{outcome:?}");
    assert!(outcome.wasted <= 0.02, "{outcome:?}");
}

#[test]
fn a_seed_gives_the_same_swarm_again() {
    let scenario = Scenario { size: 4 << 20, ..Scenario::equal(7, 12) };
    assert_eq!(run(&scenario).took, run(&scenario).took);
}

#[test]
fn slow_lying_silent_and_vanishing_leechers_cost_nobody_the_file() {
    for seed in 1..=3 {
        let mut scenario = Scenario { size: 8 << 20, ..Scenario::equal(seed, 16) };
        scenario.leechers[0].uplink /= 10;
        scenario.leechers[1].manners = Manners::Lies;
        scenario.leechers[2].manners = Manners::Silent;
        scenario.leechers[3].vanishes = Some(Duration::from_secs(1));
        scenario.leechers[4].joins = Duration::from_secs(2);
        let outcome = run(&scenario);
        assert_eq!(outcome.incomplete, 0, "seed {seed}: {outcome:?}");
        assert!(outcome.wasted < 0.1, "seed {seed}: {outcome:?}");
    }
}

/// The time that one honest leecher needs beside these greedy ones, which take pieces and pass none on.
fn beside(greedy: usize, account: Option<u32>) -> f64 {
    let mut scenario = Scenario { size: 8 << 20, ..Scenario::equal(1, greedy + 1) };
    for leecher in &mut scenario.leechers[..greedy] {
        leecher.manners = Manners::Silent;
        leecher.account = account;
    }
    let outcome = run(&scenario);
    assert_eq!(outcome.incomplete, 0, "{outcome:?}");
    outcome.took.unwrap().as_secs_f64()
}

#[test]
fn an_account_with_many_keys_takes_hardly_more_from_others_than_one_with_one_key() {
    let (alone, one, many) = (beside(0, None), beside(1, Some(7)), beside(30, Some(7)));
    assert!(one < 2.3 * alone, "{one} s beside one, {alone} s alone");
    // What is kept for the first of its keys is waited for at times.
    assert!(many < 1.5 * one, "{many} s beside thirty keys of one account, {one} s beside one");
    let accounts = beside(30, None);
    assert!(accounts > 4.0 * many, "{accounts} s beside thirty accounts, {many} s beside thirty keys of one");
}
