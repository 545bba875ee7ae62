//! What is known of a command besides what it does: from it the parser counts arguments, the completer knows what comes
//! next, and `help` is written.

use super::table::COMMANDS;

/// What a command is about; `help` shows them under these headings, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Users and sessions.
    Account,
    /// Groups and their members.
    Groups,
    /// Sharing files.
    Sharing,
    /// Downloading files.
    Downloads,
    /// Everything else.
    General,
}

/// What an argument is; the completer offers accordingly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// A user id.
    User,
    /// A secret: never completed, never kept in the history.
    Password,
    /// A group id.
    Group,
    /// The name of a file in the group named before.
    File,
    /// A path on this machine.
    Path,
    /// `up` or `down`.
    Direction,
    /// A command's name.
    Command,
    /// Anything else.
    Free,
}

/// One command.
#[derive(Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name in lower case.
    pub name: &'static str,
    /// Its arguments as `help` shows them.
    pub usage: &'static str,
    /// What the arguments are, in order.
    pub arguments: &'static [Argument],
    /// How many of them must be there.
    pub required: usize,
    /// The options that it takes; those that end in `=` take a value, given as the next word.
    pub options: &'static [&'static str],
    /// Under which heading it stands.
    pub section: Section,
    /// What it does, in a line.
    pub summary: &'static str,
    /// What `help <command>` adds, or nothing.
    pub details: &'static str,
    /// How it looks in use.
    pub example: &'static str,
}

impl Section {
    /// All sections in the order of `help`.
    pub const ALL: [Self; 5] = [Self::Account, Self::Groups, Self::Sharing, Self::Downloads, Self::General];

    /// The heading.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Account => "Account",
            Self::Groups => "Groups",
            Self::Sharing => "Sharing",
            Self::Downloads => "Downloads",
            Self::General => "General",
        }
    }
}

impl Spec {
    /// Whether a line with this command may hold a password.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.arguments.contains(&Argument::Password)
    }

    /// The command with its arguments.
    #[must_use]
    pub fn synopsis(&self) -> String {
        format!("{} {}", self.name, self.usage).trim_end().to_owned()
    }
}

/// The command of that name, in any case.
#[must_use]
pub fn find(name: &str) -> Option<&'static Spec> {
    let name =
        ALIASES.iter().find(|(alias, _)| name.eq_ignore_ascii_case(alias)).map_or(name, |(_, name)| name);
    COMMANDS.iter().find(|spec| spec.name.eq_ignore_ascii_case(name))
}

/// The command that somebody who typed `name` probably meant.
#[must_use]
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    COMMANDS
        .iter()
        .map(|spec| (distance(&name, spec.name), spec.name))
        .filter(|&(distance, _)| distance <= MEANT_WITHIN)
        .min()
        .map(|(_, name)| name)
}

/// Typing errors that are still taken for a slip.
const MEANT_WITHIN: usize = 2;
/// Longer words are no slips of any command's name.
const LONGEST_SLIP: usize = 20;

/// Levenshtein's distance; far for words that are too long to be meant.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > LONGEST_SLIP {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let cost = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Other words for commands, as other programs have them.
const ALIASES: [(&str, &str); 2] = [("exit", "quit"), ("?", "help")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_case_and_nearly() {
        assert_eq!(find("Show_Downloads").unwrap().name, "show_downloads");
        assert_eq!(find("EXIT").unwrap().name, "quit");
        assert!(find("show").is_none());
        assert_eq!(nearest("list_grops"), Some("list_groups"));
        assert_eq!(nearest("Logn"), Some("login"));
        assert_eq!(nearest("frobnicate"), None);
        assert_eq!(nearest(&"x".repeat(10_000)), None);
    }

    #[test]
    fn every_row_is_whole() {
        for spec in COMMANDS {
            assert!(spec.required <= spec.arguments.len(), "{}", spec.name);
            assert!(spec.example.starts_with(spec.name) && !spec.summary.is_empty(), "{}", spec.name);
            assert!(Section::ALL.contains(&spec.section));
            assert_eq!(find(spec.name).map(|found| found.name), Some(spec.name));
        }
    }
}
