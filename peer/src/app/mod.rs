//! The client without its terminal: typed commands in, typed results out, events beside them. The prompt, scripts and
//! tests drive it alike; it never prints.

mod background;
mod commands;
mod completion;
mod error;
mod lists;
mod output;

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use shoal_common::{PeerId, TrackerInfo};
use shoal_engine::{Engine, EngineConfig};
use shoal_net::{Control, ControlConfig, ControlLimits, Identity, KnownTrackers};
use shoal_segment::mirror::Reach;
use tokio::sync::{Mutex, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use completion::Names;
pub use error::{AppError, StartError};
pub use output::{Output, PeerRow, WhoAmI};

use crate::command::Command;
use crate::data_dir::DataDir;
use crate::events::{Event, Events};
use crate::hashing::Hashing;
use crate::holdings::Holdings;
use crate::session::{CallError, Session, SessionConfig};
use crate::shares::{self, Shares};
use crate::store::{Store, StoreError};
use crate::swarm::{Swarm, SwarmConfig};
use crate::tickets::TicketBook;
use crate::transfers::{self, DownloadRow, Transfers};
use crate::wake::Clock;

/// The file names in the data directory.
const IDENTITY_FILE: &str = "identity.key";
const STORE_FILE: &str = "client.db";
/// Settings that hold the rate limits, in bytes a second.
const LIMIT_UP: &str = "limit_up";
const LIMIT_DOWN: &str = "limit_down";
/// How long leaving may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(8);

/// What a client is started with.
pub struct AppConfig {
    /// `ip:port` at which it serves; port 0 takes any.
    pub listen: SocketAddr,
    /// The trackers.
    pub trackers: TrackerInfo,
    /// What it remembers, locked for it.
    pub data_dir: DataDir,
    /// Peers that it uploads to at a time.
    pub upload_slots: usize,
    /// What shows that this machine was asleep: [`crate::wake::system_clock`], or a test's.
    pub clock: Clock,
    /// How far mirrors that other members name may lie.
    pub mirrors: Reach,
}

/// A running client. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    config: AppConfig,
    identity: Identity,
    control: Control,
    store: Store,
    swarm: Swarm,
    engine: Engine,
    session: Session,
    shares: Shares,
    transfers: Transfers,
    events: Events,
    /// For the first listener: what happened since the start.
    first_events: std::sync::Mutex<Option<broadcast::Receiver<Event>>>,
    hashing: watch::Sender<Option<Hashing>>,
    names: completion::Cache,
    started: Instant,
    /// Held while a session begins or ends, so that what one starts the other does not stop.
    gate: Mutex<()>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl App {
    /// Starts a client: it listens, and looks for a tracker.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: AppConfig) -> Result<Self, StartError> {
        let folder = config.data_dir.path().to_owned();
        let trackers = config.trackers.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let identity = Identity::load_or_create(&folder.join(IDENTITY_FILE))?;
            let known = KnownTrackers::open(&folder, &trackers, None)?;
            Ok::<_, StartError>((identity, known, Store::open(&folder.join(STORE_FILE))?))
        });
        let (identity, known, store) = opened.await??;
        let (up, down) = (limit(&store, LIMIT_UP).await?, limit(&store, LIMIT_DOWN).await?);
        let own = identity.peer_id();
        let (tickets, holdings, events) = (TicketBook::new(own), Holdings::default(), Events::default());
        let first_events = std::sync::Mutex::new(Some(events.listen()));
        let swarm_config = SwarmConfig {
            identity: identity.clone(),
            listen: config.listen,
            upload_slots: config.upload_slots,
        };
        let swarm = Swarm::start(swarm_config, tickets.clone()).await?;
        swarm.set_upload_limit(up);
        let control_config = ControlConfig {
            identity: identity.clone(),
            listen: None,
            protocols: Vec::new(),
            limits: ControlLimits::default(),
        };
        let (control, _) = Control::start(control_config).await?;
        let (session, unknown) = Session::start(SessionConfig {
            control: control.clone(),
            own,
            trackers: config.trackers.clone(),
            known,
            listen: swarm.local_addr().to_string(),
            tickets: tickets.clone(),
            holdings: holdings.clone(),
            events: events.clone(),
        });
        let engine = Engine::new(EngineConfig { download_limit: down, ..EngineConfig::default() });
        let (shares, monitor) = Shares::new(shares::Parts {
            store: store.clone(),
            swarm: swarm.clone(),
            session: session.clone(),
            holdings: holdings.clone(),
            events: events.clone(),
        });
        let transfers = Transfers::new(transfers::Parts {
            store: store.clone(),
            swarm: swarm.clone(),
            session: session.clone(),
            shares: shares.clone(),
            holdings,
            events: events.clone(),
            tickets,
            engine: engine.clone(),
            mirrors: config.mirrors,
        });
        let app = Self(Arc::new(Inner {
            config,
            identity,
            control,
            store,
            swarm,
            engine,
            session,
            shares,
            transfers,
            events,
            first_events,
            hashing: watch::Sender::new(None),
            names: completion::Cache::default(),
            started: Instant::now(),
            gate: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }));
        app.0.tasks.spawn(background::run(app.clone(), unknown));
        app.0.tasks.spawn(background::mind_sleeps(app.clone()));
        app.0.tasks.spawn(monitor.run(app.0.stop.clone()));
        Ok(app)
    }

    /// Carries a command out. Dropping the future gives up waiting for it: a change that a tracker was asked for may
    /// take effect all the same, a file is not hashed on.
    ///
    /// # Errors
    /// See [`AppError`].
    pub async fn execute(&self, command: Command) -> Result<Output, AppError> {
        if needs_session(&command) && self.0.session.who().is_none() {
            return Err(AppError::NotLoggedIn);
        }
        match command {
            Command::CreateUser { .. }
            | Command::Login { .. }
            | Command::Logout
            | Command::WhoAmI
            | Command::ChangePassword { .. } => self.account(command).await,
            Command::Sessions => Ok(Output::Sessions(self.sessions().await?)),
            Command::Quota(group) => Ok(Output::Quota { quota: self.quota(group.as_ref()).await?, group }),
            Command::ForgetClient(client) => self.forget_client(&client).await,
            Command::SignOut { user, client } => self.sign_out(user, &client).await,
            Command::CreateGroup(_)
            | Command::JoinGroup(_)
            | Command::LeaveGroup(_)
            | Command::ListGroups
            | Command::ListMembers(_)
            | Command::ListRequests(_)
            | Command::Decide { .. } => self.group(command).await,
            Command::UploadFile { path, group, mirrors } => {
                let shared = self.0.shares.upload(&path, &group, mirrors, &self.0.hashing).await?;
                Ok(Output::Shared { group, file: shared.file, size: shared.size, sha1: shared.sha1 })
            }
            Command::StopShare(file) => self.stop_share(file).await,
            Command::ListFiles(group) => Ok(Output::Files { files: self.files(&group).await?, group }),
            Command::ShowPeers(file) => Ok(Output::Peers { peers: self.peers(&file).await?, file }),
            Command::Limit { direction, rate } => self.limit(direction, rate).await,
            Command::Help(spec) => Ok(Output::Help(spec)),
            Command::Quit => Ok(Output::Quitting),
            _ => self.download(command).await,
        }
    }

    /// All events from now on; for the first who asks, all since the start.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        let first = self.0.first_events.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.unwrap_or_else(|| self.0.events.listen())
    }

    /// The file that is being hashed, if one is.
    #[must_use]
    pub fn hashing(&self) -> watch::Receiver<Option<Hashing>> {
        self.0.hashing.subscribe()
    }

    /// All downloads of the user who is logged in.
    #[must_use]
    pub fn downloads(&self) -> Vec<DownloadRow> {
        self.0.transfers.rows()
    }

    /// Completes when no download runs. Safe to drop.
    pub async fn idle(&self) {
        self.0.transfers.idle().await;
    }

    /// Who and where this client is.
    #[must_use]
    pub fn whoami(&self) -> WhoAmI {
        let who = self.0.session.who();
        WhoAmI {
            provisional: who.as_ref().is_some_and(|who| who.provisional),
            user: who.map(|who| who.name),
            peer: self.peer_id(),
            address: self.0.swarm.local_addr().to_string(),
            tracker: self.0.session.tracker(),
            data_dir: self.0.config.data_dir.path().to_owned(),
        }
    }

    /// This client's key.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.0.identity.peer_id()
    }

    /// Waits until a tracker answers, or that long. Safe to drop.
    pub async fn reached(&self, within: Duration) -> bool {
        self.0.session.reached(within).await
    }

    /// Leaves: tells who is left without a sharer, ends the session, stops serving and downloading. Takes some seconds at
    /// most; false if something did not end in time.
    pub async fn shutdown(&self) -> bool {
        let leave = async {
            self.end_session().await;
            self.0.stop.cancel();
            self.0.tasks.close();
            self.0.transfers.shutdown().await;
            self.0.tasks.wait().await;
            self.0.swarm.shutdown().await;
            self.0.session.shutdown().await;
            self.0.control.shutdown().await;
        };
        let in_time = tokio::time::timeout(LEAVE_WITHIN, leave).await.is_ok();
        if !in_time {
            tracing::warn!("some tasks did not end within {LEAVE_WITHIN:?}");
        }
        in_time
    }

    /// Tells which files nobody else shares, stops everything that the session allowed, and ends it.
    async fn end_session(&self) {
        let _gate = self.0.gate.lock().await;
        if let Some(who) = self.0.session.who() {
            self.0.shares.tell_sole_shares(who.user).await;
            self.suspend().await;
            self.0.session.logout().await;
        }
    }

    async fn suspend(&self) {
        self.0.transfers.suspend().await;
        self.0.shares.suspend().await;
    }
}

/// Commands that work without a session are few.
fn needs_session(command: &Command) -> bool {
    !matches!(
        command,
        Command::Help(_)
            | Command::Quit
            | Command::WhoAmI
            | Command::CreateUser { .. }
            | Command::Login { .. }
            | Command::ListGroups
    )
}

fn unexpected<T>() -> Result<T, AppError> {
    Err(CallError::Unexpected.into())
}

async fn limit(store: &Store, setting: &'static str) -> Result<Option<u64>, StoreError> {
    let text = store.setting(setting).await?;
    Ok(text.and_then(|text| text.parse().ok()).filter(|rate| *rate > 0))
}
