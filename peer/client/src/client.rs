//! A client that runs: what it is made of, how it starts and ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use shoal_common::tracker_api::Holding;
use shoal_common::{PeerId, TrackerInfo};
use shoal_engine::{Engine, EngineConfig};
use shoal_http::mirror::Reach;
use shoal_net::{Control, ControlConfig, ControlLimits, Identity, KnownTrackers};
use tokio::sync::{Mutex, broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use shoal_console::data_dir::DataDir;
use shoal_session::events::{Event, Events};
use shoal_session::holdings::Holdings;
use shoal_session::tickets::TicketBook;
use shoal_session::ways::Ways;
use shoal_session::{CallError, Session, SessionConfig, Who};
use shoal_swarm::{Swarm, SwarmConfig};

use crate::archive::marks;
use crate::background;
use crate::error::{ClientError, StartError};
use crate::explain;
use crate::files::{IDENTITY_FILE, STORE_FILE};
use crate::folders::Folders;
use crate::hashing::Hashing;
use crate::kept;
use crate::membership::{self, Asked};
use crate::names;
use crate::on_complete::OnComplete;
use crate::ordering::active_downloads;
use crate::pace::{self, Pace};
use crate::reach;
use crate::results::{Carried, WhoAmI};
use crate::shares::{self, Shares};
use crate::store::Store;
use crate::transfers::{self, Transfers};
use crate::wake::Clock;

/// How long the start waits for the end of moves that a crash interrupted.
const RECOVER_WITHIN: Duration = Duration::from_secs(3);
/// How long leaving may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(8);

/// What a client is started with.
pub struct ClientConfig {
    /// `ip:port` at which it serves; port 0 takes any. An address of another machine, a router, is given out, while the
    /// client listens on all addresses of this one.
    pub listen: SocketAddr,
    /// Whether it listens on all addresses of this machine although `listen` is one of them: that one may change, see
    /// [`Client::give_out`].
    pub everywhere: bool,
    /// The trackers.
    pub trackers: TrackerInfo,
    /// Its data folder, locked.
    pub data_dir: DataDir,
    /// Peers that it uploads to at a time.
    pub upload_slots: usize,
    /// Shows that this machine was asleep: [`crate::wake::system_clock`], or a test's.
    pub clock: Clock,
    /// How far mirrors that other members name may lie.
    pub mirrors: Reach,
}

/// A running client. Cheap to clone.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: ClientConfig,
    /// Where others reach it.
    reached_at: std::sync::Mutex<SocketAddr>,
    /// Whether that is another machine's address.
    is_forwarded: bool,
    pub(crate) identity: Identity,
    pub(crate) control: Control,
    pub(crate) store: Store,
    pub(crate) swarm: Swarm,
    pub(crate) engine: Engine,
    pub(crate) session: Session,
    pub(crate) tickets: TicketBook,
    pub(crate) holdings: Holdings,
    pub(crate) ways: Ways,
    pub(crate) shares: Shares,
    pub(crate) transfers: Transfers,
    pub(crate) pace: Pace,
    pub(crate) on_complete: OnComplete,
    pub(crate) events: Events,
    /// For the first listener: what happened since the start.
    pub(crate) first_events: std::sync::Mutex<Option<broadcast::Receiver<Event>>>,
    pub(crate) hashing: watch::Sender<Option<Hashing>>,
    pub(crate) names: names::Cache,
    pub(crate) counts: explain::Counts,
    pub(crate) asked: Asked,
    pub(crate) started: Instant,
    /// Held while a session begins or ends, so that neither stops what the other starts.
    pub(crate) session_change: Mutex<()>,
    /// Whether a session that was kept is still tried to go on with.
    pub(crate) going_on: watch::Sender<bool>,
    /// The process ends, and with it the session here; one that is kept goes on after the next start.
    pub(crate) leaving: CancellationToken,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Client {
    /// Starts a client: it listens, and looks for a tracker.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: ClientConfig) -> Result<Self, StartError> {
        let (identity, known, store) = open(&config).await?;
        recover_moves(&store).await;
        let (pace, own) = (Pace::load(&store).await?, identity.peer_id());
        let (tickets, holdings, events) = (TicketBook::new(own), Holdings::default(), Events::default());
        let first_events = std::sync::Mutex::new(Some(events.listen()));
        let (swarm, reached_at, ways) = serve(&config, &identity, &tickets).await?;
        swarm.set_upload_limit(pace.applied().up);
        let (control, _) = Control::start(dials_only(&identity)).await?;
        let (session, unknown) = Session::start(SessionConfig {
            control: control.clone(),
            own,
            trackers: config.trackers.clone(),
            known,
            listen: reached_at.to_string(),
            tickets: tickets.clone(),
            holdings: holdings.clone(),
            ways: Some(ways.clone()),
            events: events.clone(),
        });
        let engine = engine(&pace);
        let folders = swept_folders(&config, &store).await?;
        let (shares, monitor) = Shares::new(shares::Parts {
            store: store.clone(),
            folders: folders.clone(),
            swarm: swarm.clone(),
            session: session.clone(),
            holdings: holdings.clone(),
            events: events.clone(),
            problems: shares::Problems::default(),
        });
        let on_complete = OnComplete::load(&store, events.clone()).await?;
        let transfers = Transfers::new(transfers::Parts {
            store: store.clone(),
            folders,
            swarm: swarm.clone(),
            session: session.clone(),
            shares: shares.clone(),
            holdings: holdings.clone(),
            events: events.clone(),
            tickets: tickets.clone(),
            ways: ways.clone(),
            engine: engine.clone(),
            mirrors: config.mirrors,
            on_complete: on_complete.clone(),
        });
        transfers.set_active(active_downloads(&store).await?);
        let client = Self(Arc::new(Inner {
            is_forwarded: !shoal_net::is_of_this_machine(config.listen.ip()),
            config,
            reached_at: std::sync::Mutex::new(reached_at),
            identity,
            control,
            store,
            swarm,
            engine,
            session,
            tickets,
            holdings,
            ways,
            shares,
            transfers,
            pace,
            on_complete,
            first_events,
            events,
            hashing: watch::Sender::new(None),
            names: names::Cache::default(),
            counts: explain::Counts::default(),
            asked: Asked::default(),
            started: Instant::now(),
            session_change: Mutex::default(),
            going_on: watch::Sender::new(false),
            leaving: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }));
        client.begin(unknown, monitor);
        Ok(client)
    }

    /// Begins what goes on until the client leaves.
    fn begin(&self, unknown: mpsc::Receiver<Vec<Holding>>, monitor: shares::Monitor) {
        self.0.tasks.spawn(background::run(self.clone(), unknown));
        self.0.tasks.spawn(background::mind_sleeps(self.clone()));
        self.0.tasks.spawn(reach::follow(self.clone()));
        self.0.tasks.spawn(reach::report(self.clone()));
        self.0.tasks.spawn(membership::run(self.clone()));
        let leaving = self.0.leaving.clone();
        self.0.going_on.send_replace(self.keeps_session());
        self.0.tasks.spawn(leaving.run_until_cancelled_owned(kept::run(self.clone())));
        self.0.tasks.spawn(pace::run(self.clone()));
        self.0.tasks.spawn(self.0.on_complete.clone().run(self.0.stop.clone()));
        self.0.tasks.spawn(monitor.run(self.0.stop.clone()));
    }

    /// All events from now on; the first caller gets all since the start.
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

    /// The user who is logged in.
    pub(crate) fn who(&self) -> Result<Who, ClientError> {
        self.0.session.who().ok_or(ClientError::NotLoggedIn)
    }

    /// Who and where this client is.
    #[must_use]
    pub fn whoami(&self) -> WhoAmI {
        let who = self.0.session.who();
        let reach = self.0.ways.reach().borrow().clone();
        WhoAmI {
            reached: reach.reached.filter(|_| who.is_some()),
            given_out: reach.address.filter(|_| who.is_some()),
            proven: reach.proven,
            relays: reach.relays,
            provisional: who.as_ref().is_some_and(|who| who.provisional),
            user: who.map(|who| who.name),
            peer: self.peer_id(),
            address: self.reached_at().to_string(),
            tracker: self.0.session.tracker(),
            data_dir: self.0.config.data_dir.path().to_owned(),
        }
    }

    /// Whether the address that it gives out is another machine's, so that only forwarding there makes it reachable.
    #[must_use]
    pub fn is_forwarded(&self) -> bool {
        self.0.is_forwarded
    }

    /// Where others reach it.
    pub(crate) fn reached_at(&self) -> SocketAddr {
        *self.0.reached_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This machine has another address, at which others reach it from now on. The trackers are told at once, and others by them.
    /// Only a client that listens on all addresses is reached there. With the address that it has it only finds its trackers again.
    pub fn give_out(&self, address: SocketAddr) {
        *self.0.reached_at.lock().unwrap_or_else(PoisonError::into_inner) = address;
        self.0.session.give_out(address.to_string());
    }

    /// This client's key.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.0.identity.peer_id()
    }

    /// What this client has carried since its start.
    #[must_use]
    pub fn carried(&self) -> Carried {
        Carried {
            uptime: self.0.started.elapsed(),
            uploaded: self.0.swarm.uploaded().total,
            downloaded: self.0.engine.fetched(),
        }
    }

    /// Waits until a tracker answers, or that long. Safe to drop.
    pub async fn reached(&self, within: Duration) -> bool {
        self.0.session.reached(within).await
    }

    /// Leaves: reports files that are left without a sharer, ends the session, stops serving and downloading. Takes some
    /// seconds at most; false if something did not end in time.
    pub async fn shutdown(&self) -> bool {
        self.0.leaving.cancel();
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

    /// Reports which files nobody else shares, stops everything that the session allowed, and ends it.
    pub(crate) async fn end_session(&self) {
        let _session_change = self.0.session_change.lock().await;
        if let Some(who) = self.0.session.who() {
            self.0.shares.report_sole_shares(who.user).await;
            self.suspend().await;
            self.0.session.logout().await;
        }
    }

    pub(crate) async fn suspend(&self) {
        // What is served ends first: a download may take its time.
        self.0.shares.suspend().await;
        self.0.transfers.suspend().await;
    }
}

/// For connections to trackers: nobody dials this end.
fn dials_only(identity: &Identity) -> ControlConfig {
    ControlConfig {
        identity: identity.clone(),
        listen: None,
        protocols: Vec::new(),
        limits: ControlLimits::default(),
    }
}

/// Opens what the data folder holds.
async fn open(config: &ClientConfig) -> Result<(Identity, KnownTrackers, Store), StartError> {
    let (folder, trackers) = (config.data_dir.path().to_owned(), config.trackers.clone());
    let opened = tokio::task::spawn_blocking(move || {
        marks::check(&folder)?;
        let identity = Identity::load_or_create(&folder.join(IDENTITY_FILE))?;
        let known = KnownTrackers::open(&folder, &trackers, None)?;
        Ok((identity, known, Store::open(&folder.join(STORE_FILE))?))
    });
    opened.await?
}

pub(crate) fn unexpected<T>() -> Result<T, ClientError> {
    Err(CallError::Unexpected.into())
}

/// Listens; gives where others reach this client too. An address that another machine has, a router, leads here by that
/// machine's forwarding; one that may change is not listened on alone.
async fn serve(
    config: &ClientConfig,
    identity: &Identity,
    tickets: &TicketBook,
) -> Result<(Swarm, SocketAddr, Ways), StartError> {
    let ways = Ways::new(identity.peer_id(), config.trackers.clone());
    let is_here = shoal_net::is_of_this_machine(config.listen.ip()) && !config.everywhere;
    let any = match config.listen {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let listen = if is_here { config.listen } else { SocketAddr::new(any, config.listen.port()) };
    let (identity, upload_slots) = (identity.clone(), config.upload_slots);
    let swarm = SwarmConfig { identity, listen, upload_slots };
    let swarm = Swarm::start_with(swarm, tickets.clone(), Some(ways.clone())).await?;
    let reached_at = if is_here { swarm.local_addr() } else { config.listen };
    let _ = reach::locate(&ways, swarm.local_addr());
    Ok((swarm, reached_at, ways))
}

fn engine(pace: &Pace) -> Engine {
    Engine::new(EngineConfig { download_limit: pace.applied().down, ..EngineConfig::default() })
}

/// The folders that are known here, without the listings of those that are neither shared nor downloaded any more.
async fn swept_folders(config: &ClientConfig, store: &Store) -> Result<Folders, StartError> {
    let folders = Folders::new(config.data_dir.path());
    let (named, swept) = (store.listings().await?, folders.clone());
    tokio::task::spawn_blocking(move || swept.sweep(&named)).await?;
    Ok(folders)
}

/// Ends moves that a crash interrupted. Neither a drive that hangs nor a full one must hold up the start: the next one tries again.
async fn recover_moves(store: &Store) {
    let store = store.clone();
    let recovered = tokio::spawn(async move { transfers::recover(&store).await });
    match tokio::time::timeout(RECOVER_WITHIN, recovered).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::warn!(%error, "an interrupted move cannot be ended"),
        _ => tracing::warn!("an interrupted move is not over after {RECOVER_WITHIN:?}: does a drive hang?"),
    }
}
