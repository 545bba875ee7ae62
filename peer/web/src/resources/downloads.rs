//! Downloads.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use shoal_client::{Client, DownloadOptions, DownloadRow, FileRef, FolderOptions, Priority, QueueEnd, Rule};
use shoal_common::{FileName, GroupName};

use super::named::NamedFile;
use super::refusal::Refusal;
use super::{Site, answered, done, malformed};
use crate::answer::object;
use crate::body;
use crate::schema::answers::{Done, Problem};
use crate::schema::downloads::{Begun, Cancelled, DownloadDetail, Downloads, Moved, Resumed};
use crate::schema::requests::{DownloadChange, Move, NewDownload};

pub(super) fn router() -> Router<Site> {
    Router::new()
        .route("/api/1/downloads", get(downloads).post(begin))
        .route("/api/1/downloads/{group}/{file}", get(detail).patch(change))
        .route("/api/1/downloads/{group}/{file}/move", post(move_to))
        .route("/api/1/downloads/{group}/{file}/pause", post(pause))
        .route("/api/1/downloads/{group}/{file}/resume", post(resume))
        .route("/api/1/downloads/{group}/{file}/cancel", post(cancel))
}

/// The downloads
#[utoipa::path(
    get,
    path = "/api/1/downloads",
    responses((status = 200, body = Downloads), (status = "4XX", body = Problem))
)]
pub(super) async fn downloads(State(site): State<Site>) -> Response {
    let rows: Vec<Value> = site.client.downloads().iter().map(row).collect();
    object(StatusCode::OK, &json!({ "downloads": rows }))
}

/// A download in detail
#[utoipa::path(
    get,
    path = "/api/1/downloads/{group}/{file}",
    params(("group" = String, Path), ("file" = String, Path)),
    responses((status = 200, body = DownloadDetail), (status = "4XX", body = Problem))
)]
pub(super) async fn detail(State(site): State<Site>, NamedFile(file): NamedFile) -> Response {
    shown(&site.client, &file).await
}

async fn shown(client: &Client, file: &FileRef) -> Response {
    answered(client.download_detail(file).await.map(|(found, pieces, sources)| {
        let mut value = row(&found);
        value["pieces"] = pieces.map_or(Value::Null, |pieces| {
            json!({ "count": pieces.count, "size": pieces.size, "have": STANDARD.encode(pieces.have) })
        });
        value["sources"] = json!(sources);
        value
    }))
}

/// A download as it is listed, with what a program computes with.
pub(crate) fn row(row: &DownloadRow) -> Value {
    let mut value = json!(row);
    value["size"] = row.size.into();
    value["verified"] = row.verified.into();
    value["seconds_left"] = row.eta.map(|eta| eta.as_secs()).into();
    value
}

/// Download a file
#[utoipa::path(
    post,
    path = "/api/1/downloads",
    request_body = NewDownload,
    responses((status = 200, body = Begun), (status = "4XX", body = Problem))
)]
pub(super) async fn begin(State(site): State<Site>, request: Request) -> Response {
    let new: NewDownload = match body::read(request).await {
        Ok(new) => new,
        Err(refusal) => return refusal,
    };
    let file = match (GroupName::refer(&new.group), FileName::refer(&new.file)) {
        (Ok(group), Ok(file)) => FileRef { group, file },
        (Err(error), _) | (_, Err(error)) => return malformed(error),
    };
    if new.folder.as_ref().is_some_and(|folder| !folder.is_absolute()) {
        return malformed("give the folder's whole path, from / on");
    }
    let folder = FolderOptions {
        rules: rules(new.only, new.skip),
        renames: new.renames.into_iter().collect(),
        keep_modes: new.keep_modes,
    };
    let options = DownloadOptions { overwrite: new.overwrite, folder };
    done(site.download(file, new.folder, options).await)
}

/// Change the priority, limit, place or files of a download
#[utoipa::path(
    patch,
    path = "/api/1/downloads/{group}/{file}",
    params(("group" = String, Path), ("file" = String, Path)),
    request_body = DownloadChange,
    responses((status = 200, body = DownloadDetail), (status = "4XX", body = Problem))
)]
pub(super) async fn change(
    State(site): State<Site>,
    NamedFile(file): NamedFile,
    request: Request,
) -> Response {
    let change: DownloadChange = match body::read(request).await {
        Ok(change) => change,
        Err(refusal) => return refusal,
    };
    if let Err(refusal) = apply(&site.client, &file, &change).await {
        return refusal.into_response();
    }
    shown(&site.client, &file).await
}

async fn apply(client: &Client, file: &FileRef, change: &DownloadChange) -> Result<(), Refusal> {
    let other = |what: &str, choice: &str| Refusal::Malformed(format!("{what:?} is none of {choice}"));
    let priority = change.priority.as_deref().map(|name| {
        let found = Priority::ALL.into_iter().find(|priority| priority.name() == name);
        found.ok_or_else(|| other(name, "high, normal and low"))
    });
    let end = change.queue.as_deref().map(|name| match name {
        "first" => Ok(QueueEnd::First),
        "last" => Ok(QueueEnd::Last),
        _ => Err(other(name, "first and last")),
    });
    let (priority, end) = (priority.transpose()?, end.transpose()?);
    if let Some(priority) = priority {
        client.set_priority(file, priority).await?;
    }
    if let Some(limit) = change.limit {
        client.set_download_limit(file, Some(limit)).await?;
    }
    if let Some(end) = end {
        client.move_in_queue(file, end).await?;
    }
    if !(change.add.is_empty() && change.drop.is_empty()) {
        client.choose(file, rules(change.add.clone(), change.drop.clone())).await?;
    }
    Ok(())
}

/// Which files are fetched, and then which of them are not.
fn rules(fetch: Vec<String>, leave: Vec<String>) -> Vec<Rule> {
    let rule = |fetch| move |glob| Rule { fetch, glob };
    fetch.into_iter().map(rule(true)).chain(leave.into_iter().map(rule(false))).collect()
}

/// Move a finished download into a folder; its shares follow
#[utoipa::path(
    post,
    path = "/api/1/downloads/{group}/{file}/move",
    params(("group" = String, Path), ("file" = String, Path)),
    request_body = Move,
    responses((status = 200, body = Moved), (status = "4XX", body = Problem))
)]
pub(super) async fn move_to(
    State(site): State<Site>,
    NamedFile(file): NamedFile,
    request: Request,
) -> Response {
    let Move { folder } = match body::read(request).await {
        Ok(to) => to,
        Err(refusal) => return refusal,
    };
    if !folder.is_absolute() {
        return malformed("give the folder's whole path, from / on");
    }
    done(site.move_download(file, folder).await.map(|path| json!({ "path": path.to_string_lossy() })))
}

/// Pause a download
#[utoipa::path(
    post,
    path = "/api/1/downloads/{group}/{file}/pause",
    params(("group" = String, Path), ("file" = String, Path)),
    responses((status = 200, body = Done), (status = "4XX", body = Problem))
)]
pub(super) async fn pause(State(site): State<Site>, NamedFile(file): NamedFile) -> Response {
    done(site.client.pause(&file).await)
}

/// Go on with a paused or failed download
#[utoipa::path(
    post,
    path = "/api/1/downloads/{group}/{file}/resume",
    params(("group" = String, Path), ("file" = String, Path)),
    responses((status = 200, body = Resumed), (status = "4XX", body = Problem))
)]
pub(super) async fn resume(State(site): State<Site>, NamedFile(file): NamedFile) -> Response {
    done(site.client.resume(&file).await)
}

/// Abandon a download, or take a finished one off the list
#[utoipa::path(
    post,
    path = "/api/1/downloads/{group}/{file}/cancel",
    params(("group" = String, Path), ("file" = String, Path)),
    responses((status = 200, body = Cancelled), (status = "4XX", body = Problem))
)]
pub(super) async fn cancel(State(site): State<Site>, NamedFile(file): NamedFile) -> Response {
    done(site.client.cancel(&file).await.map(|complete| json!({ "complete": complete })))
}
