//! Reads a Metalink 4. What is of no use here is skipped; what is wrong in a way that could mislead is an error.

use std::sync::Arc;

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;
use shoal_common::limits::{MAX_MIRROR_BYTES, MAX_PIECES};
use shoal_common::{Digests, FileName, Sha1};

use crate::metalink::{MetalinkFile, Pieces};
use crate::network_name;
use crate::source::answer::of_kind;

/// Longest Metalink that is read: the most pieces at 70 bytes a line, and as much again for everything else.
pub const MAX_METALINK_BYTES: usize = 140 * MAX_PIECES as usize;
/// Most files, and most URLs of one file, that are read; more are of no use.
const MAX_FILES: usize = 10_000;
const MAX_URLS: usize = 1_000;
/// Folders inside each other that a file's name may have.
const MAX_FOLDERS: usize = 16;
/// Most unsupported digest kinds of one file that are reported, and most characters of their names.
const MAX_UNKNOWN: usize = 8;
const MAX_KIND: usize = 32;
/// Lengths of the digests that are computed, in bytes.
const LENGTHS: [usize; 6] = [16, 20, 28, 32, 48, 64];
/// Longest text of one element.
const MAX_TEXT: usize = 16 * 1024;

/// Why something is not a Metalink that can be followed.
#[derive(Debug, thiserror::Error)]
pub enum MetalinkError {
    /// Not well-formed.
    #[error("not a Metalink: {0}")]
    Xml(#[from] quick_xml::Error),
    /// Not UTF-8, or a wrong reference.
    #[error("not a Metalink: text that cannot be read")]
    Text,
    /// Well-formed, and something else.
    #[error("not a Metalink 4 (the older .metalink format is not supported)")]
    NotMetalink,
    /// Too long, or too much of something.
    #[error("the Metalink has too many {0}")]
    TooMany(&'static str),
    /// A file name that could leave the destination, or none.
    #[error("the Metalink names a file {0:?}, which is not a safe file name")]
    Name(String),
    /// A value that makes no sense.
    #[error("the Metalink has a wrong {0}: {1:?}")]
    Value(&'static str, String),
}

/// Reads a Metalink: its files, each with its URLs in order of priority.
///
/// # Errors
/// See [`MetalinkError`].
pub fn parse(bytes: &[u8]) -> Result<Vec<MetalinkFile>, MetalinkError> {
    if bytes.len() > MAX_METALINK_BYTES {
        return Err(MetalinkError::TooMany("bytes"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| MetalinkError::Text)?;
    let mut reader = Reader::from_str(text);
    let mut parser = Parser::default();
    loop {
        match reader.read_event()? {
            Event::Start(start) => parser.start(&start)?,
            Event::Empty(start) => {
                parser.start(&start)?;
                parser.end()?;
            }
            Event::End(_) => parser.end()?,
            Event::Text(text) => parser.text(&text.decode().map_err(|_| MetalinkError::Text)?)?,
            Event::CData(text) => parser.text(&text.decode().map_err(|_| MetalinkError::Text)?)?,
            Event::GeneralRef(reference) => {
                let name = reference.decode().map_err(|_| MetalinkError::Text)?;
                let character = quick_xml::escape::unescape(&format!("&{name};"))
                    .map_err(|_| MetalinkError::Text)?
                    .into_owned();
                parser.text(&character)?;
            }
            Event::Eof => break,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    if parser.is_metalink { Ok(parser.files) } else { Err(MetalinkError::NotMetalink) }
}

#[derive(Default)]
struct Parser {
    /// Local names of the open elements, and the text of the innermost.
    path: Vec<String>,
    content: String,
    is_metalink: bool,
    files: Vec<MetalinkFile>,
    urls: Vec<(u32, String)>,
    /// `type` of the open hash, priority of the open URL.
    kind: String,
    priority: u32,
    /// Length, and whether the open list's digests are SHA-1.
    pieces: Option<(u64, Vec<Sha1>)>,
}

/// Elements inside each other at most.
const MAX_DEPTH: usize = 32;
/// The lowest priority (RFC 5854, section 4.2.16).
const LAST: u32 = 999_999;

impl Parser {
    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), MetalinkError> {
        let name = String::from_utf8_lossy(start.local_name().as_ref()).into_owned();
        self.content.clear();
        if self.path.len() >= MAX_DEPTH {
            return Err(MetalinkError::TooMany("levels"));
        }
        self.path.push(name);
        match self.place().as_slice() {
            ["metalink"] => {
                let four =
                    attribute(start, "xmlns")?.is_none_or(|ns| ns == "urn:ietf:params:xml:ns:metalink");
                self.is_metalink =
                    four && attribute(start, "version")?.is_none_or(|version| version == "4.0");
            }
            ["metalink", "file"] => {
                let name = attribute(start, "name")?.unwrap_or_default();
                let (folder, safe) = place_of(&name).ok_or(MetalinkError::Name(name))?;
                if self.files.len() >= MAX_FILES {
                    return Err(MetalinkError::TooMany("files"));
                }
                self.urls.clear();
                self.files.push(MetalinkFile { folder, ..MetalinkFile::named(safe) });
            }
            ["metalink", "file", "hash"] => self.kind = attribute(start, "type")?.unwrap_or_default(),
            ["metalink", "file", "url"] => {
                let priority = attribute(start, "priority")?.and_then(|text| text.trim().parse().ok());
                self.priority = priority.unwrap_or(LAST);
            }
            ["metalink", "file", "pieces"] => {
                let length = attribute(start, "length")?.unwrap_or_default();
                let parsed = length.trim().parse().ok().filter(|&length: &u64| length > 0);
                let parsed = parsed.ok_or(MetalinkError::Value("piece length", length))?;
                let sha1 = attribute(start, "type")?.is_some_and(|kind| kind == "sha-1" || kind == "sha1");
                self.pieces = sha1.then(|| (parsed, Vec::new()));
            }
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), MetalinkError> {
        if self.content.len() + text.len() > MAX_TEXT {
            return Err(MetalinkError::TooMany("characters in one place"));
        }
        self.content.push_str(text);
        Ok(())
    }

    fn end(&mut self) -> Result<(), MetalinkError> {
        let content = std::mem::take(&mut self.content);
        let value = content.trim();
        let place = self.place().join("/");
        self.path.pop();
        let Some(file) = self.files.last_mut() else { return Ok(()) };
        match place.as_str() {
            "metalink/file/size" => {
                let size = value.parse().map_err(|_| MetalinkError::Value("size", value.into()))?;
                file.size = Some(size);
            }
            "metalink/file/hash" => match digest(&self.kind, value)? {
                Some(digest) => file.digests = digest.or(&file.digests),
                None if file.unknown.len() < MAX_UNKNOWN => {
                    file.unknown.push(self.kind.chars().filter(|c| !c.is_control()).take(MAX_KIND).collect());
                }
                None => {}
            },
            "metalink/file/url" => {
                let http = value.starts_with("http://") || value.starts_with("https://");
                if http && value.len() <= MAX_MIRROR_BYTES && self.urls.len() < MAX_URLS {
                    self.urls.push((self.priority, value.to_owned()));
                }
            }
            "metalink/file/pieces/hash" => {
                if let Some((_, digests)) = &mut self.pieces {
                    if digests.len() >= MAX_PIECES as usize {
                        return Err(MetalinkError::TooMany("pieces"));
                    }
                    digests.push(Sha1(hex(value)?));
                }
            }
            "metalink/file/pieces" => {
                if let Some((length, digests)) = self.pieces.take() {
                    file.pieces = Some(Pieces { length, digests: Arc::from(digests) });
                }
            }
            "metalink/file" => {
                self.urls.sort_by_key(|&(priority, _)| priority);
                file.urls = self.urls.drain(..).map(|(_, url)| url).collect();
            }
            _ => {}
        }
        Ok(())
    }

    fn place(&self) -> Vec<&str> {
        self.path.iter().map(String::as_str).collect()
    }
}

fn attribute(start: &BytesStart<'_>, name: &str) -> Result<Option<String>, MetalinkError> {
    let found = start.try_get_attribute(name).map_err(|_| MetalinkError::Text)?;
    let value =
        found.map(|found| found.normalized_value(XmlVersion::Explicit1_0).map(std::borrow::Cow::into_owned));
    value.transpose().map_err(|_| MetalinkError::Text)
}

/// The folders and the name that a file is to have: below where it is saved, and nowhere else (RFC 5854, section 4.1.2.1).
/// Folders are made safe as names are; a path that would leave the place is refused.
fn place_of(text: &str) -> Option<(Vec<FileName>, FileName)> {
    let mut parts: Vec<&str> = text.split('/').collect();
    let last = parts.pop()?;
    // As it stands where it can: servers know the file by it.
    let name = FileName::refer(last).ok().or_else(|| network_name::safe(last))?;
    if parts.len() > MAX_FOLDERS {
        return None;
    }
    let folders = parts.into_iter().map(network_name::safe).collect::<Option<_>>()?;
    Some((folders, name))
}

/// A digest from its hex digits; `None` if its kind is not computed.
fn digest(kind: &str, text: &str) -> Result<Option<Digests>, MetalinkError> {
    let wrong = || MetalinkError::Value("digest", text.chars().take(100).collect());
    let known = LENGTHS.into_iter().find(|&length| of_kind(kind, &vec![0; length]).is_some());
    let Some(length) = known else { return Ok(None) };
    if text.len() != 2 * length || !text.is_ascii() {
        return Err(wrong());
    }
    let mut bytes = Vec::with_capacity(length);
    for digits in text.as_bytes().chunks(2) {
        let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
    }
    of_kind(kind, &bytes).map(Some).ok_or_else(wrong)
}

/// `N` bytes from their hex digits.
pub(crate) fn hex<const N: usize>(text: &str) -> Result<[u8; N], MetalinkError> {
    let wrong = || MetalinkError::Value("digest", text.chars().take(100).collect());
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return Err(wrong());
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(inner: &str) -> Result<Vec<MetalinkFile>, MetalinkError> {
        parse(format!(r#"<metalink xmlns="urn:ietf:params:xml:ns:metalink">{inner}</metalink>"#).as_bytes())
    }

    #[test]
    fn what_others_write_is_read() {
        let files = with(
            r#"<generator>other/1</generator><published>2026-01-01</published>
            <file name="a.iso"><identity>A</identity><size> 5 </size>
              <hash type="md5">00112233445566778899aabbccddeeff</hash>
              <hash type="sha-256">e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855</hash>
              <pieces length="262144" type="sha-256"><hash>00</hash></pieces>
              <url location="de" priority="2">http://two/a.iso</url>
              <url>ftp://three/a.iso</url><url>http://last/a.iso?a=1&amp;b=2</url>
              <url priority="1"><![CDATA[https://one/a.iso]]></url>
              <metaurl mediatype="torrent">http://t/a.torrent</metaurl></file>"#,
        )
        .unwrap();
        assert_eq!(files[0].urls, ["https://one/a.iso", "http://two/a.iso", "http://last/a.iso?a=1&b=2"]);
        assert_eq!((files[0].size, files[0].pieces.clone()), (Some(5), None));
        assert!(files[0].digests.sha256.is_some() && files[0].digests.sha1.is_none());
        assert!(files[0].digests.md5.is_some());
    }

    #[test]
    fn every_digest_that_can_be_computed_is_taken_and_others_are_named() {
        let hash =
            |kind: &str, length: usize| format!(r#"<hash type="{kind}">{}</hash>"#, "ab".repeat(length));
        let kinds =
            [("sha-512", 64), ("SHA384", 48), ("sha-224", 28), ("sha256", 32), ("sha", 20), ("MD5", 16)];
        let all: String = kinds.map(|(kind, length)| hash(kind, length)).concat();
        let files = with(&format!(r#"<file name="a">{all}{}</file>"#, hash("whirlpool", 64))).unwrap();
        let digests = &files[0].digests;
        assert!(digests.sha512.is_some() && digests.sha384.is_some() && digests.sha224.is_some());
        assert!(digests.sha256.is_some() && digests.sha1.is_some() && digests.md5.is_some());
        assert_eq!(files[0].unknown, ["whirlpool"]);
        for (kind, length) in kinds {
            assert!(with(&format!(r#"<file name="a">{}</file>"#, hash(kind, length - 1))).is_err(), "{kind}");
        }
    }

    #[test]
    fn folders_are_taken_as_far_as_they_lead_down() {
        for (name, path) in [
            ("a/b.iso", "a/b.iso"),
            ("a b/c/d.iso", "a b/c/d.iso"),
            (".ssh/.profile", "_ssh/_profile"),
            ("con/x.", "_con/x"),
        ] {
            let files = with(&format!(r#"<file name="{name}"></file>"#)).unwrap();
            let folder: String = files[0].folder.iter().map(|folder| format!("{folder}/")).collect();
            assert_eq!(folder + network_name::safe(files[0].name.as_str()).unwrap().as_str(), path, "{name}");
        }
        let deep = "a/".repeat(MAX_FOLDERS + 1) + "b";
        for name in
            ["../a", "a/../b", "/a", "a//b", "a/", "./a", "a/..", "a/./b", "a\\b/c", ".../b", "a/ /b", &deep]
        {
            assert!(with(&format!(r#"<file name="{name}"></file>"#)).is_err(), "{name}");
        }
    }

    #[test]
    fn what_could_mislead_is_refused() {
        for (inner, reason) in [
            (r#"<file name="../../etc/passwd"></file>"#, "safe file name"),
            (r#"<file name="/etc/passwd"></file>"#, "safe file name"),
            ("<file></file>", "safe file name"),
            (r#"<file name="a"><size>-1</size></file>"#, "wrong size"),
            (r#"<file name="a"><hash type="sha-1">zz</hash></file>"#, "wrong digest"),
            (r#"<file name="a"><pieces length="0" type="sha-1"/></file>"#, "piece length"),
            (r#"<file name="a"><size>&unknown;</size></file>"#, "cannot be read"),
            (r#"<file name="a">"#, "not a Metalink"),
        ] {
            let error = with(inner).unwrap_err().to_string();
            assert!(error.contains(reason), "{inner}: {error}");
        }
        assert!(matches!(parse(b"<html></html>"), Err(MetalinkError::NotMetalink)));
        assert!(matches!(parse(b"no xml"), Err(MetalinkError::NotMetalink)));
        let old = r#"<metalink version="3.0" xmlns="http://www.metalinker.org/"></metalink>"#;
        assert!(matches!(parse(old.as_bytes()), Err(MetalinkError::NotMetalink)));
        assert!(parse("<a>".repeat(1_000).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,200}", inner in "[<>/a-z\"= &;]{0,100}") {
            let _ = parse(text.as_bytes());
            let _ = with(&inner);
        }
    }
}
