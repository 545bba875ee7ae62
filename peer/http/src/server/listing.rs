//! What `/` and folders show: a page for a browser, a Metalink for programs.

use std::fmt::Write as _;

use crate::metalink::MetalinkFile;
use crate::server::catalog::Entry;
use crate::url_text::{encode_path, encode_segment};

/// A page with a folder's entries; `path` is the folder's decoded path, with a slash at its end.
pub(super) fn page(path: &str, entries: &[Entry]) -> String {
    let title = escape(path);
    let mut text = format!(
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>{title}</title></head>\n<body><h1>{title}</h1>\n<table>\n"
    );
    for entry in entries {
        let (name, link) = (escape(entry.name.as_str()), encode_segment(entry.name.as_str()));
        // Writing into a string cannot fail.
        let _ = match entry.size {
            Some(size) => writeln!(
                text,
                "<tr><td><a href=\"{link}\">{name}</a></td><td>{size}{}</td><td><a href=\"{link}.meta4\">Metalink</a></td></tr>",
                if entry.unfinished { " (still being downloaded)" } else { "" }
            ),
            None => writeln!(text, "<tr><td><a href=\"{link}/\">{name}/</a></td><td></td><td></td></tr>"),
        };
    }
    text.push_str("</table></body></html>\n");
    text
}

/// A folder's files for a Metalink, without digests; `bases` are the servers' own addresses, `http://host:port`.
pub(super) fn files(path: &str, entries: &[Entry], bases: &[String]) -> Vec<MetalinkFile> {
    let files = entries.iter().filter(|entry| entry.size.is_some());
    files
        .map(|entry| MetalinkFile {
            size: entry.size,
            urls: urls(&format!("{path}{}", entry.name.as_str()), bases),
            ..MetalinkFile::named(entry.name.clone())
        })
        .collect()
}

/// The URLs of a decoded path at all servers.
pub(super) fn urls(path: &str, bases: &[String]) -> Vec<String> {
    let path = encode_path(path);
    bases.iter().map(|base| format!("{base}{path}")).collect()
}

fn escape(text: &str) -> String {
    quick_xml::escape::escape(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::FileName;

    #[test]
    fn names_cannot_break_out_of_the_page() {
        let name = FileName::create("<script>alert('x')\"&%.bin").unwrap();
        let page = page("/a<b/", &[Entry { name, size: Some(1), unfinished: false }]);
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
        assert!(page.contains("href=\"%3Cscript%3Ealert('x')%22&%25.bin\""), "{page}");
    }
}
