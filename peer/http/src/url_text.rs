//! Names in URLs: percent-encoding a path, and finding the file name that a URL ends in.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use shoal_common::FileName;

use crate::network_name;

/// What must be encoded in a segment of a path: everything that RFC 3986's `pchar` is not.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The path with each segment encoded; slashes stay.
pub(crate) fn encode_path(path: &str) -> String {
    path.split('/').map(encode_segment).collect::<Vec<_>>().join("/")
}

/// One segment of a path, encoded, slashes too.
pub(crate) fn encode_segment(segment: &str) -> String {
    utf8_percent_encode(segment, SEGMENT).to_string()
}

/// The decoded segments of a request's path; `None` if one is not UTF-8 or is no plain name: empty, `.`, `..`, hidden, or
/// with a slash, a backslash or a NUL in it. A trailing slash gives no empty segment.
pub(crate) fn decode_path(path: &str) -> Option<Vec<String>> {
    if path == "/" {
        return Some(Vec::new());
    }
    let inner = path.strip_prefix('/')?;
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    inner
        .split('/')
        .map(|segment| {
            let decoded = percent_decode_str(segment).decode_utf8().ok()?;
            let plain =
                !decoded.is_empty() && !decoded.starts_with('.') && !decoded.contains(['/', '\\', '\0']);
            plain.then(|| decoded.into_owned())
        })
        .collect()
}

/// The file name that a URL's path ends in, made safe. Bytes that are no text show as U+FFFD.
pub(crate) fn file_name(path: &str) -> Option<FileName> {
    let last = path.rsplit('/').next()?;
    network_name::safe(&percent_decode_str(last).decode_utf8_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_that_leave_the_root_have_no_names() {
        for path in [
            "",
            "x",
            "/..",
            "/a/../b",
            "/%2e%2e/x",
            "/a%2fb",
            "/a%5cb",
            "/a%00",
            "/.hidden",
            "//",
            "/a//b",
            "/%ff",
        ] {
            assert_eq!(decode_path(path), None, "{path}");
        }
        assert_eq!(decode_path("/"), Some(vec![]));
        assert_eq!(decode_path("/a%20b/c/"), Some(vec!["a b".to_owned(), "c".to_owned()]));
    }

    #[test]
    fn names_of_urls_are_safe_or_none() {
        assert_eq!(file_name("/x/some%20film.mkv").unwrap().as_str(), "some film.mkv");
        for (path, name) in
            [("/x/.bashrc", "_bashrc"), ("/%2ebashrc", "_bashrc"), ("/a%00b", "a_b"), ("/%ff", "\u{fffd}")]
        {
            assert_eq!(file_name(path).unwrap().as_str(), name, "{path}");
        }
        for path in ["/", "/x/..", "/x/%2e%2e", "/a%2f..%2fb"] {
            assert!(file_name(path).is_none(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(name in "[^/\\\\\0.][^/\\\\\0]{0,30}") {
            prop_assert_eq!(decode_path(&format!("/{}", encode_segment(&name))), Some(vec![name]));
        }
    }
}
