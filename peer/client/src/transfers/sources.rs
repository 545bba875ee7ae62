//! The holders of one file as sources of its download: puts them into use as [`super::choice`] decides, watches the state of
//! each, and gives the engine those that live. Owned by the download's task; it knows nothing of trackers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use shoal_common::peer_wire::CopyTrouble;
use shoal_common::tracker_api::Holder;
use shoal_common::{Layout, PeerId, UserName};
use shoal_engine::{AnySource, Bottleneck, Progress, SourceChange, SourceId, SourceState};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::choice::{Choice, Step};
use super::known::{Known, MAX_KNOWN, Unusable};
use super::list::{SourceName, SourceNames};
use shoal_session::text;
use shoal_session::ways::Ways;
use shoal_swarm::{FileKey, Liveness, Swarm, Trouble};

/// How long the trouble with a holder's copy is shown after the trackers stop naming it: they do so as soon as the trouble
/// begins.
const SHOWN_FOR: Duration = Duration::from_secs(60);
/// Most holders whose failures are remembered; more than a screen shows.
const MAX_FAILURES: usize = 256;
/// Addresses on this machine's own networks that are tried of one holder.
const MAX_NEAR: usize = 3;
/// Copies that are named; the rest is counted.
const MAX_SHOWN: usize = 3;

/// A source that is never used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Banned {
    /// Its key.
    pub peer: PeerId,
    /// Who it is.
    pub source: String,
    /// What it did.
    pub reason: String,
}

/// See the module.
#[derive(Debug)]
pub struct Sources {
    swarm: Swarm,
    ways: Ways,
    key: FileKey,
    layout: Layout,
    /// Changes to the engine's sources that [`Sources::choose`] gives.
    changes: Vec<SourceChange>,
    choice: Choice,
    in_use: HashMap<SourceId, SourceInUse>,
    /// Holders that did not answer at addresses that nothing shows to be theirs, and of which the trackers do not know it.
    unreached: HashSet<PeerId>,
    /// Why a holder's last source came to nothing.
    failures: BTreeMap<PeerId, Failure>,
    /// One watch per source in use, and some of sources that are not in use any more.
    watches: JoinSet<Option<Seen>>,
    /// Distinguishes a source from earlier ones of the same holder.
    uses: u64,
    names: SourceNames,
}

/// Why a holder's last source came to nothing.
#[derive(Debug)]
struct Failure {
    user: UserName,
    reason: String,
    trouble: Trouble,
    at: Instant,
}

impl Failure {
    fn known(&self) -> Unusable {
        Unusable { user: self.user.clone(), trouble: self.trouble, reason: self.reason.clone() }
    }
}

/// A source in use.
#[derive(Debug)]
struct SourceInUse {
    number: u64,
    peer: PeerId,
    user: UserName,
    /// Nothing shows that it is at its address.
    is_a_guess: bool,
    now: Liveness,
}

/// A source whose state changed.
#[derive(Debug)]
pub struct Seen {
    id: SourceId,
    number: u64,
    now: Liveness,
    /// It could be asked for pieces until now.
    lost: bool,
    liveness: watch::Receiver<Liveness>,
}

impl Seen {
    /// Whether it could be asked for pieces until now.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        self.lost
    }
}

impl Sources {
    /// No holder is known yet.
    #[must_use]
    pub fn new(swarm: Swarm, ways: Ways, key: FileKey, layout: Layout) -> Self {
        Self {
            swarm,
            ways,
            key,
            layout,
            changes: Vec::new(),
            choice: Choice::default(),
            in_use: HashMap::new(),
            unreached: HashSet::new(),
            failures: BTreeMap::new(),
            watches: JoinSet::new(),
            uses: 0,
            names: SourceNames::default(),
        }
    }

    /// Where it is said who they are.
    pub(super) fn are_named_in(&mut self, names: SourceNames) {
        self.names = names;
    }

    /// These peers are never used.
    pub fn never(&mut self, peers: impl IntoIterator<Item = PeerId>) {
        self.choice.never(peers);
    }

    /// The trackers named these holders: all that there are, or a random choice of very many. Follow with
    /// [`Sources::choose`].
    pub fn offered(&mut self, holders: Vec<Holder>) {
        self.choice.offered(holders);
        let known: HashSet<PeerId> = self.choice.pending().map(|pending| pending.holder.peer).collect();
        self.failures.retain(|peer, failure| known.contains(peer) || failure.at.elapsed() < SHOWN_FOR);
    }

    /// Puts holders into use, and out of it; those that are due are tried again. To be called a few times per second. Gives
    /// what changes for the engine, with what [`Sources::take`] changed.
    pub fn choose(&mut self, progress: &Progress) -> Vec<SourceChange> {
        // More sources would bring no more.
        let patient = matches!(progress.limit, Bottleneck::RateLimit | Bottleneck::Idle);
        for step in self.choice.next_steps(&progress.rows, patient, Instant::now()) {
            match step {
                Step::Add(id, holder) => self.add(id, &holder),
                Step::Remove(id) => self.remove(id),
                Step::Replace(id, holder) => {
                    self.swarm.doubt(holder.peer);
                    self.remove(id);
                    self.add(id, &holder);
                }
            }
        }
        std::mem::take(&mut self.changes)
    }

    /// Waits until the state of a source changes; to be given to [`Sources::take`]. Safe to drop.
    pub async fn changed(&mut self) -> Seen {
        loop {
            match self.watches.join_next().await {
                Some(Ok(Some(seen))) if self.is_current(&seen) => return seen,
                // A source that is not in use any more.
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Acts on the new state of a source; gives one that is banned for it.
    pub fn take(&mut self, seen: Seen) -> Option<Banned> {
        let Seen { id, number, now, lost, liveness } = seen;
        tracing::debug!(source = id.0, ?now, "a source changed its state");
        let entry = self.in_use.get_mut(&id)?;
        entry.now = now.clone();
        let (peer, user, is_a_guess) = (entry.peer, entry.user.clone(), entry.is_a_guess);
        match now {
            Liveness::Connecting => {}
            Liveness::Open => {
                self.failures.remove(&peer);
                self.choice.opened(id, Instant::now());
            }
            Liveness::Gone { reason, trouble } => {
                let now = Instant::now();
                if is_a_guess && !lost {
                    self.unreached.insert(peer);
                }
                if self.failures.len() < MAX_FAILURES || self.failures.contains_key(&peer) {
                    self.failures.insert(peer, Failure { user, reason, trouble, at: now });
                }
                self.choice.gone(id, now);
                self.remove(id);
                return None;
            }
            Liveness::Invalid(reason) => {
                self.remove(id);
                let banned = self.choice.banned(id);
                return banned.map(|(peer, source)| Banned { peer, source, reason });
            }
        }
        self.watch(id, number, liveness);
        None
    }

    /// Holders that did not answer at addresses that nothing shows to be theirs, since this was last asked.
    pub fn take_unreached(&mut self) -> Vec<PeerId> {
        self.unreached.drain().collect()
    }

    /// Notices sources that the engine found lying; gives the new ones.
    pub fn look(&mut self, progress: &Progress) -> Vec<Banned> {
        let mut liars = Vec::new();
        for row in progress.rows.iter() {
            let SourceState::Banned(reason) = &row.state else { continue };
            // Its connection may have ended before this was heard.
            self.in_use.remove(&row.id);
            if let Some((peer, source)) = self.choice.banned(row.id) {
                liars.push(Banned { peer, source, reason: reason.clone() });
            }
        }
        liars
    }

    /// Holders that wait for their next try are tried with the next [`Sources::choose`].
    pub fn hurry(&mut self) {
        self.choice.hurry();
    }

    /// What the download waits for while no source can be asked for pieces, in one sentence; `None` if no holder is known.
    #[must_use]
    pub fn waits_for(&self) -> Option<String> {
        let words = match (self.copies(), self.connecting()) {
            (None, None) => return None,
            (Some(copies), None) => format!("waiting for a sharer: {copies}"),
            (None, Some(connecting)) => connecting,
            (Some(copies), Some(connecting)) => format!("waiting for a sharer: {copies}; {connecting}"),
        };
        Some(text::error_line(&words))
    }

    /// The troubles that holders reported with their copies, also of those that are not named any more.
    fn copies(&self) -> Option<String> {
        let mut troubles: Vec<(&UserName, CopyTrouble)> = self
            .failures
            .values()
            .filter_map(|failure| Some((&failure.user, failure.trouble.copy()?)))
            .collect();
        troubles.sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
        sentence(&troubles)
    }

    /// The holder that it tries to connect to.
    fn connecting(&self) -> Option<String> {
        let mut pending: Vec<_> = self.choice.pending().collect();
        let said = |peer| self.failures.get(peer).is_some_and(|failure| failure.trouble.copy().is_some());
        pending.retain(|one| !said(&one.holder.peer));
        pending.sort_by(|one, other| one.holder.user.as_str().cmp(other.holder.user.as_str()));
        // Preferably one of which something is known.
        let first = pending.iter().find(|one| self.failures.contains_key(&one.holder.peer));
        let first = first.or(pending.first())?;
        let user = &first.holder.user;
        let words = match (self.failures.get(&first.holder.peer), first.again) {
            (None, _) => format!("connecting to {user}"),
            (Some(Failure { reason, .. }), None) => format!("{user} {reason}; being tried again"),
            (Some(Failure { reason, .. }), Some(again)) => {
                let left = again.saturating_duration_since(Instant::now()).as_secs() + 1;
                format!("{user} {reason}; tried again in {left} s")
            }
        };
        let others = pending.len() - 1;
        Some(if others > 0 { format!("{words} (and {others} more)") } else { words })
    }

    /// Which holders can be asked for pieces, which cannot and why.
    pub(super) fn known(&self, known: &mut Known) {
        let open = self.in_use.values().filter(|source| source.now == Liveness::Open);
        let mut open: Vec<&UserName> = open.map(|source| &source.user).collect();
        open.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        known.open = open.into_iter().take(MAX_SHOWN).cloned().collect();
        let mut unusable: Vec<Unusable> = self.failures.values().map(Failure::known).collect();
        unusable.sort_by(|one, other| one.user.as_str().cmp(other.user.as_str()));
        unusable.truncate(MAX_KNOWN);
        known.unusable = unusable;
        known.connecting = self.choice.pending().count();
    }

    fn add(&mut self, id: SourceId, holder: &Holder) {
        // Its own networks first: what is near needs no router. Others' addresses on them are dialled only where this machine is, too.
        let near = holder.lan.iter().flatten().filter_map(|address| address.parse::<SocketAddr>().ok());
        let near = near.filter(|address| self.ways.is_near(address.ip()));
        let addresses: Vec<_> = near.take(MAX_NEAR).chain(holder.address.parse().ok()).collect();
        let source = self.swarm.source(self.key, holder.peer, &addresses, self.layout.clone());
        self.uses += 1;
        self.names.add(id, SourceName { user: Some(holder.user.clone()), address: holder.address.clone() });
        let (number, peer, user, now) = (self.uses, holder.peer, holder.user.clone(), Liveness::Connecting);
        let is_a_guess = holder.is_unproven();
        self.in_use.insert(id, SourceInUse { number, peer, user, is_a_guess, now });
        self.watch(id, self.uses, source.liveness());
        self.changes.push(SourceChange::Add(id, AnySource::new(source)));
    }

    fn remove(&mut self, id: SourceId) {
        self.in_use.remove(&id);
        self.changes.push(SourceChange::Remove(id));
    }

    /// Waits, in a task of its own, until a source leaves its known state.
    fn watch(&mut self, id: SourceId, number: u64, mut liveness: watch::Receiver<Liveness>) {
        let Some(SourceInUse { now: known, .. }) = self.in_use.get(&id) else { return };
        let known = known.clone();
        self.watches.spawn(async move {
            let now = liveness.wait_for(|now| *now != known).await.ok()?.clone();
            let lost = known == Liveness::Open;
            Some(Seen { id, number, now, lost, liveness })
        });
    }

    fn is_current(&self, seen: &Seen) -> bool {
        self.in_use.get(&seen.id).is_some_and(|entry| entry.number == seen.number)
    }
}

fn sentence(troubles: &[(&UserName, CopyTrouble)]) -> Option<String> {
    let mut words: Vec<String> =
        troubles.iter().take(MAX_SHOWN).map(|(user, trouble)| describe(user, *trouble)).collect();
    if troubles.len() > MAX_SHOWN {
        words.push(format!("and {} more cannot serve it", troubles.len() - MAX_SHOWN));
    }
    (!words.is_empty()).then(|| words.join(", "))
}

fn describe(user: &UserName, trouble: CopyTrouble) -> String {
    match trouble {
        CopyTrouble::Checked => format!("{user} is checking the file"),
        CopyTrouble::Missing => format!("{user}'s copy is not there now"),
        CopyTrouble::Unreadable => format!("{user} cannot read the file"),
        CopyTrouble::Changed => format!("{user}'s copy changed on disk"),
        CopyTrouble::Unknown => format!("{user} does not serve the file now"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_matter_is_said_in_one_sentence() {
        let users: Vec<UserName> =
            ["ann", "bob", "cem", "dan", "eva"].map(|name| UserName::create(name).unwrap()).into();
        let troubles = [CopyTrouble::Checked, CopyTrouble::Changed, CopyTrouble::Missing];
        let all: Vec<_> = users.iter().zip(troubles.into_iter().cycle()).collect();
        assert_eq!(sentence(&[]), None);
        assert_eq!(sentence(&all[..1]).unwrap(), "ann is checking the file");
        assert_eq!(
            sentence(&all).unwrap(),
            "ann is checking the file, bob's copy changed on disk, cem's copy is not there now, and 2 more cannot serve it"
        );
    }
}
