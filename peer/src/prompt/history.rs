//! What of a typed line is kept for the next time: never a password, nor a line that may hold one by mistake.

use shoal_prompt::split;
use shoal_session::text::quoted;

use crate::command::{definition, find, is_secret};

/// The line as it may be kept, or nothing. Of a command that takes a password only the command and its user id are kept.
/// A line that is no command is not kept at all: it may be a password typed too early, or a slip in `login`.
#[must_use]
pub(super) fn entry(line: &str) -> Option<String> {
    let cut = split(line);
    let all = definition();
    let command = find(&all, &cut.words.first()?.text)?;
    if !is_secret(command) {
        return Some(line.trim().to_owned());
    }
    let names_user = command.get_positionals().next().is_some_and(|first| first.get_id() == "user");
    Some(match cut.words.get(1).filter(|_| names_user) {
        Some(user) => format!("{} {}", command.get_name(), quoted(&user.text)),
        None => command.get_name().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_kept() {
        for (line, kept) in [
            ("login bob secret", Some("login bob")),
            ("  LOGIN  'b o b' 'sec ret'", Some("login \"b o b\"")),
            ("login bob 'unclosed secret", Some("login bob")),
            ("login", Some("login")),
            ("create_user bob secret", Some("create_user bob")),
            ("change_password old secret", Some("change_password")),
            ("logni bob secret", None),
            ("secret", None),
            ("", None),
            ("list_files g", Some("list_files g")),
            ("download_file g 'a b' ~/x ", Some("download_file g 'a b' ~/x")),
        ] {
            assert_eq!(entry(line).as_deref(), kept, "{line}");
            assert!(!entry(line).unwrap_or_default().contains("secret"));
        }
    }
}
