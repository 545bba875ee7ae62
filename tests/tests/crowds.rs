//! Hundreds at once: slow sources beside a fast one, and leechers that all want the same of one seeder (D5, D7).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use shoal_common::peer_wire::{ToRequester, ToServer};
use shoal_common::tracker_api::{Answer, Call};
use shoal_common::{Fid, Gid, Layout, PeerId};
use shoal_tests::{
    Client, Crowd, Heard, Manners, Member, PATIENCE, Wire, World, descriptors, download, long_or_skip,
    peak_memory, same_content, until,
};

const MIB: usize = 1 << 20;
/// With this many holders a fast one may have to wait for its trial, which comes within 40 s.
const FOUND: Duration = Duration::from_secs(180);

/// A download from ann, who is fast, beside so many sources that crawl; gives the time that it took.
fn beside_crawlers(count: usize, size: usize, rate: u32) -> Duration {
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "a.bin", size);
    let crowd =
        if count > 0 { Some(world.crowd(count, "a.bin", &path, Manners::Crawls(rate))) } else { None };
    let mut bob = world.member("bob");
    until("all share it", || bob.sharers("g", "a.bin") == count as u64 + 1);
    let copy = world.path("copy.bin");
    if size < 1024 * MIB {
        // So that the others come to be asked too.
        world.ann.ok("limit up 300K");
    }
    let started = Instant::now();
    download(&mut bob, "a.bin", &copy);
    let asked = || crowd.as_ref().map_or(0, Crowd::asked);
    until("many were asked", || asked() >= count.min(40));
    world.ann.ok("limit up 0");
    let limit = FOUND + Duration::from_secs(size as u64 / (10 * MIB as u64));
    bob.ok_within(&format!("wait {}", limit.as_secs()), limit + PATIENCE);
    assert_eq!(bob.download("a.bin")["state"], "C", "{}", bob.download("a.bin"));
    let took = started.elapsed();
    if size < 1024 * MIB {
        assert!(same_content(&path, &copy));
    }
    let (asked, begun) = (asked(), crowd.as_ref().map_or(0, Crowd::begun));
    eprintln!("{count} crawl at {rate} B/s: {took:?}; {asked} of them were asked for {begun} pieces");
    took
}

/// A piece of 64 KiB takes such a source longer than the test has: if the end of the file waited for one, it would never
/// come. To a large file's pieces of 1 MiB 10 kB/s are as slow.
const CRAWL: u32 = 640;

#[test]
fn eight_sources_that_crawl_beside_a_fast_one() {
    beside_crawlers(8, 16 * MIB, 10_000);
    beside_crawlers(8, 16 * MIB, CRAWL);
}

#[test]
fn two_hundred_sources_that_crawl_beside_a_fast_one() {
    beside_crawlers(200, 16 * MIB, CRAWL);
}

#[test]
fn crawling_sources_beside_a_fast_one_and_sixteen_gibibytes() {
    if long_or_skip("crawling_sources_beside_a_fast_one_and_sixteen_gibibytes") {
        let alone = beside_crawlers(0, 16 * 1024 * MIB, 0);
        for count in [8, 200] {
            let beside = beside_crawlers(count, 16 * 1024 * MIB, 10_000);
            // The trials may take a while; after that the fast one alone decides.
            assert!(
                beside < alone * 5 / 4 + Duration::from_secs(60),
                "{beside:?} beside {count}, {alone:?} alone"
            );
        }
    }
}

/// What leechers are after.
struct Goal {
    seeder: (u16, PeerId),
    file: (Gid, Fid),
    layout: Layout,
    content: Vec<u8>,
    /// All are connected.
    go: Barrier,
    /// Who got a piece, in order.
    got: Mutex<Vec<usize>>,
}

impl Goal {
    /// Connects and opens the file; a seeder that has too many newcomers at once is asked again.
    fn open(&self, member: &Member, ticket: &[u8]) -> Wire {
        let (port, peer) = self.seeder;
        let (group, file) = self.file;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(mut wire) = member.try_dial_peer(port, peer) {
                wire.say(&ToServer::Open { channel: 1, group, file, ticket: ticket.to_vec() });
                match wire.hear(PATIENCE) {
                    Ok(Some(ToRequester::Opened { .. })) => return wire,
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => {}
                }
            }
            assert!(Instant::now() < deadline, "no connection");
            std::thread::sleep(Duration::from_millis(fastrand::u64(100..500)));
        }
    }

    /// Takes the whole file from the seeder, a piece at a time.
    fn leech(&self, number: usize, mut member: Member) {
        let (_, ticket) = member.ticket("g");
        let mut wire = self.open(&member, &ticket);
        self.go.wait();
        let mut wanted: Vec<u32> = (0..self.layout.pieces()).collect();
        fastrand::shuffle(&mut wanted);
        while let Some(&piece) = wanted.last() {
            wire.say(&ToServer::Request { channel: 1, piece });
            match self.answer(&mut wire) {
                Ok(()) => {
                    wanted.pop();
                    self.got.lock().unwrap().push(number);
                    wire.say(&ToServer::Have { channel: 1, pieces: vec![piece] });
                }
                Err((after, instead)) => {
                    let better = wanted.iter().position(|&other| Some(other) == instead);
                    match better {
                        Some(at) => {
                            let better = wanted.remove(at);
                            wanted.push(better);
                        }
                        // What the seeder asks for is what is waited for.
                        None => {
                            wanted.rotate_left(1);
                            std::thread::sleep(after);
                        }
                    }
                }
            }
        }
    }

    /// Whether the piece came, right; else when to ask again, and for which.
    fn answer(&self, wire: &mut Wire) -> Result<(), (Duration, Option<u32>)> {
        let mut come = 0;
        loop {
            match wire.hear_all(PATIENCE).unwrap() {
                Heard::Block(head, block) => {
                    let piece = self.layout.piece(head.piece).unwrap();
                    let at = usize::try_from(self.layout.offset(piece)).unwrap() + head.offset as usize;
                    assert!(self.content[at..at + block.len()] == block[..]);
                    come += block.len();
                    if come == self.layout.length(piece) as usize {
                        return Ok(());
                    }
                }
                Heard::Said(ToRequester::NotNow { after_ms, instead, .. }) => {
                    return Err((Duration::from_millis(after_ms.into()), instead));
                }
                Heard::Said(ToRequester::Busy { after_ms, .. }) => {
                    return Err((Duration::from_millis(after_ms.into()), None));
                }
                Heard::Said(ToRequester::Have { .. }) => {}
                Heard::Said(other) => panic!("{other:?}"),
            }
        }
    }
}

/// The client that shares the file.
fn holder(member: &mut Member, (group, file): (Gid, Fid)) -> PeerId {
    match member.done(Call::Holders { group, file }) {
        Answer::Holders { holders, .. } => holders[0].peer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_hundred_leechers_on_one_seeder_are_all_served_in_turn() {
    const LEECHERS: usize = 200;
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "a.bin", 4 * 64 * 1024);
    let (large, _) = world.ann.share("g", "b.bin", 16 * MIB);
    drop(world.by_hand("crowd"));
    let mut members = Crowd::members(world.trackers.port(1), "crowd", LEECHERS);
    let (group, file, manifest) = members[0].find("g", "a.bin");
    let goal = Arc::new(Goal {
        seeder: (world.ann.port(), holder(&mut members[0], (group, file))),
        file: (group, file),
        layout: manifest.layout().unwrap(),
        content: std::fs::read(&path).unwrap(),
        go: Barrier::new(LEECHERS),
        got: Mutex::default(),
    });
    let leechers: Vec<_> = members
        .into_iter()
        .enumerate()
        .map(|(number, member)| {
            let goal = goal.clone();
            std::thread::spawn(move || goal.leech(number, member))
        })
        .collect();
    // Beside them a client downloads another file in the usual way.
    let mut bob: Client = world.member("bob");
    let copy = world.path("copy.bin");
    download(&mut bob, "b.bin", &copy);
    bob.until_download("b.bin", "C");
    let open = descriptors(world.ann.pid());
    leechers.into_iter().for_each(|leecher| leecher.join().unwrap());
    assert!(same_content(&large, &copy));

    let got = goal.got.lock().unwrap();
    let pieces = goal.layout.pieces() as usize;
    assert_eq!(got.len(), LEECHERS * pieces);
    // In turn: nobody's first piece came only when the others were nearly through.
    let first = |leecher| got.iter().position(|&other| other == leecher).unwrap();
    let last_to_begin = (0..LEECHERS).map(first).max().unwrap();
    assert!(last_to_begin < got.len() * 9 / 10, "one downloader's first piece was number {last_to_begin}");
    assert!(open < LEECHERS + 100, "{open} descriptors");
    let peak = peak_memory(world.ann.pid()) / MIB as u64;
    assert!(peak < 300, "{peak} MiB");
    eprintln!("{open} descriptors, {peak} MiB; the last first piece was number {last_to_begin}");
}

#[test]
fn leechers_that_ask_and_never_read_do_not_hold_the_slots() {
    // As many as a client serves at a time.
    const SLOTS: usize = 16;
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "a.bin", 48 * MIB);
    drop(world.by_hand("crowd"));
    let mut members = Crowd::members(world.trackers.port(1), "crowd", SLOTS);
    let (group, file, manifest) = members[0].find("g", "a.bin");
    let peer = holder(&mut members[0], (group, file));
    let wires: Vec<Wire> = members
        .iter_mut()
        .map(|member| {
            let (_, ticket) = member.ticket("g");
            let mut wire = member.dial_peer(world.ann.port(), peer);
            wire.say(&ToServer::Open { channel: 1, group, file, ticket });
            assert!(matches!(wire.hear(PATIENCE), Ok(Some(ToRequester::Opened { .. }))));
            // More than the system keeps for a peer that does not read.
            let pieces = 0..manifest.layout().unwrap().pieces().min(256);
            pieces.for_each(|piece| wire.say(&ToServer::Request { channel: 1, piece }));
            wire
        })
        .collect();
    let mut bob = world.member("bob");
    let copy = world.path("copy.bin");
    download(&mut bob, "a.bin", &copy);
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &copy));
    drop(wires);
}
