//! Answers about a file of which only a part is there, because it is still being downloaded. Parts that are durable are
//! sent; for the others the answer is 503, because they may come. There are no validators: the finished file has others.

use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::response::Builder;
use hyper::{Response, StatusCode};
use shoal_engine::Verification;
use std::sync::Arc;

use super::{Answer, Asked, METALINK_SUFFIX, multipart, multipart_type};
use crate::held::{HAVE, HAVE_SUFFIX, Held};
use crate::metalink::{self, MetalinkFile, Pieces};
use crate::server::body::{Body, Segment};
use crate::server::listing;
use crate::server::opened::{Opened, Part};
use crate::server::ranges::{self, Ranges};
use crate::server::site::Site;
use crate::source::answer::repr_digest;
use crate::url_text::encode_segment;

/// When a requester may ask again for what is missing, in seconds: about what a checkpoint of the download takes.
const ASK_AGAIN: &str = "2";

impl Asked {
    /// An answer about a part of a file.
    pub(super) fn part(&self, opened: Opened, part: &Part) -> Answer {
        let size = part.held.size();
        let builder = Self::describing_part(&opened, part);
        // Only `*` matches a file without a tag (RFC 9110, section 13.1.1).
        if self.header(header::IF_MATCH).is_some_and(|tags| tags.trim() != "*") {
            return builder.status(StatusCode::PRECONDITION_FAILED).body(Body::empty(&self.meter));
        }
        let ranges = match self.header(header::RANGE) {
            Some(value) if !self.head && self.header(header::IF_RANGE).is_none() => {
                ranges::parse(value, size)
            }
            _ => Ranges::Whole,
        };
        let held = part.held.clone();
        let file = Some(Arc::new(opened)).filter(|_| size > 0);
        match ranges {
            Ranges::Whole if self.head || held.is_all() => {
                builder.body(Body::new(vec![Segment::File(0, size)], file, &self.meter))
            }
            Ranges::Whole => self.missing(builder, &held),
            Ranges::Unsatisfiable => builder
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{size}"))
                .body(Body::empty(&self.meter)),
            Ranges::Parts(parts) => match parts[..] {
                // As far as it is there: a server may send less than was asked for (RFC 9110, section 15.3.7).
                [(first, last)] => match held.end_of(first).map(|end| end.min(last)) {
                    Some(last) => builder
                        .status(StatusCode::PARTIAL_CONTENT)
                        .header(header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}"))
                        .body(Body::new(vec![Segment::File(first, last - first + 1)], file, &self.meter)),
                    None => self.missing(builder, &held),
                },
                _ if parts.iter().all(|&(first, last)| held.end_of(first).is_some_and(|end| end >= last)) => {
                    let body = Body::new(multipart(&parts, size), file, &self.meter);
                    let mut response = builder.status(StatusCode::PARTIAL_CONTENT).body(body)?;
                    response.headers_mut().insert(header::CONTENT_TYPE, multipart_type()?);
                    Ok(response)
                }
                _ => self.missing(builder, &held),
            },
        }
    }

    fn missing(&self, builder: Builder, held: &Held) -> Answer {
        let mut response = builder
            .status(StatusCode::SERVICE_UNAVAILABLE)
            .header(header::RETRY_AFTER, ASK_AGAIN)
            .body(Body::text(
                format!(
                    "this part of the file is not here yet: it is being downloaded, {} of {} bytes are here; NAME{HAVE_SUFFIX} says which\n",
                    held.bytes(),
                    held.size()
                ),
                &self.meter,
            ))?;
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        Ok(response)
    }

    /// The headers of every answer about a part of a file.
    fn describing_part(opened: &Opened, part: &Part) -> Builder {
        let name = encode_segment(opened.name().as_str());
        let builder = Response::builder()
            .header(header::ACCEPT_RANGES, "bytes")
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
            .header(header::CACHE_CONTROL, "no-store")
            .header(HAVE, format!("{name}{HAVE_SUFFIX}"))
            .header(
                header::LINK,
                format!("<{name}{METALINK_SUFFIX}>; rel=describedby; type=\"{}\"", metalink::MEDIA_TYPE),
            );
        match repr_digest(part.content.digest()) {
            Some(digest) => builder.header(HeaderName::from_static("repr-digest"), digest),
            None => builder,
        }
    }

    /// The Metalink of a file of which a part is there: digests as its download knows them.
    pub(super) fn part_metalink(&self, site: &Site, path: &str, opened: &Opened, part: &Part) -> Answer {
        let content = &part.content;
        let pieces = match content.verification() {
            Verification::Sha1(digests) if !digests.is_empty() => {
                let length = u64::from(content.layout().piece_length());
                Some(Pieces { length, digests: digests.clone() })
            }
            _ => None,
        };
        let file = MetalinkFile {
            size: Some(content.layout().size()),
            digests: *content.digest(),
            pieces,
            urls: listing::urls(path, &self.bases(site)),
            ..MetalinkFile::named(opened.name().clone())
        };
        Response::builder()
            .header(header::CONTENT_TYPE, metalink::MEDIA_TYPE)
            .header(header::CACHE_CONTROL, "no-store")
            .header(HAVE, format!("{}{HAVE_SUFFIX}", encode_segment(opened.name().as_str())))
            .body(Body::text(metalink::write(&[file]), &self.meter))
    }

    /// Which parts of a file are there.
    pub(super) fn have(&self, opened: &Opened) -> Answer {
        let held = match opened.part() {
            Some(part) => part.held.to_string(),
            None => Held::all(opened.version().size).to_string(),
        };
        Response::builder()
            .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .header(header::CACHE_CONTROL, "no-store")
            .body(Body::text(held + "\n", &self.meter))
    }
}
