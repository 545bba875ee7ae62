//! A storage node: takes connections on the bulk lane, serves chunks, tells every tracker what it holds and carries out
//! what they order.

mod copies;
mod deletions;
mod gate;
mod judge;
pub mod options;
mod server;
mod told;
mod trackers;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shoal_common::TrackerInfo;
use shoal_common::budget::Budget;
use shoal_common::join::NodeSecret;
use shoal_common::names::NodeName;
use shoal_console::descriptors;
use shoal_net::bulk::{BulkLimits, Listener};
use shoal_net::{Control, ControlConfig, ControlLimits, Identity, KnownTrackers, NetError};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::chunks::{Chunks, Scrub, scrub};
use copies::Copies;
use deletions::Deletions;
pub use gate::{Admitted, Gate};
use server::Server;
use shoal_session::reach::Dialer;
use told::Told;
use trackers::Reporter;

/// How long connections may take to end.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(5);

/// What a node is started with.
#[derive(Debug)]
pub struct NodeConfig {
    /// Its key.
    pub identity: Identity,
    /// What it is called.
    pub name: NodeName,
    /// Where it listens; port 0 takes any.
    pub listen: SocketAddr,
    /// The trackers.
    pub trackers: TrackerInfo,
    /// Their keys, as far as they are known.
    pub known: KnownTrackers,
    /// Tells the operator something.
    pub say: fn(&str),
    /// Its chunks.
    pub chunks: Chunks,
    /// How eagerly they are read again; not at all without.
    pub scrub: Option<Scrub>,
    /// No chunk that was stored, or stored again, less than this ago is deleted by the trackers' order.
    pub min_age: Duration,
    /// What admits it at the trackers, if it was given.
    pub secret: Option<NodeSecret>,
}

/// A node that runs.
pub struct Node {
    local_addr: SocketAddr,
    control: Control,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Node {
    /// Listens, and begins to register with the trackers.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(config: NodeConfig) -> Result<Self, NetError> {
        let NodeConfig {
            identity,
            name,
            listen,
            trackers,
            known,
            say,
            chunks,
            scrub: eagerness,
            min_age,
            secret,
        } = config;
        // Beside each connection a chunk may be open.
        let budget = Budget::of(descriptors::limit());
        let limits = BulkLimits::default().within(budget.inbound, budget.pending);
        let listener = Listener::bind(listen, &identity, limits)?;
        let local_addr = listener.local_addr();
        let control = ControlConfig {
            identity: identity.clone(),
            listen: None,
            protocols: Vec::new(),
            limits: ControlLimits::default(),
        };
        let (control, _) = Control::start(control).await?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (own, secret) = (identity.peer_id(), secret.map(Arc::new));
        let gate = Gate::new(own);
        let copies = Copies::new(identity, chunks.clone(), tasks.clone(), stop.clone());
        let deletions = Deletions::new(trackers.iter().count(), min_age, chunks.clone(), tasks.clone());
        tasks.spawn(chunks.clone().keep_bin(stop.clone()));
        let told = Told::default();
        let server = Server::new(name.as_str(), chunks.clone(), gate.clone(), told.clone());
        tasks.spawn(accept(listener, server, tasks.clone(), stop.clone()));
        if let Some(eagerness) = eagerness {
            tasks.spawn(scrub(chunks.clone(), eagerness, stop.clone()));
        }
        let dialer = Dialer {
            control: control.clone(),
            known,
            listen: local_addr.to_string(),
            report: Arc::new(move |learned| trackers::learned(say, learned)),
            tasks: tasks.clone(),
        };
        let reporter = Reporter { say, dialer, own, secret, name, chunks, gate, copies, deletions, told };
        trackers::start(&reporter, &trackers, &tasks, &stop);
        Ok(Self { local_addr, control, tasks, stop })
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Ends it. Chunks that were acknowledged are durable already.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        if timeout(SHUTDOWN_WITHIN, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "tasks did not end in time");
        }
        self.control.shutdown().await;
    }
}

async fn accept(mut listener: Listener, server: Server, tasks: TaskTracker, stop: CancellationToken) {
    while let Some(Ok((stream, remote))) = stop.run_until_cancelled(listener.accept()).await {
        tracing::debug!(peer = %stream.peer(), %remote, "connected");
        let (server, stop) = (server.clone(), stop.clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(Box::pin(server.serve(stream, remote))).await;
        });
    }
    listener.close().await;
}
