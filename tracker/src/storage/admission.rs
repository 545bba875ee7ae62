//! Which storage nodes belong to the cluster: those with a record. A node gets one by proving that it knows the join secret,
//! or from an operator at a tracker's prompt. All others wait, in a short list, and are told what to do.
//!
//! Nothing that a stranger says is written down, passed on, or remembered for longer than the list holds it. A node that a
//! version without admission registered has its record already. One that an operator expelled waits, whatever it knows.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use shoal_common::join::{JoinProof, NodeSecret};
use shoal_common::tracker_api::storage::{MAX_NODES, NodeEntry};
use shoal_common::tracker_api::{Refusal, RefusalKind};
use shoal_common::{NodeName, PeerId};
use shoal_net::site;
use shoal_replica::{Rows, Write};

use super::Storage;
use super::expelled::{expel, let_in_again};
use crate::core::{Fault, Tx, refuse};
use crate::record::{STORAGE_NODE, StorageNode, encode, part};

/// Storage nodes on one machine: more would be a mistake that takes up what others need. Counted by the whole address, also of
/// IPv6: all machines of a data centre may share a /64, and each of these nodes was admitted.
const MAX_NODES_OF_ADDRESS: usize = 64;
/// Nodes that wait to be admitted at most: what an operator can look through.
const MAX_WAITING: usize = 64;
/// Of them from one address: a stranger there leaves room for others.
const MAX_WAITING_OF_ADDRESS: usize = 16;
/// A node that did not ask for this long waits no more, in milliseconds; nodes ask every few seconds.
const WAITING_MS: u64 = 30_000;

/// Keys that an operator admitted before their nodes asked, at most.
const MAX_EXPECTED: usize = 64;
/// For how long such a key is let in, in milliseconds: long enough to start the node, not to forget about it.
const EXPECTED_MS: u64 = 3_600_000;

/// A node that waits to be admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applicant {
    /// Its key, proven.
    pub peer: PeerId,
    /// What it calls itself.
    pub name: NodeName,
    /// Where it says that it is; not tried.
    pub address: SocketAddr,
    /// Where it was seen.
    pub from: IpAddr,
    heard_ms: u64,
}

/// What became of an operator's `admit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// The node waited, and is in.
    Now(Applicant),
    /// No node with that key waits here: it is in as soon as it asks this tracker, within an hour.
    OnceItAsks(PeerId),
}

/// Those that wait, and those that are waited for. Pure.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    nodes: HashMap<PeerId, Applicant>,
    /// When one last found no place.
    crowded_ms: Option<u64>,
    /// Keys that were admitted before their nodes asked, and until when.
    expected: HashMap<PeerId, u64>,
}

impl Waiting {
    /// Notes that a node asks; false where too many do.
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

    /// A node neither waits nor is waited for any more.
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

/// By what a node may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// It knows the join secret.
    Secret,
    /// An operator admitted it, for as long as that holds: it has a record, or is waited for.
    Operator,
}

impl Storage {
    /// By what a node may register here: it proves that it knows the secret, or it is admitted.
    ///
    /// # Errors
    /// What it, and its operator, is to do.
    pub(crate) async fn check_admitted(
        &self,
        (peer, tracker): (PeerId, PeerId),
        name: &NodeName,
        (address, from): (SocketAddr, IpAddr),
        proof: Option<JoinProof>,
    ) -> Result<Right, Refusal> {
        let refusal = |kind, text: String| Refusal { kind, text, again_ms: None };
        let loaded = self.known().loaded;
        if !loaded {
            // Who is admitted stands in the records, which are read once anyway.
            self.refresh().await?;
        }
        let proves =
            |secret: &NodeSecret| proof.as_ref().is_some_and(|proof| secret.proves(proof, peer, tracker));
        let proven = self.secret.as_deref().is_some_and(proves);
        let known = self.depot().is_known(peer);
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
        Err(refusal(RefusalKind::NotAllowed, text))
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

    /// Admits the node of that key, or the only one of that name that waits here; true for all trackers.
    ///
    /// # Errors
    /// In words: none of that name waits, or perhaps several do, or the database cannot take it.
    pub async fn admit(&self, which: &str) -> Result<Admitted, String> {
        let now = self.now_ms();
        let applicant = match which.parse::<PeerId>() {
            Ok(peer) => {
                let waits = self.applicants().into_iter().find(|one| one.peer == peer);
                // One that was expelled may have a record all the same, which an earlier version wrote.
                let is_expelled = self.is_expelled(peer).await.map_err(|refusal| refusal.text)?;
                match waits {
                    Some(applicant) => applicant,
                    None if self.depot().is_known(peer) && !is_expelled => {
                        return Err(format!("{peer} is admitted already"));
                    }
                    None if self.waiting().expect(peer, now) => return Ok(Admitted::OnceItAsks(peer)),
                    None => return Err(format!("{MAX_EXPECTED} nodes are waited for, which is the most")),
                }
            }
            Err(_) => self.only_one_named(which)?,
        };
        let (storage, admitted) = (self.clone(), applicant.clone());
        let written = self.core.run(move |tx| {
            let nodes = read_nodes(tx)?;
            let mut writes: Vec<Write> = let_in_again(tx, admitted.peer)?.into_iter().collect();
            if nodes.iter().any(|(peer, _)| *peer == admitted.peer) {
                return if writes.is_empty() { Ok(()) } else { tx.write(writes) };
            }
            make_room(&storage, &nodes, admitted.address.ip(), &mut writes)?;
            let node = StorageNode { name: admitted.name, address: admitted.address.to_string(), heir: None };
            writes.push(node_write(admitted.peer, &node));
            tx.write(writes)
        });
        written.await.map_err(|refusal| refusal.text)?;
        self.refresh().await.map_err(|refusal| refusal.text)?;
        self.waiting().forget(applicant.peer);
        Ok(Admitted::Now(applicant))
    }

    /// The only node of that name that waits.
    fn only_one_named(&self, name: &str) -> Result<Applicant, String> {
        let waiting = self.applicants();
        let found: Vec<&Applicant> =
            waiting.iter().filter(|one| one.name.as_str().eq_ignore_ascii_case(name)).collect();
        match found[..] {
            [] | [_] if self.is_crowded() => Err(format!(
                "more nodes wait than are listed, so another one may call itself {name}; admit it by its key, which it \
                 says when it starts: admit KEY"
            )),
            [one] => Ok(one.clone()),
            [] => Err(format!("no node {name} waits here; \"nodes\" lists those that do")),
            _ => {
                let keys: Vec<String> =
                    found.iter().map(|one| format!("{} seen at {}", one.peer, one.from)).collect();
                Err(format!(
                    "several nodes call themselves {name}; admit one by its key: {}",
                    keys.join(", ")
                ))
            }
        }
    }

    /// Takes a node of that name or key out of the cluster; true for all trackers.
    ///
    /// # Errors
    /// In words: there is none, or there are several, or the database cannot take it.
    pub async fn expel(&self, which: &str) -> Result<NodeEntry, String> {
        let nodes = self.depot().nodes(self.now_ms());
        let found: Vec<&NodeEntry> = nodes
            .iter()
            .filter(|one| one.peer.to_string() == which || one.name.as_str().eq_ignore_ascii_case(which))
            .collect();
        let node = match found[..] {
            [one] => one.clone(),
            [] => {
                if let Ok(peer) = which.parse() {
                    // One that was admitted before it asked.
                    self.waiting().forget(peer);
                }
                return Err(format!("there is no storage node {which}; \"nodes\" lists them"));
            }
            _ => {
                let keys: Vec<String> =
                    found.iter().map(|one| format!("{} at {}", one.peer, one.address)).collect();
                return Err(format!(
                    "several nodes are called {which}; expel one by its key: {}",
                    keys.join(", ")
                ));
            }
        };
        // Nor may it come in by a key that was admitted before it asked.
        self.waiting().forget(node.peer);
        let key = node.peer.0.to_vec();
        let write = Write { kind: STORAGE_NODE, key, tombstone: true, ..Write::default() };
        let peer = node.peer;
        let written = self.core.run(move |tx| {
            let expelled = expel(tx, peer)?;
            tx.write(vec![write, expelled])
        });
        written.await.map_err(|refusal| refusal.text)?;
        self.refresh().await.map_err(|refusal| refusal.text)?;
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

/// What a node is told that lost its record while it registered.
pub(crate) fn was_expelled(name: &NodeName) -> Refusal {
    let text = format!(
        "{name} was taken out of the cluster; if that was not meant, type \"nodes\" and then \"admit\" with its key at a \
         tracker's prompt"
    );
    Refusal { kind: RefusalKind::NotAllowed, text, again_ms: None }
}

/// Writes a node's record, and makes it the heir of whoever was at its address under another key and is silent now.
///
/// # Errors
/// Where an operator's word was its right and that is gone: nobody undoes an operator's `expel` but an operator.
pub(crate) fn write_node(
    tx: &mut Tx<'_>,
    storage: &Storage,
    (peer, right): (PeerId, Right),
    name: NodeName,
    address: SocketAddr,
) -> Result<(), Fault> {
    let has_record = tx.store().get(STORAGE_NODE, &peer.0)?.is_some_and(|row| !row.tombstone);
    let expelled = let_in_again(tx, peer)?;
    let is_expected = storage.waiting().is_expected(peer, storage.now_ms());
    let allowed = is_expected || (expelled.is_none() && (right == Right::Secret || has_record));
    if !allowed {
        return Err(Fault::Refused(was_expelled(&name)));
    }
    let nodes = read_nodes(tx)?;
    let mut writes: Vec<Write> = expelled.into_iter().collect();
    let own = StorageNode { name, address: address.to_string(), heir: None };
    let known = nodes.iter().find(|(other, _)| *other == peer).map(|(_, node)| node);
    if known != Some(&own) {
        writes.push(node_write(peer, &own));
    }
    for (other, node) in nodes.iter().filter(|(other, node)| *other != peer && node.address == own.address) {
        if node.heir != Some(peer) && node.heir.is_none() && !storage.depot().is_up(*other) {
            tracing::warn!("{address} was storage node {other} and is now {peer}, which takes its place");
            writes.push(node_write(*other, &StorageNode { heir: Some(peer), ..node.clone() }));
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

/// Sees to it that nodes stay countable: one that is down and holds nothing gives way.
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
    let depot = storage.depot();
    let crowded = of_address >= MAX_NODES_OF_ADDRESS;
    let unused = nodes
        .iter()
        .find(|(peer, node)| (!crowded || there(node)) && !depot.is_up(*peer) && !depot.is_named(*peer));
    match unused {
        Some((peer, _)) => {
            let key = peer.0.to_vec();
            writes.push(Write { kind: STORAGE_NODE, key, tombstone: true, ..Write::default() });
            Ok(())
        }
        None => Err(refuse(RefusalKind::Limit, "the trackers have as many storage nodes as they take")),
    }
}

fn node_write(peer: PeerId, node: &StorageNode) -> Write {
    Write { kind: STORAGE_NODE, key: peer.0.to_vec(), value: encode(node), ..Write::default() }
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
