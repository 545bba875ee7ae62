//! What the client knows and does, as resources: each address gives what a command of the prompt lists, under the same keys, or does
//! what one does. The same on the socket and on loopback.

mod downloads;
mod explain;
mod files;
mod folders;
mod groups;
mod named;
mod openapi;
mod refusal;
mod session;
mod settings;
mod site;
mod upload;

use std::path::PathBuf;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::answer::object;
use refusal::Refusal;

pub(crate) use downloads::row;
pub(crate) use site::{Site, Work};

pub(crate) fn router(site: Site) -> Router {
    Router::new()
        .merge(session::router())
        .merge(groups::router())
        .merge(files::router())
        .merge(folders::router())
        .merge(downloads::router())
        .merge(explain::router())
        .merge(settings::router())
        .merge(openapi::router())
        .with_state(site)
}

/// What was found.
fn answered<T: Serialize>(found: Result<T, impl Into<Refusal>>) -> Response {
    match found {
        Ok(value) => object(StatusCode::OK, &json!(value)),
        Err(error) => error.into().into_response(),
    }
}

/// What was done: the same keys as the command's, and `ok`.
fn done<T: Serialize>(done: Result<T, impl Into<Refusal>>) -> Response {
    answered(done.map(|value| {
        let mut value = json!(value);
        match &mut value {
            Value::Object(fields) => {
                fields.insert("ok".to_owned(), true.into());
                value
            }
            _ => json!({ "ok": true }),
        }
    }))
}

/// What the request says is no such thing.
fn malformed(text: impl ToString) -> Response {
    Refusal::Malformed(text.to_string()).into_response()
}

/// A whole path that a request's query gives under that name.
fn query_path(query: Option<&str>, name: &str) -> Option<PathBuf> {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let path = pairs.find(|(key, _)| key == name).map(|(_, path)| PathBuf::from(path.into_owned()))?;
    path.is_absolute().then_some(path)
}
