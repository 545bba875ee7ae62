//! Why downloads and shares are slow, stuck or unsafe, and what to do.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde_json::json;

use super::named::NamedFile;
use super::{Site, found};

pub(super) fn router() -> Router<Site> {
    Router::new()
        .route("/api/1/explain", get(explain_all))
        .route("/api/1/explain/{group}/{file}", get(explain))
}

/// All that are not well.
async fn explain_all(State(site): State<Site>) -> Response {
    let explained = site.client.explain(None).await;
    found(explained.map(|explanations| json!({ "explanations": explanations })))
}

/// The download and the share of one file.
async fn explain(State(site): State<Site>, NamedFile(file): NamedFile) -> Response {
    let explained = site.client.explain(Some(&file)).await;
    found(explained.map(|explanations| json!({ "explanations": explanations })))
}
