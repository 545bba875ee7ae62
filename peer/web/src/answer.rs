//! Answers as JSON.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// An object with that status.
pub(crate) fn object(status: StatusCode, value: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, format!("{value}\n")).into_response()
}

/// Why something was not done, in words.
pub(crate) fn problem(status: StatusCode, text: &str) -> Response {
    object(status, &json!({ "ok": false, "error": text }))
}
