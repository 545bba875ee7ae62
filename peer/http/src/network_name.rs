//! A file name that the network chose, made safe as a name in the user's folder: it leaves no folder, is never hidden, shows
//! all its characters, fits a file system, and is none that Shoal gives to its own files. What had to be changed shows as `_`.

use shoal_common::FileName;
use shoal_common::limits::MAX_FILE_NAME_BYTES;
use shoal_common::names::is_hidden;

/// How Shoal's own files beside an unfinished download end. A server that chose such a name could plant the state of
/// another download.
const OWN_SUFFIXES: [&str; 7] = [".part", ".pstate", ".pstate~", ".pinfo", ".pinfo~", ".pfrom", ".pfrom~"];
/// Names that Windows and file systems made for it keep for devices, with any extension. Browsers avoid them everywhere.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];
const NUMBERED_DEVICES: [&str; 2] = ["com", "lpt"];
/// Longest ending that is kept when a name is cut, its dot included.
const MAX_EXTENSION: usize = 16;

/// The name, made safe; `None` if nothing of it can be used, or if it has a separator in it: that is a path, and what it
/// means is not guessed.
pub(crate) fn safe(text: &str) -> Option<FileName> {
    if text.contains(['/', '\\']) {
        return None;
    }
    let shown: String =
        text.chars().map(|character| if is_plain(character) { character } else { '_' }).collect();
    let trimmed = shown.trim().trim_end_matches(|end: char| end == '.' || end.is_whitespace());
    let visible = trimmed.trim_start_matches('.');
    if visible.is_empty() {
        return None;
    }
    let mut name = visible.to_owned();
    if visible.len() < trimmed.len() || is_device(visible) {
        name.insert(0, '_');
    }
    if name.len() > MAX_FILE_NAME_BYTES {
        name = cut(&name, MAX_FILE_NAME_BYTES);
    }
    if is_own(&name) {
        // Room for this is made by cutting once more.
        name = cut(&name, MAX_FILE_NAME_BYTES - 1);
        name.push('_');
    }
    FileName::refer(&name).ok()
}

/// Whether names of files may hold the character at all.
fn is_plain(character: char) -> bool {
    let mut buffer = [0; 4];
    matches!(character, ' ' | '.')
        || !is_hidden_mark(character) && FileName::refer(character.encode_utf8(&mut buffer)).is_ok()
}

/// A hidden character that is no space: what the network chose shows all its characters.
fn is_hidden_mark(character: char) -> bool {
    is_hidden(character) && !character.is_whitespace()
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_lowercase();
    let numbered = || {
        let device = NUMBERED_DEVICES.iter().find_map(|device| stem.strip_prefix(device));
        device.is_some_and(|number| matches!(number.as_bytes(), [b'1'..=b'9']))
    };
    DEVICES.contains(&stem.as_str()) || numbered()
}

fn is_own(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    OWN_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// The name cut to `most` bytes, its extension kept: of `.tar.gz` both.
fn cut(name: &str, most: usize) -> String {
    if name.len() <= most {
        return name.to_owned();
    }
    let dot = name.rfind('.').map(|last| match name[..last].strip_suffix(".tar") {
        Some(stem) => stem.len(),
        None => last,
    });
    let extension = dot.map_or("", |dot| &name[dot..]);
    let extension = if extension.len() <= MAX_EXTENSION { extension } else { "" };
    let mut end = most - extension.len();
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{extension}", name[..end].trim_end_matches(|end: char| end == '.' || end.is_whitespace()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_safe_stays_and_what_is_not_shows() {
        for (text, expected) in [
            ("film.mkv", "film.mkv"),
            ("Zoë & co (1).tar.gz", "Zoë & co (1).tar.gz"),
            ("-rf", "-rf"),
            (".bashrc", "_bashrc"),
            ("...x", "_x"),
            (" .profile", "_profile"),
            ("a\nb\u{202e}c\u{7f}.txt", "a_b_c_.txt"),
            ("\u{1b}[2Jx", "_[2Jx"),
            ("film.mkv. . ", "film.mkv"),
            ("film.mkv.part", "film.mkv.part_"),
            ("film.mkv.PSTATE", "film.mkv.PSTATE_"),
            ("film.mkv.pstate~", "film.mkv.pstate~_"),
            (".part", "_part"),
            ("nul", "_nul"),
            ("COM1.txt", "_COM1.txt"),
            ("common.txt", "common.txt"),
            ("bob~12abef", "bob~12abef"),
        ] {
            assert_eq!(safe(text).unwrap().as_str(), expected, "{text:?}");
        }
        for text in ["", ".", "..", " ", "...", "a/b", "../x", "a\\b", "/etc/passwd", ". ."] {
            assert_eq!(safe(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_long_name_is_cut_and_keeps_its_extension() {
        let long = "é".repeat(300);
        for (end, kept) in
            [(".mkv", ".mkv"), (".tar.gz", ".tar.gz"), ("", ""), (".no extension of a file at all", "")]
        {
            let name = safe(&format!("{long}{end}")).unwrap();
            assert!(
                name.as_str().len() <= MAX_FILE_NAME_BYTES && name.as_str().len() > MAX_FILE_NAME_BYTES - 8
            );
            assert!(name.as_str().starts_with("éé") && name.as_str().ends_with(kept), "{name}");
        }
        let name = safe(&format!("{}.pstate", "x".repeat(400))).unwrap();
        assert!(name.as_str().ends_with(".pstate_") && name.as_str().len() <= MAX_FILE_NAME_BYTES, "{name}");
    }

    proptest! {
        #[test]
        fn no_text_gives_a_dangerous_name(text in "\\PC{0,400}|[./ \\x00-\\x20a-c~]{0,20}|[.a]{0,5}\\.(part|pstate|pinfo|pfrom)~?") {
            if let Some(name) = safe(&text) {
                let name = name.as_str();
                prop_assert!(!name.starts_with('.') && !name.contains(['/', '\\', '\0']) && !is_own(name));
                prop_assert!(name.len() <= MAX_FILE_NAME_BYTES && name.trim() == name && !name.ends_with('.'));
                prop_assert_eq!(std::path::Path::new(name).components().count(), 1);
                // What is safe is not changed again.
                let again = safe(name).unwrap();
                prop_assert_eq!(again.as_str(), name);
            }
        }
    }
}
