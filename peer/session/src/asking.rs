//! Carries questions about ways to trackers, and tells each tracker where this client is.

use shoal_common::tracker_api::ways::{WAYS, WayAnswer, WayCall};
use shoal_common::tracker_api::{Answer, Call, Reply};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Session;
use crate::connection::TrackerConnection;
use crate::ways::{Question, Ways};

/// Questions that are carried at once.
const MAX_CARRIED: usize = 16;

/// Runs until the session ends.
pub(crate) async fn carry(session: Session, mut questions: mpsc::Receiver<Question>) {
    let stop = session.0.stop.clone();
    let mut carried = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = carried.join_next() => {}
            Some((call, reply)) = questions.recv(), if carried.len() < MAX_CARRIED => {
                let session = session.clone();
                carried.spawn(async move {
                    let answer = match session.call(Call::Way(call)).await {
                        Ok(Answer::Way(answer)) => Some(answer),
                        Ok(_) => None,
                        Err(error) => {
                            tracing::debug!(%error, "no tracker takes a question about a way");
                            None
                        }
                    };
                    // Who asked may be gone.
                    let _ = reply.send(answer);
                });
            }
        }
    }
}

/// Tells a tracker where this client is, and keeps what it says of how others reach it. A tracker of an earlier version is not asked.
pub(crate) async fn tell(ways: &Ways, connection: &TrackerConnection) {
    if connection.revision() < WAYS {
        return;
    }
    let call = Call::Way(WayCall::Here { lan: ways.near() });
    match connection.call(call).await {
        Ok(Reply::Done(Answer::Way(WayAnswer::Here { address, proven, relays }))) => {
            ways.here(address, proven, relays);
        }
        Ok(reply) => tracing::debug!(?reply, "the tracker does not take where this client is"),
        // It is told to the next one.
        Err(_) => {}
    }
}
