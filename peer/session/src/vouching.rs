//! What trackers hand out about each other's keys: by the one in use, and, as a stolen one hands out nothing against itself,
//! by the others in turn.

use std::sync::Arc;

use shoal_common::PeerId;
use shoal_common::tracker_api::{Answer, CLIENT_PROTOCOL, Call, REVISION, Reply};
use shoal_common::tracker_info::TrackerLine;
use shoal_common::vouching::{Scope, SignedList};
use shoal_net::Protocol;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Shared;
use super::link::{ANSWER_WITHIN, Link};
use crate::events::Event;

/// Why a tracker is left that the others removed, to be read behind its address.
pub(super) const NO_TRACKER: &str = "is no tracker any more";

/// Makes sure that the tracker at that address is the one with this key, and takes what it hands out about all keys.
pub(super) async fn believe(
    shared: &Shared,
    line: &TrackerLine,
    key: PeerId,
    lists: Option<Vec<SignedList>>,
) -> Result<(), String> {
    let (known, events) = (&shared.config.known, &shared.config.events);
    let met = known.met(line, key).await;
    if met.map_err(|error| behind_address(&error.to_string(), &line.to_string()))? {
        let (tracker, key) = (line.to_string(), key.to_string());
        events.tell(Event::TrackerKnown { tracker, key: Some(key), vouched: false });
    }
    match known.learn(lists.unwrap_or_default(), Scope::All).await {
        Err(error) => tracing::warn!(%error, "what the trackers say of their keys is not remembered"),
        Ok(all) => {
            for news in all {
                tracing::info!(?news, "the trackers vouch");
                if news.before.is_some() {
                    let key = news.now.map(|key| key.to_string());
                    events.tell(Event::TrackerKnown { tracker: news.address, key, vouched: true });
                }
            }
        }
    }
    if known.key(line) == Some(key) { Ok(()) } else { Err(NO_TRACKER.to_owned()) }
}

/// Asks a tracker that is not in use for its lists, and says so when something was heard.
pub(super) async fn ask_another(
    shared: Arc<Shared>,
    line: TrackerLine,
    in_use: PeerId,
    said: mpsc::Sender<()>,
) {
    let (stop, control) = (shared.stop.clone(), shared.config.control.clone());
    let dial = timeout(ANSWER_WITHIN, shared.config.known.dial(&control, &line));
    let Some(Ok(Ok(peer))) = stop.run_until_cancelled(dial).await else { return };
    if peer == in_use {
        return;
    }
    let hello = async {
        let open = timeout(ANSWER_WITHIN, control.open(peer, Protocol(CLIENT_PROTOCOL))).await;
        let Ok(Ok(channel)) = open else { return };
        let link = Link::start(line.to_string(), channel, &shared.tasks);
        let hello =
            link.call(Call::Hello { listen: shared.config.listen.clone(), revision: Some(REVISION) }).await;
        if let Ok(Reply::Done(Answer::Welcome { lists, .. })) = hello {
            if let Err(reason) = believe(&shared, &line, peer, lists).await {
                tracing::debug!(tracker = %line, reason, "what it says of the trackers' keys does not count");
            }
            // One word that waits is enough.
            let _ = said.try_send(());
        }
        link.close("is not needed any more");
    };
    let _ = stop.run_until_cancelled(hello).await;
    // It may have come into use meanwhile.
    let is_used = shared.link.borrow().as_ref().is_some_and(|link| link.peer() == peer);
    if !is_used {
        control.disconnect(peer).await;
    }
}

/// An error that begins with the tracker's address, made to read on from it.
pub(super) fn behind_address(error: &str, address: &str) -> String {
    match error.strip_prefix(address) {
        Some(rest) if rest.starts_with(": ") => format!("cannot be found{rest}"),
        Some(rest) => rest.trim_start().to_owned(),
        None => format!("does not answer ({error})"),
    }
}
