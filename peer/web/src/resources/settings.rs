//! Rate limits and settings.

use std::path::PathBuf;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use shoal_client::schedule::Window;
use shoal_client::{Client, ClientError, Direction};

use super::refusal::Refusal;
use super::{Site, answered, done};
use crate::body;
use crate::schema::answers::{Limits, Problem, Settings};
use crate::schema::requests::{NewLimits, NewSettings, NewWindow};

pub(super) fn router() -> Router<Site> {
    Router::new()
        .route("/api/1/limits", get(limits).put(set_limits))
        .route("/api/1/settings", get(settings).put(set_settings))
}

/// The rate limits
#[utoipa::path(
    get,
    path = "/api/1/limits",
    responses((status = 200, body = Limits), (status = "4XX", body = Problem))
)]
pub(super) async fn limits(State(site): State<Site>) -> Response {
    answered(shown_limits(&site.client).await)
}

async fn shown_limits(client: &Client) -> Result<Value, ClientError> {
    let (up, down) = client.limits().await?;
    let now = client.limits_now();
    Ok(json!({
        "up": up.unwrap_or(0), "down": down.unwrap_or(0),
        "up_now": now.up.unwrap_or(0), "down_now": now.down.unwrap_or(0),
        "schedule": client.schedule(), "clock": client.local_time(),
    }))
}

/// Limit rates
#[utoipa::path(
    put,
    path = "/api/1/limits",
    request_body = NewLimits,
    responses((status = 200, body = Limits), (status = "4XX", body = Problem))
)]
pub(super) async fn set_limits(State(site): State<Site>, request: Request) -> Response {
    let new: NewLimits = match body::read(request).await {
        Ok(new) => new,
        Err(refusal) => return refusal,
    };
    if let Some(windows) = new.schedule
        && let Err(refusal) = set_schedule(&site.client, windows).await
    {
        return refusal.into_response();
    }
    for (direction, rate) in [(Direction::Up, new.up), (Direction::Down, new.down)] {
        if let Some(rate) = rate
            && let Err(error) = site.client.set_limit(direction, Some(rate).filter(|rate| *rate > 0)).await
        {
            return Refusal::from(error).into_response();
        }
    }
    done(shown_limits(&site.client).await)
}

/// The settings
#[utoipa::path(
    get,
    path = "/api/1/settings",
    responses((status = 200, body = Settings), (status = "4XX", body = Problem))
)]
pub(super) async fn settings(State(site): State<Site>) -> Response {
    answered(shown_settings(&site.client).await)
}

async fn shown_settings(client: &Client) -> Result<Value, ClientError> {
    let folder = client.download_folder().await?;
    Ok(json!({
        "download_folder": folder.map(|folder| folder.to_string_lossy().into_owned()),
        "active_downloads": client.active_downloads().await?.unwrap_or(0),
        "on_complete": client.on_complete(),
    }))
}

async fn set_schedule(client: &Client, windows: Vec<NewWindow>) -> Result<(), Refusal> {
    let window = |new: &NewWindow| Window::new(&new.days, &new.from, &new.to, new.up, new.down);
    let windows: Result<Vec<Window>, _> = windows.iter().map(window).collect();
    let windows = windows.map_err(|error| Refusal::Malformed(error.to_string()))?;
    Ok(client.set_schedule(windows).await?)
}

/// Change settings
#[utoipa::path(
    put,
    path = "/api/1/settings",
    request_body = NewSettings,
    responses((status = 200, body = Settings), (status = "4XX", body = Problem))
)]
pub(super) async fn set_settings(State(site): State<Site>, request: Request) -> Response {
    let new: NewSettings = match body::read(request).await {
        Ok(new) => new,
        Err(refusal) => return refusal,
    };
    // It may be refused: then nothing is set.
    if let Some(folder) = new.download_folder
        && let Err(refusal) = set_folder(&site, folder).await
    {
        return refusal.into_response();
    }
    if let Some(bound) = new.active_downloads
        && let Err(error) = site.client.set_active_downloads(Some(bound)).await
    {
        return Refusal::from(error).into_response();
    }
    done(shown_settings(&site.client).await)
}

/// Where downloads go from now on. A page chooses among the folders that it may reach, so that it comes to reach no others.
async fn set_folder(site: &Site, folder: PathBuf) -> Result<(), Refusal> {
    let folder = Some(folder).filter(|folder| !folder.as_os_str().is_empty());
    if folder.as_ref().is_some_and(|folder| !folder.is_absolute()) {
        return Err(Refusal::Malformed("give the folder's whole path, from / on".to_owned()));
    }
    let folder = match folder {
        None if site.is_limited() => {
            return Err(Refusal::Malformed(
                "a page chooses a folder; use shoal set download_folder \"\"".to_owned(),
            ));
        }
        Some(folder) if site.is_limited() => Some(site.folder(Some(folder)).await?.1),
        folder => folder,
    };
    Ok(site.client.set_download_folder(folder).await?)
}
