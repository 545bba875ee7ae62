//! The task that keeps a tracker at hand: connects to the first that answers, in the file's order and round robin from
//! there, resumes the session, and tends the connection until it ends.

use std::sync::Arc;
use std::time::Duration;

use shoal_common::PeerId;
use shoal_common::limits::MAX_LIST;
use shoal_common::tokens::TICKET_LIFE_MS;
use shoal_common::tracker_api::{Answer, CLIENT_PROTOCOL, Call, Holding, REVISION, RefusalKind, Reply};
use shoal_common::tracker_info::TrackerLine;
use shoal_net::{KnownError, Protocol, ReachError};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use super::link::{ANSWER_WITHIN, Link, Lost};
use super::login::{Attempt, LoginError, Proof};
use super::vouching::{NO_TRACKER, ask_another, behind_address, believe};
use super::{Shared, lock};
use crate::events::Event;
use crate::text;

/// Renewals come well before half a ticket's life is over.
const RENEW_EVERY: Duration = Duration::from_millis(TICKET_LIFE_MS / 2 - 60_000);
/// Waits between two rounds through all trackers: at first short, so that a restarted tracker is found at once.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// When a tracker that did not take an announcement is told again: it may be short of something for a moment.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(5);
/// How long changes gather before they are announced.
const GATHER: Duration = Duration::from_millis(10);
/// For so long trackers must go on to disown the account before the session is over: one alone may be blank and still
/// catching up, which takes it 1.5 s once it reaches another.
const DISOWNED_FOR: Duration = Duration::from_secs(3);
/// How often the trackers are asked what they know of each other's keys, beside every new connection.
const VOUCHES_EVERY: Duration = Duration::from_secs(30);
/// When that is done first on a new connection.
const VOUCHES_FIRST: Duration = Duration::from_secs(5);
/// A tracker's place in the file.
type Number = u8;

pub(super) struct Keeper {
    shared: Arc<Shared>,
    trackers: Vec<(Number, TrackerLine)>,
    /// Index of the tracker in use, or tried next.
    at: usize,
    /// Since when every tracker that was asked disowned the account.
    disowned: Option<Instant>,
    /// What was last said of one that is not believed.
    disbelieved: Option<String>,
    newly_disbelieved: bool,
    /// The peers' questions for ticket keys.
    questions: Option<mpsc::Receiver<oneshot::Sender<()>>>,
    /// Changes when the connection is to be made anew.
    redials: watch::Receiver<u64>,
    /// Other trackers that were asked for their lists so far.
    asked: usize,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let trackers = shared.config.trackers.iter().map(|(number, line)| (number, line.clone())).collect();
        let questions = shared.config.tickets.key_requests();
        let redials = shared.redials.subscribe();
        Self {
            shared,
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
        let stop = self.shared.stop.clone();
        let mut first = true;
        while let Some(link) = stop.run_until_cancelled(self.connect()).await {
            if !first {
                self.shared.config.events.tell(Event::TrackerFound { tracker: link.address().to_owned() });
            }
            first = false;
            tracing::info!(tracker = link.address(), "connected");
            // It answered just now.
            self.redials.mark_unchanged();
            self.shared.link.send_replace(Some(link.clone()));
            let reason = stop.run_until_cancelled(self.tend(&link)).await;
            self.shared.link.send_replace(None);
            link.close("is not needed any more");
            self.leave(link.peer()).await;
            if let Some(reason) = reason {
                self.lost(reason);
            }
        }
        self.shared.link.send_replace(None);
    }

    /// Tries trackers until one takes us.
    async fn connect(&mut self) -> Link {
        let mut pause = FIRST_PAUSE;
        let mut told = false;
        loop {
            for _ in 0..self.trackers.len() {
                let (_, line) = self.trackers[self.at].clone();
                let reached = self.reach(&line).await;
                let disbelieved = std::mem::take(&mut self.newly_disbelieved);
                match reached {
                    Ok(link) => {
                        lock(&self.shared.failures).clear();
                        return link;
                    }
                    // That somebody answers in a tracker's place is said whenever it is found.
                    Err(reason) if told && !disbelieved => self.next(reason),
                    Err(reason) => self.lost(reason),
                }
            }
            if !told {
                self.shared.config.events.tell(Event::NoTracker);
            }
            told = true;
            // Jitter keeps the clients of a restarted tracker from coming all at once.
            let jittered = pause.mul_f64(0.75 + fastrand::f64() / 2.0);
            pause = (pause * 2).min(LONGEST_PAUSE);
            if timeout(jittered, self.redials.changed()).await.is_ok() {
                pause = FIRST_PAUSE;
            }
        }
    }

    /// The tracker in use, or just tried, is of no use: on to the next, and say so.
    fn lost(&mut self, reason: String) {
        let tracker = self.trackers[self.at].1.to_string();
        self.next(reason.clone());
        let next = self.trackers[self.at].1.to_string();
        self.shared.config.events.tell(Event::TrackerLost { tracker, reason, next });
    }

    fn next(&mut self, reason: String) {
        let (number, line) = &self.trackers[self.at];
        tracing::debug!(tracker = %line, reason, "tracker is of no use");
        lock(&self.shared.failures).insert(*number, reason);
        self.at = (self.at + 1) % self.trackers.len();
    }

    /// A connection on which the session, if there is one, goes on; or why there is none.
    async fn reach(&mut self, line: &TrackerLine) -> Result<Link, String> {
        let control = self.shared.config.control.clone();
        let silent = |_| "does not answer".to_owned();
        let dial = self.shared.config.known.dial(&control, line);
        let dialled = timeout(ANSWER_WITHIN, dial).await.map_err(silent)?;
        if let Err(ReachError::Known(error)) = &dialled {
            self.disbelieve(error);
        }
        let peer = dialled.map_err(|error| behind_address(&error.to_string(), &line.to_string()))?;
        let open = timeout(ANSWER_WITHIN, control.open(peer, Protocol(CLIENT_PROTOCOL))).await;
        let begun = match open {
            Ok(Ok(channel)) => {
                let link = Link::start(line.to_string(), channel, &self.shared.tasks);
                self.begin(line, link).await
            }
            Ok(Err(error)) => Err(format!("cannot be talked to: {error}")),
            Err(_) => Err("does not answer".to_owned()),
        };
        if begun.is_err() {
            self.leave(peer).await;
        }
        begun
    }

    /// Says loudly, and once, that somebody answers in a tracker's place.
    fn disbelieve(&mut self, error: &KnownError) {
        let text = error.to_string();
        if self.disbelieved.as_ref() != Some(&text) {
            tracing::error!("the tracker at {text}");
            self.disbelieved = Some(text);
            self.newly_disbelieved = true;
        }
    }

    /// Says hello, makes sure that this is a tracker to be believed, and resumes the session.
    async fn begin(&mut self, line: &TrackerLine, link: Link) -> Result<Link, String> {
        let listen = self.shared.config.listen.clone();
        let hello = link.call(Call::Hello { listen, revision: Some(REVISION) }).await;
        let failure = match hello {
            Ok(Reply::Done(Answer::Welcome { revision, lists, .. })) => {
                link.speaks(revision.unwrap_or(0));
                let begun = match believe(&self.shared, line, link.peer(), lists).await {
                    Ok(()) => self.resume(&link).await,
                    Err(reason) => Err(reason),
                };
                match begun {
                    Ok(()) => return Ok(link),
                    Err(reason) => reason,
                }
            }
            Ok(Reply::Done(_)) => "speaks another version".to_owned(),
            Ok(Reply::Refused(refusal)) => refused(&refusal.text),
            Err(Lost) => link.ended().await,
        };
        link.close(&failure);
        Err(failure)
    }

    /// Goes on with the session by its token, else by logging in again; else the session is over, and the connection
    /// stays.
    async fn resume(&mut self, link: &Link) -> Result<(), String> {
        let kept = lock(&self.shared.login)
            .as_ref()
            .map(|login| (login.token.clone(), login.secrets.clone(), login.changing.clone()));
        let (Some((token, secrets, changing)), Some(who)) = (kept, self.shared.who.borrow().clone()) else {
            return Ok(());
        };
        match link.call(Call::Resume { token }).await {
            Ok(Reply::Done(Answer::LoggedIn(session))) => {
                let fresh = changing.filter(|fresh| fresh.login_key() == session.account.login_key);
                self.shared.adopt(&session, fresh);
                self.disowned = None;
                return Ok(());
            }
            Ok(Reply::Refused(refusal)) if refusal.kind == RefusalKind::NotLoggedIn => {}
            // Logging in by itself is what the account's owner wants to end.
            Ok(Reply::Refused(refusal)) if refusal.kind == RefusalKind::SignedOut => {
                self.end_session(&text::printable(&refusal.text));
                return Ok(());
            }
            Ok(Reply::Refused(refusal)) => return Err(refused(&refusal.text)),
            Ok(Reply::Done(_)) => return Err("speaks another version".to_owned()),
            Err(Lost) => return Err(link.ended().await),
        }
        let mut refusal = None;
        for secrets in [Some(secrets), changing].into_iter().flatten() {
            match self.shared.sign_in(link, &who.name, &Proof::Secrets(Box::new(secrets))).await {
                Ok((session, secrets)) => {
                    self.shared.adopt(&session, Some(secrets));
                    self.disowned = None;
                    return Ok(());
                }
                Err(Attempt::Lost) => return Err(link.ended().await),
                Err(Attempt::Failed(error)) => refusal = Some(error),
            }
        }
        if let Some(LoginError::Call(error)) = &refusal
            && error.refusal() != Some(RefusalKind::WrongPassword)
        {
            return Err(refused(&error.to_string()));
        }
        let since = *self.disowned.get_or_insert_with(Instant::now);
        if since.elapsed() < DISOWNED_FOR {
            return Err("does not know the session".to_owned());
        }
        self.disowned = None;
        self.end_session("the account's password was changed elsewhere; log in again with the new one");
        Ok(())
    }

    fn end_session(&self, reason: &str) {
        let who = self.shared.who.borrow().clone();
        self.shared.forget_login();
        if let Some(who) = who {
            let reason = reason.to_owned();
            self.shared.config.events.tell(Event::SessionEnded { user: who.name, reason });
        }
    }

    /// Announces, renews and answers questions until the connection ends; gives the reason.
    async fn tend(&mut self, link: &Link) -> String {
        let shared = self.shared.clone();
        let mut anew = true;
        let mut announce_at = None;
        let mut renew_at = Instant::now() + RENEW_EVERY;
        let mut vouches_at = Instant::now() + VOUCHES_FIRST;
        let line = self.trackers[self.at].1.clone();
        let (said, mut heard) = mpsc::channel(1);
        loop {
            let may_announce = announce_at.is_none_or(|at| Instant::now() >= at);
            if may_announce && shared.who.borrow().is_some() {
                let taken = self.announce(link, anew).await;
                (anew, announce_at) = (anew && !taken, (!taken).then(|| Instant::now() + ANNOUNCE_AGAIN));
            }
            tokio::select! {
                reason = link.ended() => return reason,
                Ok(()) = self.redials.changed() => return "is asked anew: this machine was asleep".to_owned(),
                () = shared.began.notified() => (anew, announce_at) = (true, None),
                () = until(announce_at) => {}
                () = shared.config.holdings.changed() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep_until(renew_at) => {
                    renew_at = Instant::now() + RENEW_EVERY;
                    self.renew(link).await;
                }
                () = tokio::time::sleep_until(vouches_at) => {
                    vouches_at = Instant::now() + VOUCHES_EVERY;
                    let listen = shared.config.listen.clone();
                    let hello = Call::Hello { listen, revision: Some(REVISION) };
                    if let Ok(Reply::Done(Answer::Welcome { lists, .. })) = link.call(hello).await
                        && let Err(reason) = believe(&shared, &line, link.peer(), lists).await
                    {
                        return reason;
                    }
                    // A stolen one hands out no list in which it is not.
                    if let Some(other) = self.another() {
                        let said = said.clone();
                        shared.tasks.spawn(ask_another(shared.clone(), other, link.peer(), said));
                    }
                }
                Some(()) = heard.recv() => {
                    if shared.config.known.key(&line) != Some(link.peer()) {
                        return NO_TRACKER.to_owned();
                    }
                }
                Some(question) = next_question(&mut self.questions) => {
                    if let Ok(Reply::Done(Answer::TicketKeys(keys))) = link.call(Call::TicketKeys).await {
                        shared.config.tickets.set_keys(&keys);
                        let _ = question.send(());
                    }
                }
            }
        }
    }

    /// Another listed tracker, each in its turn.
    fn another(&mut self) -> Option<TrackerLine> {
        let others = self.trackers.len().checked_sub(1).filter(|&others| others > 0)?;
        let step = 1 + self.asked % others;
        self.asked = self.asked.wrapping_add(1);
        let (_, line) = self.trackers.get((self.at + step) % self.trackers.len())?;
        Some(line.clone())
    }

    async fn renew(&self, link: &Link) {
        if self.shared.who.borrow().is_none() {
            return;
        }
        match link.call(Call::Renew).await {
            Ok(Reply::Done(Answer::LoggedIn(session))) => {
                self.shared.adopt(&session, None);
            }
            Ok(_) => link.close("does not renew the session"),
            Err(Lost) => {}
        }
    }

    /// Tells the tracker what is held: all of it, or what changed; false if it has to be told again.
    async fn announce(&self, link: &Link, anew: bool) -> bool {
        let holdings = &self.shared.config.holdings;
        let news = if anew { holdings.take_all() } else { holdings.take_changes() };
        if news.holdings.is_empty() && !anew {
            return true;
        }
        let mut parts: Vec<&[Holding]> = news.holdings.chunks(MAX_LIST).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let mut later = Vec::new();
        for (index, part) in parts.into_iter().enumerate() {
            let call = Call::Announce { reset: anew && index == 0, holdings: part.to_vec() };
            match link.call(call).await {
                Ok(Reply::Done(Answer::Announced { unknown })) if unknown.is_empty() => {}
                Ok(Reply::Done(Answer::Announced { unknown })) => {
                    // As much as can wait already does: the rest is reported when it is told again.
                    if let Err(TrySendError::Full(unknown)) = self.shared.unknown.try_send(unknown) {
                        later.extend(unknown);
                    }
                }
                Ok(reply) => {
                    tracing::warn!(?reply, "the tracker does not take what this client announces");
                    holdings.again(&news.holdings);
                    return false;
                }
                // Everything is announced again on the next connection.
                Err(Lost) => return true,
            }
        }
        holdings.told(&news);
        holdings.again(&later);
        later.is_empty()
    }

    async fn leave(&self, peer: PeerId) {
        self.shared.config.control.disconnect(peer).await;
    }
}

fn refused(text: &str) -> String {
    format!("refuses this client: {}", text::short(text))
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
