//! Peers that were asked to dial this client, and who waits for them. A connection that nobody waits for is not used.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_common::PeerId;
use shoal_net::bulk::BulkStream;
use tokio::sync::oneshot;

/// Clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Arrivals(Arc<Mutex<HashMap<PeerId, VecDeque<oneshot::Sender<BulkStream>>>>>);

/// Waits for a connection of a peer; dropped, it waits no more.
pub(super) struct Awaited {
    arrivals: Arrivals,
    peer: PeerId,
    arrives: oneshot::Receiver<BulkStream>,
}

impl Arrivals {
    /// From now on a connection of that peer is waited for.
    pub(super) fn expect(&self, peer: PeerId) -> Awaited {
        let (sender, arrives) = oneshot::channel();
        self.table().entry(peer).or_default().push_back(sender);
        Awaited { arrivals: self.clone(), peer, arrives }
    }

    /// A peer dialled; false if nobody waits for that.
    pub(super) fn arrived(&self, mut stream: BulkStream) -> bool {
        let peer = stream.peer();
        loop {
            let Some(next) = self.table().get_mut(&peer).and_then(VecDeque::pop_front) else { return false };
            match next.send(stream) {
                Ok(()) => return true,
                Err(back) => stream = back,
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<PeerId, VecDeque<oneshot::Sender<BulkStream>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Awaited {
    /// The connection, once it is there.
    pub(super) async fn stream(mut self) -> Option<BulkStream> {
        (&mut self.arrives).await.ok()
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.arrives.close();
        let mut table = self.arrivals.table();
        if let Some(waiting) = table.get_mut(&self.peer) {
            waiting.retain(|one| !one.is_closed());
            if waiting.is_empty() {
                table.remove(&self.peer);
            }
        }
    }
}
