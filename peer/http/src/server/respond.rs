//! Answers one request: which file, which version of it, which part (RFC 9110). Decides; reading and sending happen in
//! the body.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::response::Builder;
use hyper::{Method, Request, Response, StatusCode};
use shoal_engine::Lack;

use crate::held::HAVE_SUFFIX;
use crate::metalink::{self, MetalinkFile};
use crate::server::body::{Body, Meter, Segment};
use crate::server::buffers::NoRoom;
use crate::server::catalog::{Entry, Found};
use crate::server::digests::{FileDigests, Known};
use crate::server::listing;
use crate::server::opened::Opened;
use crate::server::places::Place;
use crate::server::ranges::{self, Ranges};
use crate::server::site::Site;
use crate::source::answer::{FOLDER, repr_digest};
use crate::url_text::{decode_path, encode_segment};

mod part;

/// Separates the parts of an answer with several; random enough not to be in a file by chance, and it is never searched.
const BOUNDARY: &str = "shoal-7d8f2c1b64e34a06-part";
const METALINK_SUFFIX: &str = ".meta4";

/// The answer to GET, from which the one to HEAD is made.
type Answer = Result<Response<Body>, hyper::http::Error>;

/// Answers a request that came to a server at the address `local`.
pub(super) async fn respond(
    request: Request<Incoming>,
    site: Arc<Site>,
    local: IpAddr,
    meter: Arc<Meter>,
    place: &Arc<Place>,
) -> Answer {
    let head = match *request.method() {
        Method::GET => false,
        Method::HEAD => true,
        _ => {
            let response =
                Response::builder().status(StatusCode::METHOD_NOT_ALLOWED).header(header::ALLOW, "GET, HEAD");
            return response.body(Body::text("only GET and HEAD\n", &meter));
        }
    };
    let asked = Asked {
        head,
        headers: request.headers().clone(),
        segments: decode_path(request.uri().path()),
        folder: request.uri().path().ends_with('/'),
        path: request.uri().path().to_owned(),
        local,
        meter,
    };
    let meter = asked.meter.clone();
    // Those that may be long and cost more than a look at one file.
    let long = asked.folder || [METALINK_SUFFIX, HAVE_SUFFIX].iter().any(|end| asked.path.ends_with(end));
    let turn = if long { meter.buffers.turn().await } else { None };
    // Opening, listing and reading what was kept are blocking.
    let answered = tokio::task::spawn_blocking(move || asked.answer(&site)).await;
    let response = match answered {
        Ok(Ok(answer)) => answer?,
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot serve a request");
            match Lack::of(&error) {
                // There may be descriptors again in a moment.
                Some(Lack::Descriptors | Lack::Memory) => busy(&meter)?,
                _ => plain(StatusCode::INTERNAL_SERVER_ERROR, "cannot read it\n", &meter)?,
            }
        }
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "cannot answer\n", &meter)?,
    };
    if head {
        return Ok(without_body(response, &meter));
    }
    let kept = meter.buffers.text(response.body().text_length(), place);
    drop(turn);
    let (parts, mut body) = response.into_parts();
    match kept {
        Ok(room) => {
            if let Some(room) = room {
                body.keep(room);
            }
            Ok(Response::from_parts(parts, body.to(place)))
        }
        Err(NoRoom) => busy(&meter),
    }
}

/// The answer to HEAD: what GET would say, with the length and without the body. The length of what has not changed is
/// that of the file, and not of the empty answer: it is left out (RFC 9110, section 8.6).
fn without_body(response: Response<Body>, meter: &Arc<Meter>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    if parts.status != StatusCode::NOT_MODIFIED {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.left()));
    }
    Response::from_parts(parts, Body::empty(meter))
}

/// The client may ask again in a moment.
fn busy(meter: &Arc<Meter>) -> Answer {
    Response::builder()
        .status(StatusCode::SERVICE_UNAVAILABLE)
        .header(header::RETRY_AFTER, "1")
        .body(Body::text("too much to do now\n", meter))
}

fn plain(status: StatusCode, text: &'static str, meter: &Arc<Meter>) -> Answer {
    let response =
        Response::builder().status(status).header(header::CONTENT_TYPE, "text/plain; charset=utf-8");
    response.body(Body::text(text, meter))
}

/// The parts of a request that matter.
struct Asked {
    /// Only the headers are wanted.
    head: bool,
    headers: HeaderMap,
    /// `None`: nothing can be there.
    segments: Option<Vec<String>>,
    folder: bool,
    path: String,
    local: IpAddr,
    meter: Arc<Meter>,
}

impl Asked {
    fn answer(self, site: &Site) -> io::Result<Answer> {
        let missing = || plain(StatusCode::NOT_FOUND, "there is no such file\n", &self.meter);
        let Some(segments) = &self.segments else { return Ok(missing()) };
        Ok(match site.catalog().find(segments)? {
            Found::Folder(entries) if self.folder => self.folder(site, segments, &entries),
            Found::Folder(_) => Response::builder()
                .status(StatusCode::MOVED_PERMANENTLY)
                .header(header::LOCATION, format!("{}/", self.path))
                .body(Body::empty(&self.meter)),
            Found::File(_) if self.folder => missing(),
            Found::File(opened) => match opened.part().cloned() {
                Some(part) => self.part(opened, &part),
                None => self.file(site, opened),
            },
            Found::Lost => self.lost(),
            Found::Nothing => {
                let look = |suffix| {
                    let named = without_suffix(segments, suffix);
                    named.map(|segments| site.catalog().find(&segments)).transpose()
                };
                match (look(METALINK_SUFFIX)?, look(HAVE_SUFFIX)?) {
                    (Some(Found::File(opened)), _) => self.metalink(site, segments, &opened),
                    (_, Some(Found::File(opened))) => self.have(&opened),
                    (Some(Found::Lost), _) | (_, Some(Found::Lost)) => self.lost(),
                    _ => missing(),
                }
            }
        })
    }

    fn lost(&self) -> Answer {
        plain(StatusCode::NOT_FOUND, "the file is not there any more: it was moved or deleted\n", &self.meter)
    }

    fn folder(&self, site: &Site, segments: &[String], entries: &[Entry]) -> Answer {
        let path = segments.iter().fold("/".to_owned(), |path, segment| format!("{path}{segment}/"));
        let accept = self.header(header::ACCEPT).unwrap_or_default();
        let builder =
            Response::builder().header(header::VARY, "Accept").header(header::CACHE_CONTROL, "no-cache");
        if accept.contains(metalink::MEDIA_TYPE) {
            let mut files = listing::files(&path, entries, &self.bases(site));
            for (file, segment) in files.iter_mut().zip(entries.iter().filter(|entry| entry.size.is_some())) {
                let mut inner = segments.to_vec();
                inner.push(segment.name.as_str().to_owned());
                // Of an unfinished download its own Metalink tells more.
                if let Ok(Found::File(opened)) = site.catalog().find(&inner)
                    && opened.part().is_none()
                    && let Some(known) = site.digests().known(&opened)
                {
                    describe(file, &known);
                }
            }
            let builder = builder.header(header::CONTENT_TYPE, metalink::MEDIA_TYPE);
            return builder.body(Body::text(metalink::write(&files), &self.meter));
        }
        let builder = builder.header(header::CONTENT_TYPE, "text/html; charset=utf-8").header(FOLDER, "1");
        builder.body(Body::text(listing::page(&path, entries), &self.meter))
    }

    fn metalink(&self, site: &Site, segments: &[String], opened: &Opened) -> Answer {
        let path = segments.iter().fold(String::new(), |path, segment| format!("{path}/{segment}"));
        let path = path.strip_suffix(METALINK_SUFFIX).unwrap_or(&path);
        if let Some(part) = opened.part() {
            return self.part_metalink(site, path, opened, part);
        }
        match site.digests().of(opened) {
            Ok(Known::Ready(known)) => {
                let mut file = MetalinkFile {
                    size: Some(opened.version().size),
                    urls: listing::urls(path, &self.bases(site)),
                    ..MetalinkFile::named(opened.name().clone())
                };
                describe(&mut file, &known);
                Response::builder()
                    .header(header::CONTENT_TYPE, metalink::MEDIA_TYPE)
                    .body(Body::text(metalink::write(&[file]), &self.meter))
            }
            Ok(Known::Computing { done }) => {
                let percent = done * 100 / opened.version().size.max(1);
                Response::builder()
                    .status(StatusCode::SERVICE_UNAVAILABLE)
                    .header(header::RETRY_AFTER, "1")
                    .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
                    .body(Body::text(format!("computing digests: {percent} %\n"), &self.meter))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot compute digests");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "cannot read the file\n", &self.meter)
            }
        }
    }

    fn file(&self, site: &Site, opened: Opened) -> Answer {
        let (etag, modified) = (opened.version().etag(), opened.version().last_modified());
        let size = opened.version().size;
        let builder = self.describing(&opened, site.digests().at_once(&opened).as_deref());
        if let Some(status) = self.condition(&etag, modified) {
            return builder.status(status).body(Body::empty(&self.meter));
        }
        let ranges = match self.header(header::RANGE) {
            // Only GET has ranges (RFC 9110, section 14.2).
            Some(value) if !self.head && self.range_applies(&etag, modified) => ranges::parse(value, size),
            _ => Ranges::Whole,
        };
        let file = Some(Arc::new(opened));
        match ranges {
            Ranges::Whole => {
                builder.body(Body::new(vec![Segment::File(0, size)], file.filter(|_| size > 0), &self.meter))
            }
            Ranges::Unsatisfiable => builder
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{size}"))
                .body(Body::empty(&self.meter)),
            Ranges::Parts(parts) => match parts[..] {
                [(first, last)] => builder
                    .status(StatusCode::PARTIAL_CONTENT)
                    .header(header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}"))
                    .body(Body::new(vec![Segment::File(first, last - first + 1)], file, &self.meter)),
                _ => {
                    let mut response = builder.status(StatusCode::PARTIAL_CONTENT).body(Body::new(
                        multipart(&parts, size),
                        file,
                        &self.meter,
                    ))?;
                    response.headers_mut().insert(header::CONTENT_TYPE, multipart_type()?);
                    Ok(response)
                }
            },
        }
    }

    /// The headers of every answer about a file.
    fn describing(&self, opened: &Opened, known: Option<&FileDigests>) -> Builder {
        let version = opened.version();
        let metalink = format!("{}{METALINK_SUFFIX}", encode_segment(opened.name().as_str()));
        let builder = Response::builder()
            .header(header::ACCEPT_RANGES, "bytes")
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
            .header(header::ETAG, version.etag())
            .header(header::LAST_MODIFIED, httpdate::fmt_http_date(version.last_modified()))
            .header(
                header::LINK,
                format!("<{metalink}>; rel=describedby; type=\"{}\"", metalink::MEDIA_TYPE),
            );
        match known.and_then(|known| repr_digest(&known.digests)) {
            Some(digest) => builder.header(HeaderName::from_static("repr-digest"), digest),
            None => builder,
        }
    }

    /// Evaluates the request's conditions in the order of RFC 9110, section 13.2.2; `None`: they hold.
    fn condition(&self, etag: &str, modified: SystemTime) -> Option<StatusCode> {
        let date = |name| httpdate::parse_http_date(self.header(name)?).ok();
        match self.header(header::IF_MATCH) {
            Some(tags) if !matches(tags, etag) => return Some(StatusCode::PRECONDITION_FAILED),
            Some(_) => {}
            None => {
                if date(header::IF_UNMODIFIED_SINCE).is_some_and(|date| modified > date) {
                    return Some(StatusCode::PRECONDITION_FAILED);
                }
            }
        }
        let unchanged = match self.header(header::IF_NONE_MATCH) {
            Some(tags) => matches(tags, etag),
            None => date(header::IF_MODIFIED_SINCE).is_some_and(|date| modified <= date),
        };
        unchanged.then_some(StatusCode::NOT_MODIFIED)
    }

    /// Whether the range is wanted of this version.
    fn range_applies(&self, etag: &str, modified: SystemTime) -> bool {
        match self.header(header::IF_RANGE) {
            None => true,
            Some(value) if value.starts_with('"') => value == etag,
            Some(value) => httpdate::parse_http_date(value).is_ok_and(|date| date == modified),
        }
    }

    /// The addresses of all servers, as the requester would write them.
    fn bases(&self, site: &Site) -> Vec<String> {
        let host = self.header(header::HOST).and_then(host_of).map_or_else(
            || match self.local {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => {
                    address.to_ipv4_mapped().map_or_else(|| format!("[{address}]"), |v4| v4.to_string())
                }
            },
            str::to_owned,
        );
        site.ports().iter().map(|port| format!("http://{host}:{port}")).collect()
    }

    fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The segments without this suffix of the last.
fn without_suffix(segments: &[String], suffix: &str) -> Option<Vec<String>> {
    let (last, folder) = segments.split_last()?;
    let name = last.strip_suffix(suffix).filter(|name| !name.is_empty())?;
    Some(folder.iter().cloned().chain([name.to_owned()]).collect())
}

fn describe(file: &mut MetalinkFile, known: &FileDigests) {
    file.digests = known.digests;
    file.pieces = Some(known.pieces.clone()).filter(|pieces| !pieces.digests.is_empty());
}

/// Whether a list of entity tags holds this one; weakness does not matter, ours are strong.
fn matches(tags: &str, etag: &str) -> bool {
    tags.trim() == "*" || tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag)
}

/// The host in a `Host` header without its port, if it is one that a URL may hold.
fn host_of(header: &str) -> Option<&str> {
    let host = match header.strip_prefix('[') {
        Some(rest) => &header[..rest.find(']')? + 2],
        None => header.split(':').next()?,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let bracketed = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.' | '[' | ']');
    let right = !host.is_empty()
        && host.len() <= 255
        && (host.chars().all(plain) || host.starts_with('[') && host.chars().all(bracketed));
    right.then_some(host)
}

fn multipart_type() -> Result<HeaderValue, hyper::http::Error> {
    Ok(HeaderValue::from_str(&format!("multipart/byteranges; boundary={BOUNDARY}"))?)
}

/// The body of an answer with several parts (RFC 9110, section 14.6).
fn multipart(parts: &[(u64, u64)], size: u64) -> Vec<Segment> {
    let mut segments = Vec::new();
    for &(first, last) in parts {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n"
        );
        segments.push(Segment::Text(head.into()));
        segments.push(Segment::File(first, last - first + 1));
        segments.push(Segment::Text(Bytes::from_static(b"\r\n")));
    }
    segments.push(Segment::Text(format!("--{BOUNDARY}--\r\n").into()));
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_come_back_in_urls() {
        for (header, host) in [
            ("example.org:80", Some("example.org")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("[::1]:8080", Some("[::1]")),
            ("", None),
            ("a/b", None),
            ("a b", None),
            ("[<x>]", None),
            ("[", None),
        ] {
            assert_eq!(host_of(header), host, "{header}");
        }
    }

    #[test]
    fn tags_are_compared_one_by_one() {
        assert!(matches("*", "\"a\"") && matches("\"b\", W/\"a\"", "\"a\"") && !matches("\"ab\"", "\"a\""));
    }
}
