//! What the headers of an answer say: ranges, versions, digests, and when to come back. All of it is a stranger's claim.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use reqwest::header::{self, HeaderMap};
use shoal_common::{Digests, Md5, Sha1, Sha224, Sha256, Sha384, Sha512};

/// Marks the pages that our own server shows of folders, so that `fetch` does not take them for files.
pub const FOLDER: &str = "shoal-folder";

/// A `Content-Range`: bytes from `first` to `last`, both included, of `total` if that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// The first byte's offset.
    pub first: u64,
    /// The last byte's offset.
    pub last: u64,
    /// Size of the whole file in bytes.
    pub total: Option<u64>,
}

/// The `Content-Range` of an answer with a part; `None` if there is none that makes sense.
#[must_use]
pub fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let (range, total) = range_text(headers)?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    let range = ContentRange { first: first.trim().parse().ok()?, last: last.trim().parse().ok()?, total };
    (range.first <= range.last && range.total.is_none_or(|total| range.last < total)).then_some(range)
}

/// The size that an answer names which refuses a range: `Content-Range: bytes */SIZE`.
#[must_use]
pub fn refused_size(headers: &HeaderMap) -> Option<u64> {
    range_text(headers)?.strip_prefix("*/")?.trim().parse().ok()
}

fn range_text(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.trim();
    let (unit, range) = text.split_at_checked("bytes".len())?;
    // Some write it as a request is written: `bytes=0-9/10`.
    unit.eq_ignore_ascii_case("bytes").then(|| range.trim_start_matches([' ', '\t', '=', ':']))
}

/// The coding of the body, if it has one although none was asked for. It is saved as it comes, as curl does: of an archive
/// that servers call coded the file is meant, not what is in it.
#[must_use]
pub fn coding(headers: &HeaderMap) -> Option<String> {
    let codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let codings: Vec<String> = codings
        .filter_map(|coding| Some(coding.to_str().ok()?.trim().to_ascii_lowercase()))
        .filter(|coding| !matches!(coding.as_str(), "" | "identity"))
        .collect();
    (!codings.is_empty()).then(|| codings.join(", "))
}

/// Whether a server that answers so may have the file and only refuse requests for parts.
#[must_use]
pub fn dislikes_range(status: StatusCode, headers: &HeaderMap) -> bool {
    match status {
        StatusCode::RANGE_NOT_SATISFIABLE => refused_size(headers).is_none(),
        StatusCode::BAD_REQUEST
        | StatusCode::FORBIDDEN
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::NOT_ACCEPTABLE
        | StatusCode::NOT_IMPLEMENTED => true,
        _ => false,
    }
}

/// How long the server asks to wait, in seconds or until a date.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok(),
    }
}

/// Whether a server that answers so may answer otherwise when it is asked again.
pub fn is_passing(status: StatusCode) -> bool {
    let never = matches!(status, StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED);
    !never && status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

/// What tells two versions of a file at one URL apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Validators {
    /// The `ETag`, as it stands but for its mark of weakness.
    pub etag: Option<String>,
    /// The `Last-Modified` date, as it stands.
    pub last_modified: Option<String>,
}

impl Validators {
    /// Those of an answer.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name)?.to_str().ok().map(str::to_owned);
        // Whether it is weak says nothing of two answers to the same question.
        let etag = text(header::ETAG).map(|etag| etag.trim_start_matches("W/").to_owned());
        Self { etag, last_modified: text(header::LAST_MODIFIED) }
    }

    /// Whether `other` can be of the same version: what both name is equal.
    #[must_use]
    pub fn allow(&self, other: &Self) -> bool {
        let same = |ours: &Option<String>, theirs: &Option<String>| {
            ours.is_none() || theirs.is_none() || ours == theirs
        };
        same(&self.etag, &other.etag) && same(&self.last_modified, &other.last_modified)
    }

    /// Whether both name the same ETag or the same date.
    #[must_use]
    pub fn agrees_in_one(&self, other: &Self) -> bool {
        self.etag.is_some() && self.etag == other.etag
            || self.last_modified.is_some() && self.last_modified == other.last_modified
    }

    /// Takes over what was not known.
    pub fn learn(&mut self, other: Self) {
        self.etag = self.etag.take().or(other.etag);
        self.last_modified = self.last_modified.take().or(other.last_modified);
    }
}

/// The digests of the whole file that an answer publishes: `Repr-Digest` (RFC 9530), or the older `Digest` (RFC 3230).
#[must_use]
pub fn digests(headers: &HeaderMap) -> Digests {
    let mut digests = Digests::default();
    for (name, dictionary) in [("repr-digest", true), ("digest", false)] {
        for value in headers.get_all(name) {
            for member in value.to_str().unwrap_or_default().split(',') {
                let Some((kind, digest)) = member.trim().split_once('=') else { continue };
                let text = if dictionary { digest.trim_matches(':') } else { digest };
                let Ok(bytes) = STANDARD.decode(text) else { continue };
                if let Some(read) = of_kind(kind, &bytes) {
                    digests = read.or(&digests);
                }
            }
        }
    }
    digests
}

/// The digest of the kind that is called so, in a Metalink or a header: names are those of IANA's registry, and how they are
/// written otherwise. `None` if the kind is not computed, or the length is another.
#[must_use]
pub fn of_kind(kind: &str, bytes: &[u8]) -> Option<Digests> {
    let none = Digests::default();
    let name: String = kind.trim().to_ascii_lowercase().chars().filter(|c| !matches!(c, '-' | '_')).collect();
    Some(match name.as_str() {
        "sha" | "sha1" => Digests { sha1: Some(Sha1(bytes.try_into().ok()?)), ..none },
        "sha224" => Digests { sha224: Some(Sha224(bytes.try_into().ok()?)), ..none },
        "sha256" => Digests { sha256: Some(Sha256(bytes.try_into().ok()?)), ..none },
        "sha384" => Digests { sha384: Some(Sha384(bytes.try_into().ok()?)), ..none },
        "sha512" => Digests { sha512: Some(Sha512(bytes.try_into().ok()?)), ..none },
        "md5" => Digests { md5: Some(Md5(bytes.try_into().ok()?)), ..none },
        _ => return None,
    })
}

/// The `Repr-Digest` that says these digests; `None` if none of them has a place there.
#[must_use]
pub fn repr_digest(digests: &Digests) -> Option<String> {
    let sha256 = digests.sha256.map(|digest| format!("sha-256=:{}:", STANDARD.encode(digest.0)));
    let sha1 = digests.sha1.map(|digest| format!("sha=:{}:", STANDARD.encode(digest.0)));
    let members: Vec<String> = sha256.into_iter().chain(sha1).collect();
    (!members.is_empty()).then(|| members.join(", "))
}

/// The Metalink that an answer points to: `Link: <…>; rel=describedby; type="application/metalink4+xml"` (RFC 6249).
#[must_use]
pub fn described_by(headers: &HeaderMap) -> Option<String> {
    headers.get_all(header::LINK).iter().find_map(|link| {
        let text = link.to_str().ok()?;
        let (target, parameters) = text.trim().strip_prefix('<')?.split_once('>')?;
        let compact: String = parameters.chars().filter(|c| !c.is_whitespace() && *c != '"').collect();
        let describes =
            compact.contains("rel=describedby") && compact.contains("type=application/metalink4+xml");
        describes.then(|| target.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn ranges_are_read_or_refused() {
        let range = |text| content_range(&headers(&[("content-range", text)]));
        assert_eq!(range("bytes 0-9/10"), Some(ContentRange { first: 0, last: 9, total: Some(10) }));
        assert_eq!(range("Bytes=0-9/10"), range("bytes 0-9/10"));
        assert_eq!(range("bytes 5-5/*"), Some(ContentRange { first: 5, last: 5, total: None }));
        for wrong in
            ["", "bytes", "bytes 9-0/10", "bytes 0-10/10", "bytes */10", "items 0-1/2", "bytes -1-2/3"]
        {
            assert_eq!(range(wrong), None, "{wrong}");
        }
        assert_eq!(refused_size(&headers(&[("content-range", "bytes */0")])), Some(0));
    }

    #[test]
    fn published_digests_come_back() {
        let known =
            Digests { sha1: Some(Sha1::of(b"x")), sha256: Some(Sha256([7; 32])), ..Digests::default() };
        let text = repr_digest(&known).unwrap();
        assert_eq!(digests(&headers(&[("repr-digest", &text)])), known);
        let old = "md5=1B2M2Y8AsgTpgAmY7PhCfg==,SHA=2jmj7l5rSw0yVb/vlWAYkK/YBwk=";
        assert_eq!(digests(&headers(&[("digest", old)])).sha1, Some(Sha1::of(b"")));
        assert_eq!(digests(&headers(&[("repr-digest", "sha-256=:AAAA:, x, sha-256=y")])), Digests::default());
        assert_eq!(repr_digest(&Digests::default()), None);
    }

    #[test]
    fn versions_differ_only_where_both_name_one() {
        let version = |etag: Option<&str>, date: Option<&str>| Validators {
            etag: etag.map(str::to_owned),
            last_modified: date.map(str::to_owned),
        };
        let mut known = version(Some("\"a\""), None);
        assert!(known.allow(&version(None, Some("today"))) && known.allow(&version(Some("\"a\""), None)));
        assert!(!known.allow(&version(Some("\"b\""), None)));
        known.learn(version(Some("\"a\""), Some("today")));
        assert!(!known.allow(&version(Some("\"a\""), Some("tomorrow"))));
    }

    #[test]
    fn other_headers_are_understood() {
        assert_eq!(coding(&headers(&[("content-encoding", "X-Gzip")])).as_deref(), Some("x-gzip"));
        assert_eq!(
            (coding(&headers(&[("content-encoding", "identity")])), coding(&HeaderMap::new())),
            (None, None)
        );
        assert_eq!(retry_after(&headers(&[("retry-after", "3")])), Some(Duration::from_secs(3)));
        assert_eq!(retry_after(&headers(&[("retry-after", "soon")])), None);
        let link = "</a.meta4>; rel=\"describedby\"; type=\"application/metalink4+xml\"";
        assert_eq!(described_by(&headers(&[("link", link)])).as_deref(), Some("/a.meta4"));
        assert_eq!(described_by(&headers(&[("link", "</x>; rel=next")])), None);
    }
}
