//! Text that came from outside, made fit for a terminal, and numbers as people read them.

use std::time::Duration;

use shoal_common::names::shown;
use shoal_common::tracker_api::{Level, QuotaAnswer};

/// Most characters of an error as it is shown.
const MAX_ERROR_CHARS: usize = 500;
/// Characters of a text that an error message repeats at most.
const SHORT_CHARS: usize = 60;

/// The text without the control characters that a terminal would obey, and with other hidden characters escaped as in names.
#[must_use]
pub fn printable(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    shown(&text).into_owned()
}

/// As [`printable`], cut to what an error message needs.
#[must_use]
pub fn short(text: &str) -> String {
    let mut short = printable(&text.chars().take(SHORT_CHARS).collect::<String>());
    if text.chars().nth(SHORT_CHARS).is_some() {
        short.push('…');
    }
    short
}

/// An error as one printable line that fits a screen: of a longer one, which can only come of an absurd name in it, the
/// middle is left out, so that what happened and what to do stay.
#[must_use]
pub fn error_line(text: &str) -> String {
    let text = printable(text);
    let length = text.chars().count();
    if length <= MAX_ERROR_CHARS {
        return text;
    }
    let half = MAX_ERROR_CHARS / 2;
    let (begin, end): (String, String) =
        (text.chars().take(half).collect(), text.chars().skip(length - half).collect());
    format!("{begin}…{end}")
}

/// Bytes as people read them: `1.5 MiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    shoal_common::size_text(bytes)
}

/// Characters of a digest that tell it from others in a list.
const SHORT_DIGEST: usize = 8;

/// The beginning of a digest, for a list.
#[must_use]
pub fn short_digest(digest: &impl ToString) -> String {
    digest.to_string().chars().take(SHORT_DIGEST).collect()
}

/// The end of a peer id, for a list: all begin alike.
#[must_use]
pub fn short_peer_id(peer: &impl ToString) -> String {
    let text = peer.to_string();
    let end = text.char_indices().nth_back(SHORT_DIGEST - 1).map_or(0, |(at, _)| at);
    format!("…{}", &text[end..])
}

/// What a user has and may have, one figure per line.
#[must_use]
pub fn quota(quota: &QuotaAnswer) -> String {
    let figures = [
        ("files", Some(quota.files), u64::to_string as fn(&u64) -> String),
        ("kept by the trackers", Some(quota.bytes), |bytes| size(*bytes)),
        ("groups founded", quota.groups, u64::to_string),
        ("stored, all copies", quota.stored, |bytes| size(*bytes)),
    ];
    let lines = figures.into_iter().filter_map(|(name, level, shown)| {
        let Level { used, most } = level?;
        let most = most.map_or_else(|| "no bound".to_owned(), |most| format!("of {}", shown(&most)));
        Some(format!("{name:<20}  {} {most}", shown(&used)))
    });
    let clients = quota.clients.iter().flatten().map(|client| {
        let note = if client.own { ", this one" } else { "" };
        format!(
            "  shared on            {} ({}{note})",
            client.peer,
            count(usize::try_from(client.files).unwrap_or(usize::MAX), "file")
        )
    });
    lines.chain(clients).collect::<Vec<_>>().join("\n")
}

/// A duration to the second: `1h02m03s`, `2m03s`, `3s`.
#[must_use]
pub fn duration(duration: Duration) -> String {
    shoal_common::duration_text(duration)
}

/// `count` things: `1 file`, `2 files`.
#[must_use]
pub fn count(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// A name as it is typed in a command: in quotes, if it holds blanks, quotes or backslashes.
#[must_use]
pub fn quoted(word: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\'' | '\\');
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let mut text = String::with_capacity(word.len() + 2);
    text.push('"');
    for character in word.chars() {
        if matches!(character, '"' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push('"');
    text
}

/// That others do not reach this client at the address that they are given, and what to do. `foreign`: it is another machine's.
#[must_use]
pub fn unreached(address: &str, foreign: bool, relays: bool) -> String {
    let port = address.rsplit_once(':').map_or(address, |(_, port)| port);
    let why = if foreign {
        format!(
            "the tracker cannot look whether others reach this client at {address}, which is not where it comes from; check that address"
        )
    } else {
        format!(
            "others cannot connect to this client at {address}, so it connects to those that can be reached"
        )
    };
    let rest = if relays {
        "with others it exchanges through the tracker's relay, which is slower"
    } else {
        "with others it cannot exchange files: ask the trackers' operator for a relay (tracker --relay)"
    };
    let advice = format!("forward TCP port {port} on your router to this machine");
    if foreign { format!("{why}, or {advice}") } else { format!("{why}; {rest}, or {advice}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_pass() {
        assert_eq!(printable("a\x1b[2Jb\r\n\u{202e}c\u{7}é"), "a[2Jb\\u{202e}cé");
        assert_eq!(short(&"x".repeat(100)), format!("{}…", "x".repeat(60)));
        let long = error_line(&format!("what\n{}do", "x".repeat(10_000)));
        assert!(long.starts_with("whatx") && long.ends_with("xdo") && long.chars().count() == 501);
    }

    #[test]
    fn numbers_are_readable() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_610_612_736, "1.5 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
        for (seconds, shown) in [(0, "0s"), (59, "59s"), (123, "2m03s"), (3723, "1h02m03s")] {
            assert_eq!(duration(Duration::from_secs(seconds)), shown);
        }
        assert_eq!((count(1, "file"), count(0, "file")), ("1 file".into(), "0 files".into()));
    }
}
