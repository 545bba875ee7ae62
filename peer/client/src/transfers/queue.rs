//! Which downloads run at the same time, and which wait for their turn. Pure: events go in, and who has to begin or to end
//! comes out.
//!
//! - *Active* downloads hold a place. There are no more than the user's bound, and than the limit of open files allows.
//! - A download that has had no source to fetch from for a while is *stalled*. It runs on, so that it notices a sharer, but
//!   holds no place: it must not keep others waiting. How fast a download is does not count, or a slow network would start
//!   them all.
//! - The others *wait*, the most urgent first, then by position. A more urgent one takes the place of a less urgent one
//!   that runs. Among equals nobody is sent back: that would cost and win nothing.
//! - A stalled one that can fetch again takes a free place, or waits at its old position. Each return makes it more patient
//!   before it counts as stalled again, so that a sharer that comes and goes does not make downloads change places all the time.
//! - Where even the stalled ones are more than files may be open, they take turns: who was *tried* in vain is tried again
//!   after all others. For a fresh one that could be active a stalled one goes at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::priority::Rank;

/// How long a download has nothing to fetch from until it counts as stalled: longer than a sharer needs to be found and
/// reached.
const PATIENCE: Duration = Duration::from_secs(5);
/// The patience doubles with each return, this often at most: to 80 s.
const MOST_RETURNS: u32 = 4;
/// Who was active for this long is as patient as a new one again.
const CALM: Duration = Duration::from_secs(600);

/// Where a download stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It waits. `tried`: when it ran last without a source, as a number that grows.
    Waits { tried: Option<u64> },
    /// It runs, and holds a place.
    Active { since: Instant },
    /// It runs and has no source. `since` is a number that grows; `proven`: it was given its time.
    Stalled { since: u64, proven: bool },
}

struct Entry {
    rank: Rank,
    standing: Standing,
    /// Whether its owner was told to run.
    told: bool,
    /// How often it came back after it had stalled.
    returns: u32,
}

/// See the module. `K` identifies a run of a download.
pub(super) struct Queue<K> {
    /// The user's bound.
    bound: Option<usize>,
    /// As many as may have files open.
    most: usize,
    entries: BTreeMap<K, Entry>,
    fresh: BTreeSet<(Rank, K)>,
    tried: BTreeMap<u64, K>,
    active: BTreeSet<(Rank, K)>,
    proven: BTreeMap<u64, K>,
    unproven: BTreeMap<u64, K>,
    /// Counts what stalled or was tried.
    count: u64,
    /// Whose standing may have changed since the last decision.
    touched: Vec<K>,
}

/// Who has to begin (true) or to end (false).
pub(super) type Changes<K> = Vec<(K, bool)>;

impl<K: Copy + Ord> Queue<K> {
    /// An empty queue. At most `most` run, and at most `bound` of them with a source.
    pub(super) fn new(most: usize, bound: Option<usize>) -> Self {
        Self {
            bound,
            most: most.max(1),
            entries: BTreeMap::new(),
            fresh: BTreeSet::new(),
            tried: BTreeMap::new(),
            active: BTreeSet::new(),
            proven: BTreeMap::new(),
            unproven: BTreeMap::new(),
            count: 0,
            touched: Vec::new(),
        }
    }

    /// How many may be active at the same time.
    pub(super) fn places(&self) -> usize {
        self.bound.unwrap_or(usize::MAX).clamp(1, self.most)
    }

    /// Whether files that may be open bind before the user's bound does.
    pub(super) fn is_bound_by_files(&self) -> bool {
        self.bound.is_none_or(|bound| bound > self.most)
    }

    /// Those that wait, the next one first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = K> {
        self.fresh.iter().map(|&(_, key)| key).chain(self.tried.values().copied())
    }

    /// Downloads that want to run from now on. All at once, so that the order in which they are named means nothing.
    pub(super) fn enter(
        &mut self,
        entering: impl IntoIterator<Item = (K, Rank)>,
        now: Instant,
    ) -> Changes<K> {
        for (key, rank) in entering {
            self.remove(key);
            let standing = Standing::Waits { tried: None };
            self.entries.insert(key, Entry { rank, standing, told: false, returns: 0 });
            self.file(key, true);
        }
        self.decide(now)
    }

    /// A download does not want to run any more: paused, ended, cancelled, or in want of something else than a sharer.
    pub(super) fn leave(&mut self, key: K, now: Instant) -> Changes<K> {
        self.remove(key);
        self.decide(now)
    }

    /// A download that runs has had nothing to fetch from for this long.
    pub(super) fn idles(&mut self, key: K, idle: Duration, now: Instant) -> Changes<K> {
        let Some(entry) = self.entries.get_mut(&key) else { return Vec::new() };
        if let Standing::Active { since } = entry.standing
            && now.saturating_duration_since(since) >= CALM + idle
        {
            entry.returns = 0;
        }
        if idle < PATIENCE * 2u32.pow(entry.returns) {
            return Vec::new();
        }
        match entry.standing {
            Standing::Active { .. } => {
                let since = self.next();
                self.stand(key, Standing::Stalled { since, proven: true });
            }
            Standing::Stalled { since, proven: false } => {
                self.stand(key, Standing::Stalled { since, proven: true });
            }
            Standing::Stalled { .. } | Standing::Waits { .. } => return Vec::new(),
        }
        self.decide(now)
    }

    /// A download that runs can fetch: a sharer is back.
    pub(super) fn moves(&mut self, key: K, now: Instant) -> Changes<K> {
        let Some(entry) = self.entries.get_mut(&key) else { return Vec::new() };
        if !matches!(entry.standing, Standing::Stalled { .. }) {
            return Vec::new();
        }
        entry.returns = (entry.returns + 1).min(MOST_RETURNS);
        self.stand(key, Standing::Waits { tried: None });
        self.decide(now)
    }

    /// Its user gave a download another rank.
    pub(super) fn set_rank(&mut self, key: K, rank: Rank, now: Instant) -> Changes<K> {
        if !self.entries.contains_key(&key) {
            return Vec::new();
        }
        self.file(key, false);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.rank = rank;
            // It is to be tried at its new place.
            if let Standing::Waits { tried } = &mut entry.standing {
                *tried = None;
            }
        }
        self.file(key, true);
        self.decide(now)
    }

    /// The user set another bound.
    pub(super) fn set_bound(&mut self, bound: Option<usize>, now: Instant) -> Changes<K> {
        self.bound = bound;
        self.decide(now)
    }

    fn decide(&mut self, now: Instant) -> Changes<K> {
        while self.active.len() > self.places()
            && let Some(&(_, last)) = self.active.last()
        {
            self.stand(last, Standing::Waits { tried: None });
        }
        self.fill(now);
        self.prefer(now);
        self.try_again();
        let mut changes = Vec::new();
        for key in std::mem::take(&mut self.touched) {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            let runs = !matches!(entry.standing, Standing::Waits { .. });
            if entry.told != runs {
                entry.told = runs;
                changes.push((key, runs));
            }
        }
        changes
    }

    /// Gives free places to those that wait.
    fn fill(&mut self, now: Instant) {
        while self.active.len() < self.places() {
            let Some(&(_, next)) = self.fresh.first() else { return };
            if self.running() >= self.most {
                // Fewer are active than may run, so one is stalled.
                let stalled = self.proven.first_key_value().or_else(|| self.unproven.first_key_value());
                let Some((_, &stalled)) = stalled else { return };
                self.send_back(stalled);
            }
            self.stand(next, Standing::Active { since: now });
        }
    }

    /// Gives places of the least urgent to the most urgent that wait.
    fn prefer(&mut self, now: Instant) {
        while let (Some(&(first, next)), Some(&(worst, last))) = (self.fresh.first(), self.active.last()) {
            if first.priority >= worst.priority {
                return;
            }
            self.stand(last, Standing::Waits { tried: None });
            self.stand(next, Standing::Active { since: now });
        }
    }

    /// Lets those that were tried in vain look for sources again, in turn.
    fn try_again(&mut self) {
        for _ in 0..self.tried.len() {
            let Some((_, &next)) = self.tried.first_key_value() else { return };
            if self.running() >= self.most {
                let Some((_, &stalled)) = self.proven.first_key_value() else { return };
                self.send_back(stalled);
            }
            let since = self.next();
            self.stand(next, Standing::Stalled { since, proven: false });
        }
    }

    /// A stalled one waits until all others were tried.
    fn send_back(&mut self, stalled: K) {
        let tried = Some(self.next());
        self.stand(stalled, Standing::Waits { tried });
    }

    fn running(&self) -> usize {
        self.active.len() + self.proven.len() + self.unproven.len()
    }

    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn remove(&mut self, key: K) {
        self.file(key, false);
        self.entries.remove(&key);
    }

    fn stand(&mut self, key: K, standing: Standing) {
        self.file(key, false);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.standing = standing;
            self.touched.push(key);
        }
        self.file(key, true);
    }

    /// Keeps the lists in step with the entries: puts a download into that of its standing, or takes it out.
    fn file(&mut self, key: K, in_it: bool) {
        let Some(Entry { rank, standing, .. }) = self.entries.get(&key) else { return };
        let put =
            |list: &mut BTreeMap<u64, K>, at| if in_it { list.insert(at, key) } else { list.remove(&at) };
        match *standing {
            Standing::Waits { tried: Some(at) } => drop(put(&mut self.tried, at)),
            Standing::Stalled { since, proven: true } => drop(put(&mut self.proven, since)),
            Standing::Stalled { since, proven: false } => drop(put(&mut self.unproven, since)),
            Standing::Waits { tried: None } | Standing::Active { .. } => {
                let active = matches!(standing, Standing::Active { .. });
                let list = if active { &mut self.active } else { &mut self.fresh };
                let _ = if in_it { list.insert((*rank, key)) } else { list.remove(&(*rank, key)) };
            }
        }
    }
}

#[cfg(test)]
mod tests;
