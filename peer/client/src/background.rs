//! What the client does without being asked: it shares again what the trackers forgot, stops everything when a session ends
//! by itself, and reconnects after this machine was asleep.

use std::time::Duration;

use shoal_common::tracker_api::Holding;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Client;
use crate::wake::{Gap, SleepWatch, woke};

/// When files that the trackers do not know, and could not be given, are announced again.
const AGAIN: Duration = Duration::from_secs(5);
/// Lists of unknown files that are worked on, or wait for [`AGAIN`], at once.
const MAX_UNKNOWN: usize = 16;

/// Runs until the client leaves.
pub(crate) async fn run(client: Client, mut unknown: mpsc::Receiver<Vec<Holding>>) {
    let mut who = client.0.session.watch_who();
    let mut before = None;
    // Tasks, because they take as long as the trackers take; the end of the session must not be missed.
    let mut sharing = JoinSet::new();
    loop {
        tokio::select! {
            () = client.0.stop.cancelled() => return,
            Some(holdings) = unknown.recv(), if sharing.len() < MAX_UNKNOWN => {
                sharing.spawn(share_again(client.clone(), holdings));
            }
            Some(_) = sharing.join_next() => {}
            Ok(()) = who.changed() => {
                let now = who.borrow_and_update().as_ref().map(|who| who.user);
                if before.is_some() && before != now {
                    sharing.abort_all();
                    let _session_change = client.0.session_change.lock().await;
                    // A user may have logged in since; a login stops what was before it.
                    if client.0.session.who().is_none() {
                        if !client.0.leaving.is_cancelled() {
                            client.forget_kept();
                        }
                        client.suspend().await;
                    }
                }
                before = now;
            }
        }
    }
}

async fn share_again(client: Client, holdings: Vec<Holding>) {
    let later = client.0.shares.unknown(holdings).await;
    if !later.is_empty() {
        tokio::time::sleep(AGAIN).await;
        client.0.shares.announce_again(&later);
    }
}

/// Reconnects everything whenever this machine was asleep, until the client leaves.
pub(crate) async fn mind_sleeps(client: Client) {
    let clock = client.0.config.clock.clone();
    let mut sleeps = SleepWatch::new(clock());
    while let Some(gap) = client.0.stop.run_until_cancelled(woke(&mut sleeps, &clock)).await {
        tracing::info!(?gap, "everything is reconnected");
        if let Gap::Slept(asleep) = gap {
            client.0.tickets.slept(asleep);
        }
        client.0.session.redial();
        client.0.swarm.redial();
        client.0.transfers.woke();
    }
}
