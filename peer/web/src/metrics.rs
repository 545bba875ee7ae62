//! The client's figures for Prometheus, at `/metrics`: how many and how much, and no name of a file, user or group.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use shoal_client::{Carried, Client, DownloadRow, ShareState};
use shoal_metrics::{Labels, Page, TYPE};

use crate::answer::problem;

pub(crate) fn router(client: Client) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(client)
}

async fn metrics(State(client): State<Client>) -> Response {
    let shares = client.shares().await;
    let limits = client.limits().await.unwrap_or_default();
    let figures = Figures {
        carried: client.carried(),
        // Nobody is logged in without them.
        session: shares.is_ok(),
        tracker: client.whoami().tracker.is_some(),
        shares: shares.unwrap_or_default().iter().map(|share| share.state).collect(),
        downloads: client.downloads(),
        hashing: client.hashing().borrow().is_some(),
        limits,
    };
    match render(&figures) {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, TYPE)], text).into_response(),
        Err(error) => {
            problem(StatusCode::SERVICE_UNAVAILABLE, &format!("the figures cannot be written: {error}"))
        }
    }
}

/// What is shown.
struct Figures {
    carried: Carried,
    session: bool,
    tracker: bool,
    shares: Vec<ShareState>,
    downloads: Vec<DownloadRow>,
    hashing: bool,
    limits: (Option<u64>, Option<u64>),
}

fn render(figures: &Figures) -> Result<String, std::fmt::Error> {
    let Figures { carried, session, tracker, shares, downloads, hashing, limits: (up, down) } = figures;
    let mut page = Page::default();
    let mut gauge = |name: &str, help: &str, value: u64| page.gauge(name, help, value);
    gauge("client_uptime_seconds", "Time since the client started", carried.uptime.as_secs());
    gauge("client_session", "Whether a user is logged in", u64::from(*session));
    gauge("client_tracker_connected", "Whether a tracker answers", u64::from(*tracker));
    gauge("client_uploaded_bytes", "Bytes of pieces that others got, since the start", carried.uploaded);
    gauge("client_downloaded_bytes", "Bytes that came from others, since the start", carried.downloaded);
    gauge(
        "client_download_rate_bytes",
        "Bytes per second that come now",
        downloads.iter().map(|row| row.rate).sum(),
    );
    let sources: usize = downloads.iter().map(|row| row.sources).sum();
    gauge("client_sources", "Sources that downloads use now", sources as u64);
    gauge("client_hashing", "Whether a file is being read to be shared", u64::from(*hashing));
    gauge(
        "client_upload_limit_bytes",
        "Bytes per second that uploads take at most; 0 for no limit",
        up.unwrap_or(0),
    );
    gauge(
        "client_download_limit_bytes",
        "Bytes per second that downloads take at most; 0 for no limit",
        down.unwrap_or(0),
    );
    let of = |state: &'static str| -> Labels { vec![("state", state.to_owned())] };
    let count = |letter: char| downloads.iter().filter(|row| row.state.letter() == letter).count() as u64;
    let states = [("downloading", 'D'), ("paused", 'P'), ("failed", 'F'), ("complete", 'C')];
    let values = states.map(|(state, letter)| (of(state), count(letter)));
    page.labelled("client_downloads", "Downloads that are listed, by state", values.into());
    let count = |state| shares.iter().filter(|share| **share == state).count() as u64;
    let values = [("served", ShareState::Served), ("away", ShareState::Away)]
        .map(|(name, state)| (of(name), count(state)));
    page.labelled("client_shares", "Files that are shared here, by whether they are served", values.into());
    page.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn figures_are_named_labelled_and_ended() {
        let carried = Carried { uptime: Duration::from_secs(5), uploaded: 7, downloaded: 9 };
        let figures = Figures {
            carried,
            session: true,
            tracker: false,
            shares: vec![ShareState::Served, ShareState::Served, ShareState::Away],
            downloads: Vec::new(),
            hashing: false,
            limits: (None, Some(1_000)),
        };
        let text = render(&figures).unwrap();
        for line in [
            "shoal_client_uptime_seconds 5",
            "shoal_client_uploaded_bytes 7",
            "shoal_client_shares{state=\"served\"} 2",
            "shoal_client_downloads{state=\"paused\"} 0",
            "shoal_client_download_limit_bytes 1000",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
