//! What of a typed line is kept for the next time: never a password, nor a line that may hold one by mistake.

use crate::command::{Argument, find, quoted, split};

/// The line as it may be kept, or nothing. Of a command that takes a password only the command and its user id are kept.
/// A line that is no command is not kept at all: it may be a password typed too early, or a slip in `login`.
#[must_use]
pub(super) fn entry(line: &str) -> Option<String> {
    let cut = split(line);
    let spec = find(&cut.words.first()?.text)?;
    if !spec.is_secret() {
        return Some(line.trim().to_owned());
    }
    let user = (spec.arguments.first() == Some(&Argument::User)).then(|| cut.words.get(1)).flatten();
    Some(match user {
        Some(user) => format!("{} {}", spec.name, quoted(&user.text)),
        None => spec.name.to_owned(),
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
