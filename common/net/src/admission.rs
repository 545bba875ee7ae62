//! Which incoming connections may be there at once: the counting and the choice, without the connections.
//!
//! One type serves all: handshakes and connections of the control plane, handshakes and connections of a bulk listener,
//! and the requesters that a peer serves. What differs is the list of [`Limit`]s. Connections that we dial ourselves are not
//! counted: our own code decides how many it wants.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_common::PeerId;
use tokio_util::sync::CancellationToken;

use crate::address::site;

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
    /// The newest of the peer that has most gives way, if that peer has at least two more than the newcomer's; else the
    /// newcomer is refused.
    LargestPeerGivesWay,
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
        })
    }
}

/// Connections that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Group {
    All,
    Address(IpAddr),
    Peer(PeerId),
    Strangers,
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
    is_stranger: bool,
}

impl<C, H> Connection<C, H> {
    fn group(&self, scope: LimitScope) -> Option<Group> {
        match scope {
            LimitScope::All => Some(Group::All),
            LimitScope::Address => Some(Group::Address(self.address)),
            LimitScope::Peer => self.peer.map(Group::Peer),
            LimitScope::Strangers => self.is_stranger.then_some(Group::Strangers),
        }
    }

    fn is_in(&self, group: Group) -> bool {
        self.groups().any(|own| own == group)
    }

    fn groups(&self) -> impl Iterator<Item = Group> {
        [LimitScope::All, LimitScope::Address, LimitScope::Peer, LimitScope::Strangers]
            .map(|scope| self.group(scope))
            .into_iter()
            .flatten()
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
        let newcomer = Connection { name, handle, address: site(from), peer, is_stranger: true };
        let mut leaving: Vec<u64> = Vec::new();
        for limit in &self.limits {
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
                Full::LargestPeerGivesWay => {
                    let own = peer.map_or(0, |peer| self.count(Group::Peer(peer)));
                    let largest = self.largest(|group| matches!(group, Group::Peer(_)));
                    let newest = largest.filter(|(_, most)| *most >= own + 2).and_then(|(group, _)| {
                        self.there.iter().rev().find(|(_, other)| other.is_in(group)).map(|(at, _)| *at)
                    });
                    leaving.push(newest.ok_or(Refused(limit.scope))?);
                }
            }
        }
        let gone = leaving.into_iter().filter_map(|at| self.remove(at)).collect();
        for group in newcomer.groups() {
            *self.counts.entry(group).or_default() += 1;
        }
        self.places.insert(name, self.next);
        self.there.insert(self.next, newcomer);
        self.next += 1;
        Ok(gone)
    }

    /// The connection is gone; one that is not known here is none of these.
    pub(crate) fn leave(&mut self, name: C) {
        if let Some(&at) = self.places.get(&name) {
            self.remove(at);
        }
    }

    /// The connection is no stranger's.
    pub(crate) fn recognise(&mut self, name: C) {
        let known = self.places.get(&name).and_then(|at| self.there.get_mut(at));
        if let Some(known) = known.filter(|known| known.is_stranger) {
            known.is_stranger = false;
            self.decrease(Group::Strangers);
        }
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
        let gone = self.there.remove(&at)?;
        self.places.remove(&gone.name);
        for group in gone.groups() {
            self.decrease(group);
        }
        Some((gone.name, gone.handle))
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
}

/// The place of one connection; dropping it gives the place back.
#[derive(Debug)]
pub struct Place {
    limits: ConnectionLimits,
    number: u64,
}

impl ConnectionLimits {
    /// Limits apply in their order.
    #[must_use]
    pub fn new(limits: Vec<Limit>) -> Self {
        Self(Arc::new(Mutex::new(Places { admission: Admission::new(limits), next: 0 })))
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
        Ok(Place { limits: self.clone(), number })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The connection is no stranger's any more.
    pub fn recognise(&self) {
        self.limits.places().admission.recognise(self.number);
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
