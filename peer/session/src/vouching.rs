//! What trackers that are not in use say of each other's keys: a stolen tracker says nothing against itself.

use std::sync::Arc;

use shoal_common::PeerId;
use shoal_common::tracker_info::TrackerLine;
use tokio::sync::mpsc;

use super::SessionState;
use crate::reach::Unreached;

/// Asks a tracker that is not in use what it knows of all keys, and sends word through `said` when it answered.
pub(super) async fn ask_another(
    session: Arc<SessionState>,
    line: TrackerLine,
    in_use: PeerId,
    said: mpsc::Sender<()>,
) {
    let (stop, dialer) = (&session.stop, &session.dialer);
    let Some(Ok(peer)) = stop.run_until_cancelled(dialer.dial(&line)).await else { return };
    if peer == in_use {
        return;
    }
    let hello = async {
        match dialer.begin(&line, peer).await {
            Ok(connection) => connection.close("is not needed any more"),
            Err(reason @ (Unreached::NotBelieved(_) | Unreached::Removed)) => {
                tracing::debug!(tracker = %line, %reason, "what it says of the trackers' keys does not count");
            }
            Err(_) => return,
        }
        // One word that waits is enough.
        let _ = said.try_send(());
    };
    let _ = stop.run_until_cancelled(hello).await;
    // It may have come into use meanwhile.
    let is_used = session.connection.borrow().as_ref().is_some_and(|connection| connection.peer() == peer);
    if !is_used {
        dialer.control.disconnect(peer).await;
    }
}
