//! The tickets that this client shows to other peers, and the keys by which it judges theirs, offline.
//!
//! The session task writes ([`TicketBook::update`], and the task that serves [`TicketBook::key_requests`]); the swarm reads.
//! Time is the trackers': the book keeps how far this machine's monotonic clock is from it, so a wrong wall clock or a
//! step of it does no harm.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_common::limits::MAX_LIST;
use shoal_common::tokens::{self, CLOCK_TOLERANCE_MS, LONGEST_TICKET_MS, Ticket, TokenError};
use shoal_common::tracker_api::GroupTicket;
use shoal_common::{Gid, PeerId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// Between two questions for the trackers' keys: a stranger with made-up tickets must not make us a nuisance.
const KEY_REQUEST_INTERVAL: Duration = Duration::from_secs(5);
/// How long a peer with an unknown key waits for the trackers' answer; then it is refused and may come again.
const KEY_REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// Ticket keys kept at most: far more trackers than a cluster has, replaced ones included.
const MAX_KEYS: usize = MAX_LIST;

/// Own tickets, the trackers' keys and the trackers' time. Clones share one book.
#[derive(Debug, Clone)]
pub struct TicketBook {
    book: Arc<Book>,
}

#[derive(Debug)]
struct Book {
    own: PeerId,
    entries: Mutex<Entries>,
    changed: watch::Sender<u64>,
    ask: mpsc::Sender<oneshot::Sender<()>>,
    questions: Mutex<Option<mpsc::Receiver<oneshot::Sender<()>>>>,
    /// When the trackers were last asked for their keys. Held across the question, so that peers who come meanwhile
    /// wait for its answer instead of asking again.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Entries {
    tickets: HashMap<Gid, Vec<u8>>,
    keys: HashSet<PeerId>,
    clock: Option<Clock>,
}

/// The trackers' time at one moment of this machine's monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    at: Instant,
    tracker_ms: u64,
}

impl Clock {
    /// It is `tracker_ms` now, in milliseconds since 1970, as a tracker just said.
    #[must_use]
    pub fn at(tracker_ms: u64) -> Self {
        Self { at: Instant::now(), tracker_ms }
    }

    /// Whether what ends then is not good any more, with the tolerance that clocks get.
    #[must_use]
    pub fn is_over(self, expires_ms: u64) -> bool {
        self.now_ms() > expires_ms.saturating_add(CLOCK_TOLERANCE_MS)
    }

    /// Judges the end of a ticket: it must not be over, nor so far off that no tracker can have meant it.
    ///
    /// # Errors
    /// [`TicketError::Expired`] or [`TicketError::Invalid`].
    pub fn judge(self, expires_ms: u64) -> Result<(), TicketError> {
        if self.is_over(expires_ms) {
            Err(TicketError::Expired)
        } else if expires_ms > self.now_ms().saturating_add(LONGEST_TICKET_MS) {
            Err(TicketError::Invalid)
        } else {
            Ok(())
        }
    }

    fn now_ms(self) -> u64 {
        let since = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.tracker_ms.saturating_add(since)
    }
}

/// Why a ticket, or another statement of a tracker's, does not open anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Signed by a key that is not known here; the trackers may have got a new one.
    #[error("signed by an unknown key")]
    UnknownKey,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// Forged, or another peer's, or of something else, or no statement at all.
    #[error("invalid")]
    Invalid,
}

impl From<TokenError> for TicketError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::UnknownKey(_) => Self::UnknownKey,
            TokenError::Malformed | TokenError::Forged => Self::Invalid,
        }
    }
}

impl TicketBook {
    /// An empty book of the peer `own`. Until [`TicketBook::update`] every ticket is of an unknown key.
    #[must_use]
    pub fn new(own: PeerId) -> Self {
        // One waiting question is all there can be: `asked` lets one in at a time.
        let (ask, questions) = mpsc::channel(1);
        Self {
            book: Arc::new(Book {
                own,
                entries: Mutex::default(),
                changed: watch::Sender::new(0),
                ask,
                questions: Mutex::new(Some(questions)),
                asked: tokio::sync::Mutex::new(None),
            }),
        }
    }

    /// Takes what a tracker said at login or renewal: all own tickets, all ticket keys, and its time in milliseconds
    /// since 1970.
    pub fn update(&self, tickets: &[GroupTicket], keys: &[PeerId], now_ms: u64) {
        let mut entries = self.entries();
        entries.tickets = tickets.iter().map(|entry| (entry.group, entry.ticket.clone())).collect();
        entries.keys = keys.iter().take(MAX_KEYS).copied().collect();
        entries.clock = Some(Clock::at(now_ms));
        drop(entries);
        self.book.changed.send_modify(|version| *version += 1);
    }

    /// This machine was asleep for so long: its monotonic clock stood still, and the trackers' time did not.
    pub fn slept(&self, asleep: Duration) {
        if let Some(clock) = &mut self.entries().clock {
            let ms = u64::try_from(asleep.as_millis()).unwrap_or(u64::MAX);
            clock.tracker_ms = clock.tracker_ms.saturating_add(ms);
        }
        self.book.changed.send_modify(|version| *version += 1);
    }

    /// Takes one more ticket, for a group that was just created or joined.
    pub fn add(&self, ticket: &GroupTicket) {
        self.entries().tickets.insert(ticket.group, ticket.ticket.clone());
        self.book.changed.send_modify(|version| *version += 1);
    }

    /// Takes the trackers' ticket keys, all of them.
    pub fn set_keys(&self, keys: &[PeerId]) {
        self.entries().keys = keys.iter().take(MAX_KEYS).copied().collect();
    }

    /// Forgets the own tickets, at logout. The keys stay good: they are the trackers'.
    pub fn clear(&self) {
        self.entries().tickets.clear();
        self.book.changed.send_modify(|version| *version += 1);
    }

    /// The peer whose book this is.
    #[must_use]
    pub fn own(&self) -> PeerId {
        self.book.own
    }

    /// The trackers' time, milliseconds since 1970; `None` before a tracker said it.
    #[must_use]
    pub fn now_ms(&self) -> Option<u64> {
        self.entries().clock.map(Clock::now_ms)
    }

    /// The own ticket for a group, unless there is none or its time is over.
    #[must_use]
    pub fn own_ticket(&self, group: Gid) -> Option<Vec<u8>> {
        let entries = self.entries();
        let ticket = entries.tickets.get(&group)?;
        // Our own ticket's signature is the servers' business; all that counts here is whether showing it makes sense.
        let expires = tokens::open::<Ticket>(ticket, |_| true).ok()?.expires_ms;
        let fresh =
            entries.clock.is_none_or(|clock| clock.now_ms() < expires.saturating_add(CLOCK_TOLERANCE_MS));
        fresh.then(|| ticket.clone())
    }

    /// A number that changes whenever own tickets do.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.book.changed.subscribe()
    }

    /// Judges a ticket that `presenter`, proven by the handshake, shows for `group`.
    ///
    /// # Errors
    /// See [`TicketError`].
    pub fn judge(&self, token: &[u8], presenter: PeerId, group: Gid) -> Result<Ticket, TicketError> {
        let entries = self.entries();
        let ticket: Ticket = tokens::open(token, |key| entries.keys.contains(key))?;
        if ticket.peer != presenter || ticket.group != group {
            return Err(TicketError::Invalid);
        }
        let clock = entries.clock.ok_or(TicketError::UnknownKey)?;
        clock.judge(ticket.expires_ms).map(|()| ticket)
    }

    /// [`TicketBook::judge`], after asking the trackers once for a key that is not known. Dropping it is safe.
    ///
    /// # Errors
    /// See [`TicketError`].
    pub async fn judge_asking(
        &self,
        token: &[u8],
        presenter: PeerId,
        group: Gid,
    ) -> Result<Ticket, TicketError> {
        match self.judge(token, presenter, group) {
            Err(TicketError::UnknownKey) => {
                self.ask_for_keys().await;
                self.judge(token, presenter, group)
            }
            judged => judged,
        }
    }

    /// How long from now a ticket with that end is still served, by the trackers' time and with its tolerance. Zero when
    /// it is over or no time is known.
    #[must_use]
    pub fn time_left(&self, expires_ms: u64) -> Duration {
        let clock = self.entries().clock;
        let end = expires_ms.saturating_add(CLOCK_TOLERANCE_MS);
        clock.map_or(Duration::ZERO, |clock| Duration::from_millis(end.saturating_sub(clock.now_ms())))
    }

    /// The questions for the trackers' keys. The task that serves them asks a tracker, calls [`TicketBook::set_keys`] and then
    /// answers. There is one receiver: `None` when it was taken already.
    #[must_use]
    pub fn key_requests(&self) -> Option<mpsc::Receiver<oneshot::Sender<()>>> {
        self.book.questions.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn ask_for_keys(&self) {
        let mut asked = self.book.asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < KEY_REQUEST_INTERVAL) {
            return;
        }
        *asked = Some(Instant::now());
        let (done, answer) = oneshot::channel();
        if self.book.ask.try_send(done).is_ok()
            && tokio::time::timeout(KEY_REQUEST_TIMEOUT, answer).await.is_err()
        {
            tracing::debug!("no tracker told its ticket keys in time");
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.book.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};
    use shoal_common::{GroupName, Uid, UserName};

    const GROUP: Gid = Gid([1; 16]);
    const NOW: u64 = 1_000_000_000;

    fn tracker(seed: u8) -> (SigningKey, PeerId) {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let id = PeerId(key.verifying_key().to_bytes());
        (key, id)
    }

    fn ticket(seed: u8, peer: PeerId, expires_ms: u64) -> Vec<u8> {
        let (key, signer) = tracker(seed);
        let name = UserName::create("bob").unwrap();
        let ticket = Ticket { user: Uid([7; 16]), name, peer, group: GROUP, expires_ms };
        tokens::seal(&ticket, signer, |message| key.sign(message).to_bytes())
    }

    fn book() -> TicketBook {
        let book = TicketBook::new(PeerId([5; 32]));
        book.update(&[], &[tracker(1).1], NOW);
        book
    }

    const BOB: PeerId = PeerId([9; 32]);

    #[tokio::test(start_paused = true)]
    async fn tickets_are_judged() {
        let book = book();
        let life = CLOCK_TOLERANCE_MS;
        for (token, presenter, group, expected) in [
            (ticket(1, BOB, NOW), BOB, GROUP, Ok(())),
            (ticket(1, BOB, NOW - life), BOB, GROUP, Ok(())),
            (ticket(1, BOB, NOW - life - 1), BOB, GROUP, Err(TicketError::Expired)),
            (ticket(1, BOB, NOW), PeerId([8; 32]), GROUP, Err(TicketError::Invalid)),
            (ticket(1, BOB, NOW), BOB, Gid([2; 16]), Err(TicketError::Invalid)),
            (ticket(2, BOB, NOW), BOB, GROUP, Err(TicketError::UnknownKey)),
            // No tracker gives one that is good for so long: it was made with a stolen key, to outlive it.
            (ticket(1, BOB, NOW + LONGEST_TICKET_MS), BOB, GROUP, Ok(())),
            (ticket(1, BOB, NOW + LONGEST_TICKET_MS + 1), BOB, GROUP, Err(TicketError::Invalid)),
            (ticket(1, BOB, u64::MAX), BOB, GROUP, Err(TicketError::Invalid)),
            (b"no ticket".to_vec(), BOB, GROUP, Err(TicketError::Invalid)),
        ] {
            assert_eq!(book.judge(&token, presenter, group).map(|_| ()), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_is_the_trackers() {
        let book = book();
        let token = ticket(1, BOB, NOW);
        assert_eq!(book.time_left(NOW), Duration::from_millis(CLOCK_TOLERANCE_MS));
        tokio::time::advance(Duration::from_millis(CLOCK_TOLERANCE_MS)).await;
        assert!(book.judge(&token, BOB, GROUP).is_ok());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(book.judge(&token, BOB, GROUP), Err(TicketError::Expired));
        assert_eq!(book.time_left(NOW), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn own_tickets_come_and_go() {
        let book = book();
        let mut changed = book.changed();
        assert_eq!(book.own_ticket(GROUP), None);
        let token = ticket(1, book.own(), NOW + 60_000);
        let name = GroupName::create("g").unwrap();
        book.update(&[GroupTicket { group: GROUP, name, ticket: token.clone() }], &[tracker(1).1], NOW);
        assert!(changed.has_changed().unwrap());
        changed.mark_unchanged();
        assert_eq!(book.own_ticket(GROUP), Some(token));
        tokio::time::advance(Duration::from_millis(60_000 + CLOCK_TOLERANCE_MS)).await;
        assert_eq!(book.own_ticket(GROUP), None);
        book.clear();
        assert!(changed.has_changed().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_key_is_asked_for_once() {
        let book = book();
        let mut questions = book.key_requests().unwrap();
        let token = ticket(2, BOB, NOW + 600_000);
        let asking = tokio::spawn({
            let (book, token) = (book.clone(), token.clone());
            async move { book.judge_asking(&token, BOB, GROUP).await.is_ok() }
        });
        let question = questions.recv().await.unwrap();
        book.set_keys(&[tracker(1).1, tracker(2).1]);
        question.send(()).unwrap();
        assert!(asking.await.unwrap());

        let other = ticket(3, BOB, NOW + 600_000);
        assert_eq!(book.judge_asking(&other, BOB, GROUP).await, Err(TicketError::UnknownKey));
        assert!(questions.try_recv().is_err(), "asked again within the interval");
        tokio::time::advance(KEY_REQUEST_INTERVAL).await;
        // Nobody answers: refused after a while all the same.
        assert_eq!(book.judge_asking(&other, BOB, GROUP).await, Err(TicketError::UnknownKey));
        assert!(questions.try_recv().is_ok());
    }
}
