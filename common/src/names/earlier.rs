//! Which names programs before revision 3 of the trackers' protocol cannot read: a message with such a name ends their
//! connection.

use super::suffix_at;

/// The longest file name of theirs in bytes, and with the `~xxxxxx` of one that was renamed on conflict.
const LONGEST: usize = 240;
const LONGEST_RENAMED: usize = 247;

/// Whether programs before revision 3 take this for no name: for its length, or for a character such as the joiners of
/// Persian and of emoji.
#[must_use]
pub fn is_later(name: &str) -> bool {
    let longest = if suffix_at(name).is_some() { LONGEST_RENAMED } else { LONGEST };
    let unknown = |c| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    name.len() > longest || name.contains(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joiners_and_long_file_names_are_of_later_versions() {
        let (fits, long) = ("n".repeat(240), "n".repeat(241));
        let renamed = format!("{fits}~0123ab");
        for name in ["ann", "zo\u{eb}", "ann\u{ad}", fits.as_str(), renamed.as_str()] {
            assert!(!is_later(name), "{name}");
        }
        for name in ["می\u{200c}خواهم", "👩\u{200d}🚀", "a\u{202e}b", long.as_str()] {
            assert!(is_later(name), "{name}");
        }
    }
}
