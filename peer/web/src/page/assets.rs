//! The files of the page, which are part of the program.

use std::sync::LazyLock;

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
    pub(super) text: &'static str,
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
        "format.js": SCRIPT,
        "list.js": SCRIPT,
        "notices.js": SCRIPT,
        "store.js": SCRIPT,
        "stream.js": SCRIPT,
        "views/downloads.js": SCRIPT,
        "views/group.js": SCRIPT,
        "views/groups.js": SCRIPT,
        "views/signin.js": SCRIPT,
    };
    let asset = |(name, kind, text): (_, _, &'static str)| {
        let digest = Blake3::of(text.as_bytes()).to_string();
        Asset { name, kind, text, tag: format!("\"{}\"", digest.get(..16).unwrap_or_default()) }
    };
    files.into_iter().map(asset).collect()
});

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
