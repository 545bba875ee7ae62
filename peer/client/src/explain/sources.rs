//! Sources in words, and what holds for sources that are connected whatever the download does.

use shoal_common::UserName;
use shoal_session::text;

use super::next::Next;
use super::{Cause, Found};
use crate::FileRef;

/// Sources by their names: `ann`, `ann and bob`, `ann, bob and 3 more`.
pub(super) fn from(names: &[UserName], sources: usize) -> String {
    let mut names: Vec<&str> = names.iter().map(UserName::as_str).collect();
    names.dedup();
    match names.as_slice() {
        [] => text::count(sources, "source"),
        [one] if sources <= 1 => (*one).to_owned(),
        [one, two] if sources <= 2 => format!("{one} and {two}"),
        _ if sources > names.len() => format!("{} and {} more", names.join(", "), sources - names.len()),
        _ => names.join(", "),
    }
}

/// All sources ask for patience.
pub(super) fn busy(from: &str, sources: usize, file: &FileRef) -> Found {
    let (verb, who) =
        if sources == 1 { ("asks", "its client serves") } else { ("ask", "their clients serve") };
    Found::new(
        Cause::SourcesBusy,
        format!("{from} {verb} for patience: {who} others first."),
        Next::of_file("wait; to see who else has it", "show_peers", file, &[]),
    )
}

/// Sources are connected and send nothing.
pub(super) fn stalled(from: &str, file: &FileRef) -> Found {
    Found::new(
        Cause::SourcesStalled,
        format!("Nothing comes from {from} any more, though the connection stands."),
        Next::of_file("wait: it is asked again by itself; to see who else has it", "show_peers", file, &[]),
    )
}
