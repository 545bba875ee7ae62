//! A storage node: accepts connections, serves chunks, reports to every tracker what it holds, and carries out the trackers'
//! orders.

mod acknowledged;
mod copies;
mod counters;
mod deletions;
mod operate;
mod operator;
pub mod options;
mod server;
mod tally;
mod trackers;
mod verifier;
mod votes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_common::TrackerInfo;
use shoal_common::budget::Budget;
use shoal_common::join::NodeSecret;
use shoal_common::names::NodeName;
use shoal_console::descriptors;
use shoal_net::bulk::{BulkLimits, Listener};
use shoal_net::{Control, ControlConfig, ControlLimits, Identity, KnownTrackers, NetError};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::chunks::{Chunks, Scrub, Scrubbed, scrub};
use acknowledged::Acknowledged;
use copies::Copies;
use counters::Counters;
use deletions::Deletions;
use operator::Operator;
pub use operator::{NodeStatus, NodeTracker};
use server::Server;
use shoal_session::reach::Dialer;
use trackers::Reporter;
pub use verifier::{Admitted, TokenVerifier};

/// How long connections may take to end.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(5);

/// Shows the operator a line.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// What a node is started with.
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
    /// Shows the operator a line.
    pub say: Say,
    /// Its chunks.
    pub chunks: Chunks,
    /// How fast they are read again; `None` for never.
    pub scrub: Option<Scrub>,
    /// No chunk that was stored, or stored again, less than this ago is deleted by the trackers' order.
    pub min_age: Duration,
    /// The secret that admits it at the trackers, if it has one.
    pub secret: Option<NodeSecret>,
}

/// A node that runs.
pub struct Node {
    operator: Operator,
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
        let verifier = TokenVerifier::new(own);
        let counters = Counters::default();
        let copies = Copies::new(identity, chunks.clone(), counters.clone(), tasks.clone(), stop.clone());
        let deletions =
            Deletions::new(trackers.iter().count(), min_age, chunks.clone(), counters.clone(), tasks.clone());
        tasks.spawn(chunks.clone().keep_bin(stop.clone()));
        tasks.spawn(chunks.clone().measure(stop.clone()));
        let acknowledged = Acknowledged::default();
        let (scrubbing, scrubbed) = watch::channel(Scrubbed::default());
        let operator = Operator {
            name: name.to_string(),
            peer: own,
            address: local_addr,
            started: Instant::now(),
            chunks: chunks.clone(),
            copies: copies.clone(),
            counters,
            scrubbed,
            acknowledged: acknowledged.clone(),
            trackers: trackers.clone(),
        };
        tasks.spawn(operator.clone().log(stop.clone()));
        let server = Server::new(verifier.clone(), operator.clone());
        tasks.spawn(accept(listener, server, tasks.clone(), stop.clone()));
        if let Some(eagerness) = eagerness {
            tasks.spawn(scrub(chunks.clone(), eagerness, scrubbing, stop.clone()));
        }
        let dialer = Dialer {
            ways: None,
            control: control.clone(),
            known,
            listen: watch::channel(local_addr.to_string()).1,
            report: {
                let say = say.clone();
                Arc::new(move |learned| trackers::learned(&say, learned))
            },
            tasks: tasks.clone(),
        };
        let reporter =
            Reporter { say, dialer, own, secret, name, chunks, verifier, copies, deletions, acknowledged };
        trackers::start(&reporter, &trackers, &tasks, &stop);
        Ok(Self { operator, control, tasks, stop })
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.operator.address
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        self.operator.status()
    }

    /// Serves metrics for Prometheus at `address`, under `/metrics`, until it ends.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn serve_metrics(&self, address: SocketAddr) -> anyhow::Result<SocketAddr> {
        let operator = self.operator.clone();
        let page = move || std::future::ready(operator.status().metrics().ok());
        shoal_metrics::serve(address, page, &self.tasks, self.stop.clone()).await
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
        let (server, stop) = (server.clone(), stop.clone());
        tasks.spawn(async move {
            stop.run_until_cancelled(Box::pin(server.serve(stream, remote))).await;
        });
    }
    listener.close().await;
}
