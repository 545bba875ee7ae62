//! Puts a tracker together and takes it apart again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use shoal_common::join::NodeSecret;
use shoal_common::tracker_api::CLIENT_PROTOCOL;
use shoal_common::tracker_api::storage::StoreStatus;
use shoal_common::tracker_info::TrackerLine;
use shoal_common::{PeerId, TrackerInfo};
use shoal_console::data_dir::DataDir;
use shoal_net::{Control, ControlConfig, ControlLimits, Identity, Incoming, Protocol};
use shoal_replica::TrackerNo;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clients;
use crate::cluster_key::ClusterKey;
use crate::data_dir;
use crate::database::{self, DatabaseConfig, Status};
use crate::link_orders;
use crate::links::{LINK_PROTOCOL, LinkIdentity, Links};
use crate::metrics;
use crate::presence::Presence;
use crate::quota;
use crate::record::{ALLOWANCE, Allowance, put};
use crate::registration::{self, Terms};
use crate::relay::{self, Relay, RelayTerms};
use crate::reporter::Reporter;
use crate::service::Service;
use crate::status::{Report, STATUS_PROTOCOL};
use crate::storage::{Rules, Storage};
use crate::store::{self, StoreError};
use crate::trust::Trust;
use crate::ways::Ways;

/// How long shutting down may take before it leaves what is late.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// How long clients' calls may still be answered while a tracker closes: a little more than the longest wait for another
/// tracker's acknowledgement.
const CLIENTS: Duration = Duration::from_secs(2);

/// What a tracker is started with.
#[derive(Debug)]
pub struct TrackerConfig {
    /// The whole cluster.
    pub info: TrackerInfo,
    /// The path of its file, as the operator typed it.
    pub info_path: PathBuf,
    /// Which of its lines this is.
    pub number: u8,
    /// Its data folder; made if it does not exist.
    pub dir: PathBuf,
    /// The rules for repairing stored files and deleting chunks.
    pub rules: Rules,
    /// Where metrics are served, if at all.
    pub metrics: Option<SocketAddr>,
    /// Where it listens, if not where its line says.
    pub listen: Option<SocketAddr>,
    /// The key that all trackers of the cluster prove to have, if there is one.
    pub cluster_key: Option<ClusterKey>,
    /// Who may create accounts here, and how many.
    pub registration: Terms,
    /// The secret that storage nodes prove to know to be admitted, if there is one.
    pub node_secret: Option<NodeSecret>,
    /// What it passes on between clients that cannot connect; nothing without it.
    pub relay: Option<RelayTerms>,
}

impl TrackerConfig {
    /// The tracker of that number in that folder, with the defaults of the command line.
    #[must_use]
    pub fn new(info: TrackerInfo, info_path: PathBuf, number: u8, dir: PathBuf) -> Self {
        Self {
            info,
            info_path,
            number,
            dir,
            rules: Rules::default(),
            metrics: None,
            listen: None,
            cluster_key: None,
            registration: Terms::default(),
            node_secret: None,
            relay: None,
        }
    }
}

/// A running tracker.
pub struct Tracker {
    /// With all parts that operators' commands work on.
    reporter: Reporter,
    database_thread: JoinHandle<()>,
    control: Control,
    metrics: Option<SocketAddr>,
    links: tokio::task::JoinHandle<()>,
    clients: TaskTracker,
    closing: CancellationToken,
    /// Cancelled once no client is answered any more.
    links_closing: CancellationToken,
    /// Held for as long as the tracker runs.
    _lock: DataDir,
}

impl Tracker {
    /// Starts a tracker: when this returns, it serves.
    ///
    /// # Errors
    /// In words for the operator: the data directory is in use, the port is taken, the database cannot be opened, …
    #[expect(clippy::too_many_lines, reason = "the parts are put together in one order, top to bottom")]
    pub async fn start(config: TrackerConfig) -> Result<Self> {
        let TrackerConfig {
            info,
            info_path,
            number,
            dir,
            rules,
            metrics,
            listen,
            cluster_key,
            registration,
            node_secret,
            relay,
        } = config;
        let line = line_of(&info, &info_path, number)?;
        data_dir::make(&dir)?;
        let lock = data_dir::lock(&dir)?;
        let identity = data_dir::identity(&dir)?;
        check_key(&line, &info_path, &identity)?;

        let me = TrackerNo(number);
        let configured: Vec<TrackerNo> = info.iter().map(|(number, _)| TrackerNo(number)).collect();
        let (orders, mut queues) =
            link_orders::queues(configured.iter().copied().filter(|other| *other != me));
        let config = DatabaseConfig { dir: dir.clone(), me, configured, peer: identity.peer_id() };
        let started = database::start(config, orders);
        let (database, database_thread) = started.map_err(|error| match error.downcast_ref() {
            Some(StoreError::Full) => {
                anyhow!("the disk of {} is full: make room, and start this tracker again", dir.display())
            }
            _ => error,
        })?;
        let trust = Trust::open(&dir, &info, number, identity.clone())?;
        trust.recall(&database).await;

        let closing = CancellationToken::new();
        let config = ControlConfig {
            identity: identity.clone(),
            listen: Some(listen.map_or_else(|| listen_address(&line), Ok)?),
            protocols: vec![Protocol(CLIENT_PROTOCOL), LINK_PROTOCOL, STATUS_PROTOCOL],
            limits: ControlLimits::default(),
        };
        let (ends, arrived) = tokio::sync::mpsc::channel(relay::MAX_ARRIVED);
        let (control, incoming) = Control::start_with_relay(config, relay.map(|_| ends)).await?;
        let clients = TaskTracker::new();
        let relay = relay.map(|terms| Relay::start(number, terms, arrived, &clients, closing.clone()));
        let (presence, ways) = (Presence::default(), Ways::default());
        let others = info.iter().filter_map(|(other, line)| {
            let number = TrackerNo(other);
            Some((number, line.clone(), queues.remove(&number)?))
        });
        let others = others.collect();
        let peer_id = identity.peer_id();
        let cluster_key = cluster_key.map(Arc::new);
        let own = LinkIdentity { number: me, peer: peer_id, cluster_key, trust: trust.clone() };
        let links_closing = CancellationToken::new();
        let links = Links::start(
            others,
            own,
            control.clone(),
            database.clone(),
            (presence.clone(), ways.clone()),
            links_closing.clone(),
        );
        let storage = Storage::new(database.clone(), presence.clone(), me, rules, node_secret);
        let service = Service::new(
            database.clone(),
            (presence.clone(), ways, relay.clone()),
            storage.clone(),
            (identity, me),
            trust.clone(),
            registration,
        );
        clients.spawn(storage.clone().run(closing.clone()));
        clients.spawn(service.clone().watch_sessions(closing.clone()));
        clients.spawn(trust.clone().run(database.clone(), closing.clone()));
        let reporter = Reporter {
            database,
            presence,
            storage,
            dir,
            number,
            peer: peer_id,
            info,
            trust,
            relay,
            started: Instant::now(),
        };
        let metrics = match metrics {
            Some(at) => Some(metrics::start(at, reporter.clone(), &clients, closing.clone()).await?),
            None => None,
        };
        let to = (service, links, reporter.clone());
        let links = tokio::spawn(accept(incoming, to, clients.clone(), closing.clone()));
        tracing::info!("tracker {number} serves at {line} as {peer_id}");
        tracing::info!("its line for every tracker_info.txt: {}", line.with_key(peer_id));
        Ok(Self {
            reporter,
            database_thread,
            control,
            metrics,
            links,
            clients,
            closing,
            links_closing,
            _lock: lock,
        })
    }

    /// Where it listens; the port is the real one if 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.control.local_addr()
    }

    /// Its key.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.reporter.peer
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.reporter.number
    }

    /// The cluster.
    #[must_use]
    pub fn info(&self) -> &TrackerInfo {
        &self.reporter.info
    }

    /// Its line for `tracker_info.txt`, with its key.
    #[must_use]
    pub fn line(&self) -> String {
        let own = self.info().tracker(self.number());
        own.map(|line| line.with_key(self.peer_id())).unwrap_or_default()
    }

    /// Believes `key` as that of the tracker of that number, and returns it; see [`Trust::accept`].
    ///
    /// # Errors
    /// In words: there is no such tracker, or nothing to accept.
    pub async fn accept_tracker(&self, number: u8, key: Option<PeerId>) -> Result<PeerId> {
        self.reporter.trust.accept(number, key).await
    }

    /// Where metrics are served.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// The state of the database and of the other trackers; `None` while it closes.
    pub async fn status(&self) -> Option<Status> {
        self.reporter.database.status().await
    }

    /// The report for operators; `None` while it closes. Takes a second with millions of records.
    pub async fn report(&self) -> Option<Report> {
        self.reporter.report().await
    }

    /// Makes reports of this tracker.
    #[must_use]
    pub fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// Copies the database into a new file while the tracker goes on.
    ///
    /// # Errors
    /// In words: the file exists or cannot be there, or what could not be read or written.
    pub async fn back_up(&self, to: PathBuf) -> Result<()> {
        let dir = self.reporter.dir.clone();
        let done = tokio::task::spawn_blocking(move || store::back_up(&dir, &to)).await;
        Ok(done.context("the backup was cut off")??)
    }

    /// Clients online in the whole cluster, as far as this tracker knows.
    #[must_use]
    pub fn online(&self) -> usize {
        self.reporter.presence.count()
    }

    /// The encrypted store's status, as far as this tracker knows.
    #[must_use]
    pub fn store_status(&self) -> StoreStatus {
        self.reporter.storage.status()
    }

    /// The encrypted store: for admitting storage nodes and taking them out.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.reporter.storage
    }

    /// Allows all trackers to have chunks deleted that are unneeded on storage nodes now, whatever held that back.
    ///
    /// # Errors
    /// When the database cannot take it.
    pub async fn allow_deletions(&self) -> Result<()> {
        let written = self.reporter.database.run(|tx| {
            let at_ms = tx.now().wall_ms;
            tx.write(vec![put(ALLOWANCE, Vec::new(), &Allowance { at_ms })])
        });
        Ok(written.await?)
    }

    /// Writes an invitation to create one account within that time, at any tracker. Returns its code.
    ///
    /// # Errors
    /// When too many are open, or the database cannot take it.
    pub async fn invite_user(&self, life: Duration) -> Result<String> {
        Ok(self.reporter.database.run(move |tx| registration::invite(tx, life)).await?)
    }

    /// Carries out an operator's command about quotas, for all trackers. Returns what to show.
    ///
    /// # Errors
    /// In words: there is no user or group of that name, or the database cannot take it.
    pub async fn quota(&self, command: quota::Command) -> Result<String> {
        quota::run(&self.reporter.database, self.reporter.dir.clone(), command).await
    }

    /// Lets the next comparison with that tracker remove here what it does not hold. False if nothing was held back.
    ///
    /// # Errors
    /// When this tracker is too busy or closing.
    pub async fn allow_removal(&self, number: u8) -> Result<bool> {
        Ok(self.reporter.database.run(move |tx| Ok(tx.allow_removal(TrackerNo(number)))).await?)
    }

    /// Starts to give the present time to records whose time is impossible by this tracker's clock. To be called at every
    /// tracker.
    ///
    /// # Errors
    /// When this tracker is too busy or closing, or its database fails.
    pub async fn restamp(&self) -> Result<()> {
        Ok(self.reporter.database.run(|tx| tx.restamp()).await?)
    }

    /// Ends all connections and tasks and closes the database. Everything acknowledged is durable before that.
    pub async fn shutdown(self) {
        self.closing.cancel();
        self.clients.close();
        let (control, clients, links, links_closing) =
            (self.control, self.clients, self.links, self.links_closing);
        let tasks = async move {
            // The clients first: what is acknowledged to them while the links close would be durable here only.
            let _ = tokio::time::timeout(CLIENTS, clients.wait()).await;
            links_closing.cancel();
            control.shutdown().await;
            clients.wait().await;
            // The accepting task joined the links'; it cannot panic.
            let _ = links.await;
        };
        if tokio::time::timeout(SHUTDOWN, tasks).await.is_err() {
            tracing::warn!("connections did not end within {SHUTDOWN:?}; leaving them");
        }
        drop(self.reporter);
        let joined = tokio::task::spawn_blocking(move || self.database_thread.join());
        if tokio::time::timeout(SHUTDOWN, joined).await.is_err() {
            tracing::warn!("the database did not close within {SHUTDOWN:?}; leaving it");
        }
    }
}

/// Passes arriving streams to the part that serves them.
async fn accept(
    mut incoming: Incoming,
    (service, links, reporter): (Service, Links, Reporter),
    clients: TaskTracker,
    closing: CancellationToken,
) {
    loop {
        let inbound = tokio::select! {
            () = closing.cancelled() => break,
            inbound = incoming.next() => inbound,
        };
        match inbound {
            None => break,
            Some(inbound) if inbound.protocol == LINK_PROTOCOL => links.arrive(inbound),
            Some(inbound) if inbound.protocol == STATUS_PROTOCOL => {
                clients.spawn(reporter.clone().answer(inbound));
            }
            Some(inbound) => {
                clients.spawn(clients::serve(service.clone(), inbound, closing.clone()));
            }
        }
    }
    links.join().await;
}

/// The line of the tracker of that number, in the file of that path.
///
/// # Errors
/// When there is none.
pub fn line_of(info: &TrackerInfo, path: &Path, number: u8) -> Result<TrackerLine> {
    let numbers: Vec<String> = info.iter().map(|(number, _)| number.to_string()).collect();
    info.tracker(number).cloned().with_context(|| {
        format!("there is no tracker {number} in {}; it has: {}", path.display(), numbers.join(", "))
    })
}

fn check_key(line: &TrackerLine, path: &Path, identity: &Identity) -> Result<()> {
    match line.peer_id {
        Some(listed) if listed != identity.peer_id() => bail!(
            "{} names the key {listed} for {line}, but this tracker's is {}; correct the line in every copy of \
             the file, or restore identity.key",
            path.display(),
            identity.peer_id()
        ),
        _ => Ok(()),
    }
}

/// The address of the tracker's line, or all interfaces if it is not one of this machine's.
fn listen_address(line: &TrackerLine) -> Result<SocketAddr> {
    let resolved = (line.host.as_str(), line.port).to_socket_addrs();
    let listed = resolved.ok().and_then(|mut addresses| addresses.next());
    let Some(listed) = listed else {
        tracing::warn!("{} has no address here; listening on all interfaces", line.host);
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), line.port));
    };
    match TcpListener::bind(SocketAddr::new(listed.ip(), 0)) {
        Ok(_) => Ok(listed),
        Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
            tracing::info!("{} is not an address of this machine; listening on all interfaces", listed.ip());
            let all = match listed.ip() {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            Ok(SocketAddr::new(all, line.port))
        }
        Err(error) => Err(error).with_context(|| format!("cannot listen at {listed}")),
    }
}
