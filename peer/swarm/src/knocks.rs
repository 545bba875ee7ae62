//! Other members ask this client to dial them, because they do not reach it, or to meet them at a tracker. What is asked is judged
//! first: it comes through a tracker, which may lie.
//!
//! A request counts if the one that asks signed it lately, for this client, with a ticket for a group that this client serves
//! something of.
//! So a tracker alone sends this client nowhere, and a member only so often, to an address that a client may have.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use shoal_common::bucket::{Allowance, Bucket, Buckets};
use shoal_common::tokens::{self, CLOCK_TOLERANCE_MS};
use shoal_common::tracker_api::ways::Meeting;
use shoal_common::{Gid, PeerId, Uid};
use shoal_net::bulk::{self, BulkStream};
use shoal_net::{Identity, is_local, is_of_this_machine};
use shoal_session::tickets::TicketBook;
use shoal_session::ways::{Knocked, Ways};

/// Requests of one user: a download makes up to four connections to a sharer, and a client may have many.
const OF_USER: Allowance = Allowance { burst: 24, refill: Duration::from_secs(2) };
/// Requests of all users: a tracker and a member who work together send this client to others no faster.
const OF_ALL: Allowance = Allowance { burst: 120, refill: Duration::from_millis(250) };
/// Users whose requests are remembered.
const MAX_USERS: usize = 1_024;
/// Ports below this are other services', but for one that clients take to get through firewalls.
const FIRST_PORT: u16 = 1_024;
const WEB_PORT: u16 = 443;

/// Judges requests.
pub(crate) struct Judge {
    users: Buckets<Uid>,
    all: Bucket,
    ways: Ways,
    tickets: TicketBook,
    /// Whether this client serves anything of a group.
    serves: Box<dyn Fn(Gid) -> bool + Send>,
    /// Where this client listens: one on loopback serves others there.
    listen: IpAddr,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Who asks.
    pub(crate) peer: PeerId,
    to: Place,
}

/// Where to go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    At(SocketAddr),
    Meeting(Meeting),
}

/// Why nothing follows from a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unheard {
    #[error("it is not signed by the one that asks, for this client")]
    Forged,
    #[error("it is old")]
    Old,
    #[error("it has no ticket for a group of which this client serves anything")]
    NoTicket,
    #[error("no client is at such an address")]
    Address,
    #[error("its user, or all, asked too often")]
    TooOften,
}

impl Judge {
    /// No request came yet.
    pub(crate) fn new(
        ways: Ways,
        tickets: TicketBook,
        serves: Box<dyn Fn(Gid) -> bool + Send>,
        listen: IpAddr,
    ) -> Self {
        let now = Instant::now();
        Self { users: Buckets::new(MAX_USERS), all: Bucket::full(now), ways, tickets, serves, listen }
    }

    /// Judges one. Dropping the future is safe.
    ///
    /// # Errors
    /// Why nothing follows from it.
    pub(crate) async fn judge(&mut self, knocked: Knocked) -> Result<Asked, Unheard> {
        let knock = tokens::open_knock(&knocked.knock).map_err(|_| Unheard::Forged)?;
        if knock.to != self.ways.own() || knock.from == knock.to {
            return Err(Unheard::Forged);
        }
        let now = self.tickets.now_ms().ok_or(Unheard::Old)?;
        if now.abs_diff(knock.at_ms) > CLOCK_TOLERANCE_MS {
            return Err(Unheard::Old);
        }
        if !(self.serves)(knock.group) {
            return Err(Unheard::NoTicket);
        }
        let ticket = self.tickets.judge_asking(&knock.ticket, knock.from, knock.group).await;
        let user = ticket.map_err(|_| Unheard::NoTicket)?.user;
        let to = match (knock.address, knocked.meeting) {
            (Some(address), None) => {
                let address = address.parse().map_err(|_| Unheard::Address)?;
                Place::At(self.may_dial(address)?)
            }
            (None, Some(meeting)) => Place::Meeting(meeting),
            // What was signed for one way is not used for the other.
            _ => return Err(Unheard::Forged),
        };
        self.charge(user, Instant::now())?;
        Ok(Asked { peer: knock.from, to })
    }

    /// An address that a client may have, and that is none of this machine's other services.
    fn may_dial(&self, address: SocketAddr) -> Result<SocketAddr, Unheard> {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        let nobodys =
            ip.is_unspecified() || ip.is_multicast() || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        if nobodys || (port < FIRST_PORT && port != WEB_PORT) {
            return Err(Unheard::Address);
        }
        let allowed = if self.listen.is_loopback() {
            ip.is_loopback()
        } else {
            !is_of_this_machine(ip) && (!is_local(ip) || self.ways.is_near(ip))
        };
        if allowed { Ok(SocketAddr::new(ip, port)) } else { Err(Unheard::Address) }
    }

    fn charge(&mut self, user: Uid, now: Instant) -> Result<(), Unheard> {
        let mut bucket = self.users.of(user, now);
        let taken = bucket.take(1, OF_USER, now).and_then(|()| self.all.take(1, OF_ALL, now));
        if taken.is_ok() {
            self.users.set(user, bucket, now);
        }
        taken.map_err(|_| Unheard::TooOften)
    }
}

impl Asked {
    /// Connects, in order to serve; gives where the connection leads too, as far as that is known. Dropping it leaves nothing behind.
    pub(crate) async fn connect(&self, ways: &Ways, identity: &Identity) -> Option<(BulkStream, IpAddr)> {
        let connected = match &self.to {
            Place::At(address) => {
                let connected = bulk::connect_reversed(*address, self.peer, identity).await;
                connected.map(|stream| (stream, address.ip())).map_err(|error| error.to_string())
            }
            Place::Meeting(meeting) => {
                let place = ways.place_of(meeting)?;
                let met = bulk::meet(place, self.peer, identity).await;
                let nowhere = IpAddr::from([0, 0, 0, 0]);
                met.map(|stream| (stream, nowhere)).map_err(|error| error.to_string())
            }
        };
        connected
            .inspect_err(|error| tracing::debug!(peer = %self.peer, %error, "a client that asked for it is not reached"))
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use shoal_common::tokens::{Knock, Ticket, seal};
    use shoal_common::{TrackerInfo, UserName};
    use shoal_net::Interface;

    use super::*;

    const GROUP: Gid = Gid([7; 16]);
    const NOW_MS: u64 = 1_700_000_000_000;

    /// A sharer at home, its tracker's key, and another member.
    struct Stage {
        judge: Judge,
        own: PeerId,
        tracker: Identity,
        member: Identity,
    }

    impl Stage {
        fn new() -> Self {
            let (tracker, own, member) = (Identity::generate(), Identity::generate(), Identity::generate());
            let own = own.peer_id();
            let tickets = TicketBook::new(own);
            tickets.update(&[], &[tracker.peer_id()], NOW_MS);
            let ways = Ways::new(own, TrackerInfo::parse("203.0.113.1:7000\n").unwrap());
            let home = Interface { ip: "192.168.1.2".parse().unwrap(), prefix: 24 };
            let _ = ways.is_at(vec![home], Vec::new());
            Self {
                judge: Judge::new(ways, tickets, Box::new(|group| group == GROUP), home.ip),
                own,
                tracker,
                member,
            }
        }

        fn knock(&self) -> Knock {
            let from = self.member.peer_id();
            let ticket = ticket(&self.tracker, from);
            Knock { from, to: self.own, group: GROUP, address: at("203.0.113.9:7001"), at_ms: NOW_MS, ticket }
        }

        async fn judged(&mut self, knock: &Knock) -> Result<Asked, Unheard> {
            let knock = seal(knock, self.member.peer_id(), |message| self.member.sign(message));
            self.judge.judge(Knocked { knock, meeting: None }).await
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "as a knock has it")]
    fn at(address: &str) -> Option<String> {
        Some(address.to_owned())
    }

    fn ticket(tracker: &Identity, peer: PeerId) -> Vec<u8> {
        let (user, name) = (Uid([2; 16]), UserName::create("ann").unwrap());
        let ticket = Ticket { user, name, peer, group: GROUP, expires_ms: NOW_MS + 60_000 };
        seal(&ticket, tracker.peer_id(), |message| tracker.sign(message))
    }

    #[tokio::test]
    async fn a_member_who_signed_it_is_heard_and_nobody_else() {
        let mut stage = Stage::new();
        let good = stage.knock();
        assert_eq!(stage.judged(&good).await.unwrap().peer, good.from);
        let other = Identity::generate();
        let others = Knock { to: other.peer_id(), ..good.clone() };
        assert_eq!(stage.judged(&others).await, Err(Unheard::Forged), "it is for another sharer");
        let in_its_name = Knock { from: other.peer_id(), ..good.clone() };
        assert_eq!(stage.judged(&in_its_name).await, Err(Unheard::Forged), "signed by another than it names");
        let old = Knock { at_ms: NOW_MS - 10 * 60_000, ..good.clone() };
        assert_eq!(stage.judged(&old).await, Err(Unheard::Old), "kept by a tracker for later");
        let elsewhere = Knock { group: Gid([8; 16]), ..good.clone() };
        assert_eq!(stage.judged(&elsewhere).await, Err(Unheard::NoTicket), "of no group of ours");
        let copied = Knock { ticket: ticket(&stage.tracker, other.peer_id()), ..good.clone() };
        assert_eq!(stage.judged(&copied).await, Err(Unheard::NoTicket), "another one's ticket");
        let forged = Knock { ticket: ticket(&other, good.from), ..good.clone() };
        assert_eq!(stage.judged(&forged).await, Err(Unheard::NoTicket), "no tracker signed it");
        let nowhere = Knock { address: None, ..good };
        assert_eq!(
            stage.judged(&nowhere).await,
            Err(Unheard::Forged),
            "signed for a meeting, used for a dial"
        );
    }

    #[tokio::test]
    async fn only_addresses_that_a_client_may_have_are_dialled() {
        let mut stage = Stage::new();
        let good = stage.knock();
        for address in [
            "127.0.0.1:7001",
            "[::1]:7001",
            "[::ffff:127.0.0.1]:7001",
            "0.0.0.0:7001",
            "224.0.0.1:7001",
            "255.255.255.255:7001",
            "10.0.0.5:7001",
            "192.168.2.1:7001",
            "169.254.169.254:8080",
            "192.168.1.2:7001",
            "203.0.113.9:25",
            "203.0.113.9:22",
            "203.0.113.9:0",
            "example.org:7001",
        ] {
            let asked = stage.judged(&Knock { address: at(address), ..good.clone() }).await;
            assert_eq!(asked, Err(Unheard::Address), "{address}");
        }
        for address in ["192.168.1.77:7001", "203.0.113.9:443", "[2001:db8::9]:7001"] {
            assert!(stage.judged(&Knock { address: at(address), ..good.clone() }).await.is_ok(), "{address}");
        }
    }

    #[tokio::test]
    async fn nobody_has_this_client_dial_without_end() {
        let mut stage = Stage::new();
        let mut heard = 0;
        for number in 0..1_000 {
            let address = at(&format!("203.0.113.9:{}", 2_000 + number));
            heard += u32::from(stage.judged(&Knock { address, ..stage.knock() }).await.is_ok());
        }
        assert!((OF_USER.burst..OF_USER.burst + 4).contains(&heard), "{heard}");
    }
}
