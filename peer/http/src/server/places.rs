//! Which connections there are, of all virtual servers, and which gives way when there is no place for one more.
//!
//! Every newcomer is let in, so a crowd of connections that do nothing never keeps others out. Those that take little give
//! way first: a connection *works* when its client has taken more than the system takes in its stead, and took something a
//! moment ago. Only bytes that were sent count. Bytes that came do not: a request that never ends brings some, too.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shoal_common::site;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Connections at once, of all virtual servers. A connection takes about 70 KiB at most (see `buffers`).
const MOST: usize = 1_024;
/// One address may have this part of them. Behind one address there may be a whole school.
const OF_ONE_ADDRESS: usize = 2;
/// Descriptors that are not for connections: files of the process, listeners, digests.
const OTHER_DESCRIPTORS: u64 = 64;
/// Fewest places: fewer than this are of no use.
const FEWEST: usize = 16;
/// What the buffers of the system take in without a client that reads. More than that, and it reads.
const TAKEN_UNREAD: u64 = 512 * 1024;
/// Longest time between two bytes of a connection that works.
const WORKS: Duration = Duration::from_secs(10);
/// A connection that was sent something so lately keeps its long text.
const TEXT_IN_USE: Duration = Duration::from_secs(2);

/// See the module. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct Places(Arc<PlacesInner>);

#[derive(Debug)]
struct PlacesInner {
    most: usize,
    began: Instant,
    /// A connection that has given way has its permit until its task has ended.
    room: Arc<Semaphore>,
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    by_number: HashMap<u64, Arc<Connection>>,
}

#[derive(Debug)]
struct Connection {
    address: IpAddr,
    end: CancellationToken,
    sent: AtomicU64,
    /// When something was sent last, or it was opened: milliseconds since the places began.
    last: AtomicU64,
    /// Bytes of a long text that are kept for it.
    text: AtomicU64,
    gave_way: AtomicBool,
}

/// The place of one connection; dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    number: u64,
    connection: Arc<Connection>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// As many as this number of descriptors allows: a connection may have a socket and a file.
    pub(super) fn within(descriptors: u64) -> Self {
        let room = usize::try_from(descriptors.saturating_sub(OTHER_DESCRIPTORS) / 2).unwrap_or(MOST);
        Self::new(room.clamp(FEWEST, MOST))
    }

    fn new(most: usize) -> Self {
        Self(Arc::new(PlacesInner {
            most,
            began: Instant::now(),
            room: Arc::new(Semaphore::new(most)),
            connections: Mutex::default(),
        }))
    }

    /// Gives a connection a place; another gives way for it if there is none. `end` is cancelled when this one gives way.
    pub(super) async fn admit(&self, from: IpAddr, end: CancellationToken) -> Place {
        let mut place = self.enter(site(from), end);
        // Those that give way are gone in a moment.
        place._room = self.0.room.clone().acquire_owned().await.ok();
        place
    }

    fn enter(&self, address: IpAddr, end: CancellationToken) -> Place {
        let mut all = self.connections();
        let of_address = all.by_number.values().filter(|other| other.address == address).count();
        if of_address >= self.0.most / OF_ONE_ADDRESS {
            self.one_gives_way(&mut all, |other| other.address == address);
        } else if all.by_number.len() >= self.0.most {
            self.one_gives_way(&mut all, |_| true);
        }
        let connection = Arc::new(Connection {
            address,
            end,
            sent: AtomicU64::new(0),
            last: AtomicU64::new(self.now()),
            text: AtomicU64::new(0),
            gave_way: AtomicBool::new(false),
        });
        let number = all.next;
        all.next += 1;
        all.by_number.insert(number, connection.clone());
        Place { places: self.clone(), number, connection, _room: None }
    }

    /// The one that does not work, is of the address that has most, and was idle longest. Returns the bytes of its text.
    fn one_gives_way(&self, all: &mut Connections, wanted: impl Fn(&Connection) -> bool) -> Option<u64> {
        let mut of: HashMap<IpAddr, usize> = HashMap::new();
        for connection in all.by_number.values() {
            *of.entry(connection.address).or_default() += 1;
        }
        let now = self.now();
        let order = |connection: &Connection| {
            let most = of.get(&connection.address).copied().unwrap_or_default();
            let last = connection.last.load(Ordering::Relaxed);
            (connection.works(now), std::cmp::Reverse(most), last)
        };
        let candidates = all.by_number.iter().filter(|(_, connection)| wanted(connection));
        let number = candidates.min_by_key(|(_, connection)| order(connection)).map(|(&number, _)| number)?;
        let connection = all.by_number.remove(&number)?;
        connection.gave_way.store(true, Ordering::Relaxed);
        connection.end.cancel();
        Some(connection.text.load(Ordering::Relaxed))
    }

    /// Makes those give way that have not taken anything of a long text for a moment, until so many bytes are free.
    pub(super) fn free_text(&self, bytes: u64) {
        let mut all = self.connections();
        let mut freed = 0;
        let recently = self.now().saturating_sub(millis(TEXT_IN_USE));
        let stale = |other: &Connection| {
            other.text.load(Ordering::Relaxed) > 0 && other.last.load(Ordering::Relaxed) < recently
        };
        while freed < bytes {
            let Some(text) = self.one_gives_way(&mut all, stale) else { return };
            freed += text;
        }
    }

    fn now(&self) -> u64 {
        millis(self.0.began.elapsed())
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.0.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn works(&self, now: u64) -> bool {
        let idle = now.saturating_sub(self.last.load(Ordering::Relaxed));
        self.sent.load(Ordering::Relaxed) > TAKEN_UNREAD && idle < millis(WORKS)
    }
}

impl Place {
    /// So many bytes went to the client.
    pub(super) fn sent(&self, bytes: usize) {
        self.connection.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.connection.last.store(self.places.now(), Ordering::Relaxed);
    }

    /// Whether its client has shown that it takes what it is sent.
    pub(super) fn works(&self) -> bool {
        self.connection.works(self.places.now())
    }

    /// A long text is kept for it; 0: none any more.
    pub(super) fn keeps_text(&self, bytes: u64) {
        self.connection.text.store(bytes, Ordering::Relaxed);
    }

    /// Its client takes nothing any more.
    pub(super) fn give_up(&self) {
        self.connection.gave_way.store(true, Ordering::Relaxed);
    }

    /// Whether it had to give way, or was given up.
    pub(super) fn gave_way(&self) -> bool {
        self.connection.gave_way.load(Ordering::Relaxed)
    }

    /// All places.
    pub(super) fn all(&self) -> &Places {
        &self.places
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.connections().by_number.remove(&self.number);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(places: &Places, address: &str) -> (Place, CancellationToken) {
        let end = CancellationToken::new();
        (places.enter(site(address.parse().unwrap()), end.clone()), end)
    }

    #[test]
    fn of_one_address_the_idlest_gives_way_and_never_one_that_works() {
        let places = Places::new(8);
        let (works, works_on) = open(&places, "10.0.0.1");
        works.sent(usize::try_from(TAKEN_UNREAD).unwrap() + 1);
        let other = open(&places, "10.0.0.2");
        let crowd: Vec<_> = (0..100).map(|_| open(&places, "10.0.0.1")).collect();
        assert!(!works_on.is_cancelled() && !other.1.is_cancelled());
        let left = crowd.iter().filter(|(place, end)| !end.is_cancelled() && !place.gave_way()).count();
        assert_eq!(left, 3, "half of the places are for one address");
    }

    #[test]
    fn an_ipv6_prefix_is_one_address() {
        let places = Places::new(8);
        let crowd: Vec<_> = (0..9).map(|host| open(&places, &format!("2001:db8::{host}"))).collect();
        assert_eq!(crowd.iter().filter(|(_, end)| !end.is_cancelled()).count(), 4);
    }

    #[test]
    fn the_address_with_most_gives_way_to_a_newcomer_from_elsewhere() {
        let places = Places::new(8);
        let crowd: Vec<_> = (0..4).map(|_| open(&places, "10.0.0.1")).collect();
        let single: Vec<_> = (2..6).map(|host| open(&places, &format!("10.0.0.{host}"))).collect();
        let newcomer = open(&places, "10.0.0.9");
        assert!(single.iter().all(|(_, end)| !end.is_cancelled()) && !newcomer.1.is_cancelled());
        assert_eq!(crowd.iter().filter(|(_, end)| end.is_cancelled()).count(), 1);
    }

    #[test]
    fn the_places_keep_to_the_descriptors() {
        for (descriptors, places) in [(0, FEWEST), (264, 100), (1 << 20, MOST)] {
            assert_eq!(Places::within(descriptors).0.most, places);
        }
    }

    #[tokio::test]
    async fn a_place_is_free_when_the_connection_that_gave_way_is_gone() {
        let places = Places::new(2);
        let address = "10.0.0.1".parse().unwrap();
        let end = CancellationToken::new();
        let first = places.admit(address, end.clone()).await;
        let second = places.admit("10.0.0.2".parse().unwrap(), CancellationToken::new()).await;
        let third = tokio::spawn({
            let places = places.clone();
            async move { places.admit(address, CancellationToken::new()).await }
        });
        end.cancelled().await;
        assert!(!third.is_finished());
        drop(first);
        drop((third.await.unwrap(), second));
        assert!(places.connections().by_number.is_empty());
    }
}
