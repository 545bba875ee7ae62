//! Why a download is stopped, and how it ended.

use shoal_engine::{Outcome, Shortage};
use shoal_session::text;
use tokio::sync::watch;

/// Why a download ends whose user is no member any more.
pub(crate) const LEFT: &str =
    "you left the group and are not a member any more; ask again with join_group, then resume_download";

/// Why a run is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Its user paused it.
    Pause,
    /// The session ended.
    Suspend,
    /// Its user gave it up.
    Cancel,
    /// Its user left the group.
    Left,
}

/// How a run of a download ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Complete,
    Failed(String),
    /// Its user paused it.
    Paused,
    /// The session ended; it goes on with the next.
    Suspended,
    Cancelled,
}

/// How a run ended.
pub(super) enum Closed {
    /// The download ended with it.
    End(End),
    /// Something is lacking that may be there again. What is verified is kept, and another run continues. With the error,
    /// for a user who has just chosen the wrong place.
    Short(Shortage, String),
    /// It is another download's turn.
    GaveWay,
}

/// Completes when a stop is wanted.
pub(super) async fn wanted(stopped: &mut watch::Receiver<Option<Stop>>) -> Stop {
    match stopped.wait_for(Option::is_some).await.map(|stop| *stop) {
        Ok(Some(stop)) => stop,
        // The list dropped the run: the session is over.
        _ => Stop::Suspend,
    }
}

/// What a run's outcome means, if it was to stop.
pub(super) fn end_of(outcome: Outcome, stop: Option<Stop>) -> Closed {
    Closed::End(match (outcome, stop) {
        (Outcome::Complete { .. }, _) => End::Complete,
        (Outcome::Cancelled, _) => End::Cancelled,
        (Outcome::Failed(error), stop) => match (error.shortage(), stop) {
            (Some(shortage), None) => return Closed::Short(shortage, error.to_string()),
            // What is lacking shows again when it goes on.
            (Some(_), Some(Stop::Pause)) => End::Paused,
            (Some(_), Some(Stop::Suspend)) => End::Suspended,
            (Some(_), Some(Stop::Left)) => End::Failed(LEFT.to_owned()),
            (_, _) => End::Failed(text::error_line(&error.to_string())),
        },
        (Outcome::Paused, Some(Stop::Pause)) => End::Paused,
        (Outcome::Paused, Some(Stop::Left)) => End::Failed(LEFT.to_owned()),
        (Outcome::Paused, _) => End::Suspended,
    })
}
