//! Which storage nodes belong to the cluster: those with a record. A node gets one by proving that it knows the join secret,
//! or from an operator at a tracker's prompt. All others wait in a short list, and their operators read what to do.
//!
//! What a stranger says is not written down, not passed on, and remembered only in the list. A node that a version without
//! admission registered has its record already. A node that an operator expelled waits, even if it knows the secret.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, anyhow, bail};
use shoal_common::join::{JoinProof, NodeSecret};
use shoal_common::tracker_api::storage::{MAX_NODES, NodeEntry};
use shoal_common::tracker_api::{Refusal, RefusalKind};
use shoal_common::{NodeName, PeerId};
use shoal_net::site;
use shoal_replica::{Rows, Write};

use super::Storage;
use super::expelled::{expel, let_in_again};
use crate::database::{Fault, Tx, refuse};
use crate::record::{STORAGE_NODE, StorageNode, delete, part, put};

/// Storage nodes on one machine: more are a mistake that takes places from others. The whole address counts, also of IPv6: all
/// machines of a data centre may share a /64, and each of these nodes was admitted.
const MAX_NODES_OF_ADDRESS: usize = 64;
/// Nodes that wait to be admitted at most: what an operator can look through.
const MAX_WAITING: usize = 64;
/// Of them from one address, so that a stranger leaves room for others.
const MAX_WAITING_OF_ADDRESS: usize = 16;
/// A node that did not ask for this long, in milliseconds, no longer waits; nodes ask every few seconds.
const WAITING_MS: u64 = 30_000;

/// Keys that an operator admitted before their nodes asked, at most.
const MAX_EXPECTED: usize = 64;
/// How long such a key is admitted, in milliseconds: long enough to start the node, too short to be forgotten.
const EXPECTED_MS: u64 = 3_600_000;

/// A node that waits to be admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applicant {
    /// Its key, proven.
    pub peer: PeerId,
    /// What it calls itself.
    pub name: NodeName,
    /// Its address as it says; not checked.
    pub address: SocketAddr,
    /// Where it was seen.
    pub from: IpAddr,
    heard_ms: u64,
}

/// The result of an operator's `admit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// The node waited and is admitted.
    Now(Applicant),
    /// No node with that key waits here. It is admitted if it asks this tracker within an hour.
    OnceItAsks(PeerId),
}

/// The nodes that wait, and the keys that are expected. Pure.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    nodes: HashMap<PeerId, Applicant>,
    /// When a node last found no place.
    crowded_ms: Option<u64>,
    /// Keys that were admitted before their nodes asked, and until when.
    expected: HashMap<PeerId, u64>,
}

impl Waiting {
    /// Notes that a node asks; false if too many do.
    fn ask(&mut self, applicant: Applicant) -> bool {
        let now = applicant.heard_ms;
        self.nodes.retain(|_, other| now.saturating_sub(other.heard_ms) < WAITING_MS);
        let at = site(applicant.from);
        let of_address = self.nodes.values().filter(|other| site(other.from) == at).count();
        let room = self.nodes.len() < MAX_WAITING && of_address < MAX_WAITING_OF_ADDRESS;
        let waits = room || self.nodes.contains_key(&applicant.peer);
        if waits {
            self.nodes.insert(applicant.peer, applicant);
        } else {
            self.crowded_ms = Some(now);
        }
        waits
    }

    /// Whether nodes ask that are not in the list.
    fn is_crowded(&self, now: u64) -> bool {
        self.crowded_ms.is_some_and(|at| now.saturating_sub(at) < WAITING_MS)
    }

    /// Lets a key in once it asks; false where too many are waited for.
    fn expect(&mut self, peer: PeerId, now: u64) -> bool {
        self.expected.retain(|_, until| *until > now);
        let room = self.expected.len() < MAX_EXPECTED || self.expected.contains_key(&peer);
        if room {
            self.expected.insert(peer, now.saturating_add(EXPECTED_MS));
        }
        room
    }

    fn is_expected(&self, peer: PeerId, now: u64) -> bool {
        self.expected.get(&peer).is_some_and(|until| *until > now)
    }

    /// A node neither waits nor is expected any more.
    fn forget(&mut self, peer: PeerId) {
        self.nodes.remove(&peer);
        self.expected.remove(&peer);
    }

    fn list(&self, now: u64) -> Vec<Applicant> {
        let waiting = self.nodes.values().filter(|other| now.saturating_sub(other.heard_ms) < WAITING_MS);
        let mut waiting: Vec<Applicant> = waiting.cloned().collect();
        waiting.sort_by(|one, other| (&one.name, one.peer).cmp(&(&other.name, other.peer)));
        waiting
    }
}

/// Why a node may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// It knows the join secret.
    Secret,
    /// An operator admitted it: it has a record, or is expected.
    Operator,
}

impl Storage {
    /// Why a node may register here: it proves that it knows the secret, or it is admitted.
    ///
    /// # Errors
    /// What its operator is to do.
    pub(crate) async fn check_admitted(
        &self,
        (peer, tracker): (PeerId, PeerId),
        name: &NodeName,
        (address, from): (SocketAddr, IpAddr),
        proof: Option<JoinProof>,
    ) -> Result<Right, Refusal> {
        let loaded = self.known().loaded;
        if !loaded {
            // The records say which nodes are admitted.
            self.refresh().await?;
        }
        let proves =
            |secret: &NodeSecret| proof.as_ref().is_some_and(|proof| secret.proves(proof, peer, tracker));
        let proven = self.secret.as_deref().is_some_and(proves);
        let known = self.planner().is_known(peer);
        // For a stranger nothing is looked up.
        let expelled = (known || proven) && self.is_expelled(peer).await?;
        if proven && !expelled {
            self.waiting().forget(peer);
            return Ok(Right::Secret);
        }
        if known && !expelled {
            // Perhaps another tracker's operator admitted it.
            self.waiting().forget(peer);
            return Ok(Right::Operator);
        }
        if self.waiting().is_expected(peer, self.now_ms()) {
            return Ok(Right::Operator);
        }
        let why = match (&self.secret, proof) {
            _ if expelled => "it was expelled",
            (Some(_), Some(_)) => "its join secret is not this cluster's",
            (None, Some(_)) => "this tracker was started without --node-secret",
            (_, None) => "it was started without --join-secret",
        };
        let (from, heard_ms) = (from.to_canonical(), self.now_ms());
        let applicant = Applicant { peer, name: name.clone(), address, from, heard_ms };
        let text = if self.waiting().ask(applicant) {
            format!(
                "{name} waits to be admitted: type \"admit {peer}\", its key, at a tracker's prompt ({why})"
            )
        } else {
            format!(
                "{name} is not admitted, and too many others wait already: type \"admit {peer}\", its key, at this \
                 tracker's prompt, or use a join secret ({why})"
            )
        };
        Err(Refusal::new(RefusalKind::NotAllowed, text))
    }

    /// The nodes that wait here to be admitted, by name.
    #[must_use]
    pub fn applicants(&self) -> Vec<Applicant> {
        self.waiting().list(self.now_ms())
    }

    /// Whether more nodes ask than those that are listed.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.waiting().is_crowded(self.now_ms())
    }

    /// Admits the node of that key, or the only one of that name that waits here, at all trackers.
    ///
    /// # Errors
    /// In words: none of that name waits, several may, or the database cannot take it.
    pub async fn admit(&self, which: &str) -> Result<Admitted> {
        let now = self.now_ms();
        let applicant = match which.parse::<PeerId>() {
            Ok(peer) => {
                let waits = self.applicants().into_iter().find(|one| one.peer == peer);
                // An expelled node may still have a record that an earlier version wrote.
                let is_expelled = self.is_expelled(peer).await?;
                match waits {
                    Some(applicant) => applicant,
                    None if self.planner().is_known(peer) && !is_expelled => {
                        bail!("{peer} is admitted already");
                    }
                    None if self.waiting().expect(peer, now) => return Ok(Admitted::OnceItAsks(peer)),
                    None => {
                        bail!("{MAX_EXPECTED} keys are expected, which is the most; start those nodes first");
                    }
                }
            }
            Err(_) => self.only_one_named(which)?,
        };
        let (storage, admitted) = (self.clone(), applicant.clone());
        let written = self.database.run(move |tx| {
            let nodes = read_nodes(tx)?;
            let mut writes: Vec<Write> = let_in_again(tx, admitted.peer)?.into_iter().collect();
            if nodes.iter().any(|(peer, _)| *peer == admitted.peer) {
                return if writes.is_empty() { Ok(()) } else { tx.write(writes) };
            }
            make_room(&storage, &nodes, admitted.address.ip(), &mut writes)?;
            let node =
                StorageNode { name: admitted.name, address: admitted.address.to_string(), successor: None };
            writes.push(node_write(admitted.peer, &node));
            tx.write(writes)
        });
        written.await?;
        self.refresh().await?;
        self.waiting().forget(applicant.peer);
        Ok(Admitted::Now(applicant))
    }

    /// The only node of that name that waits.
    fn only_one_named(&self, name: &str) -> Result<Applicant> {
        let waiting = self.applicants();
        let found: Vec<&Applicant> =
            waiting.iter().filter(|one| one.name.as_str().eq_ignore_ascii_case(name)).collect();
        match found[..] {
            [] | [_] if self.is_crowded() => Err(anyhow!(
                "more nodes wait than are listed, so another one may call itself {name}; admit it by the key that it \
                 prints when it starts: admit KEY"
            )),
            [one] => Ok(one.clone()),
            [] => Err(anyhow!("no node {name} waits here; \"nodes\" lists those that do")),
            _ => {
                let keys: Vec<String> =
                    found.iter().map(|one| format!("{} seen at {}", one.peer, one.from)).collect();
                Err(anyhow!(
                    "several nodes call themselves {name}; admit one by its key: {}",
                    keys.join(", ")
                ))
            }
        }
    }

    /// Takes a node of that name or key out of the cluster, at all trackers.
    ///
    /// # Errors
    /// In words: there is none, there are several, or the database cannot take it.
    pub async fn expel(&self, which: &str) -> Result<NodeEntry> {
        let nodes = self.planner().nodes(self.now_ms());
        let found: Vec<&NodeEntry> = nodes
            .iter()
            .filter(|one| one.peer.to_string() == which || one.name.as_str().eq_ignore_ascii_case(which))
            .collect();
        let node = match found[..] {
            [one] => one.clone(),
            [] => {
                if let Ok(peer) = which.parse() {
                    // It may have been admitted before it asked.
                    self.waiting().forget(peer);
                }
                bail!("there is no storage node {which}; \"nodes\" lists them");
            }
            _ => {
                let keys: Vec<String> =
                    found.iter().map(|one| format!("{} at {}", one.peer, one.address)).collect();
                bail!("several nodes are called {which}; expel one by its key: {}", keys.join(", "));
            }
        };
        // It may not be admitted by a key that is expected either.
        self.waiting().forget(node.peer);
        let write = delete(STORAGE_NODE, node.peer.0.to_vec());
        let peer = node.peer;
        let written = self.database.run(move |tx| {
            let expelled = expel(tx, peer)?;
            tx.write(vec![write, expelled])
        });
        written.await?;
        self.refresh().await?;
        Ok(node)
    }
}

fn read_nodes(tx: &Tx<'_>) -> Result<Vec<(PeerId, StorageNode)>, Fault> {
    let rows = tx.store().scan(STORAGE_NODE, &[], None, MAX_NODES * 2)?;
    let live = rows.iter().filter(|row| !row.tombstone);
    Ok(live
        .filter_map(|row| Some((PeerId(part(&row.key, 0)?), minicbor::decode(&row.value).ok()?)))
        .collect())
}

/// The answer to a node that lost its record while it registered.
pub(crate) fn was_expelled(name: &NodeName) -> Refusal {
    let text = format!(
        "{name} was taken out of the cluster; if that was a mistake, type \"nodes\" and then \"admit\" with its key at a \
         tracker's prompt"
    );
    Refusal::new(RefusalKind::NotAllowed, text)
}

/// Where a node says that it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    /// Whether it answered there. If not, it takes no other node's place.
    pub(crate) proven: bool,
}

/// Writes a node's record, and makes it the successor of a silent node that was at its address under another key.
///
/// # Errors
/// If it was admitted by an operator and expelled since: only an operator undoes that.
pub(crate) fn write_node(
    tx: &mut Tx<'_>,
    storage: &Storage,
    (peer, right): (PeerId, Right),
    name: NodeName,
    Place { address, proven }: Place,
) -> Result<(), Fault> {
    let has_record = tx.store().is_live(STORAGE_NODE, &peer.0)?;
    let expelled = let_in_again(tx, peer)?;
    let is_expected = storage.waiting().is_expected(peer, storage.now_ms());
    let allowed = is_expected || (expelled.is_none() && (right == Right::Secret || has_record));
    if !allowed {
        return Err(Fault::Refused(was_expelled(&name)));
    }
    let nodes = read_nodes(tx)?;
    let own_address = address.to_string();
    let is_anothers = |(other, node): &(PeerId, StorageNode)| *other != peer && node.address == own_address;
    if !proven && nodes.iter().any(is_anothers) {
        return Err(Fault::Refused(not_reached(address)));
    }
    let mut writes: Vec<Write> = expelled.into_iter().collect();
    let own = StorageNode { name, address: address.to_string(), successor: None };
    let known = nodes.iter().find(|(other, _)| *other == peer).map(|(_, node)| node);
    if known != Some(&own) {
        writes.push(node_write(peer, &own));
    }
    for (other, node) in nodes.iter().filter(|(other, node)| *other != peer && node.address == own.address) {
        if node.successor != Some(peer) && node.successor.is_none() && !storage.planner().is_up(*other) {
            tracing::warn!("{address} was storage node {other} and is now {peer}, which takes its place");
            writes.push(node_write(*other, &StorageNode { successor: Some(peer), ..node.clone() }));
        }
    }
    if known.is_none() {
        make_room(storage, &nodes, address.ip(), &mut writes)?;
    }
    if !writes.is_empty() {
        tx.write(writes)?;
    }
    storage.waiting().forget(peer);
    Ok(())
}

/// One text for all reasons, so that it tells nothing of what is at an address.
pub(crate) fn not_reached(address: SocketAddr) -> Refusal {
    let text = format!(
        "the storage node is not reached at {address}, the address that it gave: it must listen there, with this key, and \
         connect to the trackers from that ip"
    );
    Refusal::new(RefusalKind::NotAllowed, text)
}

/// Keeps the number of nodes bounded: one that is down and holds nothing gives way.
fn make_room(
    storage: &Storage,
    nodes: &[(PeerId, StorageNode)],
    ip: IpAddr,
    writes: &mut Vec<Write>,
) -> Result<(), Fault> {
    let there = |node: &StorageNode| node.address.parse::<SocketAddr>().is_ok_and(|known| known.ip() == ip);
    let of_address = nodes.iter().filter(|(_, node)| there(node)).count();
    if nodes.len() < MAX_NODES && of_address < MAX_NODES_OF_ADDRESS {
        return Ok(());
    }
    let planner = storage.planner();
    let crowded = of_address >= MAX_NODES_OF_ADDRESS;
    let unused = nodes
        .iter()
        .find(|(peer, node)| (!crowded || there(node)) && !planner.is_up(*peer) && !planner.is_named(*peer));
    match unused {
        Some((peer, _)) => {
            writes.push(delete(STORAGE_NODE, peer.0.to_vec()));
            Ok(())
        }
        None => Err(refuse(
            RefusalKind::Limit,
            "the trackers have as many storage nodes as they take; expel one that is no longer used",
        )),
    }
}

fn node_write(peer: PeerId, node: &StorageNode) -> Write {
    put(STORAGE_NODE, peer.0.to_vec(), node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applicant(key: u8, from: u8, heard_ms: u64) -> Applicant {
        applicant_at(key, IpAddr::from([10, 0, 0, from]), heard_ms)
    }

    fn applicant_at(key: u8, from: IpAddr, heard_ms: u64) -> Applicant {
        let name = NodeName::create("DFS1").unwrap();
        Applicant { peer: PeerId([key; 32]), name, address: (from, 1).into(), from, heard_ms }
    }

    #[test]
    fn few_wait_few_from_one_address_and_none_for_ever() {
        let mut waiting = Waiting::default();
        let taken = (0..100).filter(|&key| waiting.ask(applicant(key, 1, 0))).count();
        assert_eq!(taken, MAX_WAITING_OF_ADDRESS);
        assert!(waiting.ask(applicant(0, 1, 1)), "one that waits already asks again");
        for key in 100..200 {
            waiting.ask(applicant(key, key, 1));
        }
        assert_eq!(waiting.list(1).len(), MAX_WAITING);
        assert!(!waiting.ask(applicant(220, 220, 1)));
        assert!(waiting.ask(applicant(220, 220, WAITING_MS + 1)), "those that ask no more give way");
        assert_eq!(waiting.list(WAITING_MS + 1).len(), 1);
    }

    #[test]
    fn a_key_is_waited_for_an_hour_and_few_are() {
        let mut waiting = Waiting::default();
        assert!(waiting.expect(PeerId([1; 32]), 0));
        assert!(waiting.is_expected(PeerId([1; 32]), EXPECTED_MS - 1));
        assert!(!waiting.is_expected(PeerId([1; 32]), EXPECTED_MS));
        let taken = (0..100).filter(|&key| waiting.expect(PeerId([key; 32]), 1)).count();
        assert_eq!(taken, MAX_EXPECTED);
        assert!(waiting.expect(PeerId([1; 32]), 2), "one that is waited for already");
        waiting.forget(PeerId([1; 32]));
        assert!(!waiting.is_expected(PeerId([1; 32]), 3));
        assert!(waiting.expect(PeerId([200; 32]), EXPECTED_MS + 3), "those that did not come give way");
    }

    #[test]
    fn an_ipv6_subscriber_takes_no_more_places_than_an_ipv4_address() {
        let mut waiting = Waiting::default();
        let from = |host: u8| IpAddr::from([0x2001, 0xdb8, 1, 2, 0, 0, 0, u16::from(host)]);
        let taken = (0..100).filter(|&key| waiting.ask(applicant_at(key, from(key), 0))).count();
        assert_eq!(taken, MAX_WAITING_OF_ADDRESS);
    }
}
