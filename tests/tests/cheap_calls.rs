//! Calls that cost their sender nothing: what they cost a tracker is bounded, and others are answered meanwhile.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shoal_common::tracker_api::{Call, REVISION};
use shoal_tests::{Crowd, Member, World, cpu_time, until};

/// For how long a flood is watched, after the time in which its budget passes at once.
const WATCHED: Duration = Duration::from_secs(3);
/// The part of a core that a tracker may use for one account's calls, in percent, built without optimisation.
const MOST: u128 = 70;

/// Members that say the same thing without end, several at a time; one whose connection ends stays away.
struct Callers {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Callers {
    fn start(members: Vec<Member>, call: &Call) -> Self {
        let (stop, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let call_on = |mut member: Member| {
            let (stop, calls, call) = (stop.clone(), calls.clone(), call.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) && member.try_call(call.clone()).is_ok() {
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = members.into_iter().map(call_on).collect();
        Self { stop, calls, threads }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Waits until no more calls than that are answered per second; gives the tracker's use of a core then, in percent, and the
/// rate.
fn cost(world: &World, callers: &Callers, most: usize) -> (u128, u128) {
    let (mut calls, mut since) = (0, Instant::now());
    until("what passes at once has passed", || {
        if since.elapsed() < Duration::from_secs(1) {
            return false;
        }
        let (before, now) = (calls, callers.calls());
        (calls, since) = (now, Instant::now());
        before > 0 && now - before <= most
    });
    let (used, calls, since) = (cpu_time(world.trackers.pid(1)), callers.calls(), Instant::now());
    until("it was watched", || since.elapsed() > WATCHED);
    let millis = since.elapsed().as_millis();
    let used = (cpu_time(world.trackers.pid(1)) - used).as_millis() * 100 / millis;
    (used, (callers.calls() - calls) as u128 * 1_000 / millis)
}

#[test]
fn an_accounts_calls_without_end_are_answered_at_a_rate_and_others_at_once() {
    let mut world = World::new();
    let mut bob = world.by_hand("bob");
    let mut renewals = || {
        let begun = Instant::now();
        (0..20).for_each(|_| drop(bob.renew()));
        begun.elapsed() / 20
    };
    let calm = renewals();
    drop(world.by_hand("mallory"));
    let keys = Crowd::members(world.trackers.port(1), "mallory", 16);
    let callers = Callers::start(keys, &Call::Renew);
    // A renewal costs four units, and a thousand come back per second.
    let (percent, rate) = cost(&world, &callers, 350);
    let took = renewals();
    eprintln!("{percent} % of a core for {rate} renewals per second; another user's takes {took:?}");
    assert!(percent < MOST && rate < 400, "{percent} %, {rate} per second");
    assert!(took < (calm * 20).max(Duration::from_millis(200)), "{took:?}, and {calm:?} without her");
}

#[test]
fn strangers_calls_without_end_are_answered_at_a_rate() {
    let world = World::new();
    let port = world.trackers.port(1);
    let strangers: Vec<Member> = (0..4).map(|_| Member::connect(port)).collect();
    let hello = Call::Hello { listen: "127.0.0.1:7".into(), revision: Some(REVISION) };
    // A hundred units come back per second to each connection.
    let callers = Callers::start(strangers, &hello);
    let (percent, rate) = cost(&world, &callers, 500);
    eprintln!("{percent} % of a core for {rate} calls per second");
    assert!(rate < 600 && percent < MOST, "{percent} %, {rate} per second");
}
