//! The page that people use in a browser: a shell, and the scripts and the style that it loads. They hold no data: everything that
//! the page shows it asks the API for, with its token. Whatever a name from the network holds, it is text there.

mod assets;
#[cfg(test)]
mod theme_tests;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

use crate::VERSION;
use crate::answer::problem;

/// What the page may do: load what this program serves, and nothing else. A string never becomes markup or script in it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; media-src 'self'; \
     manifest-src 'none'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'",
);

/// What the browser loads first.
#[derive(Template)]
#[template(path = "shell.html")]
struct Shell<'a> {
    /// The program's version: the page notices that another one answers.
    version: &'a str,
    /// The scripts, so that they are fetched side by side and not one after the other.
    modules: Vec<&'static str>,
}

/// Where the page's own files are.
const ASSETS: &str = "/assets/";

/// Whether an address is the page's or one of its files'.
pub(crate) fn is_page(path: &str) -> bool {
    path == "/" || path.starts_with(ASSETS)
}

/// Serves `/` and what lies below `/assets/`.
pub(crate) fn router() -> Router {
    Router::new().route("/", get(shell)).route("/assets/{*name}", get(asset))
}

/// The page. It is at one address: a name such as `localhost` may lead elsewhere, too, where another user's program listens.
async fn shell(headers: HeaderMap) -> Response {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if let Some(port) = host.strip_prefix("localhost") {
        return Redirect::temporary(&format!("http://127.0.0.1{port}/")).into_response();
    }
    match (Shell { version: VERSION, modules: assets::modules().collect() }).render() {
        Ok(text) => {
            let kind = HeaderValue::from_static("text/html; charset=utf-8");
            let kept = HeaderValue::from_static("no-store");
            let headers = [
                (header::CONTENT_TYPE, kind),
                (header::CACHE_CONTROL, kept),
                (header::CONTENT_SECURITY_POLICY, POLICY),
            ];
            (headers, text).into_response()
        }
        Err(error) => {
            problem(StatusCode::INTERNAL_SERVER_ERROR, &format!("the page cannot be written: {error}"))
        }
    }
}

/// One file. The browser keeps it, and asks each time whether it is still the same.
async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some(asset) = assets::find(&name) else {
        return problem(StatusCode::NOT_FOUND, "the page has no such file; load it again");
    };
    let listed = |name: HeaderName, wanted: &str| {
        let texts = headers.get_all(name).iter().filter_map(|text| text.to_str().ok());
        texts.flat_map(|text| text.split(',')).any(|part| part.trim() == wanted)
    };
    let mut answer = if listed(header::IF_NONE_MATCH, &asset.tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else if listed(header::ACCEPT_ENCODING, "gzip") {
        ([(header::CONTENT_ENCODING, "gzip")], asset.packed.as_slice()).into_response()
    } else {
        asset.text.as_str().into_response()
    };
    let to = answer.headers_mut();
    to.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    to.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    to.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    to.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    if let Ok(tag) = HeaderValue::from_str(&asset.tag) {
        to.insert(header::ETAG, tag);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What all files of the page may take together, as a browser gets them.
    const MOST: usize = 60_000;

    #[test]
    fn the_page_is_small_and_runs_no_script_but_its_own() {
        let shell = Shell { version: VERSION, modules: assets::modules().collect() }.render().unwrap();
        let all = assets::all().map(|asset| asset.packed.len()).sum::<usize>() + shell.len();
        assert!(all <= MOST, "the page's files have {all} bytes; at most {MOST}");
        assert!(!shell.contains("style=") && !shell.contains("onclick"), "{shell}");
        for asset in assets::all() {
            for markup in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"]
            {
                assert!(!asset.text.contains(markup), "{}: {markup}", asset.name);
            }
            for elsewhere in ["https://", "//cdn", "url(http"] {
                assert!(!asset.text.contains(elsewhere), "{}: {elsewhere}", asset.name);
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_the_browser_has_is_not_sent_again() {
        let name = || Path("app.js".to_owned());
        let first = asset(name(), HeaderMap::new()).await;
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[header::ETAG].clone();
        for (given, status) in [
            (tag.clone(), StatusCode::NOT_MODIFIED),
            (HeaderValue::from_static("\"other\""), StatusCode::OK),
            (HeaderValue::from_static("*, x"), StatusCode::OK),
        ] {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, given)]);
            assert_eq!(asset(name(), headers).await.status(), status);
        }
        assert_eq!(
            asset(Path("../keys.rs".to_owned()), HeaderMap::new()).await.status(),
            StatusCode::NOT_FOUND
        );
    }

    #[test]
    fn every_script_that_is_imported_is_there() {
        for asset in assets::all().filter(|asset| asset.name.ends_with(".js")) {
            for line in asset.text.lines().filter(|line| line.contains(" from '")) {
                let path = line.split(" from '").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
                let name = path.trim_start_matches('.').trim_start_matches("./").trim_start_matches('/');
                let within = if path.starts_with("./") {
                    asset
                        .name
                        .rsplit_once('/')
                        .map_or(name.to_owned(), |(folder, _)| format!("{folder}/{name}"))
                } else {
                    name.to_owned()
                };
                assert!(assets::find(&within).is_some(), "{}: {path}", asset.name);
            }
        }
    }
}
