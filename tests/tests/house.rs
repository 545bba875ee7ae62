//! The crates depend on each other as ARCHITECTURE.md says: arrows run downward only, and pure crates stay pure.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::path::Path;

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

/// What a crate depends on, tests aside.
fn dependencies(krate: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(root.join(krate).join("Cargo.toml")).unwrap();
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
