//! The body of a request, within its bounds of size and time.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::answer::problem;

/// Bytes of a request's body: the longest line, each byte of it escaped.
const MAX_BODY: usize = 512 * 1024;
/// How long a body may take to come.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// Reads it as JSON; else what is to be answered.
pub(crate) async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Response> {
    let read = timeout(BODY_WITHIN, to_bytes(request.into_body(), MAX_BODY)).await;
    let Ok(read) = read else {
        return Err(problem(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"));
    };
    let Ok(bytes) = read else {
        let most = format!("the body is cut off, or longer than {MAX_BODY} bytes");
        return Err(problem(StatusCode::PAYLOAD_TOO_LARGE, &most));
    };
    // What is asked may need no more words than its address.
    let bytes = if bytes.is_empty() { Bytes::from_static(b"{}") } else { bytes };
    // The place of the error is enough: a password may stand there.
    serde_json::from_slice(&bytes).map_err(|error| {
        let text = format!(
            "the body is no JSON object of that kind (line {}, column {})",
            error.line(),
            error.column()
        );
        problem(StatusCode::BAD_REQUEST, &text)
    })
}
