//! The seeded simulation. `SHOAL_SEEDS=n` runs that many seeds, `SHOAL_SEED=x` one of them.

use std::sync::atomic::{AtomicBool, Ordering};

use shoal_replica::memory::Memory;
use shoal_replica::{Alarm, BlobHash, NameSpace, Row, Rows, Uid, Write};

use crate::world::{Fate, Input, Sabotage, World, claim, delete, put};

const SEEDS: u64 = 2_000;
const SABOTAGE_SEEDS: u64 = 3_000;
const STEPS: usize = 160;
/// Virtual time within which a healed cluster must be in step.
const HEALING_MS: u64 = 120_000;
const DAY_MS: u64 = 25 * 3_600_000;

#[test]
fn clusters_stay_in_step_whatever_happens() {
    if let Ok(seed) = std::env::var("SHOAL_SEED") {
        let seed = seed.parse().expect("SHOAL_SEED is a number");
        run(seed, Sabotage::Nothing).unwrap_or_else(|problem| panic!("seed {seed}: {problem}"));
        return;
    }
    let seeds =
        std::env::var("SHOAL_SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("SHOAL_SEEDS is a number"));
    if let Some((seed, problem)) = first_failure(seeds, Sabotage::Nothing) {
        panic!(
            "seed {seed}: {problem}\nreplay with: SHOAL_SEED={seed} cargo test -p shoal-replica --test replica \
             clusters_stay_in_step_whatever_happens"
        );
    }
}

#[test]
fn a_vector_merged_before_the_end_is_caught() {
    let (seed, problem) = first_failure(SABOTAGE_SEEDS, Sabotage::EarlyEnd).unwrap();
    println!("seed {seed}: {problem}");
}

#[test]
fn an_origin_used_twice_is_caught() {
    let (seed, problem) = first_failure(SABOTAGE_SEEDS, Sabotage::FixedOrigin).unwrap();
    println!("seed {seed}: {problem}");
}

#[test]
fn a_missing_fresh_round_is_caught() {
    let (seed, problem) = first_failure(SABOTAGE_SEEDS, Sabotage::NoFloor).unwrap();
    println!("seed {seed}: {problem}");
}

/// Runs seeds on all cores until one fails; some failing seed and what is wrong.
fn first_failure(seeds: u64, sabotage: Sabotage) -> Option<(u64, String)> {
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get() as u64);
    let stop = AtomicBool::new(false);
    let work = |thread: u64| {
        for seed in (thread..seeds).step_by(usize::try_from(threads).unwrap()) {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let outcome = std::panic::catch_unwind(|| run(seed, sabotage));
            let problem = match outcome {
                Ok(Ok(())) => continue,
                Ok(Err(problem)) => problem,
                Err(_) => "it panicked".to_owned(),
            };
            stop.store(true, Ordering::Relaxed);
            return Some((seed, problem));
        }
        None
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        running.into_iter().filter_map(|thread| thread.join().unwrap()).min()
    })
}

/// One cluster's life: some times of trouble, each followed by healing and a look at everything.
fn run(seed: u64, sabotage: Sabotage) -> Result<(), String> {
    let trackers = if seed.is_multiple_of(2) { 2 } else { 3 };
    let mut sim = Simulation::new(trackers, seed, sabotage);
    for _ in 0..sim.world.rng.u8(1..=3) {
        sim.trouble()?;
        sim.heal()?;
        if sim.world.rng.u8(..4) == 0 {
            sim.let_a_day_pass()?;
        }
    }
    Ok(())
}

struct Simulation {
    world: World,
    backups: Vec<Option<Memory>>,
    /// One disk may be lost in each time of trouble.
    disk_lost: bool,
    may_lose_disks: bool,
    counter: u64,
    last_claim: Option<Write>,
    /// Numbers the times of trouble: each has names of its own.
    epoch: u8,
    /// A tracker that can be reached by nobody, until this step.
    isolated: Option<(usize, usize)>,
}

impl Simulation {
    fn new(trackers: u8, seed: u64, sabotage: Sabotage) -> Self {
        let mut world = World::new(trackers, seed);
        world.sabotage = sabotage;
        world.encode = seed % 16 == 3;
        let may_lose_disks = world.rng.bool();
        world.single_copies_count = !may_lose_disks;
        for node in 0..world.nodes.len() {
            world.nodes[node].skew_ms = match world.rng.u8(..8) {
                0 => 200_000,
                1 => -200_000,
                _ => world.rng.i64(-3_000..3_000),
            };
            world.start(node);
        }
        let backups = vec![None; usize::from(trackers)];
        Self {
            world,
            backups,
            disk_lost: false,
            may_lose_disks,
            counter: 0,
            last_claim: None,
            epoch: 0,
            isolated: None,
        }
    }

    fn trouble(&mut self) -> Result<(), String> {
        self.disk_lost = false;
        self.epoch += 1;
        for step in 0..STEPS {
            self.isolate(step);
            self.world.now_ms += self.world.rng.u64(0..20);
            if self.world.rng.u8(..20) == 0 {
                self.world.now_ms += self.world.rng.u64(0..1_200);
            }
            self.world.tick_due()?;
            match self.world.rng.u8(..100) {
                0..70 => self.deliver_some()?,
                70..88 => self.client()?,
                88..94 => self.link(),
                _ => self.process(),
            }
            self.check_alarms()?;
        }
        Ok(())
    }

    /// Delivers a few events to one tracker, in one transaction.
    fn deliver_some(&mut self) -> Result<(), String> {
        for _ in 0..self.world.rng.u8(1..8) {
            let ways = self.world.deliverable();
            let Some(&(to, from)) = self.world.rng.choice(&ways) else { return Ok(()) };
            let mut events = Vec::new();
            for _ in 0..self.world.rng.u8(1..4) {
                events.extend(self.world.next_event(to, from).into_iter().map(Input::Event));
            }
            let fate = self.fate();
            self.world.transact(to, events, fate)?;
        }
        Ok(())
    }

    fn fate(&mut self) -> Fate {
        match self.world.rng.u16(..600) {
            0 => Fate::Rollback,
            1 | 2 => Fate::DieBefore,
            3 | 4 => Fate::DieAfter(self.world.rng.usize(..6)),
            _ => Fate::Commit,
        }
    }

    fn client(&mut self) -> Result<(), String> {
        let up = self.world.all_up();
        let Some(&node) = self.world.rng.choice(&up) else { return Ok(()) };
        self.counter += 1;
        let writes = match self.world.rng.u8(..10) {
            0..3 => self.creation(node).into_iter().collect(),
            3 => self.last_claim.clone().into_iter().collect(),
            4 | 5 => vec![delete(&self.key())],
            6 => vec![self.with_blob()],
            7 => (0..self.world.rng.u8(2..5)).map(|_| self.update()).collect(),
            _ => vec![self.update()],
        };
        if writes.is_empty() {
            return Ok(());
        }
        let fate = self.fate();
        self.world.transact(node, vec![Input::Write(writes)], fate)
    }

    /// A claim to a name that is free as far as this tracker knows; the client may try it elsewhere again.
    fn creation(&mut self, node: usize) -> Option<Write> {
        let space = if self.world.rng.bool() { NameSpace::User } else { NameSpace::Group };
        let name = [self.epoch, self.world.rng.u8(..3)];
        let uid = Uid(self.world.rng.u128(..).to_le_bytes());
        let it = &self.world.nodes[node];
        let taken = it.replica.as_ref()?.holder(&it.store, space, &name).unwrap().is_some();
        let write = claim(space, &name, uid);
        self.last_claim = Some(write.clone());
        (!taken).then_some(write)
    }

    fn key(&mut self) -> Vec<u8> {
        vec![b'k', self.world.rng.u8(..12)]
    }

    fn update(&mut self) -> Write {
        let padding = if self.world.rng.u8(..12) == 0 { 30_000 } else { 0 };
        self.counter += 1;
        let value = [&self.counter.to_be_bytes()[..], &vec![0; padding]].concat();
        if padding > 0 {
            return put(&[b'p', self.world.rng.u8(..12)], &value);
        }
        put(&self.key(), &value)
    }

    fn with_blob(&mut self) -> Write {
        let length = if self.world.rng.u8(..4) == 0 { 300_000 } else { 100 };
        let mut content = vec![0; length];
        content[..8].copy_from_slice(&self.counter.to_be_bytes());
        Write { blobs: vec![(BlobHash::of(&content), content)], ..self.update() }
    }

    fn link(&mut self) {
        let (a, b) = self.pair();
        let isolated = self.isolated.is_some_and(|(node, _)| a == node || b == node);
        if isolated || self.world.rng.u8(..3) == 0 {
            self.world.cut(a, b);
        } else {
            self.world.connect(a, b);
        }
    }

    /// Now and then one tracker is cut off for a while, so that the others go on without it.
    fn isolate(&mut self, step: usize) {
        let count = self.world.nodes.len();
        self.isolated = self.isolated.filter(|&(_, until)| step < until);
        if self.isolated.is_none() && self.world.rng.u8(..30) == 0 {
            let node = self.world.rng.usize(..count);
            self.isolated = Some((node, step + self.world.rng.usize(10..60)));
            (0..count).filter(|&other| other != node).for_each(|other| self.world.cut(node, other));
        }
    }

    fn pair(&mut self) -> (usize, usize) {
        let count = self.world.nodes.len();
        let a = self.world.rng.usize(..count);
        (a, (a + self.world.rng.usize(1..count)) % count)
    }

    /// Starts what is down; rarely kills, wipes or restores what is up.
    fn process(&mut self) {
        let node = self.world.rng.usize(..self.world.nodes.len());
        if !self.world.is_up(node) {
            self.world.start(node);
            return;
        }
        match self.world.rng.u8(..24) {
            0 | 1 => self.world.kill(node),
            2 if self.may_lose_disks => self.backups[node] = Some(self.world.nodes[node].store.clone()),
            3 | 4 if self.may_lose_disks && !self.disk_lost => {
                self.disk_lost = true;
                self.world.kill(node);
                let backup = self.backups[node].clone().filter(|_| self.world.rng.bool());
                self.world.nodes[node].store = backup.unwrap_or_default();
            }
            _ => {}
        }
    }

    /// Everything works again: now the cluster has to come into step.
    fn heal(&mut self) -> Result<(), String> {
        let deadline = self.world.now_ms + HEALING_MS;
        while !self.is_in_step() {
            if self.world.now_ms > deadline {
                return Err(format!("invariant 1: not in step after healing: {}", self.describe()));
            }
            self.run_quietly()?;
        }
        let since = self.world.now_ms;
        while self.world.now_ms < since + 12_000 {
            self.run_quietly()?;
        }
        self.check()
    }

    /// Lets time pass with every tracker and link up.
    fn run_quietly(&mut self) -> Result<(), String> {
        self.world.start_all();
        self.world.connect_all();
        self.world.step()?;
        self.check_alarms()
    }

    fn is_in_step(&self) -> bool {
        let (first, others) = self.world.nodes.split_first().unwrap();
        let settled = self.world.nodes.iter().enumerate().all(|(index, node)| {
            let now = self.world.now(index);
            node.replica.as_ref().is_some_and(|replica| {
                node.pending.is_empty()
                    && replica.may_vote()
                    && replica.status(now).iter().all(|peer| peer.in_sync)
            })
        });
        settled && others.iter().all(|node| live_rows(&node.store).eq(live_rows(&first.store)))
    }

    fn describe(&self) -> String {
        let nodes = self.world.nodes.iter().enumerate().map(|(index, node)| {
            let replica = node.replica.as_ref();
            let status = replica.map(|replica| (replica.may_vote(), replica.status(self.world.now(index))));
            let vector = replica.map(|replica| replica.vector().iter().collect::<Vec<_>>());
            let first = &self.world.nodes[0].store;
            let differs = |row: &&Row| first.get(row.kind, &row.key).unwrap().as_ref() != Some(*row);
            let rows: Vec<_> = node
                .store
                .rows()
                .filter(differs)
                .map(|row| Row { value: Vec::new(), ..row.clone() })
                .collect();
            let missing = node.store.missing_blobs(9).unwrap();
            format!(
                "\n{} {status:?} {vector:?} pending {:?} missing {missing:?} {rows:#?}",
                node.no,
                node.pending.keys()
            )
        });
        nodes.collect()
    }

    /// Tombstones come of age and are dropped.
    fn let_a_day_pass(&mut self) -> Result<(), String> {
        self.world.now_ms += DAY_MS;
        let since = self.world.now_ms;
        while self.world.now_ms < since + 200_000 {
            self.run_quietly()?;
        }
        self.heal()
    }

    fn check_alarms(&self) -> Result<(), String> {
        let alarm = self.world.alarms.iter().find(|alarm| !matches!(alarm, Alarm::Conflict { .. }));
        alarm.map_or(Ok(()), |alarm| Err(format!("invariant 1: {alarm:?} {}", self.describe())))
    }

    fn check(&mut self) -> Result<(), String> {
        let world = &mut self.world;
        for node in &world.nodes {
            world.history.check(&node.store)?;
        }
        let (first, others) = world.nodes.split_first().unwrap();
        let vector = first.replica.as_ref().unwrap().vector();
        for node in others {
            if node.replica.as_ref().unwrap().vector() != vector {
                return Err("invariant 1: the vectors differ".to_owned());
            }
            if !node.store.missing_blobs(1).unwrap().is_empty() {
                return Err("invariant 1: blobs are missing".to_owned());
            }
        }
        for node in &world.nodes {
            let replica = node.replica.as_ref().unwrap();
            for (space, name, uid) in world.history.names() {
                let holder = replica.holder(&node.store, space, name).unwrap();
                if holder.as_ref().is_none_or(|holder| holder.uid != uid || !holder.definite) {
                    return Err(format!(
                        "invariant 3: {name:?} was given to {uid:?} and is held by {holder:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn live_rows(store: &Memory) -> impl Iterator<Item = &Row> {
    store.rows().filter(|row| !row.tombstone)
}
