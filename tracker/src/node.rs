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
use shoal_replica::{TrackerNo, Write};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clients;
use crate::cluster_key::ClusterKey;
use crate::core::{self, Core, CoreConfig, Status};
use crate::data_dir;
use crate::links::{LINK_PROTOCOL, Links, Own};
use crate::metrics;
use crate::presence::Presence;
use crate::quota;
use crate::record::{ALLOWANCE, Allowance, encode};
use crate::registration::{self, Terms};
use crate::reporter::Reporter;
use crate::service::Service;
use crate::status::{Report, STATUS_PROTOCOL};
use crate::storage::{Rules, Storage};
use crate::store::{self, StoreError};
use crate::trust::Trust;

/// How long shutting down may take before it says who was late.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// How long clients' calls that are under way may take to be answered when a tracker closes: a little more than the longest
/// wait for another tracker's acknowledgement.
const CLIENTS: Duration = Duration::from_secs(2);

/// What a tracker is started with.
#[derive(Debug)]
pub struct NodeConfig {
    /// The whole cluster.
    pub info: TrackerInfo,
    /// The file that says so, as the operator calls it.
    pub info_path: PathBuf,
    /// Which of its lines this is.
    pub number: u8,
    /// Where its state lives; made if it does not exist.
    pub dir: PathBuf,
    /// The figures by which stored files are repaired and chunks deleted.
    pub rules: Rules,
    /// Where metrics are served, if at all.
    pub metrics: Option<SocketAddr>,
    /// What all trackers of the cluster prove to hold, if there is such a key.
    pub cluster_key: Option<ClusterKey>,
    /// On what terms accounts are created here.
    pub registration: Terms,
    /// What storage nodes prove to know to be admitted, if there is such a secret.
    pub node_secret: Option<NodeSecret>,
}

/// A running tracker.
pub struct Node {
    core: Core,
    thread: JoinHandle<()>,
    control: Control,
    presence: Presence,
    storage: Storage,
    reporter: Reporter,
    metrics: Option<SocketAddr>,
    links: tokio::task::JoinHandle<()>,
    clients: TaskTracker,
    closing: CancellationToken,
    /// Cancelled once no client is answered any more.
    links_closing: CancellationToken,
    peer_id: PeerId,
    number: u8,
    info: TrackerInfo,
    trust: Trust,
    /// Held for as long as the tracker runs.
    _lock: DataDir,
}

impl Node {
    /// Starts a tracker: when this returns, it serves.
    ///
    /// # Errors
    /// In words for the operator: the data directory is in use, the port is taken, the database cannot be opened, …
    #[expect(clippy::too_many_lines, reason = "the parts are put together in one order, top to bottom")]
    pub async fn start(config: NodeConfig) -> Result<Self> {
        let NodeConfig {
            info,
            info_path,
            number,
            dir,
            rules,
            metrics,
            cluster_key,
            registration,
            node_secret,
        } = config;
        let line = line_of(&info, &info_path, number)?;
        data_dir::make(&dir)?;
        let lock = data_dir::lock(&dir)?;
        let identity = data_dir::identity(&dir)?;
        check_key(&line, &info_path, &identity)?;

        let me = TrackerNo(number);
        let configured: Vec<TrackerNo> = info.iter().map(|(number, _)| TrackerNo(number)).collect();
        let (order_sender, orders) = mpsc::unbounded_channel();
        let config = CoreConfig { dir: dir.clone(), me, configured, peer: identity.peer_id() };
        let started = core::start(config, order_sender);
        let (core, thread) = started.map_err(|error| match error.downcast_ref() {
            Some(StoreError::Full) => {
                anyhow!("the disk of {} is full: make room, and start this tracker again", dir.display())
            }
            _ => error,
        })?;
        let trust = Trust::open(&dir, &info, number, identity.clone())?;
        trust.recall(&core).await;

        let closing = CancellationToken::new();
        let config = ControlConfig {
            identity: identity.clone(),
            listen: Some(listen_address(&line)?),
            protocols: vec![Protocol(CLIENT_PROTOCOL), LINK_PROTOCOL, STATUS_PROTOCOL],
            limits: ControlLimits::default(),
        };
        let (control, incoming) = Control::start(config).await?;
        let presence = Presence::default();
        let others = info.iter().filter(|(other, _)| *other != number);
        let others = others.map(|(other, line)| (TrackerNo(other), line.clone())).collect();
        let peer_id = identity.peer_id();
        let cluster_key = cluster_key.map(Arc::new);
        let own = Own { number: me, peer: peer_id, cluster_key, trust: trust.clone() };
        let links_closing = CancellationToken::new();
        let links = Links::start(
            others,
            own,
            control.clone(),
            core.clone(),
            presence.clone(),
            orders,
            links_closing.clone(),
        );
        let storage = Storage::new(core.clone(), presence.clone(), me, rules, node_secret);
        let service = Service::new(
            core.clone(),
            presence.clone(),
            storage.clone(),
            (identity, me),
            trust.clone(),
            registration,
        );
        let clients = TaskTracker::new();
        clients.spawn(storage.clone().run(closing.clone()));
        clients.spawn(service.clone().watch_sessions(closing.clone()));
        clients.spawn(trust.clone().run(core.clone(), closing.clone()));
        let reporter = Reporter {
            core: core.clone(),
            presence: presence.clone(),
            storage: storage.clone(),
            dir,
            number,
            peer: peer_id,
            info: info.clone(),
            trust: trust.clone(),
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
            core,
            thread,
            control,
            presence,
            storage,
            reporter,
            metrics,
            links,
            clients,
            closing,
            links_closing,
            peer_id,
            number,
            info,
            trust,
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
        self.peer_id
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The cluster.
    #[must_use]
    pub fn info(&self) -> &TrackerInfo {
        &self.info
    }

    /// Its line for `tracker_info.txt`, with its key.
    #[must_use]
    pub fn line(&self) -> String {
        self.info.tracker(self.number).map(|line| line.with_key(self.peer_id)).unwrap_or_default()
    }

    /// Believes the key that the tracker of that number shows now, or `key`, instead of the one before; gives it.
    ///
    /// # Errors
    /// In words: there is no such tracker, or nothing to accept.
    pub async fn accept_tracker(&self, number: u8, key: Option<PeerId>) -> Result<PeerId> {
        self.trust.accept(number, key).await
    }

    /// Where metrics are served.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// How it stands with the other trackers; none while it closes.
    pub async fn status(&self) -> Option<Status> {
        self.core.status().await
    }

    /// Everything that an operator wants to know; none while it closes. Takes a second where there are millions of records.
    pub async fn report(&self) -> Option<Report> {
        self.reporter().report().await
    }

    /// What makes reports of this tracker, for others to hold.
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
        self.presence.count()
    }

    /// How the encrypted store is, as far as this tracker knows.
    #[must_use]
    pub fn store_status(&self) -> StoreStatus {
        self.storage.status()
    }

    /// The encrypted store: for admitting storage nodes and taking them out.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Allows what is unneeded on storage nodes now to be deleted, whatever held it back. True for all trackers.
    ///
    /// # Errors
    /// When the database cannot take it.
    pub async fn allow_deletions(&self) -> Result<()> {
        let written = self.core.run(|tx| {
            let value = encode(&Allowance { at_ms: tx.now().wall_ms });
            tx.write(vec![Write { kind: ALLOWANCE, value, ..Write::default() }])
        });
        written.await.map_err(|refusal| anyhow::anyhow!("{}", refusal.text))
    }

    /// Writes an invitation to create one account within that time; gives its code. Good at all trackers.
    ///
    /// # Errors
    /// When too many are open, or the database cannot take it.
    pub async fn invite_user(&self, life: Duration) -> Result<String> {
        let written = self.core.run(move |tx| registration::invite(tx, life));
        written.await.map_err(|refusal| anyhow::anyhow!("{}", refusal.text))
    }

    /// Does what an operator says about quotas; gives what to show. Good at all trackers.
    ///
    /// # Errors
    /// In words: there is nobody of that name, or the database cannot take it.
    pub async fn quota(&self, command: quota::Command) -> Result<String> {
        let done = quota::run(&self.core, self.reporter.dir.clone(), command).await;
        done.map_err(|problem| anyhow::anyhow!("{problem}"))
    }

    /// Lets the next comparison with that tracker remove here whatever it does not hold. False if nothing was held back.
    ///
    /// # Errors
    /// When this tracker is too busy or closing.
    pub async fn allow_removal(&self, number: u8) -> Result<bool> {
        let done = self.core.run(move |tx| Ok(tx.allow_removal(TrackerNo(number)))).await;
        done.map_err(|refusal| anyhow::anyhow!("{}", refusal.text))
    }

    /// Begins to give the present time to records whose time is impossible by this tracker's clock. To be said to every
    /// tracker.
    ///
    /// # Errors
    /// When this tracker is too busy or closing, or its database fails.
    pub async fn restamp(&self) -> Result<()> {
        let done = self.core.run(|tx| tx.restamp()).await;
        done.map_err(|refusal| anyhow::anyhow!("{}", refusal.text))
    }

    /// Ends all connections and tasks and closes the database. Everything acknowledged is durable before that.
    pub async fn shutdown(self) {
        self.closing.cancel();
        self.clients.close();
        let (control, clients, links, links_closing) =
            (self.control, self.clients, self.links, self.links_closing);
        let tasks = async move {
            // First the clients: what is acknowledged to them while the links close would be durable here only.
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
        drop((self.core, self.storage, self.reporter));
        let thread = self.thread;
        let joined = tokio::task::spawn_blocking(move || thread.join());
        if tokio::time::timeout(SHUTDOWN, joined).await.is_err() {
            tracing::warn!("the database did not close within {SHUTDOWN:?}; leaving it");
        }
    }
}

/// Hands arriving streams to whom they are for.
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
/// When it has none.
pub fn line_of(info: &TrackerInfo, path: &Path, number: u8) -> Result<TrackerLine> {
    let numbers: Vec<String> = info.iter().map(|(number, _)| number.to_string()).collect();
    info.tracker(number).cloned().with_context(|| {
        format!("there is no tracker {number} in {}; it has: {}", path.display(), numbers.join(", "))
    })
}

fn check_key(line: &TrackerLine, path: &Path, identity: &Identity) -> Result<()> {
    match line.peer_id {
        Some(listed) if listed != identity.peer_id() => bail!(
            "{} names the key {listed} for {line}, but this tracker's is {}; mend the line in every copy of \
             the file, or restore identity.key",
            path.display(),
            identity.peer_id()
        ),
        _ => Ok(()),
    }
}

/// The address of the tracker's line, or all interfaces where that is not one of this machine's.
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
