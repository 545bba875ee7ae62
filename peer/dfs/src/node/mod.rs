//! A storage node: takes connections on the bulk lane, serves chunks, tells every tracker what it holds and carries out
//! what they order.

mod copies;
mod gate;
pub mod options;
mod server;
mod told;
mod trackers;

use std::net::SocketAddr;
use std::time::Duration;

use shoal_common::TrackerInfo;
use shoal_common::names::NodeName;
use shoal_net::bulk::{BulkLimits, Listener};
use shoal_net::{Control, ControlConfig, ControlLimits, Identity, KnownTrackers, NetError};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::chunks::{Chunks, Scrub, scrub};
use copies::Copies;
pub use gate::{Admitted, Gate};
use server::Server;
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
        let NodeConfig { identity, name, listen, trackers, known, say, chunks, scrub: eagerness } = config;
        let listener = Listener::bind(listen, &identity, BulkLimits::default())?;
        let local_addr = listener.local_addr();
        let control = ControlConfig {
            identity: identity.clone(),
            listen: None,
            protocols: Vec::new(),
            limits: ControlLimits::default(),
        };
        let (control, _) = Control::start(control).await?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let gate = Gate::new(identity.peer_id());
        let copies = Copies::new(identity, chunks.clone(), tasks.clone(), stop.clone());
        let told = Told::default();
        let server = Server::new(name.as_str(), chunks.clone(), gate.clone(), told.clone());
        tasks.spawn(accept(listener, server, tasks.clone(), stop.clone()));
        if let Some(eagerness) = eagerness {
            tasks.spawn(scrub(chunks.clone(), eagerness, stop.clone()));
        }
        let (listen, plane) = (local_addr.to_string(), control.clone());
        let reporter = Reporter { say, control: plane, known, name, listen, chunks, gate, copies, told };
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
            stop.run_until_cancelled(server.serve(stream)).await;
        });
    }
    listener.close().await;
}
