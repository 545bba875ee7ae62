//! Which of a file's holders a download uses. Each costs a connection, so there is a bound; but behind it may stand the
//! only fast one, or the only one that holds a piece. So where there are more holders than places, some places are for
//! trials, in turn, and whoever delivers much more than the slowest of the others takes that one's place. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use fastrand::Rng;
use shoal_common::PeerId;
use shoal_common::tracker_api::Holder;
use shoal_engine::{SHOWN_DROPPED, SourceId, SourceRow};
use tokio::time::Instant;

/// Sources of one download at most: more connections than that only cost.
pub(super) const MAX_SOURCES: usize = 64;
// However many break off at once, the engine tells of each.
const _: () = assert!(MAX_SOURCES * 2 <= SHOWN_DROPPED);
/// Of those, places for holders that were never tried: all of two hundred have been after half a minute.
const FIRST_TRIALS: usize = 8;
/// Places for those that were tried and not kept. Few, because what a trial leaves unfinished is lost.
const LATER_TRIALS: usize = 2;
/// How long a trial lasts, counted from when the source could be asked; twice as long each time, up to
/// [`MOST_DOUBLINGS`], so that in the end even a large piece comes from a slow source.
const TRIAL: Duration = Duration::from_secs(2);
/// See [`TRIAL`].
const MOST_DOUBLINGS: u32 = 6;
/// How long a source on trial may take until it can be asked: connecting takes 5 s at most.
const CONNECTING: Duration = Duration::from_secs(6);
/// How long a source keeps its place whatever it delivers: rates are taken over 3 s.
const SETTLING: Duration = Duration::from_secs(6);

/// The holders of one file, and which of them are in use.
#[derive(Debug, Default)]
pub(super) struct Choice {
    known: BTreeMap<PeerId, Known>,
    ids: u64,
    /// Counts the times that somebody was put into use.
    turns: u64,
    rng: Rng,
}

#[derive(Debug)]
struct Known {
    id: SourceId,
    holder: Holder,
    place: Place,
    /// The trackers named it since it was last given up.
    listed: bool,
    banned: bool,
    tries: u32,
    /// When it was last put into use.
    turn: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Out,
    Trial { since: Instant, open: Option<Instant> },
    Seat { since: Instant },
}

/// What is to be done with a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Use this holder under that id.
    Add(SourceId, Holder),
    /// Use it no longer.
    Remove(SourceId),
}

impl Choice {
    /// The trackers named these holders: all that there are, or a random choice of very many.
    pub(super) fn offered(&mut self, holders: Vec<Holder>) {
        self.known.values_mut().for_each(|known| known.listed = false);
        for holder in holders {
            let known = self.known.entry(holder.peer).or_insert_with(|| {
                let id = SourceId(self.ids);
                self.ids += 1;
                let (place, holder) = (Place::Out, holder.clone());
                Known { id, holder, place, listed: false, banned: false, tries: 0, turn: 0 }
            });
            known.holder = holder;
            known.listed = true;
        }
        self.known.retain(|_, known| known.banned || known.is_usable());
    }

    /// A source was given up; true if it was in use. It is used again once the trackers name it again.
    pub(super) fn gone(&mut self, id: SourceId) -> bool {
        let Some(known) = self.of(id) else { return false };
        known.listed = false;
        std::mem::replace(&mut known.place, Place::Out) != Place::Out
    }

    /// A source lied: it is never used again. Its name, the first time.
    pub(super) fn banned(&mut self, id: SourceId) -> Option<String> {
        self.gone(id);
        let known = self.of(id)?;
        (!std::mem::replace(&mut known.banned, true)).then(|| known.label())
    }

    /// What to do now, given what the sources deliver. `patient`: more sources would bring nothing.
    pub(super) fn turn(&mut self, rows: &[SourceRow], patient: bool, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.is_crowded() && !patient {
            let rates: HashMap<SourceId, &SourceRow> = rows.iter().map(|row| (row.id, row)).collect();
            self.clear_places_for_trials(&rates, now);
            self.judge(&rates, now, &mut steps);
        }
        while let Some(peer) = self.next() {
            let crowded = self.is_crowded();
            let Some(known) = self.known.get_mut(&peer) else { break };
            self.turns += 1;
            known.turn = self.turns;
            known.place =
                if crowded { Place::Trial { since: now, open: None } } else { Place::Seat { since: now } };
            steps.push(Step::Add(known.id, known.holder.clone()));
        }
        steps
    }

    /// Whether there are more holders than places that last.
    fn is_crowded(&self) -> bool {
        self.known.values().filter(|known| known.is_usable()).count() > MAX_SOURCES
            && self.seats() >= MAX_SOURCES - FIRST_TRIALS
    }

    fn seats(&self) -> usize {
        self.known.values().filter(|known| matches!(known.place, Place::Seat { .. })).count()
    }

    /// Who is put into use next, if there is a place: those never tried first, then who waited longest.
    fn next(&mut self) -> Option<PeerId> {
        let in_use = self.known.values().filter(|known| known.place != Place::Out).count();
        let again = self.known.values().filter(|known| known.is_on_trial() && known.tries > 0).count();
        if in_use >= MAX_SOURCES {
            return None;
        }
        let crowded = self.is_crowded();
        let rng = &mut self.rng;
        let waiting = self.known.iter().filter(|(_, known)| known.is_usable() && known.place == Place::Out);
        let allowed = waiting.filter(|(_, known)| !crowded || known.tries == 0 || again < LATER_TRIALS);
        let first = allowed.min_by_key(|(_, known)| (known.tries > 0, known.turn, rng.u32(..)));
        first.map(|(&peer, _)| peer)
    }

    /// While there were few holders all places were given for good: the slowest have to prove themselves now.
    fn clear_places_for_trials(&mut self, rows: &HashMap<SourceId, &SourceRow>, now: Instant) {
        for _ in MAX_SOURCES - FIRST_TRIALS..self.seats() {
            let Some((_, slowest)) = self.slowest(&rate_in(rows), now) else { return };
            if let Some(known) = self.known.get_mut(&slowest) {
                known.place = Place::Trial { since: now, open: Some(now) };
            }
        }
    }

    /// Ends trials whose time is over.
    fn judge(&mut self, rows: &HashMap<SourceId, &SourceRow>, now: Instant, steps: &mut Vec<Step>) {
        let rate = rate_in(rows);
        let opens: Vec<SourceId> = rows.values().filter(|row| row.holds > 0).map(|row| row.id).collect();
        let mut over = Vec::new();
        for (&peer, known) in &mut self.known {
            let Place::Trial { since, open } = &mut known.place else { continue };
            if open.is_none() && opens.contains(&known.id) {
                *open = Some(now);
            }
            let length = TRIAL * (1 << known.tries.min(MOST_DOUBLINGS));
            if open.map_or(*since + CONNECTING, |open| open + length) <= now {
                over.push((Reverse(rate(known.id)), peer));
            }
        }
        over.sort_unstable();
        for (Reverse(brings), peer) in over {
            // Before somebody else had the time to show what it can, there is nothing to compare with.
            let Some((least, slowest)) = self.slowest(&rate, now) else { return };
            let leaves = if brings / 2 > least { slowest } else { peer };
            if leaves != peer
                && let Some(known) = self.known.get_mut(&peer)
            {
                known.place = Place::Seat { since: now };
            }
            if let Some(known) = self.known.get_mut(&leaves) {
                known.place = Place::Out;
                known.tries += 1;
                steps.push(Step::Remove(known.id));
            }
        }
    }

    /// Of those that have a place and had time to show what they can, who delivers least.
    fn slowest(&self, rate: &impl Fn(SourceId) -> u64, now: Instant) -> Option<(u64, PeerId)> {
        let settled = self
            .known
            .iter()
            .filter(|(_, known)| matches!(known.place, Place::Seat { since } if since + SETTLING <= now));
        settled.map(|(&peer, known)| (rate(known.id), peer)).min()
    }

    fn of(&mut self, id: SourceId) -> Option<&mut Known> {
        self.known.values_mut().find(|known| known.id == id)
    }
}

/// What a source delivers: nothing, if it is not known yet.
fn rate_in<'a>(rows: &'a HashMap<SourceId, &'a SourceRow>) -> impl Fn(SourceId) -> u64 + 'a {
    |id| rows.get(&id).map_or(0, |row| row.rate)
}

impl Known {
    fn is_usable(&self) -> bool {
        !self.banned && (self.listed || self.place != Place::Out)
    }

    fn is_on_trial(&self) -> bool {
        matches!(self.place, Place::Trial { .. })
    }

    fn label(&self) -> String {
        format!("{} at {}", self.holder.user, self.holder.address)
    }
}

#[cfg(test)]
mod tests;
