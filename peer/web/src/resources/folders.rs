//! The folders that may be chosen from, and what is in them.

use std::path::PathBuf;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use rustix::fs::FileType;
use serde_json::json;
use shoal_disk::Held;

use super::refusal::Refusal;
use super::{Site, answered};
use crate::answer::object;
use crate::roots::Refused;
use crate::schema::answers::{Listed, Listing, Problem, Roots};

/// Entries of a folder that are given, at most.
const MAX_GIVEN: usize = 10_000;
/// Entries that are looked through for them: sorting needs all, and a folder may have millions.
const MAX_READ: usize = 100_000;

pub(super) fn router() -> Router<Site> {
    Router::new().route("/api/1/roots", get(roots)).route("/api/1/roots/list", get(list))
}

/// The folders that a page may reach
#[utoipa::path(
    get,
    path = "/api/1/roots",
    responses((status = 200, body = Roots), (status = "4XX", body = Problem))
)]
pub(super) async fn roots(State(site): State<Site>) -> Response {
    answered(site.roots().await.map(|roots| json!({ "roots": roots, "limited": site.is_limited() })))
}

/// What is in such a folder
#[utoipa::path(
    get,
    path = "/api/1/roots/list",
    params(("path" = String, Query, description = "A folder's whole path")),
    responses((status = 200, body = Listing), (status = "4XX", body = Problem))
)]
pub(super) async fn list(State(site): State<Site>, RawQuery(query): RawQuery) -> Response {
    let Some(path) = super::query_path(query.as_deref(), "path") else {
        return Refusal::Malformed("give ?path= with a folder's whole path, from / on".to_owned())
            .into_response();
    };
    match listed(&site, path).await {
        Ok(listing) => object(StatusCode::OK, &json!(listing)),
        Err(refusal) => refusal.into_response(),
    }
}

async fn listed(site: &Site, path: PathBuf) -> Result<Listing, Refusal> {
    let held = site.find(path.clone()).await?;
    let read = tokio::task::spawn_blocking(move || {
        let unusable = |error| Refused::Unusable { path: path.clone(), error };
        if !held.is_folder().map_err(unusable)? {
            return Err(Refused::OtherKind { path, expected: "folder" });
        }
        read(&held).map_err(unusable)
    });
    Ok(read.await.map_err(|stopped| Refusal::Stopped(stopped.to_string()))??)
}

fn read(folder: &Held) -> std::io::Result<Listing> {
    let mut listing =
        Listing { path: folder.real_path()?.to_string_lossy().into_owned(), ..Listing::default() };
    for (read, entry) in folder.entries()?.enumerate() {
        if read >= MAX_READ {
            listing.more = true;
            break;
        }
        let entry = entry?;
        // Neither `.` and `..`, nor what is hidden; a name that is no text cannot be shared.
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name.starts_with('.') {
            continue;
        }
        // One that went meanwhile is not listed.
        let Ok(found) = folder.entry(name.as_ref()) else { continue };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => listing.folders.push(name.to_owned()),
            FileType::RegularFile => {
                let size = u64::try_from(found.st_size).unwrap_or(0);
                listing.files.push(Listed { name: name.to_owned(), size });
            }
            _ => {}
        }
    }
    listing.folders.sort_unstable();
    listing.files.sort_unstable();
    listing.more |= listing.folders.len() > MAX_GIVEN;
    listing.folders.truncate(MAX_GIVEN);
    let left = MAX_GIVEN - listing.folders.len();
    listing.more |= listing.files.len() > left;
    listing.files.truncate(left);
    Ok(listing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_disk::Beneath;
    use std::path::Path;

    #[test]
    fn a_folder_is_listed_sorted_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let root = |path: &Path| Beneath::open(path).unwrap().find(Path::new("")).unwrap();
        for folder in ["z", "a", ".hidden"] {
            std::fs::create_dir(dir.path().join(folder)).unwrap();
        }
        std::fs::write(dir.path().join("b.bin"), "12345").unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        let listing = read(&root(dir.path())).unwrap();
        assert_eq!(listing.folders, ["a", "z"]);
        assert_eq!(listing.files, [Listed { name: "b.bin".into(), size: 5 }]);
        assert!(!listing.more);
        for number in 0..MAX_GIVEN {
            std::fs::write(dir.path().join(format!("a/{number:05}")), "").unwrap();
        }
        let full = read(&root(&dir.path().join("a"))).unwrap();
        assert!(full.files.len() == MAX_GIVEN && !full.more && full.files[9].name == "00009");
        std::fs::write(dir.path().join("a/x"), "").unwrap();
        let over = read(&root(&dir.path().join("a"))).unwrap();
        assert!(over.more && over.files.len() == MAX_GIVEN);
    }
}
