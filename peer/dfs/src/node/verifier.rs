//! Verifies tickets and copy orders offline, by the keys and the time in the trackers' answers to reports.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_common::limits::MAX_LIST;
use shoal_common::storage::ChunkId;
use shoal_common::tokens::{self, CopyOrder, Statement, StorageTicket};
use shoal_common::tracker_api::storage::OwnedChunk;
use shoal_common::{PeerId, Uid};
use shoal_session::tickets::{Clock, TicketError};
use tokio::sync::watch;

/// How long a ticket signed by an unknown key waits for the trackers' next answer. They answer twice per second.
const UPDATE_WITHIN: Duration = Duration::from_millis(1_500);

/// Cheap to clone; all clones share their state.
#[derive(Debug, Clone)]
pub struct TokenVerifier(Arc<VerifierInner>);

#[derive(Debug)]
struct VerifierInner {
    own: PeerId,
    known: Mutex<Known>,
    updates: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    /// What each tracker said last. The word of an absent tracker counts only while all are absent: it may have been removed.
    last: HashMap<u8, LastReport>,
    clock: Option<Clock>,
}

#[derive(Debug)]
struct LastReport {
    keys: Vec<PeerId>,
    connected: bool,
}

impl Known {
    fn is_tracker(&self, key: &PeerId) -> bool {
        let connected = self.last.values().any(|last| last.connected);
        self.last.values().any(|last| last.connected == connected && last.keys.contains(key))
    }
}

impl TokenVerifier {
    /// A verifier of the node `own` that accepts no ticket yet.
    #[must_use]
    pub fn new(own: PeerId) -> Self {
        Self(Arc::new(VerifierInner { own, known: Mutex::default(), updates: watch::Sender::new(0) }))
    }

    /// Takes what the tracker of that number said: all trackers' ticket keys, and the time in milliseconds since 1970.
    pub fn update(&self, tracker: u8, keys: &[PeerId], now_ms: u64) {
        let mut known = self.known();
        let keys = keys.iter().take(MAX_LIST).copied().collect();
        known.last.insert(tracker, LastReport { keys, connected: true });
        known.clock = Some(Clock::at(now_ms));
        drop(known);
        self.0.updates.send_modify(|version| *version += 1);
    }

    /// The connection to the tracker of that number ended.
    pub fn left(&self, tracker: u8) {
        if let Some(last) = self.known().last.get_mut(&tracker) {
            last.connected = false;
        }
    }

    /// Judges a ticket that `presenter`, proven by the handshake, shows; waits a moment for a key that is not known.
    /// Safe to drop.
    ///
    /// # Errors
    /// [`TicketError`].
    pub async fn ticket(&self, token: &[u8], presenter: PeerId) -> Result<StorageTicket, TicketError> {
        let ticket: StorageTicket = self.open(token).await?;
        if ticket.peer != presenter {
            return Err(TicketError::Invalid);
        }
        self.judge(ticket.expires_ms).map(|()| ticket)
    }

    /// Judges an order by which `presenter` may fetch `chunk` from here; the chunk as it is kept. Safe to drop.
    ///
    /// # Errors
    /// [`TicketError`].
    pub async fn order(
        &self,
        token: &[u8],
        presenter: PeerId,
        chunk: ChunkId,
    ) -> Result<OwnedChunk, TicketError> {
        let order: CopyOrder = self.open(token).await?;
        if order.to != presenter || order.from != self.0.own || order.chunk != chunk {
            return Err(TicketError::Invalid);
        }
        self.judge(order.expires_ms)?;
        Ok(OwnedChunk { owner: order.owner, chunk })
    }

    /// Whether something with that end is not good any more, by the trackers' time and with its tolerance.
    #[must_use]
    pub fn is_over(&self, expires_ms: u64) -> bool {
        self.known().clock.is_none_or(|clock| clock.is_over(expires_ms))
    }

    fn judge(&self, expires_ms: u64) -> Result<(), TicketError> {
        self.known().clock.map_or(Err(TicketError::Expired), |clock| clock.judge(expires_ms))
    }

    async fn open<S: Statement>(&self, token: &[u8]) -> Result<S, TicketError> {
        let mut updates = self.0.updates.subscribe();
        match self.try_open(token) {
            Err(TicketError::UnknownKey) => {
                let _ = tokio::time::timeout(UPDATE_WITHIN, updates.changed()).await;
                self.try_open(token)
            }
            opened => opened,
        }
    }

    fn try_open<S: Statement>(&self, token: &[u8]) -> Result<S, TicketError> {
        let known = self.known();
        Ok(tokens::open(token, |key| known.is_tracker(key))?)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A user whose ticket was accepted, and its end.
#[derive(Debug, Clone, Copy)]
pub struct Admitted {
    /// The user.
    pub user: Uid,
    /// By the trackers' time, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Bytes of the user's that may be held here.
    pub allowance: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};
    use shoal_common::tokens::{CLOCK_TOLERANCE_MS, LONGEST_TICKET_MS};

    const NODE: PeerId = PeerId([1; 32]);
    const CLIENT: PeerId = PeerId([2; 32]);
    const USER: Uid = Uid([3; 16]);
    const NOW: u64 = 1_000_000_000;

    fn signed<S: Statement>(seed: u8, statement: &S) -> Vec<u8> {
        let key = SigningKey::from_bytes(&[seed; 32]);
        tokens::seal(statement, PeerId(key.verifying_key().to_bytes()), |message| {
            key.sign(message).to_bytes()
        })
    }

    fn verifier() -> TokenVerifier {
        let verifier = TokenVerifier::new(NODE);
        let key = SigningKey::from_bytes(&[7; 32]);
        verifier.update(1, &[PeerId(key.verifying_key().to_bytes())], NOW);
        verifier
    }

    #[tokio::test(start_paused = true)]
    async fn tickets_are_judged() {
        let verifier = verifier();
        let ticket = |peer, expires_ms| StorageTicket { user: USER, peer, expires_ms, allowance: None };
        for (token, presenter, expected) in [
            (signed(7, &ticket(CLIENT, NOW)), CLIENT, Ok(())),
            (signed(7, &ticket(CLIENT, NOW - CLOCK_TOLERANCE_MS)), CLIENT, Ok(())),
            (signed(7, &ticket(CLIENT, NOW - CLOCK_TOLERANCE_MS - 1)), CLIENT, Err(TicketError::Expired)),
            (signed(7, &ticket(CLIENT, NOW)), NODE, Err(TicketError::Invalid)),
            (signed(8, &ticket(CLIENT, NOW)), CLIENT, Err(TicketError::UnknownKey)),
            (b"nonsense".to_vec(), CLIENT, Err(TicketError::Invalid)),
        ] {
            // The clock moves on while an unknown key is waited for.
            let verifier =
                if expected == Err(TicketError::UnknownKey) { verifier.clone() } else { self::verifier() };
            assert_eq!(verifier.ticket(&token, presenter).await.map(|_| ()), expected);
        }
        let group = signed(7, &order(CLIENT, NODE));
        assert_eq!(
            verifier.ticket(&group, CLIENT).await,
            Err(TicketError::Invalid),
            "another kind of statement"
        );
    }

    fn order(to: PeerId, from: PeerId) -> CopyOrder {
        CopyOrder { owner: USER, chunk: ChunkId([4; 32]), from, to, expires_ms: NOW + 1_000 }
    }

    #[tokio::test(start_paused = true)]
    async fn orders_are_for_one_chunk_one_taker_and_one_giver() {
        let verifier = verifier();
        let chunk = ChunkId([4; 32]);
        let good = verifier.order(&signed(7, &order(CLIENT, NODE)), CLIENT, chunk).await;
        assert_eq!(good, Ok(OwnedChunk { owner: USER, chunk }));
        for (token, presenter, chunk) in [
            (signed(7, &order(CLIENT, NODE)), NODE, chunk),
            (signed(7, &order(CLIENT, NODE)), CLIENT, ChunkId([5; 32])),
            (signed(7, &order(CLIENT, CLIENT)), CLIENT, chunk),
        ] {
            assert_eq!(verifier.order(&token, presenter, chunk).await, Err(TicketError::Invalid));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_counts_no_more_when_the_connected_trackers_do_not_name_it() {
        let verifier = verifier();
        let key = |seed| PeerId(SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes());
        verifier.update(2, &[key(7), key(8)], NOW);
        let token =
            signed(8, &StorageTicket { user: USER, peer: CLIENT, expires_ms: NOW + 60_000, allowance: None });
        assert!(verifier.ticket(&token, CLIENT).await.is_ok());
        verifier.left(2);
        assert_eq!(verifier.ticket(&token, CLIENT).await, Err(TicketError::UnknownKey));
        // While all are away, what they said last is all there is.
        verifier.left(1);
        assert!(verifier.ticket(&token, CLIENT).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_ticket_without_an_end_is_no_trackers() {
        let ticket =
            |expires_ms| signed(7, &StorageTicket { user: USER, peer: CLIENT, expires_ms, allowance: None });
        let too_long = NOW + LONGEST_TICKET_MS + 1;
        for expires_ms in [too_long, u64::MAX] {
            assert_eq!(verifier().ticket(&ticket(expires_ms), CLIENT).await, Err(TicketError::Invalid));
        }
        assert!(verifier().ticket(&ticket(too_long - 1), CLIENT).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_trackers_key_is_waited_for() {
        let verifier = verifier();
        let token =
            signed(8, &StorageTicket { user: USER, peer: CLIENT, expires_ms: NOW + 60_000, allowance: None });
        let judging = tokio::spawn({
            let verifier = verifier.clone();
            async move { verifier.ticket(&token, CLIENT).await.is_ok() }
        });
        tokio::task::yield_now().await;
        let key = SigningKey::from_bytes(&[8; 32]);
        verifier.update(2, &[PeerId(key.verifying_key().to_bytes())], NOW);
        assert!(judging.await.unwrap());
    }
}
