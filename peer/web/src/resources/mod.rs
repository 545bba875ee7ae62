//! What the client knows and does, as resources: each address gives what a command of the prompt lists, under the same keys, or does
//! what one does. The same on the socket and on loopback.

mod downloads;
mod files;
mod groups;
mod named;
mod session;
mod settings;
mod site;

use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};
use shoal_client::ClientError;
use shoal_session::text;

use crate::answer::{object, problem};

pub(crate) use site::Site;

pub(crate) fn router(site: Site) -> Router {
    Router::new()
        .merge(session::router())
        .merge(groups::router())
        .merge(files::router())
        .merge(downloads::router())
        .merge(settings::router())
        .with_state(site)
}

/// What was found.
fn found<T: Serialize>(found: Result<T, ClientError>) -> Response {
    match found {
        Ok(value) => object(StatusCode::OK, &json!(value)),
        Err(error) => refused(&error),
    }
}

/// What was done: the same keys as the command's, and `ok`.
fn done<T: Serialize>(done: Result<T, ClientError>) -> Response {
    match done {
        Ok(value) => {
            let mut value = json!(value);
            match &mut value {
                Value::Object(fields) => {
                    fields.insert("ok".to_owned(), true.into());
                }
                _ => value = json!({ "ok": true }),
            }
            object(StatusCode::OK, &value)
        }
        Err(error) => refused(&error),
    }
}

/// Why it was not done, in words and as a code.
fn refused(error: &ClientError) -> Response {
    let text = text::error_line(&error.to_string());
    object(StatusCode::UNPROCESSABLE_ENTITY, &json!({ "ok": false, "error": text, "code": error.code() }))
}

/// What the request says is no such thing.
fn malformed(text: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, &text::error_line(text))
}
