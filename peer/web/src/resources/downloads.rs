//! Downloads.

use std::path::PathBuf;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use shoal_client::{Begun, Client, ClientError, DownloadRow, FileRef};
use shoal_common::{FileName, GroupName};

use super::named::NamedFile;
use super::{Site, done, malformed};
use crate::answer::object;
use crate::body;

pub(super) fn router() -> Router<Site> {
    Router::new()
        .route("/api/1/downloads", get(downloads).post(begin))
        .route("/api/1/downloads/{group}/{file}/pause", post(pause))
        .route("/api/1/downloads/{group}/{file}/resume", post(resume))
        .route("/api/1/downloads/{group}/{file}/cancel", post(cancel))
}

/// A file that is to be downloaded.
#[derive(Deserialize)]
struct NewDownload {
    group: String,
    file: String,
    /// The folder that it goes into; the download folder without it.
    #[serde(default)]
    folder: Option<PathBuf>,
    /// Whether a file of that name is replaced.
    #[serde(default)]
    overwrite: bool,
}

async fn downloads(State(site): State<Site>) -> Response {
    let rows: Vec<Value> = site.client.downloads().iter().map(row).collect();
    object(StatusCode::OK, &json!({ "downloads": rows }))
}

/// A download as it is listed, with what a program computes with.
pub(crate) fn row(row: &DownloadRow) -> Value {
    let mut value = json!(row);
    value["size"] = row.size.into();
    value["verified"] = row.verified.into();
    value["seconds_left"] = row.eta.map(|eta| eta.as_secs()).into();
    value
}

async fn begin(State(site): State<Site>, request: Request) -> Response {
    let new: NewDownload = match body::read(request).await {
        Ok(new) => new,
        Err(refusal) => return refusal,
    };
    let file = match (GroupName::refer(&new.group), FileName::refer(&new.file)) {
        (Ok(group), Ok(file)) => FileRef { group, file },
        (Err(error), _) | (_, Err(error)) => return malformed(&error.to_string()),
    };
    if new.folder.as_ref().is_some_and(|folder| !folder.is_absolute()) {
        return malformed("give the folder's whole path, from / on");
    }
    done(download(&site.client, file, new.folder, new.overwrite).await)
}

async fn download(
    client: &Client,
    file: FileRef,
    folder: Option<PathBuf>,
    overwrite: bool,
) -> Result<Begun, ClientError> {
    let folder = match folder {
        Some(folder) => folder,
        None => client.download_folder().await?.ok_or(ClientError::NoFolder)?,
    };
    // With a slash at its end, so that it is made.
    client.download(file, folder.join(""), overwrite).await
}

async fn pause(State(site): State<Site>, NamedFile(file): NamedFile) -> Response {
    done(site.client.pause(&file).await)
}

async fn resume(State(site): State<Site>, NamedFile(file): NamedFile) -> Response {
    done(site.client.resume(&file).await)
}

async fn cancel(State(site): State<Site>, NamedFile(file): NamedFile) -> Response {
    done(site.client.cancel(&file).await.map(|complete| json!({ "complete": complete })))
}
