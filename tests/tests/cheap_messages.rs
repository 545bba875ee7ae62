//! Messages that cost their sender nothing: what they cost the other side is bounded, and others are served meanwhile.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::time::{Duration, Instant};

use shoal_common::peer_wire::ToServer;
use shoal_tests::{Attacker, Flood, Manners, Target, World, cpu_time, download, same_content, until};

const MIB: usize = 1 << 20;
/// For how long a flood is watched, after its first second: that much is what its budget lets pass at once.
const WATCHED: Duration = Duration::from_secs(3);
/// The part of a core that the sharer may use for a flood, in percent, built without optimisation as it is for tests.
const MOST: u128 = 45;

type Kind = (&'static str, fn(Target, Vec<u8>, u64) -> ToServer);

const KINDS: [Kind; 8] = [
    ("empty announcements", |_, _, _| ToServer::Have { channel: 1, pieces: Vec::new() }),
    ("the same announcement", |_, _, _| ToServer::Have { channel: 1, pieces: vec![7] }),
    ("announcements on channels that are not open", |_, _, n| ToServer::Have {
        channel: 2 + (n % 1_000) as u32,
        pieces: vec![7],
    }),
    ("tickets for channels that are not open", |_, ticket, _| ToServer::Ticket { channel: 9, ticket }),
    ("the same ticket", |_, ticket, _| ToServer::Ticket { channel: 1, ticket }),
    ("cancellations of what was not asked for", |_, _, n| ToServer::Cancel {
        channel: 1,
        piece: (n % 128) as u32,
    }),
    ("files opened and closed", |Target { file: (group, file), .. }, ticket, n| match n % 2 {
        0 => ToServer::Open { channel: 2, group, file, ticket },
        _ => ToServer::Close { channel: 2 },
    }),
    ("requests taken back", |_, _, n| match n % 2 {
        0 => ToServer::Request { channel: 1, piece: (n / 2 % 128) as u32 },
        _ => ToServer::Cancel { channel: 1, piece: (n / 2 % 128) as u32 },
    }),
];

/// A process' use of a core while it is flooded, in percent.
fn cost(pid: u32) -> u128 {
    let begun = Instant::now();
    until("its first second is over", || begun.elapsed() > Duration::from_secs(1));
    let (before, since) = (cpu_time(pid), Instant::now());
    until("it was watched", || since.elapsed() > WATCHED);
    (cpu_time(pid) - before).as_millis() * 100 / since.elapsed().as_millis()
}

#[test]
fn no_kind_of_message_without_end_takes_a_core_and_others_are_served() {
    let mut world = World::new();
    let mut bob = world.member("bob");
    let most = world.under_attack(&mut bob, Duration::from_secs(5));
    let mut costly = Vec::new();
    for (number, (name, says)) in KINDS.into_iter().enumerate() {
        let file = format!("{number}.bin");
        let (path, _) = world.ann.share("g", &file, 8 * MIB);
        // Another account each time: budgets are an account's.
        let mut mallory = world.by_hand(&format!("mallory{number}"));
        let target = world.target(&mut mallory, &file);
        let attacker = Attacker::member(&mut mallory, "g");
        let ticket = attacker.ticket();
        let flood = Flood::start(target, vec![attacker; 4], move |n| says(target, ticket.clone(), n));
        until("it has begun", || flood.connected() > 0);
        let percent = cost(world.ann.pid());
        let (copy, started) = (world.path(&format!("copy{number}")), Instant::now());
        download(&mut bob, &file, &copy);
        until("bob has it", || bob.download(&file)["state"] == "C");
        let took = started.elapsed();
        assert!(same_content(&path, &copy));
        eprintln!("{name}: {percent} % of a core, {} connections; bob had it in {took:?}", flood.connected());
        // What is sent to one that announces nothing is kept for it for two seconds each time.
        if percent > MOST || took > most {
            costly.push(format!("{name}: {percent} % of a core, and {took:?} with {most:?} allowed"));
        }
    }
    assert!(costly.is_empty(), "{costly:?}");
}

#[test]
fn strangers_messages_without_end_take_no_core_and_no_time() {
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "a.bin", 8 * MIB);
    let mut finder = world.by_hand("finder");
    let target = world.target(&mut finder, "a.bin");
    let mut bob = world.member("bob");
    let flood = Flood::start(target, vec![Attacker::stranger(); 8], |_| ToServer::Close { channel: 1 });
    until("it has begun", || flood.connected() > 0);
    let percent = cost(world.ann.pid());
    let copy = world.path("copy.bin");
    download(&mut bob, "a.bin", &copy);
    until("bob has it", || bob.download("a.bin")["state"] == "C");
    assert!(same_content(&path, &copy));
    eprintln!("{percent} % of a core, {} connections", flood.connected());
    assert!(percent < MOST, "{percent} %");
    until("strangers that stay are shown the door", || flood.connected() > 8);
}

#[test]
fn a_sharers_messages_without_end_take_no_core_of_a_downloader_and_no_time() {
    let mut world = World::new();
    let mut bob = world.member("bob");
    let mut costly = Vec::new();
    let all = [Manners::Announces, Manners::Refuses, Manners::NeverNow, Manners::Instead, Manners::Crumbs];
    for (number, manners) in all.into_iter().enumerate() {
        let file = format!("{number}.bin");
        let (path, _) = world.ann.share("g", &file, 16 * MIB);
        world.ann.ok("limit up 1M");
        let name = |n| format!("evil{number}{n}");
        let seeders: Vec<_> =
            (0..4).map(|n| world.seeder(&name(n), &file, &path, manners, usize::MAX)).collect();
        until("all share it", || bob.sharers("g", &file) == 5);
        let copy = world.path(&file);
        download(&mut bob, &file, &copy);
        until("it has begun", || bob.download(&file)["state"] == "D");
        let percent = cost(bob.pid());
        eprintln!("{manners:?}: {percent} % of a core");
        costly.extend((percent > MOST).then_some(manners));
        world.ann.ok("limit up 0");
        until("bob has it", || bob.download(&file)["state"] == "C");
        assert!(same_content(&path, &copy));
        drop(seeders);
    }
    assert!(costly.is_empty(), "{costly:?}");
}

#[test]
fn records_of_a_byte_and_connections_that_come_and_go_do_not_keep_others_from_being_served() {
    let mut world = World::new();
    let mut bob = world.member("bob");
    let most = world.under_attack(&mut bob, Duration::from_secs(5));
    for (number, name) in ["a byte a record", "come and go"].into_iter().enumerate() {
        let file = format!("{number}.bin");
        let (path, _) = world.ann.share("g", &file, 8 * MIB);
        let mut mallory = world.by_hand(&format!("mallory{number}"));
        let target = world.target(&mut mallory, &file);
        let attackers = vec![Attacker::member(&mut mallory, "g"); 4];
        let flood = match number {
            0 => Flood::spell(target, attackers, |n| ToServer::Have {
                channel: 1,
                pieces: vec![(n % 128) as u32],
            }),
            _ => Flood::come_and_go(target, attackers),
        };
        until("it has begun", || flood.connected() > 0);
        let percent = cost(world.ann.pid());
        let (copy, started) = (world.path(&file), Instant::now());
        download(&mut bob, &file, &copy);
        until("bob has it", || bob.download(&file)["state"] == "C");
        let took = started.elapsed();
        assert!(same_content(&path, &copy));
        eprintln!("{name}: {percent} % of a core, {} connections; bob had it in {took:?}", flood.connected());
        assert!(took < most, "{name}: {took:?}, with {most:?} allowed");
    }
}
