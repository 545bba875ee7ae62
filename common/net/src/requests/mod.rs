//! Requests under way on one connection: what was asked, who waits for it, and whether what comes is an answer to it.
//!
//! Every connection on which answers come in any order has one [`Requests`]: calls to a tracker, pieces from a peer,
//! chunks from a storage node. The caller of [`Requests::ask`] waits for its answer; the connection's reading task brings
//! answers, whole or in parts; [`Requests::carry`] ends all requests with one reason. What the messages say is up to the
//! connection.
//!
//! Every request has exactly one end: its answer, or the connection's end. A request whose caller is dropped stays until
//! then, without its buffer, so that what was under way is recognised.

mod silence;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use silence::{Listening, Silence};

/// Why a request was not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAsked<E> {
    /// As many as may be are under way.
    Full,
    /// One with this key is under way.
    Twice,
    /// The connection has ended, and why.
    Ended(E),
}

/// How the other side broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// An answer or a part belongs to no request.
    #[error("answered what it was not asked")]
    Unasked,
    /// A part does not follow the one before, or is longer than what is left.
    #[error("sent the parts of an answer out of order")]
    OutOfOrder,
}

/// The requests of one connection. `K` identifies one, `B` is the buffer that takes an answer in parts, `A` is the
/// answer, `E` is the reason for which the connection ended.
pub struct Requests<K, B, A, E> {
    most: usize,
    ended: CancellationToken,
    table: Mutex<Table<K, B, A, E>>,
}

struct Table<K, B, A, E> {
    /// The last number given by [`Requests::number`].
    last: u32,
    pending: HashMap<K, Pending<B, A>>,
    /// Bytes of abandoned requests that may still come.
    late: u64,
    /// Since when there is a request under way.
    owed_since: Instant,
    end: Option<E>,
}

struct Pending<B, A> {
    /// Bytes that come in parts; 0 for an answer that comes whole.
    length: u64,
    received: u64,
    /// Away while a part is read into it.
    buffer: Option<B>,
    /// None when the caller is gone, or was answered before the last part.
    answer: Option<oneshot::Sender<A>>,
}

impl<K: Copy + Eq + Hash, B, A, E: Clone> Requests<K, B, A, E> {
    /// At most `most` requests at a time. `ended` is cancelled when the connection ends; cancelling it ends a connection
    /// that is being [carried](Self::carry).
    #[must_use]
    pub fn new(most: usize, ended: CancellationToken) -> Self {
        let table =
            Table { last: 0, pending: HashMap::new(), late: 0, owed_since: Instant::now(), end: None };
        Self { most, ended, table: Mutex::new(table) }
    }

    /// Begins a request. Its answer comes whole if `parts` is none, else as so many bytes into a buffer. `recall` is
    /// called if the caller is dropped before the answer came, to tell the other side.
    ///
    /// # Errors
    /// [`NotAsked`].
    pub fn ask<F: FnMut()>(
        self: &Arc<Self>,
        key: K,
        parts: Option<(u64, B)>,
        recall: F,
    ) -> Result<Asked<K, B, A, E, F>, NotAsked<E>> {
        let mut table = self.table();
        if let Some(end) = &table.end {
            return Err(NotAsked::Ended(end.clone()));
        }
        if table.pending.contains_key(&key) {
            return Err(NotAsked::Twice);
        }
        if table.pending.len() >= self.most {
            return Err(NotAsked::Full);
        }
        if table.pending.is_empty() {
            table.owed_since = Instant::now();
        }
        let (length, buffer) = parts.map_or((0, None), |(length, buffer)| (length, Some(buffer)));
        let (sender, answer) = oneshot::channel();
        table.pending.insert(key, Pending { length, received: 0, buffer, answer: Some(sender) });
        Ok(Asked { key, answer, answered: false, requests: self.clone(), recall })
    }

    /// Ends a request with its whole answer.
    ///
    /// # Errors
    /// When no request with this key waits for a whole answer.
    pub fn answer(&self, key: K, answer: A) -> Result<(), Violation> {
        if self.table().pending.get(&key).is_some_and(|pending| pending.length > 0) {
            return Err(Violation::Unasked);
        }
        self.refuse(key, answer)
    }

    /// Ends a request before its answer came.
    ///
    /// # Errors
    /// When there is no request with this key.
    pub fn refuse(&self, key: K, answer: A) -> Result<(), Violation> {
        let mut pending = self.table().pending.remove(&key).ok_or(Violation::Unasked)?;
        pending.send(answer);
        Ok(())
    }

    /// Begins the next part of an answer. The part goes into the buffer, which [`part_came`](Self::part_came) gives
    /// back; it is skipped if there is none.
    ///
    /// # Errors
    /// When no request waits for this part.
    pub fn part(&self, key: K, offset: u64, length: u64) -> Result<Option<B>, Violation> {
        let mut table = self.table();
        let Some(pending) = table.pending.get_mut(&key) else {
            let rest = table.late.checked_sub(length).filter(|_| length > 0);
            table.late = rest.ok_or(Violation::Unasked)?;
            return Ok(None);
        };
        if length == 0 || offset != pending.received || length > pending.length - pending.received {
            return Err(Violation::OutOfOrder);
        }
        Ok(pending.buffer.take())
    }

    /// Notes that a part came: with the buffer, with the answer of a buffer that takes nothing more, or with nothing if
    /// the part was skipped. `whole` makes the answer of a full buffer.
    pub fn part_came(&self, key: K, length: u64, buffer: Option<Result<B, A>>, whole: impl FnOnce(B) -> A) {
        let mut table = self.table();
        let Some(pending) = table.pending.get_mut(&key) else {
            // Abandoned while the part came.
            table.late = table.late.saturating_sub(length);
            return;
        };
        pending.received += length;
        match buffer {
            Some(Ok(buffer)) if pending.answer.is_some() => pending.buffer = Some(buffer),
            Some(Err(answer)) => pending.send(answer),
            _ => {}
        }
        if pending.received >= pending.length
            && let Some(mut pending) = table.pending.remove(&key)
            && let Some(buffer) = pending.buffer.take()
        {
            pending.send(whole(buffer));
        }
    }

    /// Forgets requests of which the other side knows nothing any more, and answers their callers. Parts that are on
    /// their way are skipped.
    pub fn abandon(&self, which: impl Fn(&K) -> bool, answer: impl Fn() -> A) {
        let mut table = self.table();
        let keys: Vec<K> = table.pending.keys().copied().filter(|key| which(key)).collect();
        for key in keys {
            if let Some(mut pending) = table.pending.remove(&key) {
                table.late += pending.length - pending.received;
                pending.send(answer());
            }
        }
    }

    /// Runs the connection: `work` until it says why the connection ended, or until the connection is closed here. Then
    /// all requests end.
    pub async fn carry(&self, work: impl Future<Output = E>, closed: E) {
        let why = tokio::select! {
            why = work => why,
            () = self.ended.cancelled() => closed,
        };
        self.end(why);
    }

    /// Ends the connection and all its requests; the first reason stays.
    pub fn end(&self, why: E) {
        let mut table = self.table();
        table.end.get_or_insert(why);
        // First the end, then the callers: one that asks again must not find this connection.
        self.ended.cancel();
        table.pending.clear();
    }

    /// Whether the connection has ended, or is about to.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Completes when the connection has ended, or is about to. Safe to drop.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Why the connection ended.
    #[must_use]
    pub fn reason(&self) -> Option<E> {
        self.table().end.clone()
    }

    /// Bytes of the requests under way.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.table().pending.values().map(|pending| pending.length).sum()
    }

    /// Completes when the other side has owed an answer for `limit` and nothing has come for as long. Safe to drop.
    pub async fn overdue(&self, silence: &Silence, limit: Duration) {
        loop {
            let late = self.owed_for().min(silence.lasts());
            match limit.checked_sub(late) {
                Some(rest) if !rest.is_zero() => tokio::time::sleep(rest).await,
                _ => return,
            }
        }
    }

    /// For how long the other side has owed an answer.
    fn owed_for(&self) -> Duration {
        let table = self.table();
        if table.pending.is_empty() { Duration::ZERO } else { table.owed_since.elapsed() }
    }

    /// The caller is gone; true if the request was under way.
    fn cancel(&self, key: K) -> bool {
        let mut table = self.table();
        let Some(pending) = table.pending.get_mut(&key) else { return false };
        pending.buffer = None;
        pending.answer.take().is_some()
    }
}

impl<K, B, A, E> Requests<K, B, A, E> {
    fn table(&self) -> MutexGuard<'_, Table<K, B, A, E>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B, A, E> Requests<u32, B, A, E> {
    /// A key that no earlier request had, from 1 on.
    pub fn number(&self) -> u32 {
        let mut table = self.table();
        table.last = table.last.wrapping_add(1).max(1);
        table.last
    }
}

impl<B, A> Pending<B, A> {
    fn send(&mut self, answer: A) {
        if let Some(sender) = self.answer.take() {
            // The caller may have gone just now.
            let _ = sender.send(answer);
        }
    }
}

impl<K, B, A, E> fmt::Debug for Requests<K, B, A, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").field("pending", &self.table().pending.len()).finish_non_exhaustive()
    }
}

/// A request under way. Dropping it takes the request back.
pub struct Asked<K: Copy + Eq + Hash, B, A, E: Clone, F: FnMut()> {
    key: K,
    answer: oneshot::Receiver<A>,
    answered: bool,
    requests: Arc<Requests<K, B, A, E>>,
    recall: F,
}

impl<K: Copy + Eq + Hash, B, A, E: Clone, F: FnMut()> Asked<K, B, A, E, F> {
    /// The answer. Dropping the future takes the request back.
    ///
    /// # Errors
    /// Why the connection ended before the answer came.
    pub async fn answer(mut self) -> Result<A, E> {
        let answer = (&mut self.answer).await;
        self.answered = true;
        match answer {
            Ok(answer) => Ok(answer),
            Err(_) => Err(self.requests.reason().expect("only the end drops a request without an answer")),
        }
    }
}

impl<K: Copy + Eq + Hash, B, A, E: Clone, F: FnMut()> Drop for Asked<K, B, A, E, F> {
    fn drop(&mut self) {
        // A request that was answered has ended, and its key may be in use again.
        if !self.answered && self.answer.try_recv().is_err() && self.requests.cancel(self.key) {
            (self.recall)();
        }
    }
}
