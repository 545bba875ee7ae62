//! One simulated run of a cluster, drawn entirely from a seed: fault phases, each followed by healing and a
//! check of everything.
//!
//! Every step has a generator of its own, so a run without some of its steps is otherwise the same run. This
//! makes shrinking of a failing seed possible.

mod check;
mod liar;
mod operator;

use std::collections::BTreeSet;

use fastrand::Rng;
use shoal_replica::{BlobHash, NameSpace, Uid, Write};

use crate::broken::Broken;
use crate::disk::Disk;
use crate::tally::Tally;
use crate::world::{Input, TxFate, World, claim, delete, put};

/// Steps of one fault phase, and additional steps per tracker.
const STEPS: u32 = 80;
const STEPS_PER_TRACKER: u32 = 35;
/// Virtual time within which a healed cluster must be in sync.
const HEALING_MS: u64 = 120_000;
/// Longer than tombstones are kept.
const DAY_MS: u64 = 25 * 3_600_000;
/// The largest error of a clock.
const SKEW_MS: i64 = 5 * 24 * 3_600_000;

/// Which run to execute.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunPlan {
    pub(crate) seed: u64,
    /// Steps that are left out.
    pub(crate) without: BTreeSet<u32>,
    pub(crate) trace: bool,
}

/// A violated rule.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) problem: String,
    /// The number of steps until then.
    pub(crate) steps: u32,
    pub(crate) trace: Vec<String>,
}

/// The main workload of a fault phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Workload {
    /// All kinds of writes and faults.
    Mixed,
    /// Claims to few names, on both sides of changing partitions.
    Names,
}

/// Executes the run of a seed.
pub(crate) fn run_seed<D: Disk>(plan: &RunPlan, broken: Broken) -> Result<Tally, Failure> {
    let mut run = SimRun::<D>::new(plan, broken);
    match run.execute() {
        Ok(()) => Ok(run.world.tally),
        Err(problem) => {
            Err(Failure { problem, steps: run.step, trace: run.world.trace.take().unwrap_or_default() })
        }
    }
}

pub(crate) struct SimRun<'a, D: Disk> {
    pub(crate) world: World<D>,
    pub(crate) plan: &'a RunPlan,
    /// Counts the steps of all fault phases.
    pub(crate) step: u32,
    backups: Vec<Option<D::Backup>>,
    may_lose_disks: bool,
    /// A disk was lost in this fault phase. One may be.
    disk_lost: bool,
    workload: Workload,
    counter: u64,
    last_claim: Option<Write>,
    /// Numbers the fault phases. Each has names of its own.
    pub(crate) phase: u8,
    /// A tracker's bit says on which side of the partition it is. Links exist within a side only.
    sides: u32,
}

impl<'a, D: Disk> SimRun<'a, D> {
    fn new(plan: &'a RunPlan, broken: Broken) -> Self {
        let mut rng = Rng::with_seed(plan.seed);
        let trackers = match rng.u8(..50) {
            0..18 => 2,
            18..38 => 3,
            38..44 => 4,
            44..47 => 5,
            47..49 => 6,
            _ => 7,
        };
        let mut world = World::new(trackers, plan.seed);
        world.broken = broken;
        world.encode = rng.u8(..16) == 0;
        world.repeats = if rng.u8(..4) == 0 { 40 } else { 0 };
        world.trace = plan.trace.then(Vec::new);
        let may_lose_disks = rng.bool();
        world.single_copies_count = !may_lose_disks;
        let mut run = Self {
            backups: vec![None; trackers],
            world,
            plan,
            step: 0,
            may_lose_disks,
            disk_lost: false,
            workload: Workload::Mixed,
            counter: 0,
            last_claim: None,
            phase: 0,
            sides: 0,
        };
        for node in 0..trackers {
            run.world.nodes[node].skew_ms = run.skew();
            run.world.start(node);
        }
        // Most trackers hold so little that any removal is a large one.
        run.world.bounds.small_rows = if rng.u8(..4) == 0 { 0 } else { 10 };
        let liar = rng.u8(..6) == 0 && broken == Broken::Nothing;
        if trackers > 2 && (broken.needs_a_liar() || liar) {
            run.add_liar();
        }
        run
    }

    fn execute(&mut self) -> Result<(), String> {
        if self.world.liar.is_some() {
            return self.run_with_liar();
        }
        for _ in 0..self.world.rng.u8(1..=3) {
            self.fault_phase()?;
            self.reseed(1 << 40);
            self.heal()?;
            match self.world.rng.u8(..8) {
                0 | 1 => self.let_a_day_pass()?,
                2 => self.grow()?,
                3 => self.go_alone()?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Starts a new generator, independent of what was drawn before.
    pub(crate) fn reseed(&mut self, salt: u64) {
        let place = salt ^ (u64::from(self.phase) << 32) ^ u64::from(self.step);
        self.world.rng = Rng::with_seed(self.plan.seed ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }

    fn skew(&mut self) -> i64 {
        match self.world.rng.u8(..12) {
            0 => 200_000,
            1 => -200_000,
            2 => {
                self.world.history.deletions_fade = true;
                self.world.rng.i64(-SKEW_MS..SKEW_MS)
            }
            _ => self.world.rng.i64(-3_000..3_000),
        }
    }

    fn fault_phase(&mut self) -> Result<(), String> {
        self.disk_lost = false;
        self.phase += 1;
        self.workload = if self.world.rng.u8(..3) == 0 { Workload::Names } else { Workload::Mixed };
        self.sides = 0;
        let steps = STEPS + STEPS_PER_TRACKER * u32::try_from(self.world.nodes.len()).unwrap();
        for _ in 0..steps {
            self.step += 1;
            if !self.plan.without.contains(&self.step) {
                self.reseed(0);
                self.fault_step()?;
            }
        }
        Ok(())
    }

    fn fault_step(&mut self) -> Result<(), String> {
        let leap = match self.world.rng.u8(..200) {
            0 => self.world.rng.u64(0..6_000),
            1..10 => self.world.rng.u64(0..1_200),
            _ => self.world.rng.u64(0..20),
        };
        self.world.now_ms += leap;
        self.world.tick_due()?;
        let partitions = if self.workload == Workload::Names { 30 } else { 12 };
        match self.world.rng.u16(..1_000) {
            0..680 => self.deliver_some()?,
            680..840 => self.client()?,
            840..900 => self.link(),
            900..940 => self.process(),
            940..950 => self.block(),
            950..955 => self.jump(),
            roll if roll >= 1_000 - partitions => self.partition(),
            _ => self.look()?,
        }
        self.check_alarms()
    }

    /// Delivers a few events to one tracker in one transaction.
    pub(crate) fn deliver_some(&mut self) -> Result<(), String> {
        let most = 4 + 2 * self.world.nodes.len();
        for _ in 0..self.world.rng.usize(1..most) {
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

    fn fate(&mut self) -> TxFate {
        match self.world.rng.u16(..600) {
            0 => TxFate::Rollback,
            1 => TxFate::CommitReportedFailed,
            2 => TxFate::Full,
            3 | 4 => TxFate::DieBefore,
            5 | 6 => TxFate::DieAfter(self.world.rng.usize(..6)),
            _ => TxFate::Commit,
        }
    }

    pub(crate) fn client(&mut self) -> Result<(), String> {
        let up = self.honest_up();
        let Some(&node) = self.world.rng.choice(&up) else { return Ok(()) };
        self.counter += 1;
        let names = if self.workload == Workload::Names { 7 } else { 3 };
        let writes = match self.world.rng.u8(..10) {
            roll if roll < names => self.creation(node).into_iter().collect(),
            7 => self.last_claim.clone().into_iter().collect(),
            3 | 4 => vec![delete(&self.key())],
            5 => vec![self.with_blob()],
            6 => (0..self.world.rng.u8(2..5)).map(|_| self.update()).collect(),
            _ => vec![self.update()],
        };
        if writes.is_empty() {
            return Ok(());
        }
        let fate = self.fate();
        self.world.transact(node, vec![Input::Write(writes)], fate)
    }

    /// A claim to a name that is free as far as this tracker knows. The client may retry it at another
    /// tracker.
    fn creation(&mut self, node: usize) -> Option<Write> {
        let (space, name) = self.name();
        let uid = Uid(self.world.rng.u128(..).to_le_bytes());
        let taken = self.world.holder(node, space, &name).is_some();
        let write = claim(space, &name, uid);
        self.last_claim = Some(write.clone());
        (!taken).then_some(write)
    }

    /// A name: the first two bytes are what it looks like, the third tells names apart that look alike.
    pub(crate) fn name(&mut self) -> (NameSpace, [u8; 3]) {
        let space = if self.world.rng.bool() { NameSpace::User } else { NameSpace::Group };
        (space, [self.phase, self.world.rng.u8(..3), self.world.rng.u8(..3)])
    }

    pub(crate) fn key(&mut self) -> Vec<u8> {
        vec![b'k', self.world.rng.u8(..12)]
    }

    fn update(&mut self) -> Write {
        let padding = if self.world.rng.u8(..24) == 0 { 30_000 } else { 0 };
        self.counter += 1;
        let value = [&self.counter.to_be_bytes()[..], &vec![0; padding]].concat();
        if padding > 0 {
            return put(&[b'p', self.world.rng.u8(..12)], &value);
        }
        put(&self.key(), &value)
    }

    fn with_blob(&mut self) -> Write {
        let length = if self.world.rng.u8(..12) == 0 { 150_000 } else { 100 };
        let mut content = vec![0; length];
        content[..8].copy_from_slice(&self.counter.to_be_bytes());
        Write { blobs: vec![(BlobHash::of(&content), content)], ..self.update() }
    }

    pub(crate) fn link(&mut self) {
        let (a, b) = self.pair();
        if self.world.rng.u8(..3) == 0 {
            self.world.note(|| format!("the link of trackers {} and {} is cut", a + 1, b + 1));
            self.world.cut(a, b);
            return;
        }
        // With many trackers several links come up at a time.
        for _ in 0..self.world.nodes.len() / 2 {
            let (a, b) = self.pair();
            if self.are_together(a, b) {
                self.world.connect(a, b);
            }
        }
    }

    fn are_together(&self, a: usize, b: usize) -> bool {
        (self.sides >> a) & 1 == (self.sides >> b) & 1
    }

    /// Changes the partition or ends it. A disk may be lost at the same time.
    fn partition(&mut self) {
        let count = self.world.nodes.len();
        self.sides = if self.world.rng.u8(..4) == 0 { 0 } else { self.world.rng.u32(..1 << count) };
        let sides = self.sides;
        self.world
            .note(|| format!("partition: {:?}", (0..count).map(|at| sides >> at & 1).collect::<Vec<_>>()));
        if self.workload == Workload::Names && self.world.rng.bool() {
            let node = self.world.rng.usize(..count);
            self.lose_disk(node);
            self.world.start(node);
        }
        for a in 0..count {
            for b in 0..a {
                if self.are_together(a, b) {
                    self.world.connect(a, b);
                } else {
                    self.world.cut(a, b);
                }
            }
        }
    }

    /// Blocks one direction of a link for a while.
    fn block(&mut self) {
        let (from, to) = self.pair();
        let ms = self.world.rng.u64(100..6_000);
        self.world.note(|| format!("nothing gets from tracker {} to {} for {ms} ms", from + 1, to + 1));
        let until_ms = self.world.now_ms + ms;
        self.world.network.block(from, to, until_ms);
    }

    /// Sets a wall clock.
    fn jump(&mut self) {
        let node = self.world.rng.usize(..self.world.nodes.len());
        let skew_ms = self.skew();
        self.world.note(|| format!("the clock of tracker {} is wrong by {skew_ms} ms now", node + 1));
        self.world.nodes[node].skew_ms = skew_ms;
    }

    fn pair(&mut self) -> (usize, usize) {
        let count = self.world.nodes.len();
        let a = self.world.rng.usize(..count);
        (a, (a + self.world.rng.usize(1..count)) % count)
    }

    /// Starts a tracker that is down; occasionally kills, wipes or restores one that is up.
    fn process(&mut self) {
        let node = self.world.rng.usize(..self.world.nodes.len());
        if !self.world.is_up(node) {
            self.world.start(node);
            return;
        }
        match self.world.rng.u8(..16) {
            0 | 1 => self.world.kill(node),
            2 | 3 if self.may_lose_disks => self.backups[node] = Some(self.world.nodes[node].store.backup()),
            4 | 5 => self.lose_disk(node),
            _ => {}
        }
    }

    /// Loses a disk, if one may be lost: the promise is that any one disk may.
    fn lose_disk(&mut self, node: usize) {
        if self.may_lose_disks && !self.disk_lost {
            self.disk_lost = true;
            let backup = self.backups[node].clone().filter(|_| self.world.rng.bool());
            self.world.history.deletions_fade |= self.world.tally.lost_disks > 0;
            self.world.lose_disk(node, backup.as_ref());
        } else if self.world.is_up(node) {
            self.world.kill(node);
        }
    }

    /// Everything works again: now the cluster has to come into sync.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        self.world.note(|| "everything heals".to_owned());
        self.world.network.unblock_all();
        let deadline = self.world.now_ms + HEALING_MS;
        while !self.is_in_sync() {
            if self.world.now_ms > deadline {
                return Err(format!("invariant 1: not in sync after healing: {}", self.describe()));
            }
            self.run_quietly()?;
        }
        let since = self.world.now_ms;
        while self.world.now_ms < since + 12_000 {
            self.run_quietly()?;
        }
        self.check()
    }

    /// Advances the clock with every tracker and link up.
    fn run_quietly(&mut self) -> Result<(), String> {
        self.world.start_all();
        self.world.connect_all();
        self.world.step()?;
        self.check_alarms()?;
        self.allow_removals();
        Ok(())
    }

    /// Tombstones reach their age and are dropped.
    fn let_a_day_pass(&mut self) -> Result<(), String> {
        self.world.now_ms += DAY_MS;
        let since = self.world.now_ms;
        while self.world.now_ms < since + 130_000 {
            self.run_quietly()?;
        }
        self.heal()
    }

    /// The operator adds one or two trackers, up to seven, and starts all of them with the new list.
    fn grow(&mut self) -> Result<(), String> {
        let count = self.world.rng.usize(1..3).min(7 - self.world.nodes.len());
        self.world.note(|| format!("{count} trackers more"));
        self.world.add(count);
        self.backups.resize(self.world.nodes.len(), None);
        for node in 0..self.world.nodes.len() {
            if self.world.is_up(node) {
                self.world.kill(node);
            }
        }
        self.heal()
    }

    /// Each tracker reads and writes while all others are away.
    fn go_alone(&mut self) -> Result<(), String> {
        for node in 0..self.world.nodes.len() {
            for other in 0..self.world.nodes.len() {
                self.world.cut(node, other);
            }
            self.world.deliver_all()?;
            let write = self.update();
            let (kind, key, value) = (write.kind, write.key.clone(), write.value.clone());
            self.world.transact(node, vec![Input::Write(vec![write])], TxFate::Commit)?;
            let it = &self.world.nodes[node];
            let held = it.store.get(kind, &key).unwrap();
            if held.is_none_or(|row| row.value != value) || !it.pending.is_empty() {
                return Err(format!("invariant 5: tracker {} does not work alone", node + 1));
            }
        }
        self.heal()
    }

    /// Checks at one tracker, during the faults, what must always hold.
    fn look(&mut self) -> Result<(), String> {
        let node = self.world.rng.usize(..self.world.nodes.len());
        let (space, name) = self.name();
        let world = &mut self.world;
        if let Some(holder) = world.holder(node, space, &name).filter(|holder| holder.definite) {
            world.history.created(space, &name, holder.uid)?;
        }
        world.check_waiting(node)?;
        let it = &world.nodes[node];
        let Some(replica) = &it.replica else { return Ok(()) };
        world.history.check_vector(&it.store, replica.vector())
    }
}
