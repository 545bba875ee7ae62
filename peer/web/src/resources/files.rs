//! A group's files: listed, shared, and no longer shared.

use std::collections::{HashMap, HashSet};

use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::response::Response;
use axum::routing::{delete, get};
use serde_json::{Value, json};
use shoal_client::{Client, ClientError};
use shoal_common::tracker_api::FileEntry;
use shoal_common::{FileName, GroupName};

use super::named::{NamedFile, NamedGroup};
use super::{Site, answered, done, malformed, upload};
use crate::body;
use crate::schema::answers::{Done, Files, Peers, Problem, SharedFile, Shares};
use crate::schema::downloads::FolderFiles;
use crate::schema::requests::NewShare;

/// Entries of a folder that are given at a time, unless more are asked for.
const ENTRIES: usize = 1_000;

pub(super) fn router() -> Router<Site> {
    Router::new()
        .route("/api/1/shares", get(shares))
        .route("/api/1/groups/{group}/files", get(files).post(share))
        .route("/api/1/groups/{group}/files/{file}", delete(stop).put(upload::put))
        .route("/api/1/groups/{group}/files/{file}/entries", get(entries))
        .route("/api/1/groups/{group}/files/{file}/peers", get(peers))
}

/// What this client shares
#[utoipa::path(
    get,
    path = "/api/1/shares",
    responses((status = 200, body = Shares), (status = "4XX", body = Problem))
)]
pub(super) async fn shares(State(site): State<Site>) -> Response {
    answered(site.client.shares().await.map(|shares| json!({ "shares": shares })))
}

/// A group's files
#[utoipa::path(
    get,
    path = "/api/1/groups/{group}/files",
    params(("group" = String, Path)),
    responses((status = 200, body = Files), (status = "4XX", body = Problem))
)]
pub(super) async fn files(State(site): State<Site>, NamedGroup(group): NamedGroup) -> Response {
    answered(listed(&site.client, group).await)
}

/// A group's files, with what this client has of each.
async fn listed(client: &Client, group: GroupName) -> Result<Value, ClientError> {
    let files = client.files(&group).await?;
    let shares = client.shares().await?;
    let shared: HashSet<&FileName> =
        shares.iter().filter(|share| share.group == group).map(|share| &share.file).collect();
    let downloads = client.downloads();
    let downloads: HashMap<&FileName, char> = downloads
        .iter()
        .filter(|row| row.group == group)
        .map(|row| (&row.file, row.state.letter()))
        .collect();
    let row = |file: &FileEntry| {
        let mut value = json!(file);
        value["shared_here"] = shared.contains(&file.name).into();
        if let Some(state) = downloads.get(&file.name) {
            value["download"] = state.to_string().into();
        }
        value
    };
    Ok(json!({ "files": files.iter().map(row).collect::<Vec<_>>(), "group": group }))
}

/// What is in a folder
#[utoipa::path(
    get,
    path = "/api/1/groups/{group}/files/{file}/entries",
    params(
        ("group" = String, Path),
        ("file" = String, Path),
        ("within" = Option<String>, Query, description = "A path in the folder; all of it without"),
        ("from" = Option<usize>, Query, description = "The number of the first entry"),
        ("most" = Option<usize>, Query, description = "How many at most: 1,000 without it, 10,000 at most"),
    ),
    responses((status = 200, body = FolderFiles), (status = "4XX", body = Problem))
)]
pub(super) async fn entries(
    State(site): State<Site>,
    NamedFile(file): NamedFile,
    RawQuery(query): RawQuery,
) -> Response {
    let (mut within, mut from, mut most) = (String::new(), 0, ENTRIES);
    for (key, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let number = value.parse::<usize>();
        match (&*key, number) {
            ("within", _) => within = value.into_owned(),
            ("from", Ok(number)) => from = number,
            ("most", Ok(number)) => most = number,
            ("from" | "most", Err(_)) => return malformed(format!("{key} is no number")),
            _ => {}
        }
    }
    answered(site.client.folder_files(file, &within, from, most).await.map(|found| json!(found)))
}

/// Share a file where it is
#[utoipa::path(
    post,
    path = "/api/1/groups/{group}/files",
    params(("group" = String, Path)),
    request_body = NewShare,
    responses((status = 200, body = SharedFile), (status = "4XX", body = Problem))
)]
pub(super) async fn share(
    State(site): State<Site>,
    NamedGroup(group): NamedGroup,
    request: Request,
) -> Response {
    let NewShare { path } = match body::read(request).await {
        Ok(share) => share,
        Err(refusal) => return refusal,
    };
    if !path.is_absolute() {
        return malformed("give the file's whole path, from / on");
    }
    done(site.share(path, group).await)
}

/// Stop sharing a file
#[utoipa::path(
    delete,
    path = "/api/1/groups/{group}/files/{file}",
    params(("group" = String, Path), ("file" = String, Path)),
    responses((status = 200, body = Done), (status = "4XX", body = Problem))
)]
pub(super) async fn stop(State(site): State<Site>, NamedFile(file): NamedFile) -> Response {
    done(site.client.stop_share(&file).await)
}

/// Who holds a file
#[utoipa::path(
    get,
    path = "/api/1/groups/{group}/files/{file}/peers",
    params(("group" = String, Path), ("file" = String, Path)),
    responses((status = 200, body = Peers), (status = "4XX", body = Problem))
)]
pub(super) async fn peers(State(site): State<Site>, NamedFile(file): NamedFile) -> Response {
    answered(site.client.peers(&file).await.map(|peers| json!({ "peers": peers })))
}
