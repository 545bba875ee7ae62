//! `explain` (P24): each cause is provoked with the real binaries, and the next step that is named can be typed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod limits;
mod places;
mod service;
mod sharers;
mod shares;
mod sources;
mod trackers;

use std::collections::BTreeSet;

use serde_json::Value;
use shoal_tests::{Client, until};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What the tests of a part provoke; at its end each must have been seen.
struct Seen {
    expected: &'static [&'static str],
    seen: BTreeSet<String>,
}

impl Seen {
    fn new(expected: &'static [&'static str]) -> Self {
        Self { expected, seen: BTreeSet::new() }
    }

    /// Waits until the client explains its download of that file of `g` so.
    fn download(&mut self, client: &mut Client, file: &str, cause: &str) -> Value {
        self.of(client, "download", file, cause)
    }

    /// Waits until the client explains its share of that file of `g` so.
    fn share(&mut self, client: &mut Client, file: &str, cause: &str) -> Value {
        self.of(client, "share", file, cause)
    }

    fn of(&mut self, client: &mut Client, kind: &str, file: &str, cause: &str) -> Value {
        let found = until_explained(client, &format!("explain g {file}"), kind, cause);
        let name = file.trim_matches('\'');
        assert_eq!((&found["group"], &found["file"]), (&"g".into(), &name.into()), "{found}");
        self.note(&found, cause);
        found
    }

    /// Waits until the client says this of itself.
    fn client(&mut self, client: &mut Client, cause: &str) -> Value {
        let found = until_explained(client, "explain", "client", cause);
        assert!(found.get("file").is_none(), "{found}");
        self.note(&found, cause);
        found
    }

    fn note(&mut self, found: &Value, cause: &str) {
        let (text, next) = (found["text"].as_str().unwrap(), found["next"].as_str().unwrap());
        for words in [text, next] {
            assert!(!words.is_empty() && !words.contains('\n') && words.chars().count() < 700, "{found}");
        }
        assert!(text.ends_with('.'), "a sentence: {found}");
        assert!(text.starts_with(|first: char| !first.is_whitespace()), "{found}");
        if found.get("command").is_some() {
            let (_, line) = next.rsplit_once("type: ").unwrap();
            let parsed = shoal_peer::command::parse(line).unwrap();
            assert!(parsed.command.is_ok(), "{line}: {:?}", parsed.command);
        }
        eprintln!("{cause}: {text}\n    next: {next}");
        self.seen.insert(cause.to_owned());
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let expected: BTreeSet<String> = self.expected.iter().map(ToString::to_string).collect();
            assert_eq!(self.seen, expected);
        }
    }
}

fn explained(client: &mut Client, command: &str) -> Vec<Value> {
    let answer = client.run(command).answer;
    answer["explanations"].as_array().cloned().unwrap_or_default()
}

fn until_explained(client: &mut Client, command: &str, kind: &str, cause: &str) -> Value {
    let (mut last, mut found) = (Vec::new(), None);
    let name = client.name().to_owned();
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until(&format!("{name}: {command}: {cause}"), || {
            last = explained(client, command);
            found = last.iter().find(|one| one["kind"] == kind && one["cause"] == cause).cloned();
            found.is_some()
        });
    }));
    if let Err(panic) = waited {
        eprintln!("{name}: {command}: at the end it said {last:?}");
        std::panic::resume_unwind(panic);
    }
    found.unwrap()
}

/// All causes that are provoked, by part.
const PROVOKED: &[&[&str]] = &[
    limits::CAUSES,
    places::CAUSES,
    places::ROOT,
    shares::CAUSES,
    shares::ROOT,
    sharers::CAUSES,
    sources::CAUSES,
    trackers::CAUSES,
    trackers::ONE,
];

#[test]
fn at_least_25_causes_are_provoked_and_each_is_one_that_is_documented() {
    let provoked: BTreeSet<&str> = PROVOKED.iter().copied().flatten().copied().collect();
    assert!(provoked.len() >= 25, "{}", provoked.len());
    let table = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/explain.md")).unwrap();
    for cause in provoked {
        assert!(table.contains(&format!("| `{cause}` |")), "{cause}");
    }
}
