//! The task that keeps the session connected: connects to the first tracker that answers, in the file's order and round
//! robin from there, resumes the session, and serves the connection until it ends.

use std::sync::Arc;
use std::time::Duration;

use shoal_common::PeerId;
use shoal_common::limits::MAX_LIST;
use shoal_common::tokens::TICKET_LIFE_MS;
use shoal_common::tracker_api::{Answer, Call, Holding, RefusalKind, Reply};
use shoal_common::tracker_info::TrackerLine;
use shoal_net::KnownError;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use super::connection::{Lost, TrackerConnection};
use super::login::{Attempt, LoginError, Proof};
use super::vouching::ask_another;
use super::{SessionState, asking, lock};
use crate::events::Event;
use crate::reach::{Backoff, Unreached};
use crate::text;

/// Renewals come well before half a ticket's life is over.
const RENEW_EVERY: Duration = Duration::from_millis(TICKET_LIFE_MS / 2 - 60_000);
/// When an announcement that a tracker did not take is repeated: the tracker may be short of something for a moment.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(5);
/// How long changes gather before they are announced.
const GATHER: Duration = Duration::from_millis(10);
/// For how long trackers must disown the account before the session is over: one alone may be blank and still catching
/// up, which takes 1.5 s once it reaches another.
const DISOWNED_FOR: Duration = Duration::from_secs(3);
/// How often the trackers are asked what they know of each other's keys, beside every new connection.
const VOUCHES_EVERY: Duration = Duration::from_secs(30);
/// When that is done first on a new connection.
const VOUCHES_FIRST: Duration = Duration::from_secs(5);
/// A tracker's place in the file.
type Number = u8;

pub(super) struct Supervisor {
    session: Arc<SessionState>,
    trackers: Vec<(Number, TrackerLine)>,
    /// Index of the tracker in use, or tried next.
    at: usize,
    /// Since when every tracker that was asked has disowned the account.
    disowned: Option<Instant>,
    /// What was last said of a tracker that is not believed.
    disbelieved: Option<String>,
    newly_disbelieved: bool,
    /// The peers' questions for ticket keys.
    questions: Option<mpsc::Receiver<oneshot::Sender<()>>>,
    /// Changes when the connection is to be made again.
    redials: watch::Receiver<u64>,
    /// Other trackers that were asked for their lists so far.
    asked: usize,
}

impl Supervisor {
    pub(super) fn new(session: Arc<SessionState>) -> Self {
        let trackers = session.config.trackers.iter().map(|(number, line)| (number, line.clone())).collect();
        let questions = session.config.tickets.key_requests();
        let redials = session.redials.subscribe();
        Self {
            session,
            trackers,
            at: 0,
            disowned: None,
            disbelieved: None,
            newly_disbelieved: false,
            questions,
            redials,
            asked: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let stop = self.session.stop.clone();
        let mut first = true;
        while let Some(connection) = stop.run_until_cancelled(self.connect()).await {
            if !first {
                self.session
                    .config
                    .events
                    .emit(Event::TrackerFound { tracker: connection.address().to_owned() });
            }
            first = false;
            tracing::info!(tracker = connection.address(), "connected");
            // It answered just now.
            self.redials.mark_unchanged();
            self.session.connection.send_replace(Some(connection.clone()));
            let reason = stop.run_until_cancelled(self.tend(&connection)).await;
            self.session.connection.send_replace(None);
            connection.close("is not needed any more");
            self.leave(connection.peer()).await;
            if let Some(reason) = reason {
                self.lost(reason);
            }
        }
        self.session.connection.send_replace(None);
    }

    /// Tries trackers until one takes us.
    async fn connect(&mut self) -> TrackerConnection {
        let mut backoff = Backoff::default();
        let mut reported = false;
        loop {
            for _ in 0..self.trackers.len() {
                let (_, line) = self.trackers[self.at].clone();
                let reached = self.reach(&line).await;
                let disbelieved = std::mem::take(&mut self.newly_disbelieved);
                match reached {
                    Ok(connection) => {
                        lock(&self.session.failures).clear();
                        return connection;
                    }
                    // That another key answers in a tracker's place is reported whenever it is found.
                    Err(reason) if reported && !disbelieved => self.move_on(reason),
                    Err(reason) => self.lost(reason),
                }
            }
            if !reported {
                self.session.config.events.emit(Event::NoTracker);
            }
            reported = true;
            if timeout(backoff.pause(), self.redials.changed()).await.is_ok() {
                backoff = Backoff::default();
            }
        }
    }

    /// Moves on from the tracker in use, or just tried, and reports it.
    fn lost(&mut self, reason: String) {
        let tracker = self.trackers[self.at].1.to_string();
        self.move_on(reason.clone());
        let next = self.trackers[self.at].1.to_string();
        self.session.config.events.emit(Event::TrackerLost { tracker, reason, next });
    }

    fn move_on(&mut self, reason: String) {
        let (number, line) = &self.trackers[self.at];
        tracing::debug!(tracker = %line, reason, "tracker is of no use");
        lock(&self.session.failures).insert(*number, reason);
        self.at = (self.at + 1) % self.trackers.len();
    }

    /// A connection on which the session, if there is one, goes on; or why there is none.
    async fn reach(&mut self, line: &TrackerLine) -> Result<TrackerConnection, String> {
        let connection = match self.session.dialer.connect(line).await {
            Ok(connection) => connection,
            Err(reason) => {
                if let Unreached::NotBelieved(error) = &reason {
                    self.disbelieve(error);
                }
                return Err(reason.behind(&line.to_string()));
            }
        };
        match self.resume(&connection).await {
            Ok(()) => Ok(connection),
            Err(reason) => {
                let reason = reason.behind(connection.address());
                connection.close(&reason);
                self.leave(connection.peer()).await;
                Err(reason)
            }
        }
    }

    /// Logs, once, that another key answers in a tracker's place.
    fn disbelieve(&mut self, error: &KnownError) {
        let text = error.to_string();
        if self.disbelieved.as_ref() != Some(&text) {
            tracing::error!("the tracker at {text}");
            self.disbelieved = Some(text);
            self.newly_disbelieved = true;
        }
    }

    /// Resumes the session by its token, else by logging in again. If neither works the session is over, and the
    /// connection stays.
    async fn resume(&mut self, connection: &TrackerConnection) -> Result<(), Unreached> {
        let kept = lock(&self.session.login)
            .as_ref()
            .map(|login| (login.token.clone(), login.secrets.clone(), login.changing.clone()));
        let (Some((token, secrets, changing)), Some(who)) = (kept, self.session.who.borrow().clone()) else {
            return Ok(());
        };
        match connection.call(Call::Resume { token }).await {
            Ok(Reply::Done(Answer::LoggedIn(session))) => {
                let fresh = changing.filter(|fresh| fresh.login_key() == session.account.login_key);
                self.session.adopt(&session, fresh);
                self.disowned = None;
                return Ok(());
            }
            Ok(Reply::Refused(refusal)) if refusal.kind == RefusalKind::NotLoggedIn => {}
            // Logging in by itself is what the account's owner wants to end.
            Ok(Reply::Refused(refusal)) if refusal.kind == RefusalKind::SignedOut => {
                self.end_session(&text::printable(&refusal.text));
                return Ok(());
            }
            Ok(Reply::Refused(refusal)) => return Err(Unreached::Refused(refusal.text)),
            Ok(Reply::Done(_)) => return Err(Unreached::OtherVersion),
            Err(Lost) => return Err(Unreached::Lost(connection.ended().await)),
        }
        let mut refusal = None;
        for secrets in [Some(secrets), changing].into_iter().flatten() {
            match self.session.sign_in(connection, &who.name, &Proof::Secrets(Box::new(secrets))).await {
                Ok((session, secrets)) => {
                    self.session.adopt(&session, Some(secrets));
                    self.disowned = None;
                    return Ok(());
                }
                Err(Attempt::Lost) => return Err(Unreached::Lost(connection.ended().await)),
                Err(Attempt::Failed(error)) => refusal = Some(error),
            }
        }
        if let Some(LoginError::Call(error)) = &refusal
            && error.refusal() != Some(RefusalKind::WrongPassword)
        {
            return Err(Unreached::Refused(error.to_string()));
        }
        let since = *self.disowned.get_or_insert_with(Instant::now);
        if since.elapsed() < DISOWNED_FOR {
            return Err(Unreached::Lost("does not know the session".to_owned()));
        }
        self.disowned = None;
        self.end_session("the account's password was changed elsewhere; log in again with the new one");
        Ok(())
    }

    fn end_session(&self, reason: &str) {
        let who = self.session.who.borrow().clone();
        self.session.forget_login();
        if let Some(who) = who {
            let reason = reason.to_owned();
            self.session.config.events.emit(Event::SessionEnded { user: who.name, reason });
        }
    }

    /// Announces, renews and answers questions until the connection ends; returns the reason.
    async fn tend(&mut self, connection: &TrackerConnection) -> String {
        let session = self.session.clone();
        let (mut reset, mut told) = (true, false);
        let mut announce_at = None;
        let mut renew_at = Instant::now() + RENEW_EVERY;
        let mut vouches_at = Instant::now() + VOUCHES_FIRST;
        let line = self.trackers[self.at].1.clone();
        let (said, mut heard) = mpsc::channel(1);
        loop {
            let may_announce = announce_at.is_none_or(|at| Instant::now() >= at);
            if let (false, Some(ways)) = (told, &session.config.ways)
                && session.who.borrow().is_some()
            {
                told = true;
                asking::tell(ways, connection).await;
            }
            if may_announce && session.who.borrow().is_some() {
                let taken = self.announce(connection, reset).await;
                (reset, announce_at) = (reset && !taken, (!taken).then(|| Instant::now() + ANNOUNCE_AGAIN));
            }
            tokio::select! {
                reason = connection.ended() => return reason,
                Ok(()) = self.redials.changed() => return "is asked again: this machine was asleep, or has another address".to_owned(),
                () = session.began.notified() => (reset, announce_at, told) = (true, None, false),
                () = until(announce_at) => {}
                () = session.config.holdings.changed() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep_until(renew_at) => {
                    renew_at = Instant::now() + RENEW_EVERY;
                    self.renew(connection).await;
                }
                () = tokio::time::sleep_until(vouches_at) => {
                    vouches_at = Instant::now() + VOUCHES_EVERY;
                    let greeted = session.dialer.greet(&line, connection).await;
                    if let Err(reason @ (Unreached::NotBelieved(_) | Unreached::Removed)) = greeted {
                        return reason.behind(connection.address());
                    }
                    // A stolen tracker hands out no list in which it is missing.
                    if let Some(other) = self.another() {
                        let said = said.clone();
                        session.tasks.spawn(ask_another(session.clone(), other, connection.peer(), said));
                    }
                }
                Some(()) = heard.recv() => {
                    if let Err(reason) = session.dialer.check(&line, connection.peer()) {
                        return reason.to_string();
                    }
                }
                Some(question) = next_question(&mut self.questions) => {
                    if let Ok(Reply::Done(Answer::TicketKeys(keys))) = connection.call(Call::TicketKeys).await {
                        session.config.tickets.set_keys(&keys);
                        let _ = question.send(());
                    }
                }
            }
        }
    }

    /// The next of the other listed trackers.
    fn another(&mut self) -> Option<TrackerLine> {
        let others = self.trackers.len().checked_sub(1).filter(|&others| others > 0)?;
        let step = 1 + self.asked % others;
        self.asked = self.asked.wrapping_add(1);
        let (_, line) = self.trackers.get((self.at + step) % self.trackers.len())?;
        Some(line.clone())
    }

    async fn renew(&self, connection: &TrackerConnection) {
        if self.session.who.borrow().is_none() {
            return;
        }
        match connection.call(Call::Renew).await {
            Ok(Reply::Done(Answer::LoggedIn(session))) => {
                self.session.adopt(&session, None);
            }
            Ok(_) => connection.close("does not renew the session"),
            Err(Lost) => {}
        }
    }

    /// Announces what is held: all of it, or what changed; false if it has to be announced again.
    async fn announce(&self, connection: &TrackerConnection, reset: bool) -> bool {
        let holdings = &self.session.config.holdings;
        let changes = if reset { holdings.take_all() } else { holdings.take_changes() };
        if changes.holdings.is_empty() && !reset {
            return true;
        }
        let mut parts: Vec<&[Holding]> = changes.holdings.chunks(MAX_LIST).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let mut later = Vec::new();
        for (index, part) in parts.into_iter().enumerate() {
            let call = Call::Announce { reset: reset && index == 0, holdings: part.to_vec() };
            match connection.call(call).await {
                Ok(Reply::Done(Answer::Announced { unknown })) if unknown.is_empty() => {}
                Ok(Reply::Done(Answer::Announced { unknown })) => {
                    // As much as can wait already does: the rest is reported when it is announced again.
                    if let Err(TrySendError::Full(unknown)) = self.session.unknown.try_send(unknown) {
                        later.extend(unknown);
                    }
                }
                Ok(reply) => {
                    tracing::warn!(?reply, "the tracker does not take what this client announces");
                    holdings.again(&changes.holdings);
                    return false;
                }
                // Everything is announced again on the next connection.
                Err(Lost) => return true,
            }
        }
        holdings.acknowledged(&changes);
        holdings.again(&later);
        later.is_empty()
    }

    async fn leave(&self, peer: PeerId) {
        self.session.dialer.control.disconnect(peer).await;
    }
}

/// Completes at that time, or never.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn next_question(
    questions: &mut Option<mpsc::Receiver<oneshot::Sender<()>>>,
) -> Option<oneshot::Sender<()>> {
    match questions {
        Some(questions) => questions.recv().await,
        None => std::future::pending().await,
    }
}
