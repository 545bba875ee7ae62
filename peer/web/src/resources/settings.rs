//! Rate limits and settings.

use std::path::PathBuf;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};
use shoal_client::{Client, ClientError, Direction};

use super::{Site, done, found, malformed};
use crate::body;

pub(super) fn router() -> Router<Site> {
    Router::new()
        .route("/api/1/limits", get(limits).put(set_limits))
        .route("/api/1/settings", get(settings).put(set_settings))
}

/// Rate limits in bytes per second, 0 for none. What is left out stays.
#[derive(Deserialize)]
struct NewLimits {
    #[serde(default)]
    up: Option<u64>,
    #[serde(default)]
    down: Option<u64>,
}

/// Settings. What is left out stays.
#[derive(Deserialize)]
struct NewSettings {
    /// Where downloads go; an empty text is the user's own download folder.
    #[serde(default)]
    download_folder: Option<PathBuf>,
}

async fn limits(State(site): State<Site>) -> Response {
    found(shown_limits(&site.client).await)
}

async fn shown_limits(client: &Client) -> Result<Value, ClientError> {
    let (up, down) = client.limits().await?;
    Ok(json!({ "up": up.unwrap_or(0), "down": down.unwrap_or(0) }))
}

async fn set_limits(State(site): State<Site>, request: Request) -> Response {
    let new: NewLimits = match body::read(request).await {
        Ok(new) => new,
        Err(refusal) => return refusal,
    };
    for (direction, rate) in [(Direction::Up, new.up), (Direction::Down, new.down)] {
        if let Some(rate) = rate
            && let Err(error) = site.client.set_limit(direction, Some(rate).filter(|rate| *rate > 0)).await
        {
            return done(Err::<(), _>(error));
        }
    }
    done(shown_limits(&site.client).await)
}

async fn settings(State(site): State<Site>) -> Response {
    found(shown_settings(&site.client).await)
}

async fn shown_settings(client: &Client) -> Result<Value, ClientError> {
    let folder = client.download_folder().await?;
    Ok(json!({ "download_folder": folder.map(|folder| folder.to_string_lossy().into_owned()) }))
}

async fn set_settings(State(site): State<Site>, request: Request) -> Response {
    let new: NewSettings = match body::read(request).await {
        Ok(new) => new,
        Err(refusal) => return refusal,
    };
    if let Some(folder) = new.download_folder {
        let folder = Some(folder).filter(|folder| !folder.as_os_str().is_empty());
        if folder.as_ref().is_some_and(|folder| !folder.is_absolute()) {
            return malformed("give the folder's whole path, from / on");
        }
        if let Err(error) = site.client.set_download_folder(folder).await {
            return done(Err::<(), _>(error));
        }
    }
    done(shown_settings(&site.client).await)
}
