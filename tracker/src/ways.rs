//! Where clients are seen, whether they were reached, and what is to be said to them: memory only.
//!
//! Each tracker owns what it knows of its own clients, and sends it to the others as it sends presence. What is to be said to a client
//! of another tracker goes there. Trackers of earlier versions ignore both.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use minicbor::{Decode, Encode};
use shoal_common::PeerId;
use shoal_common::tracker_api::ways::{MAX_LAN, Push};
use shoal_net::site;
use tokio::sync::mpsc;

/// What may wait to be said to one client; more is not said.
const MAX_PUSHES: usize = 64;
/// What may wait for the link with one tracker; more is not sent.
const MAX_BETWEEN: usize = 4_096;
/// Clients that are remembered, of all trackers together.
const MAX_NOTES: usize = 65_536;

/// What one tracker tells another.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Between {
    /// Where a client of the sender's is.
    #[n(0)]
    Note {
        /// Its key.
        #[n(0)]
        peer: PeerId,
        /// From which ip it is connected.
        #[n(1)]
        seen: String,
        /// `ip:port` on each of its own networks.
        #[n(2)]
        lan: Vec<String>,
        /// Whether the sender reached it.
        #[n(3)]
        reached: Option<bool>,
    },
    /// A client of the sender's is gone.
    #[n(1)]
    Gone {
        /// Its key.
        #[n(0)]
        peer: PeerId,
    },
    /// To be said to a client of the receiver's.
    #[n(2)]
    Say {
        /// Its key.
        #[n(0)]
        to: PeerId,
        /// What.
        #[n(1)]
        push: Push,
    },
}

/// What is known of a client.
#[derive(Debug, Clone)]
struct Note {
    /// Its tracker; `None` for this one.
    tracker: Option<u8>,
    seen: IpAddr,
    lan: Vec<SocketAddr>,
    reached: Option<bool>,
}

#[derive(Debug, Default)]
struct WaysTable {
    notes: HashMap<PeerId, Note>,
    /// This tracker's own clients that take what is said to them, and which connection of theirs does.
    clients: HashMap<PeerId, (u64, mpsc::Sender<Push>)>,
    links: HashMap<u8, mpsc::Sender<Between>>,
    connections: u64,
}

/// A handle; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Ways(Arc<Mutex<WaysTable>>);

impl Ways {
    /// A client of this tracker is seen at `seen` and listens there on its own networks. Gives what is to be said to it, and the number
    /// that names this connection.
    #[must_use]
    pub fn here(&self, peer: PeerId, seen: IpAddr, lan: &[String]) -> (u64, mpsc::Receiver<Push>) {
        let (sender, pushes) = mpsc::channel(MAX_PUSHES);
        let mut table = self.lock();
        table.connections += 1;
        let number = table.connections;
        table.clients.insert(peer, (number, sender));
        table.note(
            peer,
            Note { tracker: None, seen: seen.to_canonical(), lan: addresses(lan), reached: None },
        );
        table.tell_all(peer);
        (number, pushes)
    }

    /// That connection of a client of this tracker ended.
    pub fn gone(&self, peer: PeerId, number: u64) {
        let mut table = self.lock();
        if table.clients.get(&peer).is_some_and(|(now, _)| *now == number) {
            table.clients.remove(&peer);
            table.notes.remove(&peer);
            table.send_all(&Between::Gone { peer });
        }
    }

    /// Whether this tracker reached a client of its own.
    pub fn looked(&self, peer: PeerId, reached: bool) {
        let mut table = self.lock();
        if let Some(note) = table.notes.get_mut(&peer).filter(|note| note.tracker.is_none()) {
            note.reached = Some(reached);
            table.tell_all(peer);
        }
    }

    /// Whether a client was reached by its tracker; `None` where none looked.
    #[must_use]
    pub fn reached(&self, peer: PeerId) -> Option<bool> {
        self.lock().notes.get(&peer).and_then(|note| note.reached)
    }

    /// Where a client is on its own networks, if the other one is seen at the same IPv4 address or IPv6 /64.
    #[must_use]
    pub fn near(&self, peer: PeerId, other: PeerId) -> Vec<SocketAddr> {
        let table = self.lock();
        match (table.notes.get(&peer), table.notes.get(&other)) {
            (Some(note), Some(other)) if site(note.seen) == site(other.seen) => note.lan.clone(),
            _ => Vec::new(),
        }
    }

    /// Says something to a client, of this tracker or another. False if it cannot be said: the client is gone, or its version or its
    /// tracker's takes nothing, or too much waits.
    #[must_use]
    pub fn say(&self, to: PeerId, push: Push) -> bool {
        let table = self.lock();
        if let Some((_, client)) = table.clients.get(&to) {
            return client.try_send(push).is_ok();
        }
        let link =
            table.notes.get(&to).and_then(|note| note.tracker).and_then(|number| table.links.get(&number));
        link.is_some_and(|link| link.try_send(Between::Say { to, push }).is_ok())
    }

    /// A link stands: gives what is to be sent at first, and then.
    #[must_use]
    pub fn link_up(&self, tracker: u8) -> (Vec<Between>, mpsc::Receiver<Between>) {
        let (sender, queue) = mpsc::channel(MAX_BETWEEN);
        let mut table = self.lock();
        table.links.insert(tracker, sender);
        let own = table.notes.iter().filter(|(_, note)| note.tracker.is_none());
        (own.map(|(&peer, note)| note.told(peer)).collect(), queue)
    }

    /// A link ended.
    pub fn link_down(&self, tracker: u8) {
        let mut table = self.lock();
        table.links.remove(&tracker);
        table.notes.retain(|_, note| note.tracker != Some(tracker));
    }

    /// Applies what another tracker sent. It says nothing of this tracker's own clients, nor of a third one's.
    pub fn apply(&self, tracker: u8, between: Between) {
        let mut table = self.lock();
        let is_its = |table: &WaysTable, peer: &PeerId| {
            table.notes.get(peer).is_none_or(|note| note.tracker == Some(tracker))
        };
        match between {
            Between::Note { peer, seen, lan, reached } if is_its(&table, &peer) => {
                let Ok(seen) = seen.parse::<IpAddr>() else { return };
                let note =
                    Note { tracker: Some(tracker), seen: seen.to_canonical(), lan: addresses(&lan), reached };
                table.note(peer, note);
            }
            Between::Gone { peer } if is_its(&table, &peer) => {
                table.notes.remove(&peer);
            }
            // Other trackers judged nothing of it; what reaches this client it judges itself.
            Between::Say { to, push: push @ Push::Knock { .. } } => {
                if let Some((_, client)) = table.clients.get(&to) {
                    let _ = client.try_send(push);
                }
            }
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, WaysTable> {
        // A panic while the lock was held leaves at most a stale note.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Note {
    fn told(&self, peer: PeerId) -> Between {
        let lan = self.lan.iter().map(ToString::to_string).collect();
        Between::Note { peer, seen: self.seen.to_string(), lan, reached: self.reached }
    }
}

impl WaysTable {
    fn note(&mut self, peer: PeerId, note: Note) {
        if self.notes.len() < MAX_NOTES || self.notes.contains_key(&peer) {
            self.notes.insert(peer, note);
        }
    }

    fn tell_all(&self, peer: PeerId) {
        if let Some(note) = self.notes.get(&peer) {
            self.send_all(&note.told(peer));
        }
    }

    fn send_all(&self, between: &Between) {
        for link in self.links.values() {
            // What is lost costs a slower way at most.
            let _ = link.try_send(between.clone());
        }
    }
}

/// Addresses that a client may have on a network of its own.
fn addresses(lan: &[String]) -> Vec<SocketAddr> {
    let parsed = lan.iter().filter_map(|text| text.parse::<SocketAddr>().ok());
    let possible = parsed.filter(|address| {
        let ip = address.ip();
        address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback()
    });
    possible.take(MAX_LAN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: PeerId = PeerId([1; 32]);
    const BEN: PeerId = PeerId([2; 32]);
    const HOME: &str = "203.0.113.7";

    fn at(ways: &Ways, peer: PeerId, seen: &str, lan: &str) -> (u64, mpsc::Receiver<Push>) {
        ways.here(peer, seen.parse().unwrap(), &[lan.to_owned()])
    }

    fn knock() -> Push {
        Push::Knock { knock: vec![1], meeting: None }
    }

    #[test]
    fn lan_addresses_are_told_to_those_at_the_same_address_alone() {
        let ways = Ways::default();
        let _ann = at(&ways, ANN, HOME, "192.168.1.2:7001");
        let _ben = at(&ways, BEN, "::ffff:203.0.113.7", "192.168.1.3:7001");
        assert_eq!(ways.near(ANN, BEN), ["192.168.1.2:7001".parse().unwrap()]);
        let _ben = at(&ways, BEN, "203.0.113.8", "192.168.1.3:7001");
        assert!(ways.near(ANN, BEN).is_empty());
        let (one, other) = ("2001:db8:0:1::2", "2001:db8:0:1::3");
        let _both = (at(&ways, ANN, one, "[fd00::2]:7001"), at(&ways, BEN, other, "[fd00::3]:7001"));
        assert_eq!(ways.near(BEN, ANN), ["[fd00::3]:7001".parse().unwrap()]);
        assert!(ways.near(ANN, PeerId([3; 32])).is_empty(), "nobody knows that one");
    }

    #[test]
    fn what_is_said_goes_through_the_clients_tracker_and_no_other_says_where_own_clients_are() {
        let (one, two) = (Ways::default(), Ways::default());
        let (_, mut heard) = at(&two, BEN, HOME, "192.168.1.3:7001");
        let (notes, _) = two.link_up(1);
        let (_, mut queue) = one.link_up(2);
        assert!(!one.say(BEN, knock()), "not known yet");
        notes.into_iter().for_each(|note| one.apply(2, note));
        let _ann = at(&one, ANN, HOME, "192.168.1.2:7001");
        assert!(matches!(queue.try_recv(), Ok(Between::Note { peer: ANN, .. })));
        assert_eq!(one.near(BEN, ANN), ["192.168.1.3:7001".parse().unwrap()]);
        assert!(one.say(BEN, knock()));
        let sent = queue.try_recv().unwrap();
        assert_eq!(sent, Between::Say { to: BEN, push: knock() });
        two.apply(1, sent);
        assert_eq!(heard.try_recv(), Ok(knock()));
        let lie =
            |reached| Between::Note { peer: ANN, seen: "198.51.100.1".into(), lan: Vec::new(), reached };
        one.apply(2, lie(Some(true)));
        assert_eq!(
            (one.reached(ANN), one.near(ANN, BEN).len()),
            (None, 1),
            "of its own clients it knows best"
        );
        let reached = Push::Reached { address: "198.51.100.1:1".into(), reached: true };
        two.apply(1, Between::Say { to: BEN, push: reached });
        assert!(heard.try_recv().is_err(), "another tracker says nothing of reachability");
        one.link_down(2);
        assert!(!one.say(BEN, knock()) && one.near(BEN, ANN).is_empty());
    }

    #[test]
    fn a_connection_that_is_noticed_late_to_be_broken_takes_nothing_away() {
        let ways = Ways::default();
        let (old, _) = at(&ways, ANN, HOME, "192.168.1.2:7001");
        let (new, mut heard) = at(&ways, ANN, HOME, "192.168.1.2:7001");
        ways.gone(ANN, old);
        assert!(ways.say(ANN, knock()) && heard.try_recv().is_ok());
        ways.gone(ANN, new);
        assert!(!ways.say(ANN, knock()));
    }

    #[test]
    fn what_waits_is_bounded_and_no_client_is_at_nobodys_address() {
        let ways = Ways::default();
        let (_, _heard) = at(&ways, ANN, HOME, "224.0.0.1:7");
        assert_eq!((0..1_000).filter(|_| ways.say(ANN, knock())).count(), MAX_PUSHES);
        let many: Vec<String> = (0..100).map(|n| format!("192.168.1.{n}:7001")).collect();
        assert_eq!(addresses(&many).len(), MAX_LAN);
        assert!(
            addresses(&["127.0.0.1:7".into(), "0.0.0.0:7".into(), "10.0.0.1:0".into(), "x".into()])
                .is_empty()
        );
    }
}
