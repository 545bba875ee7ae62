//! A group's files: listed, shared, and no longer shared.

use std::path::PathBuf;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{delete, get};
use serde::Deserialize;
use serde_json::json;

use super::named::{NamedFile, NamedGroup};
use super::{Site, done, found, malformed};
use crate::body;

pub(super) fn router() -> Router<Site> {
    Router::new()
        .route("/api/1/groups/{group}/files", get(files).post(share))
        .route("/api/1/groups/{group}/files/{file}", delete(stop))
        .route("/api/1/groups/{group}/files/{file}/peers", get(peers))
}

/// A file that is to be shared where it is.
#[derive(Deserialize)]
struct Share {
    /// Its whole path on this machine.
    path: PathBuf,
}

async fn files(State(site): State<Site>, NamedGroup(group): NamedGroup) -> Response {
    found(site.client.files(&group).await.map(|files| json!({ "group": group, "files": files })))
}

async fn share(State(site): State<Site>, NamedGroup(group): NamedGroup, request: Request) -> Response {
    let Share { path } = match body::read(request).await {
        Ok(share) => share,
        Err(refusal) => return refusal,
    };
    if !path.is_absolute() {
        return malformed("give the file's whole path, from / on");
    }
    done(site.client.upload(&path, group, Vec::new()).await)
}

async fn stop(State(site): State<Site>, NamedFile(file): NamedFile) -> Response {
    done(site.client.stop_share(&file).await)
}

async fn peers(State(site): State<Site>, NamedFile(file): NamedFile) -> Response {
    found(site.client.peers(&file).await.map(|peers| json!({ "peers": peers })))
}
