//! How a peer is connected to: at its addresses; where that fails or takes long, the peer is asked through the trackers to dial this
//! client; and where that fails too, both meet at a tracker. What stands first is used.

use std::net::SocketAddr;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use shoal_common::PeerId;
use shoal_common::tokens::{self, Knock};
use shoal_common::tracker_api::ways::{WayAnswer, WayCall};
use shoal_net::Identity;
use shoal_net::bulk::{self, BulkError, BulkStream};
use shoal_session::tickets::TicketBook;
use shoal_session::ways::{Reach, Ways};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::arrivals::Arrivals;
use super::trouble::{Trouble, Unreached};
use crate::FileKey;
use crate::way::Route;

/// Between the first tries of two addresses (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// How long the addresses are tried alone: most peers that can be reached are by then.
const DIRECT_ALONE: Duration = Duration::from_millis(500);
/// How much later the relay is asked for than the peer.
const REVERSED_ALONE: Duration = Duration::from_millis(750);
/// How long a tracker may take to pass a request on; it answers at once.
const ASKED: Duration = Duration::from_secs(4);
/// How long a peer that was asked may take to dial.
const ARRIVES: Duration = Duration::from_secs(6);

/// A new connection, and about how long a round trip takes on it.
pub(super) type Dialled = (BulkStream, Duration);

/// See the module.
pub(super) struct Ladder<'a> {
    pub(super) identity: &'a Identity,
    /// What trackers help with.
    pub(super) ways: Option<&'a (Ways, TicketBook)>,
    pub(super) arrivals: &'a Arrivals,
    pub(super) peer: PeerId,
    /// A file that is wanted there.
    pub(super) key: FileKey,
    pub(super) addresses: &'a [SocketAddr],
    /// Whether both may meet at a tracker.
    pub(super) may_relay: bool,
}

impl Ladder<'_> {
    /// Connects. Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// Why no address answers as that peer, if no other way stands either.
    pub(super) async fn climb(&self) -> Result<(Route, Dialled), Unreached> {
        let (mut failure, failed, mut over) = (None, Notify::new(), self.ways.is_none());
        let mut direct = std::pin::pin!(self.direct());
        let mut arranged = std::pin::pin!(self.arranged(&failed));
        loop {
            tokio::select! {
                dialled = &mut direct, if failure.is_none() => match dialled {
                    Ok((address, dialled)) => return Ok((Route::To(address), dialled)),
                    Err(why) => {
                        failed.notify_one();
                        failure = Some(why);
                    }
                },
                found = &mut arranged, if !over => match found {
                    Some(found) => return Ok(found),
                    None => over = true,
                },
            }
            if let (true, Some(why)) = (over, &failure) {
                return Err(why.clone());
            }
        }
    }

    /// Tries the addresses, each a moment after the one before.
    async fn direct(&self) -> Result<(SocketAddr, Dialled), Unreached> {
        let reason = "gave no address that can be dialled".to_owned();
        let mut failure = Unreached { reason, trouble: Trouble::NoWay };
        let mut tries: FuturesUnordered<_> = (0u32..)
            .zip(self.addresses)
            .map(|(at, &address)| async move {
                sleep(STAGGER * at).await;
                let began = Instant::now();
                let connected = bulk::connect(address, self.peer, self.identity).await;
                // TCP's handshake and TLS's.
                connected.map(|stream| (address, (stream, began.elapsed() / 2)))
            })
            .collect();
        while let Some(tried) = tries.next().await {
            match tried {
                Ok(dialled) => return Ok(dialled),
                Err(error) => failure = unreached(error),
            }
        }
        Err(failure)
    }

    /// What trackers help with, once the addresses failed or took long.
    async fn arranged(&self, failed: &Notify) -> Option<(Route, Dialled)> {
        let (ways, tickets) = self.ways?;
        let _ = timeout(DIRECT_ALONE, failed.notified()).await;
        let reach = ways.reach().borrow().clone();
        let mut reversed = std::pin::pin!(self.reversed((ways, tickets), &reach));
        if let Ok(found) = timeout(REVERSED_ALONE, &mut reversed).await {
            return match found {
                Some(dialled) => Some((Route::Reversed, dialled)),
                None => self.relayed((ways, tickets), &reach).await,
            };
        }
        let mut relayed = std::pin::pin!(self.relayed((ways, tickets), &reach));
        tokio::select! {
            Some(dialled) = &mut reversed => Some((Route::Reversed, dialled)),
            Some(found) = &mut relayed => Some(found),
            else => None,
        }
    }

    /// Asks the peer to dial this client, and waits for it.
    async fn reversed(&self, (ways, tickets): (&Ways, &TicketBook), reach: &Reach) -> Option<Dialled> {
        let address = reach.address.clone().filter(|_| reach.reached != Some(false))?;
        let arrives = self.arrivals.expect(self.peer);
        let knock = self.knock(tickets, Some(address))?;
        let began = Instant::now();
        match self.ask(ways, knock, false).await? {
            WayAnswer::Asked => {}
            _ => return None,
        }
        let stream = timeout(ARRIVES, arrives.stream()).await.ok()??;
        // The request went through a tracker; then came TCP's handshake and TLS's.
        Some((stream, began.elapsed() / 4))
    }

    /// Meets the peer at a tracker.
    async fn relayed(
        &self,
        (ways, tickets): (&Ways, &TicketBook),
        reach: &Reach,
    ) -> Option<(Route, Dialled)> {
        if !(reach.relays && self.may_relay) {
            return None;
        }
        let knock = self.knock(tickets, None)?;
        let WayAnswer::Relayed(meeting) = self.ask(ways, knock, true).await? else { return None };
        let place = ways.place_of(&meeting)?;
        let began = Instant::now();
        match bulk::connect(place, self.peer, self.identity).await {
            Ok(stream) => Some((Route::Relayed, (stream, began.elapsed() / 4))),
            Err(error) => {
                tracing::debug!(peer = %self.peer, %error, "no connection through a relay");
                None
            }
        }
    }

    async fn ask(&self, ways: &Ways, knock: Vec<u8>, relay: bool) -> Option<WayAnswer> {
        let FileKey { group, file } = self.key;
        let call = WayCall::Knock { group, file, peer: self.peer, knock, relay };
        timeout(ASKED, ways.ask(call)).await.ok()?
    }

    /// The request, which this client signs: no tracker can send the peer anywhere else.
    fn knock(&self, tickets: &TicketBook, address: Option<String>) -> Option<Vec<u8>> {
        let (identity, group) = (self.identity, self.key.group);
        let from = identity.peer_id();
        let (at_ms, ticket) = (tickets.now_ms()?, tickets.own_ticket(group)?);
        let knock = Knock { from, to: self.peer, group, address, at_ms, ticket };
        Some(tokens::seal(&knock, from, |message| identity.sign(message)))
    }
}

fn unreached(error: BulkError) -> Unreached {
    let (reason, trouble) = match error {
        BulkError::Refused { way } => {
            (format!("cannot be reached at {way} (it refuses connections)"), Trouble::Refuses)
        }
        BulkError::TimedOut { way } => (format!("does not answer at {way}"), Trouble::Silent),
        BulkError::WrongPeer { way, .. } => {
            (format!("cannot be reached at {way} (it answers with another key)"), Trouble::OtherKey)
        }
        // Something listens there that does not speak TLS as a peer does.
        BulkError::Handshake { way, reason } => {
            (format!("cannot be reached at {way} ({reason})"), Trouble::OtherKey)
        }
        BulkError::Unreachable { way, reason } => {
            (format!("cannot be reached at {way} ({reason})"), Trouble::NoWay)
        }
    };
    Unreached { reason, trouble }
}
