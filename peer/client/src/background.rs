//! What the client does without being asked: it shares anew what the trackers forgot, stops everything when a session ends
//! by itself, and connects anew after this machine was asleep.

use shoal_common::tracker_api::Holding;
use tokio::sync::mpsc;

use crate::Client;
use crate::wake::{SleepWatch, woke};

/// Runs until the client leaves.
pub(crate) async fn run(client: Client, mut unknown: mpsc::Receiver<Vec<Holding>>) {
    let mut who = client.0.session.watch_who();
    let mut before = None;
    loop {
        tokio::select! {
            () = client.0.stop.cancelled() => return,
            Some(holdings) = unknown.recv() => client.0.shares.unknown(holdings).await,
            Ok(()) = who.changed() => {
                let now = who.borrow_and_update().clone();
                if let (Some(_), None) = (&before, &now) {
                    let _gate = client.0.gate.lock().await;
                    // Somebody may have logged in since.
                    if client.0.session.who().is_none() {
                        client.suspend().await;
                    }
                }
                before = now;
            }
        }
    }
}

/// Connects everything anew whenever this machine was asleep, until the client leaves.
pub(crate) async fn mind_sleeps(client: Client) {
    let clock = client.0.config.clock.clone();
    let mut sleeps = SleepWatch::new(clock());
    while let Some(gap) = client.0.stop.run_until_cancelled(woke(&mut sleeps, &clock)).await {
        tracing::info!(?gap, "everything is connected anew");
        client.0.session.redial();
        client.0.swarm.redial();
        client.0.transfers.woke();
    }
}
