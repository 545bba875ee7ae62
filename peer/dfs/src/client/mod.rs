//! The user's side: a session with the trackers, connections to the storage nodes, and what is done with both.

mod error;
mod get;
mod hashing;
mod holders;
mod list;
mod nodes;
mod placing;
mod put;
mod reading;
mod unfinished;

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_common::Password;
use shoal_common::UserName;
use shoal_common::tracker_api::storage::{StoreAnswer, StoreCall, StoreStatus};
use shoal_common::tracker_api::{Answer, Call};
use shoal_common::{RequestId, TrackerInfo};
use shoal_engine::Tries;
use shoal_net::{Control, ControlConfig, ControlLimits, Identity, KnownTrackers};
use shoal_session::events::{Event, Events};
use shoal_session::holdings::Holdings;
use shoal_session::tickets::TicketBook;
use shoal_session::{CallError, Session, SessionConfig, Who};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::StoreError;
pub use get::{GetOptions, Got};
pub use holders::{Holder, Holders};
pub use list::{Listed, Removed};
pub use nodes::{NodeState, Nodes};
pub use put::Stored;

use crate::conf::Conf;
use crate::keyring::Keyring;

/// Every client of a tracker says where it can be reached; this one takes no connections, and names the port of the
/// discard service, where nothing listens.
const NOWHERE: &str = "0.0.0.0:9";
/// How often a ticket is renewed: before half its ten minutes are over.
const RENEW_EVERY: Duration = Duration::from_secs(240);
/// How often a lease is renewed: at a third of its life.
const LEASE_EVERY: Duration = Duration::from_secs(20);

/// How long something is tried again by default: as long as `fetch` does.
pub const RETRY_TIME: Duration = Duration::from_secs(40);

/// How far something has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is going on.
    pub step: Step,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What is going on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Step {
    /// Reading the file for its digests.
    #[default]
    Hashing,
    /// Sealing and sending.
    Storing,
    /// Fetching and opening.
    Fetching,
    /// Something is lacking on this machine, space or descriptors.
    Waiting,
}

impl Step {
    /// A word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Hashing => "hashing",
            Self::Storing => "storing",
            Self::Fetching => "fetching",
            Self::Waiting => "waiting for space or descriptors",
        }
    }
}

/// Where progress goes: a value that others watch.
pub type Report = watch::Sender<Progress>;

/// A client that may or may not be logged in.
pub struct Client {
    session: Session,
    /// The session's events since the start.
    events: Option<broadcast::Receiver<Event>>,
    control: Control,
    nodes: Nodes,
    folder: PathBuf,
    /// Only while the session lasts.
    keyring: watch::Sender<Option<Arc<Keyring>>>,
    /// How long it tries again while something is lacking on this machine.
    retry_time: Duration,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Client {
    /// Begins to look for a tracker. What an interrupted PUT needs to go on is kept in `folder`.
    ///
    /// # Errors
    /// When the network cannot be used.
    pub async fn start(conf: &Conf, trackers: TrackerInfo, folder: PathBuf) -> Result<Self, StoreError> {
        let identity = Identity::generate();
        let config = ControlConfig {
            identity: identity.clone(),
            listen: None,
            protocols: Vec::new(),
            limits: ControlLimits::default(),
        };
        let (control, _) =
            Control::start(config).await.map_err(|error| StoreError::Network(error.to_string()))?;
        let own = identity.peer_id();
        let events = Events::default();
        let heard = Some(events.listen());
        let known = known(folder.clone(), trackers.clone()).await?;
        let (session, _) = Session::start(SessionConfig {
            ways: None,
            control: control.clone(),
            own,
            trackers,
            known,
            listen: NOWHERE.to_owned(),
            tickets: TicketBook::new(own),
            holdings: Holdings::default(),
            events,
        });
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let nodes = Nodes::new(conf.servers.clone(), identity, tasks.clone());
        Ok(Self {
            session,
            events: heard,
            control,
            nodes,
            folder,
            keyring: watch::Sender::new(None),
            retry_time: RETRY_TIME,
            tasks,
            stop,
        })
    }

    /// The session's events since the start; `None` from the second call on.
    pub fn take_events(&mut self) -> Option<broadcast::Receiver<Event>> {
        self.events.take()
    }

    /// Tries again for so long while something is lacking on this machine, space or descriptors.
    pub fn set_retry_time(&mut self, time: Duration) {
        self.retry_time = time;
    }

    /// Does something again while it fails for want of something that may be there in a moment.
    async fn persist<T, F>(&self, report: &Report, mut work: impl FnMut() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut tries = Tries::new(self.retry_time);
        loop {
            let error = match work().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let Some(shortage) = error.shortage() else { return Err(error) };
            if tries.is_first() && shortage.lack.is_of_the_place() {
                // A wrong path, most likely.
                return Err(error);
            }
            let Some(pause) = tries.pause(Instant::now()) else { return Err(StoreError::Short { shortage }) };
            tracing::warn!(%shortage, "trying again");
            report.send_replace(Progress { step: Step::Waiting, ..Progress::default() });
            tokio::time::sleep(pause).await;
        }
    }

    /// Waits until a tracker answers.
    ///
    /// # Errors
    /// When none does.
    pub async fn ready(&self) -> Result<(), StoreError> {
        Ok(self.session.ready().await?)
    }

    /// Asks the trackers who is who, and tries to reach every server; what came of it, in the order of `dfs.conf`.
    ///
    /// # Errors
    /// When no tracker answers.
    pub async fn ping(&self) -> Result<Vec<NodeState>, StoreError> {
        self.refresh().await?;
        Ok(self.nodes.ping().await)
    }

    /// Logs in, and shows the servers that were reached a ticket; the names of those that accepted it.
    ///
    /// # Errors
    /// [`StoreError::Login`] with the trackers' reason.
    pub async fn login(&self, user: UserName, password: Password) -> Result<(Who, Vec<String>), StoreError> {
        let who = self.session.login(user, password).await?;
        let account = self.session.account_key().ok_or(StoreError::NotLoggedIn)?;
        let keyring = Arc::new(Keyring::new(&account));
        self.keyring.send_replace(Some(keyring.clone()));
        let (watched, held) = (self.session.watch_who(), self.keyring.clone());
        self.tasks.spawn(forget(watched.clone(), (keyring, held), self.stop.clone()));
        let ticket = ticket(&self.session).await?;
        let granted = self.nodes.show(ticket).await;
        self.tasks.spawn(renew(self.session.clone(), self.nodes.clone(), watched, self.stop.clone()));
        Ok((who, granted))
    }

    /// Creates an account, by an invitation where trackers ask for one; true if its name may yet be lost to another.
    ///
    /// # Errors
    /// [`StoreError::Login`] with the trackers' reason.
    pub async fn create_user(
        &self,
        user: UserName,
        password: Password,
        invitation: Option<String>,
    ) -> Result<bool, StoreError> {
        Ok(self.session.create_user(user, password, invitation).await?)
    }

    /// Gives the account another password.
    ///
    /// # Errors
    /// [`StoreError::Login`] with the trackers' reason.
    pub async fn change_password(&self, old: Option<Password>, new: Password) -> Result<(), StoreError> {
        Ok(self.session.change_password(old, new).await?)
    }

    /// Who is logged in.
    #[must_use]
    pub fn who(&self) -> Option<Who> {
        self.session.who()
    }

    /// Completes when nobody is logged in any more.
    pub async fn session_over(&self) {
        // An error says that the session itself is gone.
        let _ = self.session.watch_who().wait_for(Option::is_none).await;
    }

    /// How the store is.
    ///
    /// # Errors
    /// When no tracker answers.
    pub async fn status(&self) -> Result<StoreStatus, StoreError> {
        match store(&self.session, StoreCall::Status).await? {
            StoreAnswer::Status(status) => Ok(*status),
            _ => Err(CallError::Unexpected.into()),
        }
    }

    /// Leaves.
    pub async fn shutdown(self) {
        self.session.logout().await;
        self.stop.cancel();
        self.nodes.close().await;
        self.session.shutdown().await;
        self.tasks.close();
        self.tasks.wait().await;
        self.control.shutdown().await;
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        match store(&self.session, StoreCall::Nodes).await? {
            StoreAnswer::Nodes(entries) => {
                self.nodes.learn(&entries).await;
                Ok(())
            }
            _ => Err(CallError::Unexpected.into()),
        }
    }

    fn keyring(&self) -> Result<Arc<Keyring>, StoreError> {
        let keyring = self.keyring.borrow().clone();
        keyring.filter(|_| self.session.who().is_some()).ok_or(StoreError::NotLoggedIn)
    }
}

async fn store(session: &Session, call: StoreCall) -> Result<StoreAnswer, CallError> {
    match session.call(Call::Store(call)).await? {
        Answer::Store(answer) => Ok(answer),
        _ => Err(CallError::Unexpected),
    }
}

async fn ticket(session: &Session) -> Result<Vec<u8>, CallError> {
    match store(session, StoreCall::Ticket).await? {
        StoreAnswer::Ticket { ticket, .. } => Ok(ticket),
        _ => Err(CallError::Unexpected),
    }
}

/// Wipes the keys of the account's files once the session is over, whoever ended it.
async fn forget(
    mut who: watch::Receiver<Option<Who>>,
    (keyring, held): (Arc<Keyring>, watch::Sender<Option<Arc<Keyring>>>),
    stop: CancellationToken,
) {
    stop.run_until_cancelled(async {
        let _ = who.wait_for(Option::is_none).await;
    })
    .await;
    // A later login has its own.
    held.send_if_modified(|held| held.take_if(|held| Arc::ptr_eq(held, &keyring)).is_some());
}

/// Keeps the servers supplied with fresh tickets until the session is over.
async fn renew(
    session: Session,
    nodes: Nodes,
    mut who: watch::Receiver<Option<Who>>,
    stop: CancellationToken,
) {
    let work = async {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            match ticket(&session).await {
                Ok(ticket) => {
                    nodes.show(ticket).await;
                }
                Err(error) => tracing::warn!(%error, "no new ticket for the storage nodes"),
            }
        }
    };
    stop.run_until_cancelled(async {
        tokio::select! {
            _ = who.wait_for(Option::is_none) => {}
            () = work => {}
        }
    })
    .await;
}

/// A lease on all chunks of the user, renewed until it is dropped.
struct Lease {
    id: RequestId,
    session: Session,
    _renewal: tokio_util::task::AbortOnDropHandle<()>,
}

impl Lease {
    async fn take(session: &Session) -> Result<Self, StoreError> {
        let id = RequestId::random();
        store(session, StoreCall::Lease { id, end: false }).await?;
        let renewing = session.clone();
        let renewal = tokio::spawn(async move {
            loop {
                tokio::time::sleep(LEASE_EVERY).await;
                if let Err(error) = store(&renewing, StoreCall::Lease { id, end: false }).await {
                    tracing::warn!(%error, "a lease was not renewed");
                }
            }
        });
        let renewal = tokio_util::task::AbortOnDropHandle::new(renewal);
        Ok(Self { id, session: session.clone(), _renewal: renewal })
    }

    /// Ends it. One that is only dropped ends by itself within a minute.
    async fn end(self) {
        if let Err(error) = store(&self.session, StoreCall::Lease { id: self.id, end: true }).await {
            tracing::debug!(%error, "a lease was not ended");
        }
    }
}

/// What is remembered of the trackers' keys in that folder, which is made if need be.
async fn known(folder: PathBuf, trackers: TrackerInfo) -> Result<KnownTrackers, StoreError> {
    let opened = tokio::task::spawn_blocking(move || {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| StoreError::File { action: "make", path: folder.clone(), error })?;
        Ok(KnownTrackers::open(&folder, &trackers, None)?)
    });
    opened.await.unwrap_or_else(|error| Err(StoreError::Network(error.to_string())))
}
