//! Ways between clients that cannot simply connect: where each is, and requests to connect that are passed on.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use shoal_common::bucket::Allowance;
use shoal_common::tokens;
use shoal_common::tracker_api::ways::{Meeting, Push, WayAnswer, WayCall};
use shoal_common::tracker_api::{Answer, Refusal, RefusalKind};
use shoal_common::{Fid, Gid, PeerId};
use shoal_net::{bulk, site};
use tokio::sync::mpsc;

use crate::relay::End;

use super::{Client, Service, groups, session_over};

/// Looks whether clients are reached, by the address that they come from: one per login.
const LOOKS: Allowance = Allowance { burst: 256, refill: Duration::from_millis(500) };
/// Looks under way at a time; more wait.
pub(super) const MAX_LOOKS: usize = 32;
/// Addresses and users whose looks and requests are remembered.
pub(super) const MAX_REMEMBERED: usize = 4_096;
/// Requests that one user may have passed on: a download makes up to four connections to each of its sharers.
const KNOCKS: Allowance = Allowance { burst: 256, refill: Duration::from_millis(500) };

/// What reaches a client without a call.
#[derive(Default)]
pub struct Unasked {
    number: u64,
    pushes: Option<mpsc::Receiver<Push>>,
    /// The look whether the client is reached, while it is under way.
    look: Option<Mutex<Look>>,
}

/// Ends with what is to be said of it. Behind a lock that is never taken, so that the client's state can be shared between threads.
type Look = Pin<Box<dyn Future<Output = Push> + Send>>;

impl Unasked {
    /// What is to be said next. Safe to drop.
    pub async fn next(&mut self) -> Push {
        let pushed = async {
            match &mut self.pushes {
                Some(pushes) => match pushes.recv().await {
                    Some(push) => push,
                    // A later connection of the same client takes its place.
                    None => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        let looked = async {
            match &mut self.look {
                Some(look) => look.get_mut().unwrap_or_else(PoisonError::into_inner).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            push = pushed => push,
            push = looked => {
                self.look = None;
                push
            }
        }
    }
}

impl Service {
    /// A call about ways.
    pub(super) async fn about_ways(&self, client: &mut Client, call: WayCall) -> Result<Answer, Refusal> {
        let caller = client.caller()?;
        match call {
            WayCall::Here { lan } => {
                self.check(caller).await?;
                let listening = client.listen.ok_or_else(session_over)?;
                let (number, pushes) = self.ways.here(caller.peer, client.remote.ip(), &lan);
                let look =
                    listening.proven.then(|| self.look(client, listening.address)).flatten().map(Mutex::new);
                client.unasked = Unasked { number, pushes: Some(pushes), look };
                let address = listening.address.to_string();
                Ok(WayAnswer::Here { address, proven: listening.proven, relays: self.relay.is_some() })
            }
            WayCall::Knock { group, file, peer, knock, relay } => {
                self.read_for(caller, move |tx| groups::check_member(tx, caller.user, group)).await?;
                self.knock(client, (group, file), peer, knock, relay)
            }
        }
        .map(Answer::Way)
    }

    /// Sees whether a client answers where its connection comes from. None where others at that address were looked at just now.
    fn look(&self, client: &Client, address: SocketAddr) -> Option<Look> {
        let (from, now) = (site(client.remote.ip()), Instant::now());
        {
            let mut buckets = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            let mut bucket = buckets.of(from, now);
            bucket.take(1, LOOKS, now).ok()?;
            buckets.set(from, bucket, now);
        }
        let (identity, ways, peer) = (self.identity.clone(), self.ways.clone(), client.peer);
        let places = self.look_places.clone();
        Some(Box::pin(async move {
            let _place = places.acquire().await;
            let answered = bulk::connect(address, peer, &identity).await;
            let reached =
                answered.inspect_err(|error| tracing::debug!(%error, "a client is not reached")).is_ok();
            ways.looked(peer, reached);
            Push::Reached { address: address.to_string(), reached }
        }))
    }

    /// Passes on a request to a holder of a file to connect to the caller.
    fn knock(
        &self,
        client: &Client,
        (group, file): (Gid, Fid),
        peer: PeerId,
        knock: Vec<u8>,
        relay: bool,
    ) -> Result<WayAnswer, Refusal> {
        let caller = client.caller()?;
        let listen = client.listen.ok_or_else(session_over)?;
        if !relay && !listen.proven {
            // Anybody may say of any address that it is theirs.
            return Err(Refusal::new(
                RefusalKind::NotAllowed,
                "others are asked to connect only to an address that its client comes from",
            ));
        }
        let own = listen.address.to_string();
        let read = tokens::open_knock(&knock).ok();
        let is_its = read.is_some_and(|read| {
            let address = if relay { None } else { Some(own) };
            (read.from, read.to, read.group, read.address) == (caller.peer, peer, group, address)
        });
        if !is_its {
            return Err(Refusal::new(
                RefusalKind::Malformed,
                "that is no request to connect of this client's",
            ));
        }
        let holders = self.presence.holders(group, file);
        let Some(holder) = holders.iter().find(|holder| holder.peer == peer) else {
            return Err(Refusal::new(RefusalKind::NotFound, "that client does not hold the file now"));
        };
        let now = Instant::now();
        {
            let mut buckets = self.knocks.lock().unwrap_or_else(PoisonError::into_inner);
            let mut bucket = buckets.of(caller.user, now);
            let taken = bucket.take(1, KNOCKS, now);
            buckets.set(caller.user, bucket, now);
            taken.map_err(|wait| {
                let text = "this account asked too many clients to connect; wait and try again";
                Refusal::new(RefusalKind::Wait, text).retry_after(wait)
            })?;
        }
        let (answer, meeting) = if relay {
            let (own, theirs) = self.arrange((caller.peer, caller.user), (peer, holder.user))?;
            (WayAnswer::Relayed(own), Some(theirs))
        } else {
            (WayAnswer::Asked, None)
        };
        if self.ways.say(peer, Push::Knock { knock, meeting }) {
            return Ok(answer);
        }
        Err(Refusal::new(RefusalKind::NotFound, "that client, or its tracker, is of an earlier version"))
    }

    fn arrange(&self, one: End, other: End) -> Result<(Meeting, Meeting), Refusal> {
        let Some(relay) = &self.relay else {
            return Err(Refusal::new(RefusalKind::NotAllowed, "this tracker does not relay"));
        };
        let full = || Refusal::new(RefusalKind::Limit, "too much is relayed already; try again later");
        relay.arrange(one, other).ok_or_else(full)
    }

    /// A connection ended.
    pub(super) fn way_gone(&self, client: &Client) {
        self.ways.gone(client.peer, client.unasked.number);
    }
}
