//! The page for a browser. It holds no data, so it is served without a token; what it shows, it asks for with one.

use axum::Router;

/// Where the page's own files are.
const ASSETS: &str = "/assets/";

/// What is served to a browser: `/`, and what belongs to the page below `/assets/`.
pub(crate) fn router() -> Router {
    Router::new()
}

/// Whether an address is the page's or one of its files'.
pub(crate) fn is_page(path: &str) -> bool {
    path == "/" || path.starts_with(ASSETS)
}
