//! The tracker session: one connection to one tracker at a time, the next one when it dies, and the login that outlives
//! them. `app`, `shares` and `transfers` call it; what they ask is carried from tracker to tracker until one answers.
//!
//! A background task keeps the connection, resumes the session on it, renews tickets and announces holdings. Secrets are
//! in memory only, unless its user wants the session kept over restarts ([`Session::keep`]).

mod asking;
pub mod connection;
pub mod events;
pub mod holdings;
mod kept;
mod login;
pub mod reach;
mod supervisor;
pub mod text;
pub mod tickets;
mod vouching;
pub mod ways;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_common::credentials::AccountKey;
use shoal_common::tracker_api::{Answer, Call, Holding, Refusal, RefusalKind, Reply};
use shoal_common::{Gid, GroupName, PeerId, TrackerInfo, Uid, UserName};
use shoal_net::{Control, KnownTrackers};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use kept::Kept;
pub use login::LoginError;

use crate::events::{Event, Events};
use crate::holdings::Holdings;
use crate::tickets::TicketBook;
use crate::ways::Ways;
use connection::{Lost, TrackerConnection};
use login::Login;
use reach::{Dialer, Learned};
use supervisor::Supervisor;

/// How long a call waits for any tracker before it fails.
const NO_TRACKER_AFTER: Duration = Duration::from_secs(15);
/// Trackers that one call is carried to at most: one that kills every tracker it reaches must end.
const MAX_CARRIES: usize = 16;
/// How long a logout may take: the session is over here in any case.
const LOGOUT_WITHIN: Duration = Duration::from_secs(2);
/// Lists of unknown holdings that may wait to be looked at; more are reported again after a while.
const MAX_UNKNOWN: usize = 16;

/// Why a call was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// None was reached for 15 s.
    #[error(
        "no tracker answers: tried {tried}; check that one runs and that tracker_info.txt names it, and try again"
    )]
    NoTracker {
        /// The trackers and what each did.
        tried: String,
    },
    /// A tracker refused; its text is made printable.
    #[error("{text}")]
    Refused {
        /// What can be done about it.
        kind: RefusalKind,
        /// What the user reads.
        text: String,
        /// When it is worth trying again, where waiting helps.
        again: Option<Duration>,
    },
    /// The tracker is of an earlier version and does not keep what has to be kept.
    #[error(
        "the tracker {tracker} is of an earlier version, which would not keep the signature on the new password; nothing was changed: ask its operator to update it"
    )]
    OldTracker {
        /// Its address.
        tracker: String,
    },
    /// The tracker is of an earlier version and does not know the call.
    #[error(
        "the tracker {tracker} is of an earlier version, which does not know that; ask its operator to update it"
    )]
    OldCommand {
        /// Its address.
        tracker: String,
    },
    /// The tracker's answer does not fit the call.
    #[error("the tracker gave an answer that does not fit; is it of another version?")]
    Unexpected,
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused {
            kind: refusal.kind,
            text: text::printable(&refusal.text),
            again: refusal.retry_after_ms.map(|ms| Duration::from_millis(ms.into())),
        }
    }
}

impl CallError {
    /// What a refusal is about.
    #[must_use]
    pub fn refusal(&self) -> Option<RefusalKind> {
        match self {
            Self::Refused { kind, .. } => Some(*kind),
            _ => None,
        }
    }
}

/// Who is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The user.
    pub user: Uid,
    /// What they are called now.
    pub name: UserName,
    /// Whether the name may yet be lost.
    pub provisional: bool,
    /// The groups that they are a member of, as of the last renewal.
    pub groups: Arc<[(Gid, GroupName)]>,
}

impl Who {
    /// What a group is called now, if they are a member of it.
    #[must_use]
    pub fn group_name(&self, group: Gid) -> Option<&GroupName> {
        self.groups.iter().find(|(gid, _)| *gid == group).map(|(_, name)| name)
    }
}

/// How the trackers were found when they were last tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tries {
    /// How many there are.
    pub trackers: usize,
    /// How many were tried in vain since one was last in use.
    pub failed: usize,
    /// All of them, with what those did that were tried in vain.
    pub words: String,
}

/// What the session needs to begin.
pub struct SessionConfig {
    /// The control plane.
    pub control: Control,
    /// This client's key.
    pub own: PeerId,
    /// The trackers, in the order in which they are tried.
    pub trackers: TrackerInfo,
    /// Their keys, as far as they are known.
    pub known: KnownTrackers,
    /// `ip:port` at which this client takes bulk connections.
    pub listen: String,
    /// The tickets, renewed here.
    pub tickets: TicketBook,
    /// What is announced.
    pub holdings: Holdings,
    /// What is known of ways to and from this client; none for one that exchanges nothing with others.
    pub ways: Option<Ways>,
    /// Where trackers lost and found are reported.
    pub events: Events,
}

/// A handle on the session. Cheap to clone.
#[derive(Clone)]
pub struct Session(Arc<SessionState>);

struct SessionState {
    config: SessionConfig,
    dialer: Dialer,
    connection: watch::Sender<Option<TrackerConnection>>,
    who: watch::Sender<Option<Who>>,
    login: Mutex<Option<Login>>,
    /// Which of a name's claims the last login was to.
    candidate: Mutex<Option<(UserName, u8)>>,
    /// What each tracker did when it was last tried in vain.
    failures: Mutex<BTreeMap<u8, String>>,
    /// A session began on the present connection: everything is to be announced.
    began: Notify,
    unknown: mpsc::Sender<Vec<Holding>>,
    /// `ip:port` at which other peers reach this one.
    listen: watch::Sender<String>,
    /// Counts the times at which the connection is to be made again.
    redials: watch::Sender<u64>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Session {
    /// Begins to look for a tracker. The receiver gives announced holdings that the trackers know nothing of.
    #[must_use]
    pub fn start(config: SessionConfig) -> (Self, mpsc::Receiver<Vec<Holding>>) {
        let (unknown, unknowns) = mpsc::channel(MAX_UNKNOWN);
        let tasks = TaskTracker::new();
        let events = config.events.clone();
        let listen = watch::Sender::new(config.listen.clone());
        let dialer = Dialer {
            control: config.control.clone(),
            known: config.known.clone(),
            listen: listen.subscribe(),
            report: Arc::new(move |learned| events.emit(learned.into())),
            tasks: tasks.clone(),
            ways: config.ways.clone(),
        };
        let session = Arc::new(SessionState {
            config,
            dialer,
            connection: watch::Sender::new(None),
            who: watch::Sender::new(None),
            login: Mutex::default(),
            candidate: Mutex::default(),
            failures: Mutex::default(),
            began: Notify::new(),
            unknown,
            listen,
            redials: watch::Sender::new(0),
            stop: CancellationToken::new(),
            tasks,
        });
        session.tasks.spawn(Supervisor::new(session.clone()).run());
        if let Some(questions) = session.config.ways.as_ref().and_then(Ways::questions) {
            session.tasks.spawn(asking::carry(Self(session.clone()), questions));
        }
        (Self(session), unknowns)
    }

    /// Asks whichever tracker answers. A call that writes takes effect once, however often it is carried on, because it
    /// holds its request's id. Dropping the future leaves open whether it took effect.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(&self, call: Call) -> Result<Answer, CallError> {
        let (mut unavailable, mut resumed) = (0, false);
        let others = self.0.config.trackers.iter().count() - 1;
        for _ in 0..MAX_CARRIES {
            let connection = self.connection().await?;
            if connection.revision() < call.revision() {
                return Err(CallError::OldCommand { tracker: connection.address().to_owned() });
            }
            let refusal = match connection.call(call.clone()).await {
                Ok(Reply::Done(answer)) => return Ok(answer),
                Ok(Reply::Refused(refusal)) => refusal,
                Err(Lost) => continue,
            };
            match refusal.kind {
                RefusalKind::Unavailable if unavailable < others => {
                    unavailable += 1;
                    connection.close(&format!("cannot do it now ({})", text::short(&refusal.text)));
                }
                RefusalKind::NotLoggedIn | RefusalKind::SignedOut if !resumed && self.who().is_some() => {
                    resumed = true;
                    connection.close("does not know the session");
                }
                _ => return Err(refusal.into()),
            }
        }
        Err(self.no_tracker())
    }

    /// Who is logged in.
    #[must_use]
    pub fn who(&self) -> Option<Who> {
        self.0.who.borrow().clone()
    }

    /// Who is logged in, as it changes.
    #[must_use]
    pub fn watch_who(&self) -> watch::Receiver<Option<Who>> {
        self.0.who.subscribe()
    }

    /// The key of the account that is logged in; none when no user is.
    #[must_use]
    pub fn account_key(&self) -> Option<AccountKey> {
        let login = lock(&self.0.login);
        login.as_ref().and_then(|login| login.secrets.open(&login.account).ok())
    }

    /// The address of the tracker in use, if one is.
    #[must_use]
    pub fn tracker(&self) -> Option<String> {
        self.0
            .connection
            .borrow()
            .as_ref()
            .filter(|connection| !connection.is_ended())
            .map(|connection| connection.address().to_owned())
    }

    /// How the trackers were found when they were last tried.
    #[must_use]
    pub fn tries(&self) -> Tries {
        let failed = lock(&self.0.failures).len();
        Tries { trackers: self.0.config.trackers.iter().count(), failed, words: self.tried() }
    }

    /// Waits until a tracker is in use, or that long. Safe to drop.
    pub async fn reached(&self, within: Duration) -> bool {
        let mut connections = self.0.connection.subscribe();
        let found = connections
            .wait_for(|connection| connection.as_ref().is_some_and(|connection| !connection.is_ended()));
        tokio::time::timeout(within, found).await.is_ok_and(|found| found.is_ok())
    }

    /// Waits for a tracker, as long as a call does. Safe to drop.
    ///
    /// # Errors
    /// [`CallError::NoTracker`].
    pub async fn ready(&self) -> Result<(), CallError> {
        self.connection().await.map(|_| ())
    }

    /// Ends the session, here in any case and at the tracker if one answers soon.
    pub async fn logout(&self) {
        let connection = self.0.connection.borrow().clone();
        if let (Some(connection), Some(_)) = (connection, self.who()) {
            let _ = tokio::time::timeout(LOGOUT_WITHIN, connection.call(Call::Logout)).await;
        }
        self.0.forget_login();
    }

    /// Makes the connection to the trackers again, at once and without the pause that may be under way: this machine was
    /// asleep, and the old one may be dead without a sign.
    pub fn redial(&self) {
        self.0.redials.send_modify(|redials| *redials += 1);
    }

    /// Other peers reach this one at that `ip:port` from now on: the trackers are told at once.
    pub fn give_out(&self, listen: String) {
        self.0.listen.send_replace(listen);
        self.redial();
    }

    /// Leaves the tracker and ends the background task.
    pub async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    async fn connection(&self) -> Result<TrackerConnection, CallError> {
        let mut connections = self.0.connection.subscribe();
        let found = connections
            .wait_for(|connection| connection.as_ref().is_some_and(|connection| !connection.is_ended()));
        match tokio::time::timeout(NO_TRACKER_AFTER, found).await {
            Ok(Ok(connection)) => connection.clone().ok_or_else(|| self.no_tracker()),
            _ => Err(self.no_tracker()),
        }
    }

    fn no_tracker(&self) -> CallError {
        CallError::NoTracker { tried: self.tried() }
    }

    fn tried(&self) -> String {
        let failures = lock(&self.0.failures);
        let tried = self.0.config.trackers.iter().map(|(number, line)| match failures.get(&number) {
            Some(reason) => format!("{line} ({reason})"),
            None => line.to_string(),
        });
        tried.collect::<Vec<_>>().join(", ")
    }
}

impl SessionState {
    /// Logs out here: nothing is left to log in with.
    fn forget_login(&self) {
        *lock(&self.login) = None;
        self.config.tickets.clear();
        self.config.holdings.clear();
        self.who.send_replace(None);
    }
}

impl From<Learned> for Event {
    fn from(learned: Learned) -> Self {
        match learned {
            Learned::Met { tracker, key } => {
                Self::TrackerKnown { tracker, key: Some(key.to_string()), vouched: false }
            }
            Learned::Vouched(news) => {
                let key = news.now.map(|key| key.to_string());
                Self::TrackerKnown { tracker: news.address, key, vouched: true }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
