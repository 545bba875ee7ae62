//! One account with more keys than a sharer has places: other accounts get a place at a sharer, and their share of what it sends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::time::{Duration, Instant};

use shoal_tests::{Attacker, Crowd, Flood, World, download, same_content, until};

const MIB: usize = 1 << 20;
/// With so few files open a sharer has 64 places for others.
const FEW_PLACES: &str = "ulimit -n 288";
const KEYS: usize = 90;

#[test]
fn an_account_with_more_keys_than_there_are_places_gets_a_users_share_and_others_the_rest() {
    let mut world = World::limited(FEW_PLACES);
    let (path, _) = world.ann.share("g", "a.bin", 8 * MIB);
    let mut mallory = world.by_hand("mallory");
    let target = world.target(&mut mallory, "a.bin");
    let mut bob = world.member("bob");
    world.ann.ok("limit up 2M");
    let keys = Crowd::members(world.trackers.port(1), "mallory", KEYS).into_iter();
    let keys = keys.map(|mut key| Attacker::member(&mut key, "g")).collect();
    let flood = Flood::leech(target, keys, 128);
    until("her keys have all places but a few", || flood.standing() >= 48 && flood.pieces() > 0);

    let copy = world.path("copy.bin");
    download(&mut bob, "a.bin", &copy);
    // Until then she has everything.
    bob.until_percent("a.bin", 5.0);
    let (started, before) = (Instant::now(), flood.pieces());
    until("bob has it", || bob.download("a.bin")["state"] == "C");
    let (took, hers) = (started.elapsed(), (flood.pieces() - before) * 64 * 1024);
    eprintln!("{took:?}; meanwhile she got {} MiB of {} connections", hers / MIB, flood.standing());
    assert!(same_content(&path, &copy));
    // Half is his, so she gets his 8 MiB, and as much again for what was on its way to her.
    assert!(hers < 16 * MIB, "she got {hers} bytes");
}

#[test]
fn keys_that_ask_and_never_read_keep_no_slot_from_others() {
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "a.bin", 8 * MIB);
    let mut mallory = world.by_hand("mallory");
    let target = world.target(&mut mallory, "a.bin");
    let mut bob = world.member("bob");
    let most = world.under_attack(&mut bob, Duration::from_secs(10));
    let keys = Crowd::members(world.trackers.port(1), "mallory", 60).into_iter();
    let flood = Flood::deaf(target, keys.map(|mut key| Attacker::member(&mut key, "g")).collect(), 128);
    until("her keys are there", || flood.standing() >= 50);
    let started = Instant::now();
    let copy = world.path("copy.bin");
    download(&mut bob, "a.bin", &copy);
    until("bob has it", || bob.download("a.bin")["state"] == "C");
    assert!(same_content(&path, &copy));
    let took = started.elapsed();
    assert!(took < most, "{took:?}, with {most:?} allowed");
}
