//! Plans the repair of the encrypted store: which copies are missing, which node is to make them, and what may be deleted.
//!
//! Pure: records, reports and the time come in, orders go out. Every tracker has a planner. Only one orders copies. Each orders
//! deletions from its own view, and a node deletes what the majority of trackers ordered.

use std::collections::{HashMap, HashSet, VecDeque};

use shoal_common::storage::{PointerKey, StoreManifest};
use shoal_common::tracker_api::storage::{
    Health, MAX_ORDERS, NodeEntry, NodeReport, OwnedChunk, StoreStatus,
};
use shoal_common::{Blake3, NodeName, PeerId, Uid};

use super::files::{Copies, FileIx, Files, Home};
use super::nodes::{NodeIx, Planned, TrackedNode};

/// Chunks whose copies are counted again at a time. More wait for the next time, so that reports are not held up.
const RECOUNT: usize = 20_000;
/// Copies ordered at a time at most.
const MAX_PICKS: usize = 512;
/// Picks of one file that may fail in a row before another file is tried.
const MAX_MISSES: usize = 8;
/// Steps from a server to its successor at most.
const MAX_SUCCESSORS: usize = 16;
/// Chunks of one node that are remembered though no file names them: parts of files that are being put, and chunks to be
/// deleted. Some 30 MB of memory.
const NODE_UNNAMED: usize = 200_000;
/// The same of all nodes together: some 150 MB.
const ALL_UNNAMED: usize = 1_000_000;
/// A sweep that would delete more than this fraction of a node's chunks waits for an operator.
const SWEEP_SHARE: usize = 10;

/// The rules' figures.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// For how long a chunk must have been unneeded before it is deleted, in milliseconds.
    pub grace_ms: u64,
    /// For how long a server must have been silent before its copies are made again, in milliseconds.
    pub repair_after_ms: u64,
}

/// What this tracker may do now.
pub struct Permissions<'a> {
    /// Whether it is the tracker that orders copies.
    pub copies: bool,
    /// Why it may not order deletions, if so.
    pub held: Option<String>,
    /// Chunks unneeded since before this moment may be deleted even if they are many: an operator allowed it.
    pub allowed_ms: Option<u64>,
    /// Whether a PUT or GET of that user is under way.
    pub leased: &'a dyn Fn(Uid) -> bool,
}

/// The repair planner; see the module.
pub struct RepairPlanner {
    rules: Rules,
    nodes: Vec<TrackedNode>,
    by_peer: HashMap<PeerId, NodeIx>,
    files: Files,
    /// Files whose copies are to be counted again, in order and as a set, without the one that is being counted.
    recount: VecDeque<FileIx>,
    queued: HashSet<FileIx>,
    counting: Option<Home>,
    sessions: u64,
    ordering: bool,
    deletions_held: Option<String>,
    rng: fastrand::Rng,
}

impl RepairPlanner {
    /// A planner that knows nothing yet.
    #[must_use]
    pub fn new(rules: Rules, seed: u64) -> Self {
        Self {
            rules,
            nodes: Vec::new(),
            by_peer: HashMap::new(),
            files: Files::default(),
            recount: VecDeque::new(),
            queued: HashSet::new(),
            counting: None,
            sessions: 0,
            ordering: false,
            deletions_held: None,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Its rules.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.rules
    }

    /// Forgets all files, before all records are read again; what nodes reported stays.
    pub fn clear_files(&mut self) {
        self.files = Files::default();
        self.recount.clear();
        self.queued.clear();
        self.counting = None;
    }

    /// A node's record as it is now; `None` if it was taken out.
    pub fn set_node(&mut self, peer: PeerId, record: Option<(NodeName, String, Option<PeerId>)>, now: u64) {
        let ix = self.node_ix(peer);
        let successor = self.nodes[ix].successor;
        match record {
            Some(record) => self.nodes[ix].admit(record, now),
            None => self.nodes[ix].shut_out(),
        }
        if self.nodes[ix].successor != successor {
            self.recount_node(ix);
        }
    }

    /// Whether a version of a user's file is known, so that its manifest need not be read.
    #[must_use]
    pub fn knows(&self, owner: Uid, version: Blake3) -> bool {
        self.files.knows(owner, version)
    }

    /// What a pointer names now. `old`: it did so before this tracker started.
    pub fn point(
        &mut self,
        pointer: (Uid, PointerKey),
        version: Option<Blake3>,
        manifest: Option<StoreManifest>,
        old: bool,
        now: u64,
    ) {
        let manifest = manifest.map(|manifest| {
            let servers = manifest.servers.iter().map(|&peer| self.node_ix(peer)).collect();
            (manifest, servers)
        });
        let named = self.files.point(pointer, version, manifest, old);
        for key in named.unnamed {
            for node in &mut self.nodes {
                if node.chunks.contains(&key) {
                    node.unneeded.entry(key).or_insert(now);
                }
            }
        }
        if let Some(file) = named.new {
            self.queue_file(file);
            self.count_some(now);
        }
    }

    /// A node connected and proved its key. Returns a number for this connection; `None` for a node that was taken out.
    pub fn register(&mut self, peer: PeerId, now: u64) -> Option<u64> {
        let ix = self.is_known(peer).then(|| self.node_ix(peer))?;
        self.sessions += 1;
        self.nodes[ix].begin(self.sessions, now);
        self.update_liveness(ix, now);
        Some(self.sessions)
    }

    /// A node's connection broke.
    pub fn gone(&mut self, peer: PeerId, session: u64, now: u64) {
        let ix = self.node_ix(peer);
        self.nodes[ix].end(session);
        self.update_liveness(ix, now);
    }

    /// Applies a node's report. False if a newer connection of the node took this one's place, or if the node is to report
    /// everything again because there is room for chunks that were ignored.
    pub fn report(&mut self, peer: PeerId, session: u64, report: NodeReport, now: u64) -> bool {
        let ix = self.node_ix(peer);
        if !self.nodes[ix].is_current(session) {
            return false;
        }
        let elsewhere: usize =
            self.nodes.iter().map(TrackedNode::unnamed).sum::<usize>() - self.nodes[ix].unnamed();
        let budget = NODE_UNNAMED.min(ALL_UNNAMED.saturating_sub(elsewhere));
        let files = &self.files;
        let is_named = |key: &OwnedChunk| !files.homes(key).is_empty();
        let node = &mut self.nodes[ix];
        let was_cut = node.cut;
        let changed = node.report(report, now, budget, &is_named);
        if node.cut && !was_cut {
            let name = node.name.as_ref().map_or_else(String::new, ToString::to_string);
            let alarm = "ALARM: a storage node reports more chunks that no file names than are remembered";
            tracing::error!(node = %peer, name, budget, alarm);
        }
        self.update_liveness(ix, now);
        for key in changed.chunks {
            self.mark_unneeded(ix, key, now);
            self.count_chunk(&key, now);
        }
        if changed.all {
            let held: Vec<OwnedChunk> = self.nodes[ix].chunks.iter().copied().collect();
            held.into_iter().for_each(|key| self.mark_unneeded(ix, key, now));
            self.recount_node(ix);
            self.count_some(now);
        }
        !self.nodes[ix].has_room_again(budget)
    }

    /// A node's orders, for the answer to its report. Deletions that waited are checked once more.
    pub fn take_orders(&mut self, peer: PeerId, leased: &dyn Fn(Uid) -> bool, now: u64) -> Vec<Planned> {
        let ix = self.node_ix(peer);
        let mut orders = self.nodes[ix].take_orders(MAX_ORDERS);
        orders.retain(|order| match order {
            Planned::Copy { .. } => true,
            Planned::Delete { chunk } => {
                self.count_chunk(chunk, now);
                self.nodes[ix].unneeded.contains_key(chunk) && !leased(chunk.owner)
            }
        });
        orders
    }

    /// Lets time pass: finds silent nodes, orders copies and deletions. To be called a few times per second.
    pub fn tick(&mut self, permissions: &Permissions<'_>, now: u64) {
        for ix in 0..self.nodes.len() {
            self.update_liveness(ix, now);
            for key in self.nodes[ix].expire(now) {
                self.count_chunk(&key, now);
            }
        }
        self.count_some(now);
        if permissions.copies {
            self.ordering = true;
            self.order_copies(now);
        } else if std::mem::take(&mut self.ordering) {
            self.nodes.iter_mut().for_each(TrackedNode::drop_copies);
            (0..self.nodes.len()).for_each(|ix| self.recount_node(ix));
        }
        self.deletions_held = permissions.held.clone();
        if permissions.held.is_none() {
            self.sweep(permissions, now);
        } else {
            self.nodes.iter_mut().for_each(TrackedNode::drop_deletions);
        }
    }

    /// The nodes, by name.
    #[must_use]
    pub fn nodes(&self, now: u64) -> Vec<NodeEntry> {
        let mut nodes: Vec<NodeEntry> = self.nodes.iter().filter_map(|node| node.entry(now)).collect();
        nodes.sort_by(|one, other| (&one.name, one.peer).cmp(&(&other.name, other.peer)));
        nodes
    }

    /// Whether a node is connected here.
    #[must_use]
    pub fn is_up(&self, peer: PeerId) -> bool {
        self.by_peer.get(&peer).is_some_and(|&ix| self.nodes[ix].up)
    }

    /// Whether a node has a record: it is admitted.
    #[must_use]
    pub fn is_known(&self, peer: PeerId) -> bool {
        self.by_peer.get(&peer).is_some_and(|&ix| self.nodes[ix].name.is_some())
    }

    /// Whether a manifest names a node.
    #[must_use]
    pub fn is_named(&self, peer: PeerId) -> bool {
        self.by_peer.get(&peer).is_some_and(|&ix| !self.files.on(|server| server == ix).is_empty())
    }

    /// The state of a file's copies; `None` for a version that is not known.
    #[must_use]
    pub fn health(&self, owner: Uid, version: Blake3) -> Option<Health> {
        self.files.health(owner, version)
    }

    /// The store's status, without the tracker that gives orders and the caller's room.
    #[must_use]
    pub fn status(&self, now: u64) -> StoreStatus {
        let totals = self.files.totals();
        let sum = |of: fn(&TrackedNode) -> usize| self.nodes.iter().map(of).sum::<usize>() as u64;
        StoreStatus {
            nodes: self.nodes(now),
            files: self.files.count() as u64,
            chunks: totals.chunks,
            missing_copies: totals.missing_copies,
            lost_chunks: totals.lost_chunks,
            copying: sum(TrackedNode::under_way),
            unnamed: sum(|node| node.unneeded.len()),
            deletions_held: self.deletions_held.clone(),
            ..StoreStatus::default()
        }
    }

    fn node_ix(&mut self, peer: PeerId) -> NodeIx {
        if let Some(&ix) = self.by_peer.get(&peer) {
            return ix;
        }
        let ix = self.nodes.len();
        self.nodes.push(TrackedNode::of(peer));
        self.by_peer.insert(peer, ix);
        ix
    }

    /// The node that stands in a server's place now. No record puts one in the place of a server that is up.
    fn successor(&self, mut ix: NodeIx) -> NodeIx {
        for _ in 0..MAX_SUCCESSORS {
            if self.nodes[ix].up {
                break;
            }
            match self.nodes[ix].successor.and_then(|successor| self.by_peer.get(&successor)) {
                Some(&successor) if successor != ix => ix = successor,
                _ => break,
            }
        }
        ix
    }

    fn update_liveness(&mut self, ix: NodeIx, now: u64) {
        if self.nodes[ix].update_liveness(now, self.rules.repair_after_ms) {
            self.recount_node(ix);
        }
    }

    /// Queues the files that a node may hold chunks of, to be counted again.
    fn recount_node(&mut self, ix: NodeIx) {
        for file in self.files.on(|server| server == ix || self.successor(server) == ix) {
            self.queue_file(file);
        }
    }

    fn queue_file(&mut self, file: FileIx) {
        if self.queued.insert(file) {
            self.recount.push_back(file);
        }
    }

    fn count_some(&mut self, now: u64) {
        for _ in 0..RECOUNT {
            let next = self.counting.take().or_else(|| {
                let file = self.recount.pop_front()?;
                self.queued.remove(&file);
                Some((file, 0))
            });
            let Some((file, chunk)) = next else { return };
            let chunks = self.files.get(file).map_or(0, |found| found.chunks.len());
            if (chunk as usize) < chunks {
                self.count((file, chunk), now);
                self.counting = Some((file, chunk + 1));
            }
        }
    }

    fn count_chunk(&mut self, key: &OwnedChunk, now: u64) {
        for home in self.files.homes(key).to_vec() {
            self.count(home, now);
        }
    }

    /// The servers for a chunk in the order of preference, with successors in their places, each once.
    fn servers(&self, (file, chunk): Home) -> Vec<NodeIx> {
        let mut servers = Vec::new();
        let Some(file) = self.files.get(file) else { return servers };
        for server in file.placement(chunk).map(|server| self.successor(server)) {
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        servers
    }

    /// Counts the copies of a chunk, marks surplus ones, and notes whether one is to be made.
    fn count(&mut self, home: Home, now: u64) {
        let Some(file) = self.files.get(home.0) else { return };
        let (copies, old) = (file.copies, file.old);
        let (Some(key), Some(chunk)) = (file.key(home.1), file.chunks.get(home.1 as usize).copied()) else {
            return;
        };
        let only_home = self.files.homes(&key).len() == 1;
        let (mut live, mut kept, mut coming, mut place) = (0u8, 0u8, 0u8, false);
        for (rank, ix) in self.servers(home).into_iter().enumerate() {
            let node = &mut self.nodes[ix];
            // A server that has not reported since this tracker started may hold what the rule gave it. Of a newer file, it
            // is waited for: mostly it has just taken the place of a server that was lost, and is to be filled.
            let unheard = !node.reported && rank < usize::from(copies);
            let (supposed, awaited) = (unheard && old, unheard && !old && !node.lost);
            if !node.lost && (supposed || node.chunks.contains(&key)) {
                kept += 1;
            }
            if node.serves(&key) {
                live += 1;
                if live <= copies {
                    node.unneeded.remove(&key);
                } else if only_home {
                    node.unneeded.entry(key).or_insert(now);
                }
            } else if awaited || node.is_copying(&key) {
                coming += 1;
            } else if node.could_take(&key, chunk.sealed) {
                place = true;
            } else if node.up && !node.chunks.contains(&key) {
                node.was_full = true;
            }
        }
        let wanted = live > 0 && place && kept.saturating_add(coming) < copies;
        self.files.note(home, Copies { live, kept, wanted });
    }

    /// Marks a chunk on a node that no file asks it to hold.
    fn mark_unneeded(&mut self, ix: NodeIx, key: OwnedChunk, now: u64) {
        let asked = self.files.homes(&key).to_vec().into_iter().any(|home| self.servers(home).contains(&ix));
        let node = &mut self.nodes[ix];
        if !asked && node.chunks.contains(&key) {
            node.unneeded.entry(key).or_insert(now);
        }
    }

    /// Orders copies, of the chunk with the fewest live copies first.
    fn order_copies(&mut self, now: u64) {
        let mut picks = 0;
        let mut stuck = HashSet::new();
        while picks < MAX_PICKS && self.nodes.iter().any(TrackedNode::is_idle) {
            let Some(file) = self.files.wanting().find(|file| !stuck.contains(file)) else { return };
            let mut misses = 0;
            while misses < MAX_MISSES {
                picks += 1;
                let found = self.files.get(file);
                let Some(chunk) = found.and_then(|found| found.rarest(&mut self.rng)) else { break };
                if self.order_copy((file, chunk), now) {
                    // The next most urgent may be another file's.
                    break;
                }
                misses += 1;
            }
            if misses == MAX_MISSES {
                stuck.insert(file);
            }
        }
    }

    /// Orders one copy, if the server that is to hold it can take an order now.
    fn order_copy(&mut self, home: Home, now: u64) -> bool {
        let Some(file) = self.files.get(home.0) else { return false };
        let (Some(key), Some(chunk)) = (file.key(home.1), file.chunks.get(home.1 as usize).copied()) else {
            return false;
        };
        let servers = self.servers(home);
        let target = servers.iter().copied().find(|&ix| self.nodes[ix].could_take(&key, chunk.sealed));
        let holders: Vec<NodeIx> = servers.into_iter().filter(|&ix| self.nodes[ix].serves(&key)).collect();
        let (Some(target), false) = (target, holders.is_empty()) else {
            self.count(home, now);
            return false;
        };
        if !self.nodes[target].is_idle() {
            return false;
        }
        let source = &self.nodes[holders[self.rng.usize(..holders.len())]];
        let Some(from) = source.peer else { return false };
        let address = source.address.clone();
        self.nodes[target].order(Planned::Copy { chunk: key, sealed: chunk.sealed, from, address }, now);
        self.count(home, now);
        true
    }

    /// Orders the deletions that the rules allow.
    fn sweep(&mut self, permissions: &Permissions<'_>, now: u64) {
        let (grace, files) = (self.rules.grace_ms, &self.files);
        let kept = |owner: Uid| (permissions.leased)(owner) || files.has_opaque(owner);
        for node in &mut self.nodes {
            if !node.up || node.unneeded.is_empty() {
                continue;
            }
            let due: Vec<(OwnedChunk, u64)> = node
                .unneeded
                .iter()
                .map(|(key, since)| (*key, *since))
                .filter(|(key, since)| now.saturating_sub(*since) >= grace && !kept(key.owner))
                .collect();
            let asked = |since: u64| permissions.allowed_ms.is_none_or(|allowed| since > allowed);
            let many = due.iter().filter(|(_, since)| asked(*since)).count();
            if many * SWEEP_SHARE > node.chunks.len() {
                let name = node.name.as_ref().map_or_else(String::new, ToString::to_string);
                self.deletions_held = Some(format!(
                    "no stored file names {many} of {} chunks on {name}, more than a tenth; if that is right, type \
                     allow-deletions at a tracker's prompt",
                    node.chunks.len()
                ));
                continue;
            }
            // In the same order at every tracker: a node deletes what the majority orders within a short while.
            let mut due: Vec<OwnedChunk> = due.into_iter().map(|(key, _)| key).collect();
            due.sort_unstable();
            for key in due {
                if !node.takes_deletions() {
                    break;
                }
                if node.may_delete(&key) {
                    node.order(Planned::Delete { chunk: key }, now);
                }
            }
        }
    }
}
