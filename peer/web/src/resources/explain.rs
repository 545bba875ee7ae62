//! Why downloads and shares are slow, stuck or unsafe, and what to do.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde_json::json;

use super::named::NamedFile;
use super::{Site, answered};
use crate::schema::answers::{Explanations, Problem};

pub(super) fn router() -> Router<Site> {
    Router::new()
        .route("/api/1/explain", get(explain_all))
        .route("/api/1/explain/{group}/{file}", get(explain))
}

/// Why downloads and shares are not well, and what to do
#[utoipa::path(
    get,
    path = "/api/1/explain",
    responses((status = 200, body = Explanations), (status = "4XX", body = Problem))
)]
pub(super) async fn explain_all(State(site): State<Site>) -> Response {
    let explained = site.client.explain(None).await;
    answered(explained.map(|explanations| json!({ "explanations": explanations })))
}

/// The same for the download and the share of one file
#[utoipa::path(
    get,
    path = "/api/1/explain/{group}/{file}",
    params(("group" = String, Path), ("file" = String, Path)),
    responses((status = 200, body = Explanations), (status = "4XX", body = Problem))
)]
pub(super) async fn explain(State(site): State<Site>, NamedFile(file): NamedFile) -> Response {
    let explained = site.client.explain(Some(&file)).await;
    answered(explained.map(|explanations| json!({ "explanations": explanations })))
}
