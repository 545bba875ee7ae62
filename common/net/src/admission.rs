//! Which incoming connections may be there at once: the counting and the choice, without the connections.
//!
//! One type serves all: handshakes and connections of the control plane, handshakes and connections of a bulk listener,
//! and the requesters that a peer serves. What differs is the list of [`Limit`]s. Connections that we dial ourselves are not
//! counted: our own code decides how many it wants.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_common::{PeerId, Uid};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::address::site;

/// A connection on which its peer asked for nothing for this long is idle. One that downloads asks at least once per second.
pub const IDLE: Duration = Duration::from_secs(10);

/// Which connections a limit counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitScope {
    /// All of them.
    All,
    /// Those from the newcomer's address: an IPv4 address or an IPv6 /64.
    Address,
    /// Those of the newcomer's peer.
    Peer,
    /// Those that were not [recognised](Place::recognise) yet.
    Strangers,
    /// Those of [`Self::Strangers`] from the newcomer's address.
    StrangersAtAddress,
    /// Those that were recognised.
    Members,
}

/// What happens when a limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The newcomer is refused, unless another limit has made one give way already.
    Refuse,
    /// The oldest of those that the limit counts gives way.
    OldestGivesWay,
    /// The oldest from the address that has most gives way.
    LargestAddressGivesWay,
    /// The oldest from the address that has most strangers gives way.
    LargestStrangersGiveWay,
    /// One of the user that has most gives way, if that user has at least two more than the newcomer's: an [idle](IDLE) one,
    /// else the newest of the peer that has most. If no user has, the one that was idle for longest gives way, of a user
    /// that has more than the newcomer's. Without such a one the newcomer is refused.
    LargestUserGivesWay,
}

/// At most `most` connections of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What is counted.
    pub scope: LimitScope,
    /// How many there may be.
    pub most: usize,
    /// What happens to one more.
    pub full: Full,
}

impl Limit {
    /// A limit.
    #[must_use]
    pub const fn new(scope: LimitScope, most: usize, full: Full) -> Self {
        Self { scope, most, full }
    }
}

/// The limit that a connection was refused for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub LimitScope);

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            LimitScope::All => "too many connections",
            LimitScope::Address => "too many connections from this address",
            LimitScope::Peer => "too many connections of this peer",
            LimitScope::Strangers => "too many connections of strangers",
            LimitScope::StrangersAtAddress => "too many connections of strangers from this address",
            LimitScope::Members => "too many connections of members",
        })
    }
}

/// Connections that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Group {
    All,
    Address(IpAddr),
    Peer(PeerId),
    User(Uid),
    Strangers,
    StrangersAt(IpAddr),
    Members,
}

/// The connections that are there. `C` names one; `H` is handed back with it when it has to give way.
#[derive(Debug)]
pub(crate) struct Admission<C, H> {
    limits: Vec<Limit>,
    /// Oldest first.
    there: BTreeMap<u64, Connection<C, H>>,
    places: HashMap<C, u64>,
    counts: HashMap<Group, usize>,
    next: u64,
}

#[derive(Debug)]
struct Connection<C, H> {
    name: C,
    handle: H,
    address: IpAddr,
    peer: Option<PeerId>,
    /// Whose it is, once it was recognised.
    user: Option<Uid>,
    active: Activity,
}

/// When a connection was last of use, in milliseconds of the caller's clock.
type Activity = Arc<AtomicU64>;

impl<C, H> Connection<C, H> {
    fn group(&self, scope: LimitScope) -> Option<Group> {
        match scope {
            LimitScope::All => Some(Group::All),
            LimitScope::Address => Some(Group::Address(self.address)),
            LimitScope::Peer => self.peer.map(Group::Peer),
            LimitScope::Strangers => self.user.is_none().then_some(Group::Strangers),
            LimitScope::StrangersAtAddress => self.user.is_none().then_some(Group::StrangersAt(self.address)),
            LimitScope::Members => self.user.map(|_| Group::Members),
        }
    }

    fn is_in(&self, group: Group) -> bool {
        self.groups().any(|own| own == group)
    }

    fn groups(&self) -> impl Iterator<Item = Group> {
        let scopes = [
            LimitScope::All,
            LimitScope::Address,
            LimitScope::Peer,
            LimitScope::Strangers,
            LimitScope::StrangersAtAddress,
            LimitScope::Members,
        ];
        scopes.map(|scope| self.group(scope)).into_iter().flatten().chain(self.user.map(Group::User))
    }

    /// How long it was idle, if it is.
    fn idle(&self, now_ms: u64) -> Option<u64> {
        let idle = now_ms.saturating_sub(self.active.load(Ordering::Relaxed));
        (u128::from(idle) >= IDLE.as_millis()).then_some(idle)
    }
}

impl<C: Copy + Eq + Hash, H> Admission<C, H> {
    /// Limits apply in their order.
    pub(crate) fn new(limits: Vec<Limit>) -> Self {
        Self { limits, there: BTreeMap::new(), places: HashMap::new(), counts: HashMap::new(), next: 0 }
    }

    /// Lets a connection in; those that give way for it are gone from here, and are to be closed.
    pub(crate) fn admit(
        &mut self,
        name: C,
        handle: H,
        from: IpAddr,
        peer: Option<PeerId>,
    ) -> Result<Vec<(C, H)>, Refused> {
        let (address, active) = (site(from), Activity::default());
        let newcomer = Connection { name, handle, address, peer, user: None, active };
        let leaving = self.make_room(&newcomer, |_| true, 0)?;
        let gone = leaving.into_iter().filter_map(|at| self.remove(at)).collect();
        self.insert(self.next, newcomer);
        self.next += 1;
        Ok(gone)
    }

    /// The connections that give way to the newcomer, by the limits of those scopes.
    fn make_room(
        &self,
        newcomer: &Connection<C, H>,
        applies: impl Fn(LimitScope) -> bool,
        now_ms: u64,
    ) -> Result<Vec<u64>, Refused> {
        let mut leaving: Vec<u64> = Vec::new();
        for limit in self.limits.iter().filter(|limit| applies(limit.scope)) {
            let Some(group) = newcomer.group(limit.scope) else { continue };
            let gone = leaving.iter().filter(|at| self.there[at].is_in(group)).count();
            if self.count(group) - gone < limit.most {
                continue;
            }
            match limit.full {
                Full::Refuse if leaving.is_empty() => return Err(Refused(limit.scope)),
                Full::Refuse => {}
                Full::OldestGivesWay => leaving.extend(self.oldest(group, &leaving)),
                Full::LargestAddressGivesWay => {
                    let largest = self.largest(|group| matches!(group, Group::Address(_)));
                    leaving.extend(largest.and_then(|(group, _)| self.oldest(group, &leaving)));
                }
                Full::LargestStrangersGiveWay => {
                    let largest = self.largest(|group| matches!(group, Group::StrangersAt(_)));
                    leaving.extend(largest.and_then(|(group, _)| self.oldest(group, &leaving)));
                }
                Full::LargestUserGivesWay => {
                    leaving.push(self.of_largest_user(newcomer, now_ms).ok_or(Refused(limit.scope))?);
                }
            }
        }
        Ok(leaving)
    }

    /// See [`Full::LargestUserGivesWay`].
    fn of_largest_user(&self, newcomer: &Connection<C, H>, now_ms: u64) -> Option<u64> {
        let count_of = |user: Option<Uid>| user.map_or(0, |user| self.count(Group::User(user)));
        let own = count_of(newcomer.user);
        let (largest, most) = self.largest(|group| matches!(group, Group::User(_)))?;
        let gives_way = if most >= own + 2 {
            let of_user = self.there.iter().filter(|(_, other)| other.is_in(largest));
            of_user.max_by_key(|(at, other)| {
                let of_peer = other.peer.map_or(0, |peer| self.count(Group::Peer(peer)));
                (other.idle(now_ms).is_some(), of_peer, **at)
            })
        } else {
            let idle = self.there.iter().filter_map(|(at, other)| Some((other.idle(now_ms)?, (at, other))));
            let of_larger = idle.filter(|(_, (_, other))| count_of(other.user) > own);
            of_larger.max_by_key(|&(idle, (at, _))| (idle, *at)).map(|(_, found)| found)
        };
        gives_way.map(|(at, _)| *at)
    }

    fn insert(&mut self, at: u64, connection: Connection<C, H>) {
        for group in connection.groups() {
            *self.counts.entry(group).or_default() += 1;
        }
        self.places.insert(connection.name, at);
        self.there.insert(at, connection);
    }

    /// The connection is gone; one that is not known here is none of these.
    pub(crate) fn leave(&mut self, name: C) {
        if let Some(&at) = self.places.get(&name) {
            self.remove(at);
        }
    }

    /// The connection is that user's, and no stranger's any more. Those that give way for it are gone from here, and are
    /// to be closed. Of a connection that was recognised before nothing changes. One that has given way is refused: it was
    /// on its way out while its ticket was judged.
    pub(crate) fn recognise(&mut self, name: C, user: Uid, now_ms: u64) -> Result<Vec<(C, H)>, Refused> {
        let known = self.places.get(&name).copied().and_then(|at| Some((at, self.take(at)?)));
        let (at, mut known) = known.ok_or(Refused(LimitScope::Strangers))?;
        if known.user.is_some() {
            self.insert(at, known);
            return Ok(Vec::new());
        }
        known.user = Some(user);
        match self.make_room(&known, |scope| scope == LimitScope::Members, now_ms) {
            Ok(leaving) => {
                let gone = leaving.into_iter().filter_map(|at| self.remove(at)).collect();
                self.insert(at, known);
                Ok(gone)
            }
            Err(refused) => {
                known.user = None;
                self.insert(at, known);
                Err(refused)
            }
        }
    }

    fn activity(&self, name: C) -> Option<Activity> {
        let at = self.places.get(&name)?;
        self.there.get(at).map(|known| known.active.clone())
    }

    fn count(&self, group: Group) -> usize {
        self.counts.get(&group).copied().unwrap_or(0)
    }

    /// The group with most connections among those wanted.
    fn largest(&self, wanted: impl Fn(&Group) -> bool) -> Option<(Group, usize)> {
        let wanted = self.counts.iter().filter(|(group, _)| wanted(group));
        wanted.max_by_key(|(group, count)| (**count, **group)).map(|(group, count)| (*group, *count))
    }

    fn oldest(&self, group: Group, leaving: &[u64]) -> Option<u64> {
        self.there.iter().find(|(at, other)| other.is_in(group) && !leaving.contains(at)).map(|(at, _)| *at)
    }

    fn remove(&mut self, at: u64) -> Option<(C, H)> {
        self.take(at).map(|gone| (gone.name, gone.handle))
    }

    fn take(&mut self, at: u64) -> Option<Connection<C, H>> {
        let gone = self.there.remove(&at)?;
        self.places.remove(&gone.name);
        for group in gone.groups() {
            self.decrease(group);
        }
        Some(gone)
    }

    fn decrease(&mut self, group: Group) {
        if let Some(count) = self.counts.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&group);
            }
        }
    }
}

/// Connections whose places are given back when they are dropped. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct ConnectionLimits(Arc<Mutex<Places>>);

#[derive(Debug)]
struct Places {
    admission: Admission<u64, CancellationToken>,
    next: u64,
    since: Instant,
}

impl Places {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The place of one connection; dropping it gives the place back.
#[derive(Debug)]
pub struct Place {
    limits: ConnectionLimits,
    number: u64,
    since: Instant,
    active: Activity,
}

impl ConnectionLimits {
    /// Limits apply in their order.
    #[must_use]
    pub fn new(limits: Vec<Limit>) -> Self {
        let (admission, since) = (Admission::new(limits), Instant::now());
        Self(Arc::new(Mutex::new(Places { admission, next: 0, since })))
    }

    /// Gives a connection a place. `end` is cancelled when the connection has to give way to another.
    ///
    /// # Errors
    /// When a limit is reached.
    pub fn admit(&self, from: IpAddr, peer: PeerId, end: CancellationToken) -> Result<Place, Refused> {
        let mut places = self.places();
        let number = places.next;
        for (_, gives_way) in places.admission.admit(number, end, from, Some(peer))? {
            gives_way.cancel();
        }
        places.next += 1;
        let (since, active) = (places.since, places.admission.activity(number).unwrap_or_default());
        drop(places);
        let place = Place { limits: self.clone(), number, since, active };
        place.is_used();
        Ok(place)
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The connection is that user's, and no stranger's any more. Others may have to give way to it.
    ///
    /// # Errors
    /// When a limit is reached: the connection is to be closed.
    pub fn recognise(&self, user: Uid) -> Result<(), Refused> {
        let mut places = self.limits.places();
        let now_ms = places.now_ms();
        for (_, gives_way) in places.admission.recognise(self.number, user, now_ms)? {
            gives_way.cancel();
        }
        Ok(())
    }

    /// The connection is of use now. One that is not is [idle](IDLE).
    pub fn is_used(&self) {
        let now_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.active.store(now_ms, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limits.places().admission.leave(self.number);
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
