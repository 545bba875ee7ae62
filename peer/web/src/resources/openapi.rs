//! The OpenAPI document of the resources: `docs/openapi.json`, and served at `/api/1/openapi.json`.

use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde_json::json;
use utoipa::OpenApi;

use super::{Site, downloads, explain, files, folders, groups, session, settings, upload};
use crate::answer::object;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Shoal",
        description = "What a client that runs in the background shows and does, on its Unix socket and with --web. \
                       docs/api.md says how to ask."
    ),
    paths(
        session::session,
        session::login,
        session::logout,
        session::change_password,
        session::sessions,
        groups::groups,
        groups::create,
        groups::join,
        groups::leave,
        groups::members,
        groups::requests,
        groups::decide,
        files::shares,
        files::files,
        files::share,
        files::stop,
        files::entries,
        files::peers,
        upload::put,
        downloads::downloads,
        downloads::begin,
        downloads::detail,
        downloads::change,
        downloads::move_to,
        downloads::pause,
        downloads::resume,
        downloads::cancel,
        settings::limits,
        settings::set_limits,
        settings::settings,
        settings::set_settings,
        folders::roots,
        folders::list,
        explain::explain_all,
        explain::explain,
    )
)]
struct Document;

pub(super) fn router() -> Router<Site> {
    Router::new().route("/api/1/openapi.json", get(document))
}

async fn document() -> Response {
    object(StatusCode::OK, &json!(Document::openapi()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To renew it: `SHOAL_RENEW=1 cargo test -p shoal-web openapi`
    #[test]
    fn the_committed_document_is_what_the_code_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let document = json!(Document::openapi());
        if std::env::var_os("SHOAL_RENEW").is_some() {
            std::fs::write(path, serde_json::to_string_pretty(&document).unwrap() + "\n").unwrap();
        }
        let committed: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert!(committed == document, "renew it: SHOAL_RENEW=1 cargo test -p shoal-web openapi");
    }
}
