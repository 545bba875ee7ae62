//! The table of commands: one row each, from which the parser counts arguments, the completer knows what comes next, and
//! `help` is written.

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

const NONE: &[&str] = &[];

/// All commands, in the order of `help`.
pub const COMMANDS: &[Spec] = &[
    Spec {
        name: "create_user",
        usage: "<user_id> [<password>]",
        arguments: &[Argument::User, Argument::Password],
        required: 1,
        options: NONE,
        section: Section::Account,
        summary: "create an account; asks for the password when it is left out",
        details: "The password never leaves this machine and cannot be recovered by anybody.",
        example: "create_user ann",
    },
    Spec {
        name: "login",
        usage: "<user_id> [<password>]",
        arguments: &[Argument::User, Argument::Password],
        required: 1,
        options: NONE,
        section: Section::Account,
        summary: "log in; shares and downloads go on where they stopped",
        details: "Files shared before are checked, and shared again if they are there and unchanged.",
        example: "login ann",
    },
    Spec {
        name: "logout",
        usage: "",
        arguments: &[],
        required: 0,
        options: NONE,
        section: Section::Account,
        summary: "stop sharing, pause downloads and log out",
        details: "",
        example: "logout",
    },
    Spec {
        name: "whoami",
        usage: "",
        arguments: &[],
        required: 0,
        options: NONE,
        section: Section::Account,
        summary: "who is logged in, and where",
        details: "",
        example: "whoami",
    },
    Spec {
        name: "change_password",
        usage: "[[<old_password>] <new_password>]",
        arguments: &[Argument::Password, Argument::Password],
        required: 0,
        options: NONE,
        section: Section::Account,
        summary: "change the password; asks for what is left out",
        details: "All other sessions of the account end. In a script SHOAL_PASSWORD stands in for the new password.",
        example: "change_password",
    },
    Spec {
        name: "create_group",
        usage: "<group_id>",
        arguments: &[Argument::Free],
        required: 1,
        options: NONE,
        section: Section::Groups,
        summary: "create a group, which you then own",
        details: "",
        example: "create_group holidays",
    },
    Spec {
        name: "join_group",
        usage: "<group_id>",
        arguments: &[Argument::Group],
        required: 1,
        options: NONE,
        section: Section::Groups,
        summary: "ask to be let into a group; its owner decides",
        details: "",
        example: "join_group holidays",
    },
    Spec {
        name: "leave_group",
        usage: "<group_id>",
        arguments: &[Argument::Group],
        required: 1,
        options: NONE,
        section: Section::Groups,
        summary: "leave a group, and stop sharing in it",
        details: "When the owner leaves, the member who joined first becomes the owner. A group without members is gone, \
                  and its name is not given out again.",
        example: "leave_group holidays",
    },
    Spec {
        name: "list_groups",
        usage: "",
        arguments: &[],
        required: 0,
        options: NONE,
        section: Section::Groups,
        summary: "all groups in the network",
        details: "",
        example: "list_groups",
    },
    Spec {
        name: "list_members",
        usage: "<group_id>",
        arguments: &[Argument::Group],
        required: 1,
        options: NONE,
        section: Section::Groups,
        summary: "a group's members",
        details: "",
        example: "list_members holidays",
    },
    Spec {
        name: "list_requests",
        usage: "<group_id>",
        arguments: &[Argument::Group],
        required: 1,
        options: NONE,
        section: Section::Groups,
        summary: "who asks to be let in (owner only)",
        details: "",
        example: "list_requests holidays",
    },
    Spec {
        name: "accept_request",
        usage: "<group_id> <user_id>",
        arguments: &[Argument::Group, Argument::User],
        required: 2,
        options: NONE,
        section: Section::Groups,
        summary: "let somebody in (owner only)",
        details: "",
        example: "accept_request holidays bob",
    },
    Spec {
        name: "reject_request",
        usage: "<group_id> <user_id>",
        arguments: &[Argument::Group, Argument::User],
        required: 2,
        options: NONE,
        section: Section::Groups,
        summary: "do not let somebody in (owner only)",
        details: "",
        example: "reject_request holidays bob",
    },
    Spec {
        name: "upload_file",
        usage: "<file_path> <group_id> [--mirror URL]...",
        arguments: &[Argument::Path, Argument::Group],
        required: 2,
        options: &["--mirror="],
        section: Section::Sharing,
        summary: "share a file with a group",
        details: "The file stays where it is; only its name, size and digests go to the trackers. It is shared while this \
                  client runs and you are logged in. --mirror names an HTTP address with the same content.",
        example: "upload_file ~/pictures/beach.zip holidays",
    },
    Spec {
        name: "stop_share",
        usage: "<group_id> <file_name>",
        arguments: &[Argument::Group, Argument::File],
        required: 2,
        options: NONE,
        section: Section::Sharing,
        summary: "stop sharing a file; the file itself stays",
        details: "During its download it stops uploading, and the finished download is not shared.",
        example: "stop_share holidays beach.zip",
    },
    Spec {
        name: "list_files",
        usage: "<group_id>",
        arguments: &[Argument::Group],
        required: 1,
        options: NONE,
        section: Section::Sharing,
        summary: "a group's files, and how many share each now",
        details: "",
        example: "list_files holidays",
    },
    Spec {
        name: "show_peers",
        usage: "<group_id> <file_name>",
        arguments: &[Argument::Group, Argument::File],
        required: 2,
        options: NONE,
        section: Section::Sharing,
        summary: "who holds a file, and how much of it",
        details: "",
        example: "show_peers holidays beach.zip",
    },
    Spec {
        name: "download_file",
        usage: "<group_id> <file_name> <destination_path> [--overwrite]",
        arguments: &[Argument::Group, Argument::File, Argument::Path],
        required: 3,
        options: &["--overwrite"],
        section: Section::Downloads,
        summary: "download a file in the background, from many peers at once",
        details: "The destination is a folder or the file's new path. What is there already is kept unless --overwrite is \
                  given. The finished file is shared with the group; stop_share prevents it.",
        example: "download_file holidays beach.zip ~/downloads",
    },
    Spec {
        name: "show_downloads",
        usage: "[-v] [--watch]",
        arguments: &[],
        required: 0,
        options: &["-v", "--verbose", "--watch"],
        section: Section::Downloads,
        summary: "all downloads: [D] downloading, [C] complete, [P] paused, [F] failed",
        details: "-v adds percent, rate, time left and sources. --watch shows live progress until nothing runs; Ctrl-C \
                  ends it and the downloads go on.",
        example: "show_downloads -v",
    },
    Spec {
        name: "pause_download",
        usage: "<group_id> <file_name>",
        arguments: &[Argument::Group, Argument::File],
        required: 2,
        options: NONE,
        section: Section::Downloads,
        summary: "pause a download; what is there is kept",
        details: "",
        example: "pause_download holidays beach.zip",
    },
    Spec {
        name: "resume_download",
        usage: "<group_id> <file_name>",
        arguments: &[Argument::Group, Argument::File],
        required: 2,
        options: NONE,
        section: Section::Downloads,
        summary: "go on with a paused or failed download",
        details: "",
        example: "resume_download holidays beach.zip",
    },
    Spec {
        name: "cancel_download",
        usage: "<group_id> <file_name>",
        arguments: &[Argument::Group, Argument::File],
        required: 2,
        options: NONE,
        section: Section::Downloads,
        summary: "give a download up, or take a finished one off the list",
        details: "An unfinished file is removed; a finished one stays, and stays shared.",
        example: "cancel_download holidays beach.zip",
    },
    Spec {
        name: "limit",
        usage: "up|down RATE",
        arguments: &[Argument::Direction, Argument::Free],
        required: 2,
        options: NONE,
        section: Section::Downloads,
        summary: "limit the upload or download rate, in bytes a second; 0 for no limit",
        details: "RATE may end in K, M or G (1024, 1024 squared, 1024 cubed). The limit is kept over restarts.",
        example: "limit up 20M",
    },
    Spec {
        name: "wait",
        usage: "[seconds]",
        arguments: &[Argument::Free],
        required: 0,
        options: NONE,
        section: Section::Downloads,
        summary: "wait until no download runs; for scripts",
        details: "Fails when the time is over before, or when a download that it waited for failed.",
        example: "wait 60",
    },
    Spec {
        name: "help",
        usage: "[command]",
        arguments: &[Argument::Command],
        required: 0,
        options: NONE,
        section: Section::General,
        summary: "this list, or more about one command",
        details: "",
        example: "help upload_file",
    },
    Spec {
        name: "quit",
        usage: "",
        arguments: &[],
        required: 0,
        options: NONE,
        section: Section::General,
        summary: "leave; unfinished downloads go on after the next login (Ctrl-D does the same)",
        details: "",
        example: "quit",
    },
];

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
