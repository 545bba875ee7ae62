//! The crates and their modules depend on each other as ARCHITECTURE.md says: arrows run downward only, pure crates stay
//! pure, and no two modules use each other but a module and its own parts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod imports;
mod security;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Crates, and the crates of the house that each may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("common/sha1", &[]),
    ("common/wipe", &[]),
    ("common", &["shoal-sha1", "shoal-wipe"]),
    ("common/disk", &[]),
    ("common/console", &["shoal-common", "shoal-disk", "shoal-wipe"]),
    ("common/net", &["shoal-common", "shoal-disk"]),
    ("common/metrics", &[]),
    ("common/prompt", &["shoal-console"]),
    ("tracker/replica", &[]),
    ("tracker/sim", &["shoal-replica"]),
    (
        "tracker",
        &[
            "shoal-common",
            "shoal-console",
            "shoal-disk",
            "shoal-engine-core",
            "shoal-metrics",
            "shoal-net",
            "shoal-prompt",
            "shoal-replica",
        ],
    ),
    ("peer/policy", &["shoal-common"]),
    ("peer/engine/core", &["shoal-common"]),
    ("peer/engine", &["shoal-common", "shoal-disk", "shoal-engine-core", "shoal-sha1"]),
    ("peer/sim", &["shoal-common", "shoal-engine-core", "shoal-policy"]),
    ("peer/http", &["shoal-common", "shoal-console", "shoal-disk", "shoal-engine", "shoal-prompt"]),
    ("peer/session", &["shoal-common", "shoal-net", "shoal-policy", "shoal-wipe"]),
    (
        "peer/swarm",
        &["shoal-common", "shoal-console", "shoal-engine", "shoal-net", "shoal-policy", "shoal-session"],
    ),
    (
        "peer/client",
        &[
            "shoal-common",
            "shoal-console",
            "shoal-disk",
            "shoal-engine",
            "shoal-http",
            "shoal-net",
            "shoal-session",
            "shoal-swarm",
        ],
    ),
    (
        "peer/dfs",
        &[
            "shoal-common",
            "shoal-console",
            "shoal-disk",
            "shoal-engine",
            "shoal-engine-core",
            "shoal-metrics",
            "shoal-net",
            "shoal-prompt",
            "shoal-session",
            "shoal-wipe",
        ],
    ),
    (
        "peer",
        &[
            "shoal-client",
            "shoal-common",
            "shoal-console",
            "shoal-http",
            "shoal-prompt",
            "shoal-session",
            "shoal-web",
            "shoal-wipe",
        ],
    ),
    (
        "peer/web",
        &["shoal-client", "shoal-common", "shoal-disk", "shoal-metrics", "shoal-session", "shoal-wipe"],
    ),
    (
        "shoal",
        &[
            "shoal-client",
            "shoal-common",
            "shoal-console",
            "shoal-dfs",
            "shoal-disk",
            "shoal-http",
            "shoal-net",
            "shoal-peer",
            "shoal-prompt",
            "shoal-session",
            "shoal-tracker",
            "shoal-web",
            "shoal-wipe",
        ],
    ),
];

/// Crates that know no clock, socket or disk.
const PURE: &[&str] = &["common", "tracker/replica", "peer/policy", "peer/engine/core"];
/// Libraries, and the only crates that may know them.
const WALLS: &[(&str, &[&str])] = &[
    ("libp2p", &["common/net"]),
    ("rusqlite", &["tracker", "peer/client", "common/disk"]),
    ("tokio-rustls", &["common/net"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The folders of all crates.
fn members() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let list = text.split("\nmembers = [\n").nth(1).unwrap().split(']').next().unwrap().to_owned();
    list.lines().filter_map(|line| line.split('"').nth(1)).map(str::to_owned).collect()
}

/// What a crate depends on, tests aside.
fn dependencies(krate: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(krate).join("Cargo.toml")).unwrap();
    let section = text.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| line.split(['.', ' ', '=']).next()).map(str::to_owned).collect()
}

#[test]
fn arrows_run_downward_only() {
    let all: BTreeMap<&str, Vec<String>> =
        ARROWS.iter().map(|(krate, _)| (*krate, dependencies(krate))).collect();
    for (krate, allowed) in ARROWS {
        for used in all[krate].iter().filter(|used| used.starts_with("shoal-")) {
            assert!(allowed.contains(&used.as_str()), "{krate} must not depend on {used}");
        }
    }
    for krate in PURE {
        for used in &all[krate] {
            assert!(!used.starts_with("tokio"), "{krate} is pure and must not depend on {used}");
        }
    }
    for (library, owners) in WALLS {
        for (krate, used) in &all {
            let knows = used.iter().any(|used| used == library);
            assert!(!knows || owners.contains(krate), "{krate} must not know {library}");
        }
    }
}

#[test]
fn no_modules_use_each_other_but_a_module_and_its_parts() {
    for krate in members() {
        let modules = imports::modules(&root().join(&krate).join("src"));
        let circles = imports::circles(&modules);
        assert!(circles.is_empty(), "{krate}: modules use each other in a circle: {circles:?}");
    }
}

#[test]
fn every_channel_has_a_bound() {
    for krate in members().into_iter().filter(|krate| krate != "tests") {
        for (module, words) in imports::modules(&root().join(&krate).join("src")) {
            let unbounded = words.iter().any(|word| word == "unbounded_channel");
            assert!(!unbounded, "{krate}: {module:?} has a channel without a bound");
        }
    }
}

/// The sources of a crate, with their text.
fn sources(krate: &str) -> Vec<(PathBuf, String)> {
    let files = shoal_tests::files_below(&root().join(krate).join("src")).into_iter();
    files.map(|path| (path.clone(), std::fs::read_to_string(&path).unwrap_or_default())).collect()
}

#[test]
fn one_selector_orders_downloads_placement_and_repair() {
    let crates = ["peer/engine/core", "peer/engine", "peer/dfs", "tracker"];
    let all: Vec<_> = crates.iter().flat_map(|krate| sources(krate)).collect();
    let defined = all.iter().filter(|(_, text)| text.contains("pub struct Selector"));
    assert_eq!(defined.count(), 1, "there is one selector");
    // The engine's core orders what peers and HTTP servers deliver; a put and the trackers' repair place by the same code.
    for krate in ["peer/engine/core", "peer/dfs", "tracker"] {
        let sources = sources(krate);
        let used = |call: &str| {
            sources.iter().any(|(path, text)| !path.ends_with("selector.rs") && text.contains(call))
        };
        assert!(used("Selector::new(") && used("selector.rarest("), "{krate} chooses by the selector");
    }
}

#[test]
fn scripts_say_how_they_are_used_and_start_nothing_then() {
    for script in ["bench", "demo", "dev-cluster", "fuzz", "sim", "test", "versions"] {
        let mut command = std::process::Command::new(root().join("scripts").join(script));
        // Whatever it might start cannot be found.
        let said = command.arg("--help").env("PATH", "/usr/bin:/bin").output().unwrap();
        let text = String::from_utf8(said.stdout).unwrap();
        assert!(said.status.success() && text.contains(&format!("scripts/{script}")), "{script}: {text}");
    }
}

#[test]
fn one_version_of_rust_is_pinned_everywhere() {
    let quoted = |file: &str, key: &str| {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned).unwrap();
        line.trim_matches([' ', '=', '"']).to_owned()
    };
    let pinned = quoted("rust-toolchain.toml", "channel");
    assert!(pinned.starts_with(&format!("{}.", quoted("Cargo.toml", "rust-version"))), "{pinned}");
    let container = std::fs::read_to_string(root().join("scripts/deploy/Containerfile")).unwrap();
    assert!(container.contains(&format!("/rust:{pinned}-slim ")), "the container file: {pinned}");
}
