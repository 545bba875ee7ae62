//! The next step: what to do, and the command that does it, as it is typed.

use serde::ser::{Serialize, SerializeStruct, Serializer};
use shoal_common::GroupName;
use shoal_session::text;

use crate::FileRef;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// In words.
    pub advice: String,
    /// The words of the command that does it; empty if none does.
    pub command: Vec<String>,
}

impl Next {
    pub(super) fn advice(advice: impl Into<String>) -> Self {
        Self { advice: advice.into(), command: Vec::new() }
    }

    pub(super) fn command(advice: impl Into<String>, words: &[&str]) -> Self {
        Self { advice: advice.into(), command: words.iter().map(|&word| word.to_owned()).collect() }
    }

    /// A command that takes a group.
    pub(super) fn of_group(advice: impl Into<String>, name: &str, group: &GroupName) -> Self {
        let group = group.as_str();
        // What begins with a dash would be taken for an option.
        let words = if group.starts_with('-') { vec![name, "--", group] } else { vec![name, group] };
        Self::command(advice, &words)
    }

    /// A command that takes a file, and more words behind it.
    pub(super) fn of_file(advice: impl Into<String>, name: &str, file: &FileRef, more: &[&str]) -> Self {
        let (group, name_of_file) = (file.group.as_str(), file.file.as_str());
        let mut words = vec![name];
        // What begins with a dash would be taken for an option.
        if group.starts_with('-') || name_of_file.starts_with('-') {
            words.push("--");
        }
        words.extend([group, name_of_file]);
        words.extend(more);
        Self::command(advice, &words)
    }

    /// As it is said at the prompt.
    #[must_use]
    pub fn at_prompt(&self) -> String {
        self.said(|| self.command.iter().map(|word| text::quoted(word)).collect::<Vec<_>>().join(" "))
    }

    /// As it is said to someone who types commands in a shell.
    #[must_use]
    pub fn in_shell(&self) -> String {
        let quoted = |word: &String| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@%".contains(c);
            let is_plain = !word.is_empty() && word.chars().all(plain);
            if is_plain { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) }
        };
        self.said(|| format!("shoal {}", self.command.iter().map(quoted).collect::<Vec<_>>().join(" ")))
    }

    fn said(&self, line: impl FnOnce() -> String) -> String {
        if self.command.is_empty() {
            self.advice.clone()
        } else {
            format!("{}, type: {}", self.advice, line())
        }
    }
}

impl Serialize for Next {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_command = !self.command.is_empty();
        let mut next = serializer.serialize_struct("Next", 1 + usize::from(is_command))?;
        next.serialize_field("next", &self.at_prompt())?;
        if is_command {
            next.serialize_field("command", &self.command)?;
        }
        next.end()
    }
}
