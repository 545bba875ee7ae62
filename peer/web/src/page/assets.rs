//! The files of the page, which are part of the program.

use std::io::Write as _;
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use shoal_common::Blake3;

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of the page.
#[derive(Debug)]
pub(super) struct Asset {
    /// Its path below `/assets/`.
    pub(super) name: &'static str,
    /// Its media type.
    pub(super) kind: &'static str,
    /// Its content.
    pub(super) text: String,
    /// The same by gzip, as browsers take it.
    pub(super) packed: Vec<u8>,
    /// Its entity tag, made of its content.
    pub(super) tag: String,
}

macro_rules! assets {
    ($($name:literal: $kind:expr),* $(,)?) => {
        [$(($name, $kind, include_str!(concat!("assets/", $name)))),*]
    };
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let files = assets! {
        "app.css": "text/css; charset=utf-8",
        "icon.svg": "image/svg+xml",
        "api.js": SCRIPT,
        "app.js": SCRIPT,
        "dom.js": SCRIPT,
        "draw.js": SCRIPT,
        "folders.js": SCRIPT,
        "format.js": SCRIPT,
        "key.js": SCRIPT,
        "list.js": SCRIPT,
        "notices.js": SCRIPT,
        "panel.js": SCRIPT,
        "store.js": SCRIPT,
        "stream.js": SCRIPT,
        "uploads.js": SCRIPT,
        "views/downloads.js": SCRIPT,
        "views/group.js": SCRIPT,
        "views/groups.js": SCRIPT,
        "views/settings.js": SCRIPT,
        "views/shares.js": SCRIPT,
        "views/signin.js": SCRIPT,
    };
    let asset = |(name, kind, text): (_, _, &'static str)| {
        let text = if name == "icon.svg" { text.to_owned() } else { lean(text) };
        let digest = Blake3::of(text.as_bytes()).to_string();
        let packed = packed(&text);
        Asset { name, kind, packed, text, tag: format!("\"{}\"", digest.get(..16).unwrap_or_default()) }
    };
    files.into_iter().map(asset).collect()
});

/// A script or the style without what is for its readers only: lines of comments, and what lines are set in by. A text that goes over
/// several lines is in none of them.
fn lean(text: &str) -> String {
    let is_comment = |line: &str| line.starts_with("//") || line.starts_with("/*") || line.starts_with('*');
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_selector = |line: &str| line.starts_with("* {");
    lines.filter(|line| is_selector(line) || !is_comment(line)).flat_map(|line| [line, "\n"]).collect()
}

fn packed(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing to memory does not fail.
    let _ = encoder.write_all(text.as_bytes());
    encoder.finish().unwrap_or_default()
}

/// All of them.
pub(super) fn all() -> impl Iterator<Item = &'static Asset> {
    ASSETS.iter()
}

/// The names of those that are scripts.
pub(super) fn modules() -> impl Iterator<Item = &'static str> {
    all().filter(|asset| asset.kind == SCRIPT).map(|asset| asset.name)
}

/// The one of that name.
pub(super) fn find(name: &str) -> Option<&'static Asset> {
    all().find(|asset| asset.name == name)
}
