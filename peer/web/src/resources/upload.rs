//! A file that comes with a request: a page's drag and drop. It is written beside its place under a hidden name, put in place when it
//! is whole, and shared. It replaces nothing, and where it breaks off nothing of it stays.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use rustix::fs::FallocateFlags;
use shoal_client::FileRef;
use shoal_common::FileName;
use shoal_disk::Held;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::named::NamedFile;
use super::refusal::Refusal;
use super::{Site, done};
use crate::roots::Refused;
use crate::schema::answers::{Problem, SharedFile};

/// Parts of a body that wait for the disk; each is at most what is read from the connection at once.
const AHEAD: usize = 8;
/// How long a part of a body may take to come.
const PART_WITHIN: Duration = Duration::from_secs(30);
/// After that long, a body must have come at the slowest rate that is taken.
const GRACE: Duration = Duration::from_secs(60);
/// The slowest rate, in bytes per second: whoever sends less holds a place and nothing else.
const SLOWEST: u64 = 1_024;
/// For how long the rest of a body that is refused is passed over: one that sends, reads no answer before its end.
const PASS_OVER: Duration = Duration::from_secs(3);
/// How the hidden names begin.
const PREFIX: &str = ".shoal-";

/// Send a file, which is copied into a folder and shared; it replaces nothing
#[utoipa::path(
    put,
    path = "/api/1/groups/{group}/files/{file}",
    params(
        ("group" = String, Path),
        ("file" = String, Path),
        ("folder" = Option<String>, Query, description = "The whole path of the folder; the download folder without it")
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = SharedFile), (status = "4XX", body = Problem))
)]
pub(super) async fn put(
    State(site): State<Site>,
    NamedFile(file): NamedFile,
    RawQuery(query): RawQuery,
    request: Request,
) -> Response {
    let folder = super::query_path(query.as_deref(), "folder");
    if folder.is_none() && query.is_some_and(|query| query.contains("folder=")) {
        return super::malformed("give the folder's whole path, from / on");
    }
    let (parts, mut body) = request.into_parts();
    match take(&site, file, folder, &parts.headers, &mut body).await {
        Ok(shared) => done(Ok::<_, Refusal>(shared)),
        Err(refusal) => {
            // Who waits for leave to send needs none of it to be read.
            if !parts.headers.contains_key(header::EXPECT) {
                let rest = async { while let Some(Ok(_)) = body.frame().await {} };
                let _ = timeout(PASS_OVER, rest).await;
            }
            refusal.into_response()
        }
    }
}

async fn take(
    site: &Site,
    file: FileRef,
    folder: Option<PathBuf>,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<shoal_client::SharedFile, Refusal> {
    let _place = site.upload_place()?;
    let name = FileName::create(file.file.as_str()).map_err(|error| Refusal::Malformed(error.to_string()))?;
    if site.is_limited() && name.as_str().starts_with('.') {
        return Err(Refused::Hidden(name.as_str().into()).into());
    }
    site.client.may_share(&file.group).await?;
    let (held, real) = site.folder(folder).await?;
    let (folder, path) = (Arc::new(held), real.join(name.as_str()));
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let partial = {
        let (folder, name, path) = (folder.clone(), name.clone(), path.clone());
        blocking(move || Partial::begin(folder, name.as_str().as_ref(), &path, length)).await?
    };
    let partial = write(partial, body, &path).await?;
    let site = site.clone();
    let work = site.clone();
    site.lasting(async move {
        let mut placed = blocking(move || partial.place(name.as_str().as_ref(), &path)).await?;
        let shared = work.client.upload_held(&placed.file, file.group).await?;
        placed.is_shared = true;
        Ok(shared)
    })
    .await
}

/// Writes a body as it comes.
async fn write(partial: Partial, body: &mut Body, path: &std::path::Path) -> Result<Partial, Refusal> {
    let (sender, mut parts) = mpsc::channel::<Bytes>(AHEAD);
    let at = path.to_owned();
    let writer = tokio::task::spawn_blocking(move || {
        let mut partial = partial;
        while let Some(part) = parts.blocking_recv() {
            partial.file.write_all(&part).map_err(|error| failed(&at, error))?;
        }
        Ok(partial)
    });
    let (begun, mut came) = (Instant::now(), 0_u64);
    let end = loop {
        let Ok(next) = timeout(PART_WITHIN, body.frame()).await else { break Err(Refusal::TooSlow) };
        match next {
            None => break Ok(()),
            Some(Err(_)) => break Err(Refusal::CutOff),
            Some(Ok(frame)) => {
                let Ok(part) = frame.into_data() else { continue };
                came += part.len() as u64;
                // The writer says itself why it ended.
                if sender.send(part).await.is_err() {
                    break Ok(());
                }
            }
        }
        let waited = begun.elapsed();
        if waited > GRACE && came / waited.as_secs().max(1) < SLOWEST {
            break Err(Refusal::TooSlow);
        }
    };
    drop(sender);
    let written = writer.await.map_err(|stopped| Refusal::Stopped(stopped.to_string()))?;
    end.and(written)
}

/// A file that is being written, under a hidden name. It goes when this is dropped.
struct Partial {
    folder: Arc<Held>,
    name: OsString,
    file: File,
    is_placed: bool,
}

/// A file that is whole and in its place. Unless it comes to be shared, it goes when this is dropped: the one who sent it has it
/// still; here it would only be in the way.
struct Placed {
    folder: Arc<Held>,
    name: OsString,
    file: Held,
    is_shared: bool,
}

impl Drop for Placed {
    fn drop(&mut self) {
        if !self.is_shared {
            remove(&self.folder, &self.name);
        }
    }
}

impl Partial {
    /// Begins one, with room for all of it where its length is known.
    fn begin(
        folder: Arc<Held>,
        name: &OsStr,
        path: &std::path::Path,
        length: Option<u64>,
    ) -> Result<Self, Refusal> {
        if folder.entry(name).is_ok() {
            return Err(Refusal::Exists(path.to_owned()));
        }
        let free = folder.free().map_err(|error| failed(path, error))?;
        if let (Some(length), Some(free)) = (length, free)
            && length > free
        {
            return Err(Refusal::Full { path: path.to_owned(), lacking: length - free });
        }
        let hidden =
            OsString::from(format!("{PREFIX}{:016x}.part", random().map_err(|error| failed(path, error))?));
        let file = folder.create(&hidden).map_err(|error| failed(path, error))?;
        let partial = Self { folder, name: hidden, file, is_placed: false };
        if let Some(length) = length.filter(|&length| length > 0) {
            let reserved = rustix::fs::fallocate(partial.file.as_fd(), FallocateFlags::KEEP_SIZE, 0, length);
            match reserved.map_err(io::Error::from) {
                Err(error) if !shoal_disk::is_refused(&error) => return Err(failed(path, error)),
                _ => {}
            }
        }
        Ok(partial)
    }

    /// Makes it durable and gives it its name, unless that is taken by now.
    fn place(mut self, name: &OsStr, path: &std::path::Path) -> Result<Placed, Refusal> {
        shoal_disk::sync_file(&self.file).map_err(|error| failed(path, error))?;
        let file = self.file.try_clone().map_err(|error| failed(path, error))?;
        self.folder.rename_new(&self.name, name).map_err(|error| failed(path, error))?;
        self.is_placed = true;
        let placed = Placed {
            folder: self.folder.clone(),
            name: name.to_owned(),
            file: file.into(),
            is_shared: false,
        };
        shoal_disk::sync_folder(&self.folder.path()).map_err(|error| failed(path, error))?;
        Ok(placed)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_placed {
            remove(&self.folder, &self.name);
        }
    }
}

/// Removes what was sent.
fn remove(folder: &Held, name: &OsStr) {
    if let Err(error) = folder.remove(name) {
        tracing::warn!("what was sent of a file cannot be removed: {error}");
    }
}

fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}

fn failed(path: &std::path::Path, error: io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::AlreadyExists => Refusal::Exists(path.to_owned()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Refusal::Full { path: path.to_owned(), lacking: 0 }
        }
        _ => Refused::Unusable { path: path.to_owned(), error }.into(),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|stopped| Err(Refusal::Stopped(stopped.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_placed_goes_unless_it_comes_to_be_shared() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        let place = || {
            let folder = Arc::new(Held::open(dir.path()).unwrap());
            let partial = Partial::begin(folder, "a.bin".as_ref(), &path, Some(0)).ok().unwrap();
            partial.place("a.bin".as_ref(), &path).ok().unwrap()
        };
        let placed = place();
        assert!(path.exists());
        drop(placed);
        assert!(!path.exists());
        place().is_shared = true;
        assert!(path.exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
