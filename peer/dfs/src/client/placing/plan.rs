//! Which copy of which chunk is placed next, and where. Pure: randomness comes in as an argument.
//!
//! This is the selector of downloads turned round, as repair uses it: items are chunks, holders their copies, durable or on the
//! way. So the chunk with the fewest copies comes first. The choice is among the chunks in memory, because each is sealed once.
//! The placement rule names the server; where that one is full, slow or away, it is the next in order.

use std::collections::HashMap;

use fastrand::Rng;
use shoal_common::storage::placement;
use shoal_engine_core::selector::Selector;

/// The copies of one PUT.
#[derive(Debug)]
pub(super) struct Plan {
    selector: Selector,
    chunks: HashMap<u32, Chunk>,
    shift: u16,
    copies: usize,
    /// Which servers get no more for now.
    out: Vec<bool>,
}

/// A chunk in memory.
#[derive(Debug, Default)]
struct Chunk {
    durable: usize,
    /// Servers that have it on the way.
    asked: Vec<usize>,
    /// Servers that were given it, whatever they said.
    tried: Vec<usize>,
}

impl Plan {
    /// A plan for `chunks` chunks on that many servers.
    pub(super) fn new(chunks: u32, servers: usize, shift: u16, copies: usize) -> Self {
        let mut selector = Selector::new(chunks);
        (0..chunks).for_each(|chunk| selector.unwant(chunk));
        Self { selector, chunks: HashMap::new(), shift, copies, out: vec![false; servers] }
    }

    /// Copies of a chunk that must be durable before it counts.
    pub(super) fn needed(&self) -> usize {
        self.copies.min(2)
    }

    /// A chunk is in memory from now on.
    pub(super) fn add(&mut self, chunk: u32) {
        self.chunks.insert(chunk, Chunk::default());
        self.selector.want(chunk);
    }

    /// The next copy: a chunk of those with the fewest copies for which there is a server, and that server, which has it on the
    /// way from now on.
    pub(super) fn next(&mut self, rng: &mut Rng) -> Option<(u32, usize)> {
        let chunk = self.selector.rarest(None, |chunk| self.server_for(chunk).is_some(), rng)?;
        let server = self.server_for(chunk)?;
        let entry = self.chunks.get_mut(&chunk)?;
        entry.asked.push(server);
        entry.tried.push(server);
        self.count(chunk);
        Some((chunk, server))
    }

    /// A server said that its copy is durable; it gets more from now on.
    pub(super) fn durable(&mut self, chunk: u32, server: usize) {
        if let Some(entry) = self.chunks.get_mut(&chunk) {
            entry.asked.retain(|&asked| asked != server);
            entry.durable += 1;
        }
        self.set_out(server, false);
    }

    /// A server did not take a chunk; it gets no more for now.
    pub(super) fn refused(&mut self, chunk: u32, server: usize) {
        if let Some(entry) = self.chunks.get_mut(&chunk) {
            entry.asked.retain(|&asked| asked != server);
        }
        self.set_out(server, true);
    }

    /// A server gets no more for now, or does again.
    pub(super) fn set_out(&mut self, server: usize, out: bool) {
        self.out[server] = out;
        let chunks: Vec<u32> = self.chunks.keys().copied().collect();
        chunks.into_iter().for_each(|chunk| self.count(chunk));
    }

    /// Whether a server gets no more for now.
    pub(super) fn is_out(&self, server: usize) -> bool {
        self.out[server]
    }

    /// The durable copies of a chunk that is placed: it has all its copies, or enough and none that can be hoped for.
    pub(super) fn placed(&self, chunk: u32) -> Option<usize> {
        let entry = self.chunks.get(&chunk)?;
        let rest = self.hopeful(entry) > 0 || self.server_for(chunk).is_some();
        (entry.durable >= self.copies || entry.durable >= self.needed() && !rest).then_some(entry.durable)
    }

    /// Whether a chunk has too few copies, and nothing is on the way and no server is left to try.
    pub(super) fn is_hopeless(&self, chunk: u32) -> bool {
        let none = self.chunks.get(&chunk).is_some_and(|entry| entry.asked.is_empty());
        none && self.placed(chunk).is_none() && self.server_for(chunk).is_none()
    }

    /// A chunk is in memory no longer.
    pub(super) fn remove(&mut self, chunk: u32) {
        self.chunks.remove(&chunk);
        self.selector.unwant(chunk);
    }

    /// The server for the next copy of a chunk, if it lacks one. Servers that are out come last, and only while the chunk does not
    /// have the copies that it needs: they may be back, and there may be no others.
    fn server_for(&self, chunk: u32) -> Option<usize> {
        let entry = self.chunks.get(&chunk)?;
        let enough = entry.durable >= self.needed();
        if entry.durable + self.hopeful(entry) >= self.copies
            || enough && entry.durable + entry.asked.len() >= self.copies
        {
            return None;
        }
        let order =
            || placement(chunk, self.shift, self.out.len()).filter(|server| !entry.tried.contains(server));
        let good = order().find(|&server| !self.out[server]);
        good.or_else(|| order().next().filter(|_| !enough))
    }

    /// Copies on the way that can be counted on.
    fn hopeful(&self, entry: &Chunk) -> usize {
        entry.asked.iter().filter(|&&server| !self.out[server]).count()
    }

    /// Has the selector count the chunk's copies.
    fn count(&mut self, chunk: u32) {
        let Some(entry) = self.chunks.get(&chunk) else { return };
        let copies = u32::try_from(entry.durable + self.hopeful(entry)).unwrap_or(u32::MAX);
        let counted = self.selector.holders(chunk);
        (counted..copies).for_each(|_| self.selector.gain(chunk));
        (copies..counted).for_each(|_| self.selector.lose(chunk));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    /// The plain definition: what each chunk has, and nothing remembered but that.
    #[derive(Default, Clone)]
    struct Naive {
        durable: usize,
        asked: Vec<usize>,
        tried: Vec<usize>,
    }

    fn server(naive: &Naive, chunk: u32, shift: u16, copies: usize, out: &[bool]) -> Option<usize> {
        let (hoped, needed) = (naive.asked.iter().filter(|&&server| !out[server]).count(), copies.min(2));
        let wants = naive.durable + hoped < copies
            && (naive.durable < needed || naive.durable + naive.asked.len() < copies);
        let m = out.len();
        let order = (0..m).map(|k| (chunk as usize + usize::from(shift) + m * m - k) % m);
        let untried: Vec<usize> = order.filter(|server| !naive.tried.contains(server)).collect();
        let good = untried.iter().copied().find(|&server| !out[server]);
        good.or(untried.first().copied().filter(|_| naive.durable < needed)).filter(|_| wants)
    }

    proptest! {
        #[test]
        fn the_least_safe_chunk_comes_first_and_the_rule_says_where(
            (chunks, servers, copies, shift) in (1u32..9, 1usize..7, 1usize..5, any::<u16>()),
            steps in proptest::collection::vec((0u8..6, any::<u32>()), 0..120),
            seed in any::<u64>(),
        ) {
            let (copies, shift) = (copies.min(servers), shift % u16::try_from(servers).unwrap());
            let mut rng = Rng::with_seed(seed);
            let mut plan = Plan::new(chunks, servers, shift, copies);
            let mut naive: HashMap<u32, Naive> = HashMap::new();
            let mut out = vec![false; servers];
            for (step, pick) in steps {
                let on_way: Vec<(u32, usize)> = {
                    let mut all: Vec<_> = naive.iter().flat_map(|(&c, n)| n.asked.iter().map(move |&s| (c, s))).collect();
                    all.sort_unstable();
                    all
                };
                let answered = (!on_way.is_empty()).then(|| on_way[pick as usize % on_way.len().max(1)]);
                match (step, answered) {
                    (0, _) => {
                        let chunk = pick % chunks;
                        naive.entry(chunk).or_insert_with(|| {
                            plan.add(chunk);
                            Naive::default()
                        });
                    }
                    (1, Some((chunk, server))) => {
                        plan.durable(chunk, server);
                        let entry = naive.get_mut(&chunk).unwrap();
                        entry.asked.retain(|&asked| asked != server);
                        entry.durable += 1;
                        out[server] = false;
                    }
                    (2, Some((chunk, server))) => {
                        plan.refused(chunk, server);
                        naive.get_mut(&chunk).unwrap().asked.retain(|&asked| asked != server);
                        out[server] = true;
                    }
                    (3, Some((_, server))) => {
                        plan.set_out(server, true);
                        out[server] = true;
                    }
                    _ => {
                        let copies_of = |chunk: u32| {
                            let entry = &naive[&chunk];
                            entry.durable + entry.asked.iter().filter(|&&server| !out[server]).count()
                        };
                        let open = || naive.keys().copied().filter(|chunk| server(&naive[chunk], *chunk, shift, copies, &out).is_some());
                        let fewest = open().map(copies_of).min();
                        let next = plan.next(&mut rng);
                        prop_assert_eq!(next.map(|(chunk, _)| copies_of(chunk)), fewest);
                        if let Some((chunk, to)) = next {
                            prop_assert_eq!(Some(to), server(&naive[&chunk], chunk, shift, copies, &out));
                            let entry = naive.get_mut(&chunk).unwrap();
                            entry.asked.push(to);
                            entry.tried.push(to);
                        }
                    }
                }
                for (&chunk, entry) in &naive {
                    if let Some(durable) = plan.placed(chunk) {
                        prop_assert!(durable == entry.durable && durable >= copies.min(2));
                        prop_assert!(!plan.is_hopeless(chunk));
                    }
                }
            }
        }
    }

    #[test]
    fn first_copies_of_all_chunks_in_memory_come_before_second_ones() {
        let mut plan = Plan::new(4, 4, 1, 2);
        (0..4).for_each(|chunk| plan.add(chunk));
        let mut rng = Rng::with_seed(1);
        let order: Vec<(u32, usize)> = std::iter::from_fn(|| plan.next(&mut rng)).collect();
        let mut first: Vec<u32> = order[..4].iter().map(|(chunk, _)| *chunk).collect();
        first.sort_unstable();
        assert_eq!((order.len(), first), (8, vec![0, 1, 2, 3]));
        let mut of_two: Vec<usize> =
            order.iter().filter(|(chunk, _)| *chunk == 2).map(|(_, server)| *server).collect();
        assert_eq!(of_two, [3, 2], "the rule: (c + H − k) mod m");
        plan.refused(2, of_two.remove(0));
        // Chunk 3 had its second copy on the way to the server that is out now, so it lacks one too.
        let mut again: Vec<(u32, usize)> = std::iter::from_fn(|| plan.next(&mut rng)).collect();
        again.sort_unstable();
        assert_eq!(again, [(2, 1), (3, 2)], "the next in order");
        plan.durable(2, 2);
        plan.durable(2, 1);
        assert_eq!(plan.placed(2), Some(2));
    }
}
