//! What the client does without being asked: it shares anew what the trackers forgot, and stops everything when a session
//! ends by itself.

use shoal_common::tracker_api::Holding;
use tokio::sync::mpsc;

use super::App;

/// Runs until the client leaves.
pub(super) async fn run(app: App, mut unknown: mpsc::Receiver<Vec<Holding>>) {
    let mut who = app.0.session.watch_who();
    let mut before = None;
    loop {
        tokio::select! {
            () = app.0.stop.cancelled() => return,
            Some(holdings) = unknown.recv() => app.0.shares.unknown(holdings).await,
            Ok(()) = who.changed() => {
                let now = who.borrow_and_update().clone();
                if let (Some(_), None) = (&before, &now) {
                    let _gate = app.0.gate.lock().await;
                    // Somebody may have logged in since.
                    if app.0.session.who().is_none() {
                        app.suspend().await;
                    }
                }
                before = now;
            }
        }
    }
}
