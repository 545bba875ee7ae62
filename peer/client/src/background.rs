//! What the client does without being asked: it shares anew what the trackers forgot, stops everything when a session ends
//! by itself, and connects anew after this machine was asleep.

use std::time::Duration;

use shoal_common::tracker_api::Holding;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Client;
use crate::wake::{Gap, SleepWatch, woke};

/// When what the trackers do not know, and could not be told, is announced again.
const AGAIN: Duration = Duration::from_secs(5);
/// Lists of what the trackers do not know that are worked on, or wait for [`AGAIN`], at once.
const MAX_UNKNOWN: usize = 16;

/// Runs until the client leaves.
pub(crate) async fn run(client: Client, mut unknown: mpsc::Receiver<Vec<Holding>>) {
    let mut who = client.0.session.watch_who();
    let mut before = None;
    // Of the present session only. It takes as long as the trackers take, and the end of the session is not missed.
    let mut anew = JoinSet::new();
    loop {
        tokio::select! {
            () = client.0.stop.cancelled() => return,
            Some(holdings) = unknown.recv(), if anew.len() < MAX_UNKNOWN => {
                anew.spawn(share_anew(client.clone(), holdings));
            }
            Some(_) = anew.join_next() => {}
            Ok(()) = who.changed() => {
                let now = who.borrow_and_update().as_ref().map(|who| who.user);
                if before.is_some() && before != now {
                    anew.abort_all();
                    let _gate = client.0.gate.lock().await;
                    // Somebody may have logged in since; a login stops what was before it.
                    if client.0.session.who().is_none() {
                        client.suspend().await;
                    }
                }
                before = now;
            }
        }
    }
}

async fn share_anew(client: Client, holdings: Vec<Holding>) {
    let later = client.0.shares.unknown(holdings).await;
    if !later.is_empty() {
        tokio::time::sleep(AGAIN).await;
        client.0.shares.announce_again(&later);
    }
}

/// Connects everything anew whenever this machine was asleep, until the client leaves.
pub(crate) async fn mind_sleeps(client: Client) {
    let clock = client.0.config.clock.clone();
    let mut sleeps = SleepWatch::new(clock());
    while let Some(gap) = client.0.stop.run_until_cancelled(woke(&mut sleeps, &clock)).await {
        tracing::info!(?gap, "everything is connected anew");
        if let Gap::Slept(asleep) = gap {
            client.0.tickets.slept(asleep);
        }
        client.0.session.redial();
        client.0.swarm.redial();
        client.0.transfers.woke();
    }
}
