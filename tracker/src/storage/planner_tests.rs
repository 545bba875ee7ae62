//! A planner in a world of random nodes: they come, go, lose chunks, fail orders. Afterwards every copy that can exist is
//! in place, and no order ever cost a copy that was needed.

use std::collections::{BTreeSet, HashMap, HashSet};

use shoal_common::storage::{ChunkId, ChunkRef, PointerKey, StoreManifest};
use shoal_common::tracker_api::storage::{NodeReport, OwnedChunk};
use shoal_common::{Blake3, NodeName, PeerId, Uid};

use super::nodes::Planned;
use super::planner::{Permissions, RepairPlanner, Rules};

const RULES: Rules = Rules { grace_ms: 5_000, repair_after_ms: 20_000 };
const OWNER: Uid = Uid([1; 16]);
const CAPACITY: u64 = 1 << 40;

struct Server {
    peer: PeerId,
    held: HashSet<OwnedChunk>,
    /// What it reported on this connection; `None` while it is away.
    reported: Option<(u64, HashSet<OwnedChunk>)>,
}

struct World {
    rng: fastrand::Rng,
    planner: RepairPlanner,
    servers: Vec<Server>,
    files: HashMap<u8, StoreManifest>,
    versions: u32,
    now: u64,
    leased: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut planner = RepairPlanner::new(RULES, seed);
        let servers: Vec<Server> = (0..rng.u8(2..7))
            .map(|n| Server { peer: PeerId([n; 32]), held: HashSet::new(), reported: None })
            .collect();
        for server in &servers {
            let name = NodeName::create(&format!("DFS{}", server.peer.0[0])).unwrap();
            planner.set_node(server.peer, Some((name, "127.0.0.1:1".into(), None)), 0);
        }
        Self { rng, planner, servers, files: HashMap::new(), versions: 0, now: 0, leased: false }
    }

    fn needed_at(&self, server: usize) -> HashSet<OwnedChunk> {
        let mut needed = HashSet::new();
        for manifest in self.files.values() {
            for (chunk, number) in manifest.chunks.iter().zip(0..) {
                let mut rule = manifest.placement(number).take(usize::from(manifest.copies));
                if rule.any(|at| manifest.servers[at] == self.servers[server].peer) {
                    needed.insert(OwnedChunk { owner: OWNER, chunk: chunk.id });
                }
            }
        }
        needed
    }

    fn holders(&self, key: &OwnedChunk) -> usize {
        self.servers.iter().filter(|server| server.reported.is_some() && server.held.contains(key)).count()
    }

    fn wanted(&self, key: &OwnedChunk) -> usize {
        let naming = self.files.values().filter(|file| file.chunks.iter().any(|chunk| chunk.id == key.chunk));
        naming.map(|file| usize::from(file.copies)).max().unwrap_or(0)
    }

    fn put(&mut self) {
        let count = u8::try_from(self.servers.len()).unwrap();
        let copies = self.rng.u8(1..=count.min(3));
        let mut servers: Vec<PeerId> = self.servers.iter().map(|server| server.peer).collect();
        self.rng.shuffle(&mut servers);
        self.versions += 1;
        let id = |n: u8| {
            let mut id = [n; 32];
            id[..4].copy_from_slice(&self.versions.to_le_bytes());
            ChunkId(id)
        };
        let chunks = (0..self.rng.u8(0..12)).map(|n| ChunkRef { id: id(n), sealed: 100 }).collect();
        let manifest = StoreManifest { copies, servers, shift: u16::from(self.rng.u8(..count)), chunks };
        for (chunk, number) in manifest.chunks.iter().zip(0..) {
            // At least one copy arrives somewhere on its list.
            let all: Vec<usize> = manifest.placement(number).take(usize::from(copies)).collect();
            let sure = all[self.rng.usize(..all.len())];
            for at in all {
                if at == sure || self.rng.bool() {
                    let server = self.servers.iter_mut().find(|s| s.peer == manifest.servers[at]).unwrap();
                    server.held.insert(OwnedChunk { owner: OWNER, chunk: chunk.id });
                }
            }
        }
        let key = self.rng.u8(..4);
        self.point(key, Some(manifest));
    }

    fn point(&mut self, key: u8, manifest: Option<StoreManifest>) {
        let version = manifest.as_ref().map(|manifest| Blake3::of(&manifest.encode()));
        self.planner.point((OWNER, PointerKey([key; 32])), version, manifest.clone(), false, self.now);
        match manifest {
            Some(manifest) => drop(self.files.insert(key, manifest)),
            None => drop(self.files.remove(&key)),
        }
    }

    fn come(&mut self, at: usize) {
        let server = &mut self.servers[at];
        let session = self.planner.register(server.peer, self.now).unwrap();
        server.reported = Some((session, HashSet::new()));
        let mut pages: Vec<OwnedChunk> = server.held.iter().copied().collect();
        let second = pages.split_off(pages.len() / 2);
        for (held, reset, more) in [(pages, true, true), (second, false, false)] {
            let report =
                NodeReport { reset, more, held, capacity: CAPACITY, free: CAPACITY, ..NodeReport::default() };
            assert!(self.planner.report(server.peer, session, report, self.now));
        }
        server.reported = Some((session, server.held.clone()));
    }

    fn go(&mut self, at: usize) {
        if let Some((session, _)) = self.servers[at].reported.take() {
            self.planner.gone(self.servers[at].peer, session, self.now);
        }
    }

    /// One report, and the orders in its answer.
    fn report(&mut self, at: usize, reliable: bool) {
        let Some((session, reported)) = self.servers[at].reported.take() else { return };
        let mut failed = Vec::new();
        let leased = self.leased;
        for planned in self.planner.take_orders(self.servers[at].peer, &|_| leased, self.now) {
            match planned {
                Planned::Copy { chunk, from, .. } => {
                    let there = self
                        .servers
                        .iter()
                        .any(|s| s.peer == from && s.reported.is_some() && s.held.contains(&chunk));
                    if there && (reliable || self.rng.u8(..4) > 0) {
                        self.servers[at].held.insert(chunk);
                    } else {
                        failed.push(chunk);
                    }
                }
                Planned::Delete { chunk } => {
                    self.servers[at].held.remove(&chunk);
                    let wanted = self.wanted(&chunk);
                    assert!(self.holders(&chunk) >= wanted, "a copy that was needed is gone");
                    assert!(!self.leased);
                }
            }
        }
        let server = &mut self.servers[at];
        let held = server.held.difference(&reported).copied().collect();
        let gone = reported.difference(&server.held).copied().collect();
        let report =
            NodeReport { held, gone, failed, capacity: CAPACITY, free: CAPACITY, ..NodeReport::default() };
        assert!(self.planner.report(server.peer, session, report, self.now));
        server.reported = Some((session, server.held.clone()));
    }

    fn tick(&mut self) {
        let (leased, now) = (self.leased, self.now);
        let leased = move |_: Uid| leased;
        let permissions = Permissions { copies: true, held: None, allowed_ms: Some(now), leased: &leased };
        self.planner.tick(&permissions, now);
    }

    fn step(&mut self) {
        let at = self.rng.usize(..self.servers.len());
        self.now += self.rng.u64(..1_500);
        match self.rng.u8(..16) {
            0 | 1 => self.put(),
            2 => {
                let key = self.rng.u8(..4);
                self.point(key, None);
            }
            3 => self.go(at),
            4 | 5 => {
                self.go(at);
                self.come(at);
            }
            6 => {
                // Rot, as long as another server has the chunk.
                let found = self.servers[at].held.iter().copied().find(|key| self.holders(key) > 1);
                if let (Some(key), true) = (found, self.servers[at].reported.is_some()) {
                    self.servers[at].held.remove(&key);
                    self.report(at, true);
                }
            }
            7 => self.leased = !self.leased && self.rng.bool(),
            _ => self.report(at, false),
        }
        // Silence is a state of its own: mostly all report in time.
        if self.rng.u8(..8) > 0 {
            (0..self.servers.len()).for_each(|at| self.report(at, false));
        }
        self.tick();
    }

    fn update_liveness(&mut self) {
        self.leased = false;
        for at in 0..self.servers.len() {
            self.go(at);
            self.come(at);
        }
        for _ in 0..120 {
            self.now += 200;
            self.tick();
            (0..self.servers.len()).for_each(|at| self.report(at, true));
        }
    }
}

#[test]
fn copies_find_their_places_whatever_happens() {
    let given = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let all = 0..given("SHOAL_SEEDS").unwrap_or(400);
    for seed in given("SHOAL_SEED").map_or(all, |seed| seed..seed + 1) {
        let replay = format!("SHOAL_SEED={seed} cargo test -p shoal-tracker --lib copies_find_their_places");
        let mut world = World::new(seed);
        for _ in 0..80 {
            world.step();
        }
        world.update_liveness();
        let status = world.planner.status(world.now);
        let named: BTreeSet<ChunkId> =
            world.files.values().flat_map(|file| file.chunks.iter().map(|chunk| chunk.id)).collect();
        assert_eq!(status.chunks, named.len() as u64, "{replay}");
        let lost: Vec<&ChunkId> =
            named.iter().filter(|id| world.holders(&OwnedChunk { owner: OWNER, chunk: **id }) == 0).collect();
        assert_eq!(status.lost_chunks, lost.len() as u64, "{replay}");
        assert!(lost.is_empty(), "nothing is lost as long as a copy is left: {replay}");
        assert_eq!((status.missing_copies, status.copying, status.unnamed), (0, 0, 0), "{replay}");
        for at in 0..world.servers.len() {
            let held = &world.servers[at].held;
            let needed = world.needed_at(at);
            for key in held {
                assert_eq!(world.holders(key), world.wanted(key), "{replay}");
            }
            // A copy that took another's place stays there only if that one never had it again.
            assert!(held.len() <= needed.len() + named.len(), "{replay}");
        }
    }
}

#[test]
fn a_tenth_of_a_node_goes_unasked_and_no_more() {
    let mut world = World::new(1);
    let owner = Uid([9; 16]);
    let key = |n: u8| OwnedChunk { owner, chunk: ChunkId([n; 32]) };
    let manifest = StoreManifest {
        copies: 1,
        servers: vec![world.servers[0].peer],
        shift: 0,
        chunks: (0..100).map(|n| ChunkRef { id: ChunkId([n; 32]), sealed: 1 }).collect(),
    };
    let version = Some(Blake3([1; 32]));
    world.planner.point((owner, PointerKey([1; 32])), version, Some(manifest), false, 0);
    world.servers[0].held = (0..111).map(key).collect();
    world.come(0);
    let sweep = |world: &mut World, allowed_ms: Option<u64>| {
        let permissions = Permissions { copies: true, held: None, allowed_ms, leased: &|_| false };
        world.planner.tick(&permissions, world.now);
        world.planner.take_orders(world.servers[0].peer, &|_| false, world.now).len()
    };
    assert_eq!(sweep(&mut world, None), 0, "within the grace");
    world.now += 2_900;
    world.report(0, true);
    world.now += 2_900;
    world.report(0, true);
    // Eleven of 111 are less than a tenth; of 110 they would be exactly one, still allowed.
    assert_eq!(sweep(&mut world, None), 11);
    let stranger = |n: u8| OwnedChunk { owner: Uid([8; 16]), chunk: ChunkId([n; 32]) };
    world.servers[0].held.extend((0..20).map(stranger));
    world.report(0, true);
    let at = world.now;
    for _ in 0..3 {
        world.now += 2_000;
        world.report(0, true);
    }
    assert_eq!(sweep(&mut world, Some(at - 1)), 0);
    assert!(world.planner.status(world.now).deletions_held.is_some());
    assert_eq!(sweep(&mut world, Some(at)), 20);
}

/// One file on the first of some servers, each chunk once.
fn one_file(world: &mut World, chunks: u8) -> Vec<OwnedChunk> {
    let ids = (0..chunks).map(|n| ChunkId([n; 32]));
    let manifest = StoreManifest {
        copies: 1,
        servers: vec![world.servers[0].peer],
        shift: 0,
        chunks: ids.map(|id| ChunkRef { id, sealed: 1 }).collect(),
    };
    let keys = manifest.chunks.iter().map(|chunk| OwnedChunk { owner: OWNER, chunk: chunk.id }).collect();
    world.planner.point((OWNER, PointerKey([1; 32])), Some(Blake3([1; 32])), Some(manifest), false, 0);
    keys
}

#[test]
fn of_chunks_that_no_file_names_only_so_many_are_remembered_and_the_rest_when_there_is_room() {
    let mut world = World::new(1);
    let named = one_file(&mut world, 100);
    let garbage = |number: u32| {
        let mut id = [255; 32];
        id[..4].copy_from_slice(&number.to_le_bytes());
        OwnedChunk { owner: Uid([9; 16]), chunk: ChunkId(id) }
    };
    let peer = world.servers[0].peer;
    let session = world.planner.register(peer, 0).unwrap();
    let page = |held: Vec<OwnedChunk>, gone: Vec<OwnedChunk>, (reset, more): (bool, bool)| NodeReport {
        reset,
        more,
        held,
        gone,
        capacity: CAPACITY,
        free: CAPACITY,
        ..NodeReport::default()
    };
    assert!(world.planner.report(
        peer,
        session,
        page((0..300_000).map(garbage).collect(), vec![], (true, true)),
        0
    ));
    assert!(world.planner.report(peer, session, page(named, vec![], (false, false)), 0));
    let status = world.planner.status(0);
    assert_eq!((status.unnamed, status.nodes[0].chunks), (200_000, 200_100));
    assert_eq!(status.lost_chunks, 0, "what a file names is always remembered");
    // More of the same is passed over, however it is said.
    assert!(world.planner.report(
        peer,
        session,
        page((300_000..310_000).map(garbage).collect(), vec![], (false, false)),
        0
    ));
    assert_eq!(world.planner.status(0).unnamed, 200_000);
    // Once most of it is gone the node is to report everything again.
    let gone = page(vec![], (0..150_000).map(garbage).collect(), (false, false));
    assert!(!world.planner.report(peer, session, gone, 0));
}

#[test]
fn nobody_takes_the_place_of_a_server_that_is_up_whatever_a_record_says() {
    let mut world = World::new(1);
    assert!(world.servers.len() > 1);
    let keys = one_file(&mut world, 20);
    world.servers[0].held = keys.into_iter().collect();
    world.come(0);
    world.come(1);
    let (old, new) = (world.servers[0].peer, world.servers[1].peer);
    let name = NodeName::create("DFS0").unwrap();
    world.planner.set_node(old, Some((name, "127.0.0.1:1".into(), Some(new))), world.now);
    for _ in 0..100 {
        world.now += 200;
        world.tick();
        (0..2).for_each(|at| world.report(at, true));
    }
    assert_eq!(world.servers[0].held.len(), 20, "its chunks are needed where they are");
    assert_eq!(world.servers[1].held.len(), 0);
    assert_eq!(world.planner.nodes(world.now).iter().find(|node| node.peer == old).unwrap().successor, None);
    world.go(0);
    assert_eq!(
        world.planner.nodes(world.now).iter().find(|node| node.peer == old).unwrap().successor,
        Some(new)
    );
}

#[test]
fn a_server_that_takes_a_lost_ones_place_is_waited_for_and_filled() {
    let mut world = World::new(1);
    let file = StoreManifest {
        copies: 2,
        servers: [0, 1, 2].map(|n| PeerId([n; 32])).to_vec(),
        shift: 0,
        chunks: (0..10).map(|n| ChunkRef { id: ChunkId([n; 32]), sealed: 1 }).collect(),
    };
    assert!(world.servers.len() > 2);
    for (chunk, number) in file.chunks.iter().zip(0..) {
        for at in file.placement(number).take(2) {
            world.servers[at].held.insert(OwnedChunk { owner: OWNER, chunk: chunk.id });
        }
    }
    let (lost, new) = (world.servers[2].held.len(), world.servers.len());
    (0..3).for_each(|at| world.come(at));
    world.point(0, Some(file));
    world.go(2);
    let place =
        |name: &str, successor| Some((NodeName::create(name).unwrap(), "127.0.0.1:1".into(), successor));
    let (old, peer) = (world.servers[2].peer, PeerId([99; 32]));
    let passes = |world: &mut World, ms: u64| {
        for _ in 0..ms / 200 {
            world.now += 200;
            world.tick();
            (0..world.servers.len()).for_each(|at| world.report(at, true));
        }
    };
    // Its record is here before it is.
    world.planner.set_node(peer, place("NEW", None), world.now);
    world.planner.set_node(old, place("DFS2", Some(peer)), world.now);
    passes(&mut world, 2_000);
    let held = |world: &World, at: usize| world.servers[at].held.len();
    assert_eq!(held(&world, 0) + held(&world, 1) + lost, 20, "nothing is copied elsewhere");
    world.servers.push(Server { peer, held: HashSet::new(), reported: None });
    world.come(new);
    passes(&mut world, 2_000);
    assert_eq!(held(&world, new), lost);
    // One that never comes is waited for as long as for any silent server.
    world.go(new);
    let never = PeerId([98; 32]);
    world.planner.set_node(never, place("NEVER", None), world.now);
    world.planner.set_node(peer, place("NEW", Some(never)), world.now);
    passes(&mut world, RULES.repair_after_ms - 1_000);
    assert_eq!(held(&world, 0) + held(&world, 1) + lost, 20);
    passes(&mut world, 2_000);
    assert_eq!(held(&world, 0) + held(&world, 1), 20);
}

#[test]
fn a_node_that_was_taken_out_is_not_let_in_until_it_is_admitted_again() {
    let mut world = World::new(2);
    let peer = world.servers[0].peer;
    world.planner.set_node(peer, None, 0);
    assert_eq!(world.planner.register(peer, 0), None);
    assert_eq!(world.planner.register(PeerId([99; 32]), 0), None, "an unknown one");
    let name = NodeName::create("DFS1").unwrap();
    world.planner.set_node(peer, Some((name, "127.0.0.1:1".into(), None)), 0);
    assert!(world.planner.register(peer, 0).is_some());
}
