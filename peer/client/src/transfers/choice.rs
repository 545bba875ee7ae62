//! Which of a file's holders a download uses. Each costs a connection, so their number is bounded. But the only fast holder,
//! or the only one with a piece, may be outside the bound. So where there are more holders than slots, some slots are for
//! trials in rotation, and a holder that delivers much more than the slowest of the others takes that one's slot. Pure.
//!
//! A source that ends frees its slot at once. Its holder is tried again for as long as the trackers name it, and also while
//! no tracker answers: after a pause that grows with each failure up to [`LONGEST_PAUSE`], and at once when the trackers
//! name it again or at another address. One that served and is not named any more is tried a few more times. Only a holder
//! that lied or broke the protocol is never tried again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use fastrand::Rng;
use shoal_common::PeerId;
use shoal_common::tracker_api::Holder;
use shoal_engine::{SHOWN_DROPPED, SourceId, SourceRow, back_off};
use tokio::time::Instant;

/// Most sources of one download: more connections would only cost.
pub(super) const MAX_SOURCES: usize = 64;
// However many break off at once, the engine reports each.
const _: () = assert!(MAX_SOURCES * 2 <= SHOWN_DROPPED);
/// Of those, slots for holders that were never tried: enough to try two hundred in half a minute.
const FIRST_TRIALS: usize = 8;
/// Slots for those that were tried and not kept. Few, because what a trial leaves unfinished is lost.
const LATER_TRIALS: usize = 2;
/// How long a trial lasts, counted from when the source could be asked. Doubled each time, up to [`MOST_DOUBLINGS`] times,
/// so that in the end even a slow source delivers a large piece.
const TRIAL: Duration = Duration::from_secs(2);
/// See [`TRIAL`].
const MOST_DOUBLINGS: u32 = 6;
/// How long a source on trial may take until it can be asked: connecting takes 5 s at most.
const CONNECTING: Duration = Duration::from_secs(6);
/// Pause between the starts of two tries after the first failure; doubled with each, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// A holder that answers again is in use within 5 s: this, and the time that connecting takes.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Between the end of a try and the next, however long the try took.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
/// A holder that served, and that the trackers do not name any more, is tried this many more times, within some 15 s: it may
/// be checking its copy.
const UNNAMED_TRIES: u32 = 8;
/// A source that was open for this long was no failure.
const STEADY: Duration = Duration::from_secs(5);
/// How long a source keeps its slot whatever it delivers: rates are averages over 3 s.
const PROBATION: Duration = Duration::from_secs(6);

/// The holders of one file, and which of them are in use.
#[derive(Debug, Default)]
pub(super) struct Choice {
    known: BTreeMap<PeerId, Known>,
    /// Caught by an earlier run of the same download.
    never: BTreeSet<PeerId>,
    ids: u64,
    /// Counts the times that a holder was put into use.
    uses: u64,
    rng: Rng,
}

#[derive(Debug)]
struct Known {
    id: SourceId,
    holder: Holder,
    slot: Slot,
    /// The trackers named it the last time that they were asked.
    listed: bool,
    banned: bool,
    /// Trials after which it was dropped.
    tries: u32,
    /// When it was last put into use.
    last_use: u64,
    /// Sources in a row that failed.
    failures: u32,
    /// It is not tried before this.
    again: Option<Instant>,
    /// Since when its source can be asked.
    open: Option<Instant>,
    /// Why its source, which is in use, may have to be replaced.
    doubt: Option<Doubt>,
    /// Tries that it still gets though the trackers do not name it any more.
    unnamed_tries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// The trackers stopped naming it, and then named it again: the connection to it may be dead without a sign.
    NamedAgain,
    /// It is at another address.
    Moved,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Out,
    Trial { since: Instant, open: Option<Instant> },
    Kept { since: Instant },
}

/// What is to be done with a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Use this holder under that id.
    Add(SourceId, Holder),
    /// Use it no longer.
    Remove(SourceId),
    /// Use this holder under that id in place of the source that is in use, whose connection may be dead.
    Replace(SourceId, Holder),
}

/// A holder whose source cannot be asked for pieces, or that has none.
#[derive(Debug)]
pub(super) struct Pending<'a> {
    /// The holder.
    pub(super) holder: &'a Holder,
    /// When it is tried again; `None` if it is being tried, or waits for a slot.
    pub(super) again: Option<Instant>,
}

impl Choice {
    /// These peers are never used.
    pub(super) fn never(&mut self, peers: impl IntoIterator<Item = PeerId>) {
        self.never.extend(peers);
    }

    /// The trackers named these holders: all that there are, or a random choice of very many.
    pub(super) fn offered(&mut self, holders: Vec<Holder>) {
        let before: BTreeSet<PeerId> =
            self.known.iter().filter(|(_, known)| known.listed).map(|(&peer, _)| peer).collect();
        self.known.values_mut().for_each(|known| known.listed = false);
        for holder in holders.into_iter().filter(|holder| !self.never.contains(&holder.peer)) {
            let named_before = before.contains(&holder.peer);
            let known = self.known.entry(holder.peer).or_insert_with(|| {
                let id = SourceId(self.ids);
                self.ids += 1;
                Known::new(id, holder.clone())
            });
            let moved = known.holder.address != holder.address;
            if moved || !named_before {
                (known.failures, known.again) = (0, None);
            }
            if moved && known.slot != Slot::Out {
                known.doubt = Some(Doubt::Moved);
            } else if !named_before && known.slot != Slot::Out {
                known.doubt = known.doubt.or(Some(Doubt::NamedAgain));
            }
            known.holder = holder;
            known.listed = true;
        }
        self.known.retain(|_, known| known.banned || known.is_usable());
    }

    /// A source can be asked for pieces now.
    pub(super) fn opened(&mut self, id: SourceId, now: Instant) {
        if let Some(known) = self.of(id) {
            known.open = Some(now);
            known.unnamed_tries = UNNAMED_TRIES;
        }
    }

    /// A source is over; true if it was in use. Its holder is tried again after a pause while the trackers name it.
    pub(super) fn gone(&mut self, id: SourceId, now: Instant) -> bool {
        let Some(known) = self.of(id) else { return false };
        let since = match known.slot {
            Slot::Out => return false,
            Slot::Trial { since, .. } | Slot::Kept { since } => since,
        };
        if known.open.is_some_and(|open| open + STEADY <= now) {
            known.failures = 0;
        }
        let pause = back_off(known.failures, FIRST_PAUSE, LONGEST_PAUSE);
        // A try that failed counts from its start: one that took long has been the pause itself.
        let from = if known.open.is_some() { now } else { since };
        known.again = Some((from + pause).max(now + SHORTEST_PAUSE));
        known.failures = known.failures.saturating_add(1);
        if !known.listed {
            known.unnamed_tries = known.unnamed_tries.saturating_sub(1);
        }
        known.leave();
        true
    }

    /// A source lied or broke the protocol: it is never used again. Its key and name, the first time.
    pub(super) fn banned(&mut self, id: SourceId) -> Option<(PeerId, String)> {
        let known = self.of(id)?;
        known.leave();
        (!std::mem::replace(&mut known.banned, true)).then(|| (known.holder.peer, known.label()))
    }

    /// Holders that wait for their next try are tried now: this machine was asleep, or has another ticket.
    pub(super) fn hurry(&mut self) {
        self.known.values_mut().for_each(|known| (known.failures, known.again) = (0, None));
    }

    /// Those that are in use but cannot be asked yet, and those that wait for their next try.
    pub(super) fn pending(&self) -> impl Iterator<Item = Pending<'_>> {
        let pending = self.known.values().filter(|known| known.is_usable() && known.open.is_none());
        pending.map(|known| Pending { holder: &known.holder, again: known.again })
    }

    /// What to do now, given what the sources deliver. `patient`: more sources would bring nothing.
    pub(super) fn next_steps(&mut self, rows: &[SourceRow], patient: bool, now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        let rates: HashMap<SourceId, &SourceRow> = rows.iter().map(|row| (row.id, row)).collect();
        self.replace_doubtful(&rates, now, &mut steps);
        if self.is_crowded() && !patient {
            self.clear_places_for_trials(&rates, now);
            self.end_trials(&rates, now, &mut steps);
        }
        while let Some(peer) = self.next(now) {
            let crowded = self.is_crowded();
            let Some(known) = self.known.get_mut(&peer) else { break };
            self.uses += 1;
            known.last_use = self.uses;
            known.again = None;
            known.slot =
                if crowded { Slot::Trial { since: now, open: None } } else { Slot::Kept { since: now } };
            steps.push(Step::Add(known.id, known.holder.clone()));
        }
        steps
    }

    /// Whether there are more holders than lasting slots. Those that failed the last time do not count: no holder that
    /// delivers gives up its slot for them.
    fn is_crowded(&self) -> bool {
        self.known.values().filter(|known| known.contends()).count() > MAX_SOURCES
            && self.kept() >= MAX_SOURCES - FIRST_TRIALS
    }

    fn kept(&self) -> usize {
        self.known.values().filter(|known| matches!(known.slot, Slot::Kept { .. })).count()
    }

    /// Replaces sources that are in use and may be dead without a sign. One that delivers is not dead, and one that was just
    /// put into use gets a chance first.
    fn replace_doubtful(
        &mut self,
        rows: &HashMap<SourceId, &SourceRow>,
        now: Instant,
        steps: &mut Vec<Step>,
    ) {
        let rate = rate_in(rows);
        for known in self.known.values_mut() {
            let (Some(doubt), Slot::Trial { since, .. } | Slot::Kept { since }) = (known.doubt, known.slot)
            else {
                continue;
            };
            if doubt == Doubt::NamedAgain && rate(known.id) > 0 {
                known.doubt = None;
            } else if doubt == Doubt::Moved || since + STEADY <= now {
                known.slot = match known.slot {
                    Slot::Trial { .. } => Slot::Trial { since: now, open: None },
                    Slot::Kept { .. } | Slot::Out => Slot::Kept { since: now },
                };
                (known.open, known.doubt) = (None, None);
                steps.push(Step::Replace(known.id, known.holder.clone()));
            }
        }
    }

    /// Which holder is put into use next, if there is a slot: those never tried first, then the one that waited longest.
    fn next(&mut self, now: Instant) -> Option<PeerId> {
        let in_use = self.known.values().filter(|known| known.slot != Slot::Out).count();
        let again = self.known.values().filter(|known| known.is_on_trial() && known.was_tried()).count();
        if in_use >= MAX_SOURCES {
            return None;
        }
        let crowded = self.is_crowded();
        let rng = &mut self.rng;
        // Connections to addresses that may be a third party's are made one at a time, and after all others.
        let guessing = self.known.values().any(|known| known.is_a_guess() && known.slot != Slot::Out);
        let waiting =
            self.known.iter().filter(|(_, known)| known.waits(now) && !(guessing && known.is_a_guess()));
        let allowed = waiting.filter(|(_, known)| !crowded || !known.was_tried() || again < LATER_TRIALS);
        let first = allowed
            .min_by_key(|(_, known)| (known.is_a_guess(), known.was_tried(), known.last_use, rng.u32(..)));
        first.map(|(&peer, _)| peer)
    }

    /// While there were few holders, all slots were given for good. Now the slowest go on trial.
    fn clear_places_for_trials(&mut self, rows: &HashMap<SourceId, &SourceRow>, now: Instant) {
        for _ in MAX_SOURCES - FIRST_TRIALS..self.kept() {
            let Some((_, slowest)) = self.slowest(&rate_in(rows), now) else { return };
            if let Some(known) = self.known.get_mut(&slowest) {
                known.slot = Slot::Trial { since: now, open: Some(now) };
            }
        }
    }

    /// Ends trials whose time is over.
    fn end_trials(&mut self, rows: &HashMap<SourceId, &SourceRow>, now: Instant, steps: &mut Vec<Step>) {
        let rate = rate_in(rows);
        let opens: Vec<SourceId> = rows.values().filter(|row| row.holds > 0).map(|row| row.id).collect();
        let mut over = Vec::new();
        for (&peer, known) in &mut self.known {
            let Slot::Trial { since, open } = &mut known.slot else { continue };
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
            // Nothing to compare with until another has had time to deliver.
            let Some((least, slowest)) = self.slowest(&rate, now) else { return };
            let leaves = if brings / 2 > least { slowest } else { peer };
            if leaves != peer
                && let Some(known) = self.known.get_mut(&peer)
            {
                known.slot = Slot::Kept { since: now };
            }
            if let Some(known) = self.known.get_mut(&leaves) {
                known.leave();
                known.tries += 1;
                steps.push(Step::Remove(known.id));
            }
        }
    }

    /// The holder that delivers least, of those that have a slot and had time to deliver.
    fn slowest(&self, rate: &impl Fn(SourceId) -> u64, now: Instant) -> Option<(u64, PeerId)> {
        let proven = self
            .known
            .iter()
            .filter(|(_, known)| matches!(known.slot, Slot::Kept { since } if since + PROBATION <= now));
        proven.map(|(&peer, known)| (rate(known.id), peer)).min()
    }

    fn of(&mut self, id: SourceId) -> Option<&mut Known> {
        self.known.values_mut().find(|known| known.id == id)
    }
}

/// The rate of a source; 0 if it is not known yet.
fn rate_in<'a>(rows: &'a HashMap<SourceId, &'a SourceRow>) -> impl Fn(SourceId) -> u64 + 'a {
    |id| rows.get(&id).map_or(0, |row| row.rate)
}

impl Known {
    fn new(id: SourceId, holder: Holder) -> Self {
        Self {
            id,
            holder,
            slot: Slot::Out,
            listed: false,
            banned: false,
            tries: 0,
            last_use: 0,
            failures: 0,
            again: None,
            open: None,
            doubt: None,
            unnamed_tries: 0,
        }
    }

    /// It is not in use any more.
    fn leave(&mut self) {
        (self.slot, self.open, self.doubt) = (Slot::Out, None, None);
    }

    /// Whether it may be put into use now.
    fn waits(&self, now: Instant) -> bool {
        self.is_usable() && self.slot == Slot::Out && self.again.is_none_or(|again| again <= now)
    }

    /// Whether it may not be at its address at all.
    fn is_a_guess(&self) -> bool {
        self.holder.is_unproven() && self.open.is_none()
    }

    fn was_tried(&self) -> bool {
        self.tries > 0 || self.failures > 0
    }

    fn is_usable(&self) -> bool {
        !self.banned && (self.listed || self.slot != Slot::Out || self.unnamed_tries > 0)
    }

    fn contends(&self) -> bool {
        self.is_usable() && (self.failures == 0 || self.open.is_some())
    }

    fn is_on_trial(&self) -> bool {
        matches!(self.slot, Slot::Trial { .. })
    }

    fn label(&self) -> String {
        format!("{} at {}", self.holder.user, self.holder.address)
    }
}

#[cfg(test)]
mod tests;
