//! The crates and their modules depend on each other as ARCHITECTURE.md says: arrows run downward only, pure crates stay
//! pure, and no two modules use each other but a module and its own parts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod imports;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Crates, and the crates of the house that each may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("common/sha1", &[]),
    ("common", &["shoal-sha1"]),
    ("common/console", &["shoal-common"]),
    ("common/net", &["shoal-common"]),
    ("tracker/replica", &[]),
    ("tracker/sim", &["shoal-replica"]),
    ("tracker", &["shoal-common", "shoal-console", "shoal-engine-core", "shoal-net", "shoal-replica"]),
    ("peer/policy", &["shoal-common"]),
    ("peer/engine/core", &["shoal-common"]),
    ("peer/engine", &["shoal-common", "shoal-engine-core", "shoal-sha1"]),
    ("peer/sim", &["shoal-common", "shoal-engine-core", "shoal-policy"]),
    ("peer/http", &["shoal-common", "shoal-console", "shoal-engine"]),
    ("peer/session", &["shoal-common", "shoal-net", "shoal-policy"]),
    (
        "peer/swarm",
        &["shoal-common", "shoal-console", "shoal-engine", "shoal-net", "shoal-policy", "shoal-session"],
    ),
    (
        "peer/client",
        &[
            "shoal-common",
            "shoal-console",
            "shoal-engine",
            "shoal-http",
            "shoal-net",
            "shoal-session",
            "shoal-swarm",
        ],
    ),
    ("peer/dfs", &["shoal-common", "shoal-console", "shoal-engine", "shoal-net", "shoal-session"]),
    ("peer", &["shoal-client", "shoal-common", "shoal-console", "shoal-http", "shoal-session"]),
];

/// Crates that know no clock, socket or disk.
const PURE: &[&str] = &["common", "tracker/replica", "peer/policy", "peer/engine/core"];
/// Libraries, and the only crates that may know them.
const WALLS: &[(&str, &[&str])] = &[
    ("libp2p", &["common/net"]),
    ("rusqlite", &["tracker", "peer/client"]),
    ("tokio-rustls", &["common/net"]),
];

/// Circles of modules that are still there: the crate, and the module that they stand in.
const CIRCLES: &[(&str, &str)] = &[
    ("common", ""),
    ("common/net", ""),
    ("peer/dfs", "front"),
    ("peer/http", "server"),
    ("peer/swarm", "fetch"),
    ("tracker", ""),
    ("tracker", "service"),
    ("tracker/replica", ""),
    ("tracker/sim", ""),
];
/// Channels without a bound that are still there: the crate, and the module.
const UNBOUNDED: &[(&str, &str)] = &[("tracker", "node")];

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
        for (parent, names) in imports::circles(&modules) {
            let known = CIRCLES.contains(&(krate.as_str(), parent.join("::").as_str()));
            assert!(known, "{krate}: modules of {parent:?} use each other in a circle: {names:?}");
        }
    }
}

#[test]
fn every_channel_has_a_bound() {
    for krate in members().into_iter().filter(|krate| krate != "tests") {
        for (module, words) in imports::modules(&root().join(&krate).join("src")) {
            let unbounded = words.iter().any(|word| word == "unbounded_channel");
            let known = UNBOUNDED.contains(&(krate.as_str(), module.join("::").as_str()));
            assert!(!unbounded || known, "{krate}: {module:?} has a channel without a bound");
        }
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
