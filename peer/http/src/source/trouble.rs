//! What can go wrong with a request to a server, by what follows from it.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use shoal_engine::BufferError;

use crate::{client, mirror};

/// Longest time without a byte of an answer that has begun: less than the engine's own patience, so that the source itself
/// can count such failures.
const STALL: Duration = Duration::from_millis(4_500);

/// What went wrong with a request.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The buffer takes no more.
    Ours(BufferError),
    /// The server did what no right server does.
    Invalid(String),
    /// It will not help to ask again.
    Final(String),
    /// It does not have the part that begins at this byte.
    Lacking(u64, String),
    /// It refuses requests for parts.
    Range(String),
    /// It leads to where we may not go.
    Refused(String),
    /// It may help to ask again, after that time if the server said so.
    Passing(String, Option<Duration>),
}

impl Trouble {
    /// No answer came.
    pub(super) fn unanswered(error: reqwest::Error) -> Self {
        match mirror::refused(&error) {
            Some(refused) => Self::Refused(refused.to_string()),
            None => Self::Passing(client::reason(error), None),
        }
    }

    pub(super) fn silent(time: Duration) -> Self {
        Self::Passing(format!("sent nothing for {:.1} s", time.as_secs_f64()), None)
    }
}

impl From<BufferError> for Trouble {
    fn from(error: BufferError) -> Self {
        match error {
            BufferError::TooLong => Self::Invalid("sent more bytes than were asked for".into()),
            BufferError::Closed => Self::Ours(error),
        }
    }
}

/// The next bytes of a body; `None` at its end. Safe to drop.
pub(super) async fn next_chunk(response: &mut Response) -> Result<Option<Bytes>, Trouble> {
    match tokio::time::timeout(STALL, response.chunk()).await {
        Ok(Ok(chunk)) => Ok(chunk),
        Ok(Err(error)) => Err(Trouble::Passing(client::reason(error), None)),
        Err(_) => Err(Trouble::silent(STALL)),
    }
}
