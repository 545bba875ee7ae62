//! Why a request was not carried out, as it is answered.

use std::path::PathBuf;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use shoal_client::ClientError;
use shoal_session::text;

use crate::answer::object;
use crate::roots::Refused;

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The client says so.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A path is not used.
    #[error(transparent)]
    Path(#[from] Refused),
    /// It says no such thing.
    #[error("{0}")]
    Malformed(String),
    /// Too much is under way.
    #[error("too much is being shared already; try again when some of it is done")]
    Busy,
    /// A file of that name is there.
    #[error("{} exists already; give it another name, or choose another folder", .0.display())]
    Exists(PathBuf),
    /// There is no room.
    #[error("no space for {}{}; make room and try again", .path.display(), room(*.lacking))]
    Full {
        /// The file.
        path: PathBuf,
        /// Bytes that are lacking; 0 if that is not known.
        lacking: u64,
    },
    /// What was sent came too slowly.
    #[error("the file did not come in time; send it again")]
    TooSlow,
    /// What was sent broke off.
    #[error("the file broke off; send it again")]
    CutOff,
    /// It was not carried out to its end.
    #[error("not done: {0}")]
    Stopped(String),
}

fn room(bytes: u64) -> String {
    if bytes == 0 { String::new() } else { format!(" ({} are lacking)", text::size(bytes)) }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code) = match &self {
            Self::Client(error) => (StatusCode::UNPROCESSABLE_ENTITY, error.code()),
            Self::Path(refused) => (StatusCode::UNPROCESSABLE_ENTITY, refused.code()),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed"),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            Self::Exists(_) => (StatusCode::UNPROCESSABLE_ENTITY, "exists"),
            Self::Full { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "full"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
            Self::CutOff => (StatusCode::BAD_REQUEST, "cut_off"),
            Self::Stopped(_) => (StatusCode::SERVICE_UNAVAILABLE, "stopped"),
        };
        object(status, &json!({ "ok": false, "error": text::error_line(&self.to_string()), "code": code }))
    }
}
