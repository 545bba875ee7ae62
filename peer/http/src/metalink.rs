//! Metalink 4 (RFC 5854): what a file is, by which digests, and where it can be had. Written by `server`, read by `fetch`;
//! aria2 reads the same. Reading takes what others write, within bounds, and never resolves an entity of a document's own.

mod parse;

use std::fmt::Write as _;
use std::sync::Arc;

use quick_xml::escape::escape;
use shoal_common::{Digests, FileName, Sha1};

pub(crate) use crate::metalink::parse::hex;
pub use crate::metalink::parse::{MAX_METALINK_BYTES, MetalinkError, parse};

/// The media type of a Metalink 4.
pub const MEDIA_TYPE: &str = "application/metalink4+xml";

/// One file of a Metalink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetalinkFile {
    /// The folders that it is to be in, from the outermost, each safe as a component of a path.
    pub folder: Vec<FileName>,
    /// Its name, safe as a component of a path.
    pub name: FileName,
    /// Its size in bytes, if given.
    pub size: Option<u64>,
    /// Digests of the whole file, as far as given; BLAKE3 has no place in a Metalink.
    pub digests: Digests,
    /// Kinds of digests that are given and not computed.
    pub unknown: Vec<String>,
    /// SHA-1 digests of its pieces, if given.
    pub pieces: Option<Pieces>,
    /// Where it can be had, best first.
    pub urls: Vec<String>,
}

impl MetalinkFile {
    /// A file of which nothing but the name is known.
    #[must_use]
    pub fn named(name: FileName) -> Self {
        Self {
            folder: Vec::new(),
            name,
            size: None,
            digests: Digests::default(),
            unknown: Vec::new(),
            pieces: None,
            urls: Vec::new(),
        }
    }

    /// Its name with its folders, as the Metalink has it.
    #[must_use]
    pub fn path(&self) -> String {
        self.folder
            .iter()
            .map(|folder| format!("{}/", folder.as_str()))
            .chain([self.name.as_str().to_owned()])
            .collect()
    }
}

/// Digests of a file's pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pieces {
    /// Length of every piece but the last, in bytes.
    pub length: u64,
    /// The SHA-1 of each, in file order.
    pub digests: Arc<[Sha1]>,
}

/// Writes a Metalink of these files.
#[must_use]
pub fn write(files: &[MetalinkFile]) -> String {
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metalink xmlns=\"urn:ietf:params:xml:ns:metalink\">\n",
    );
    text.push_str("  <generator>Shoal</generator>\n");
    for file in files {
        write_file(&mut text, file);
    }
    text.push_str("</metalink>\n");
    text
}

fn write_file(text: &mut String, file: &MetalinkFile) {
    let mut line = |line: std::fmt::Arguments<'_>| {
        // Writing into a string cannot fail.
        let _ = text.write_fmt(line);
    };
    line(format_args!("  <file name=\"{}\">\n", escape(file.path().as_str())));
    if let Some(size) = file.size {
        line(format_args!("    <size>{size}</size>\n"));
    }
    let digests = &file.digests;
    let kinds: [(&str, Option<&dyn std::fmt::Display>); 6] = [
        ("sha-512", digests.sha512.as_ref().map(|digest| digest as _)),
        ("sha-384", digests.sha384.as_ref().map(|digest| digest as _)),
        ("sha-256", digests.sha256.as_ref().map(|digest| digest as _)),
        ("sha-224", digests.sha224.as_ref().map(|digest| digest as _)),
        ("sha-1", digests.sha1.as_ref().map(|digest| digest as _)),
        ("md5", digests.md5.as_ref().map(|digest| digest as _)),
    ];
    for (kind, digest) in kinds {
        if let Some(digest) = digest {
            line(format_args!("    <hash type=\"{kind}\">{digest}</hash>\n"));
        }
    }
    if let Some(pieces) = &file.pieces {
        line(format_args!("    <pieces length=\"{}\" type=\"sha-1\">\n", pieces.length));
        for digest in pieces.digests.iter() {
            line(format_args!("      <hash>{digest}</hash>\n"));
        }
        line(format_args!("    </pieces>\n"));
    }
    for (index, url) in file.urls.iter().enumerate() {
        line(format_args!("    <url priority=\"{}\">{}</url>\n", index + 1, escape(url.as_str())));
    }
    line(format_args!("  </file>\n"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shoal_common::{Md5, Sha256, Sha512};

    fn sample(name: &str) -> MetalinkFile {
        MetalinkFile {
            size: Some(100_000),
            digests: Digests {
                sha1: Some(Sha1([1; 20])),
                sha256: Some(Sha256([2; 32])),
                ..Digests::default()
            },
            pieces: Some(Pieces { length: 65_536, digests: Arc::new([Sha1([3; 20]), Sha1([4; 20])]) }),
            urls: vec!["http://h:1/a%20b?x=1&y=2".into(), "http://h:2/a%20b".into()],
            ..MetalinkFile::named(FileName::create(name).unwrap())
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut files =
            vec![sample("a <b> & \"c\" 'd'.bin"), MetalinkFile { pieces: None, size: None, ..sample("e") }];
        let folder = vec![FileName::create("one").unwrap(), FileName::create("two & three").unwrap()];
        let digests =
            Digests { sha512: Some(Sha512([5; 64])), md5: Some(Md5([6; 16])), ..Digests::default() };
        files.push(MetalinkFile { folder, digests, ..sample("f") });
        assert_eq!(parse(write(&files).as_bytes()).unwrap(), files);
        assert_eq!(parse(write(&[]).as_bytes()).unwrap(), []);
    }

    proptest! {
        #[test]
        fn every_name_comes_back(name in "[^/\\\\\\p{C}]{1,40}") {
            if let Ok(name) = FileName::create(&name) {
                let file = MetalinkFile { name, ..sample("x") };
                prop_assert_eq!(parse(write(std::slice::from_ref(&file)).as_bytes()).unwrap(), vec![file]);
            }
        }
    }
}
