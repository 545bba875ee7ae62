//! The commands: one module each, with what may be typed, what it does, what it shows and an example. [`parse()`] makes them
//! from lines. `help`, the completer, the history and the README's table come from the list here.

mod accept_request;
mod args;
mod cancel_download;
mod change_password;
mod choose;
mod context;
mod create_group;
mod create_user;
mod download_file;
mod explain;
mod forget_client;
mod help;
mod join_group;
mod leave_group;
mod limit;
mod limit_download;
mod list_files;
mod list_groups;
mod list_members;
mod list_requests;
mod login;
mod logout;
mod move_download;
mod parse;
mod pause_download;
mod prioritize;
mod quit;
mod quota;
mod reject_request;
mod relocate;
mod resume_download;
mod schedule;
mod sessions;
mod set;
mod show_downloads;
mod show_peers;
mod stop_share;
mod upload_file;
mod wait;
mod whoami;

use std::sync::LazyLock;

use clap::{Args, FromArgMatches};
use shoal_wipe::without_traces;

use crate::reply::Reply;

pub use context::{Caller, Context, Failure};
pub use parse::{MAX_LINE_BYTES, ParseError, Parsed, parse, parse_words};

/// A command as it was typed.
trait Run: Args {
    /// An example of its use.
    const EXAMPLE: &'static str;

    /// The passwords that it will ask for.
    fn asks(&self) -> &'static [Secret] {
        &[]
    }

    /// Carries it out.
    ///
    /// # Errors
    /// See [`Failure`].
    async fn run(self, context: &Context) -> Result<Reply, Failure>;
}

/// A password that a command asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secret {
    /// The one that the account has.
    Present,
    /// A new one.
    New,
    /// The one that the account has, before it gets a new one.
    Old,
}

macro_rules! commands {
    ($($title:literal { $($name:literal $module:ident::$kind:ident)+ })+) => {
        /// A command as it was typed.
        #[derive(Debug)]
        #[expect(missing_docs, reason = "each says at its type what it is")]
        pub enum Command {
            $($($kind($module::$kind),)+)+
        }

        /// The names of all commands under their headings, in the order of `help`.
        pub const SECTIONS: &[(&str, &[&str])] = &[$(($title, &[$($name),+])),+];

        /// All commands, as clap knows them.
        #[must_use]
        pub fn definition() -> clap::Command {
            let mut all = clap::Command::new("").no_binary_name(true).disable_help_subcommand(true);
            $($(
                let command = $module::$kind::augment_args(clap::Command::new($name));
                all = all.subcommand(command.disable_help_flag(true).after_help($module::$kind::EXAMPLE));
            )+)+
            all
        }

        impl Command {
            fn read(name: &str, matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
                match name {
                    $($($name => $module::$kind::from_arg_matches(matches).map(Self::$kind),)+)+
                    _ => Err(clap::Error::new(clap::error::ErrorKind::InvalidSubcommand)),
                }
            }

            /// The passwords that it will ask for, in this order.
            #[must_use]
            pub fn asks(&self) -> &'static [Secret] {
                match self {
                    $($(Self::$kind(command) => command.asks(),)+)+
                }
            }

            /// Carries it out. Dropping the future stops waiting for it. A change that a tracker was asked for may still take
            /// effect; hashing stops.
            ///
            /// # Errors
            /// See [`Failure`].
            pub async fn run(self, context: &Context) -> Result<Reply, Failure> {
                match self {
                    $($(Self::$kind(command) => Box::pin(command.run(context)).await,)+)+
                }
            }
        }
    };
}

commands! {
    "Account" {
        "create_user" create_user::CreateUser
        "login" login::Login
        "logout" logout::Logout
        "sessions" sessions::Sessions
        "whoami" whoami::Whoami
        "change_password" change_password::ChangePassword
        "quota" quota::Quota
        "forget_client" forget_client::ForgetClient
    }
    "Groups" {
        "create_group" create_group::CreateGroup
        "join_group" join_group::JoinGroup
        "leave_group" leave_group::LeaveGroup
        "list_groups" list_groups::ListGroups
        "list_members" list_members::ListMembers
        "list_requests" list_requests::ListRequests
        "accept_request" accept_request::AcceptRequest
        "reject_request" reject_request::RejectRequest
    }
    "Sharing" {
        "upload_file" upload_file::UploadFile
        "stop_share" stop_share::StopShare
        "relocate" relocate::Relocate
        "list_files" list_files::ListFiles
        "show_peers" show_peers::ShowPeers
    }
    "Downloads" {
        "download_file" download_file::DownloadFile
        "choose" choose::Choose
        "show_downloads" show_downloads::ShowDownloads
        "pause_download" pause_download::PauseDownload
        "resume_download" resume_download::ResumeDownload
        "cancel_download" cancel_download::CancelDownload
        "move_download" move_download::MoveDownload
        "prioritize" prioritize::Prioritize
        "limit_download" limit_download::LimitDownload
        "limit" limit::Limit
        "schedule" schedule::Schedule
        "set" set::Set
        "wait" wait::Wait
    }
    "General" {
        "explain" explain::Explain
        "help" help::Help
        "quit" quit::Quit
    }
}

/// The command of that name, in any case, as clap knows it.
pub fn find<'a>(all: &'a clap::Command, name: &str) -> Option<&'a clap::Command> {
    all.find_subcommand(in_table(name))
}

/// A command's name as the table has it.
fn in_table(typed: &str) -> String {
    let lower = typed.to_ascii_lowercase();
    match lower.as_str() {
        "exit" => "quit".to_owned(),
        "?" => "help".to_owned(),
        _ => lower,
    }
}

/// Whether a line with this command may hold a password: it is never completed, shown or kept.
pub(crate) fn is_secret(command: &clap::Command) -> bool {
    command.get_positionals().any(|argument| argument.get_id().as_str().ends_with("password"))
}

/// The commands that are never given a password.
static OPEN: LazyLock<Vec<String>> = LazyLock::new(|| {
    let all = definition();
    let open = all.get_subcommands().filter(|command| !is_secret(command));
    open.map(|command| command.get_name().to_owned()).collect()
});

/// Whether a password may stand in a line: not behind the name of a command that takes none. A name that is none may be a slip.
fn may_hold_password(line: &str) -> bool {
    !OPEN.contains(&in_table(line.split_whitespace().next().unwrap_or_default()))
}

/// Parses a line; of a password in it no trace stays in memory but what the command has.
pub(crate) fn parse_apart(line: &str) -> Option<Parsed> {
    if may_hold_password(line) { without_traces(|| parse(line)) } else { parse(line) }
}

/// Parses words; of a password among them no trace stays in memory but what the command has.
#[must_use]
pub fn parse_words_apart(words: Vec<String>) -> Option<Parsed> {
    without_traces(|| parse_words(words))
}

/// What `help` shows: all commands, or that one. Nothing if there is no such command.
#[must_use]
pub fn help_text(command: Option<&str>) -> Option<String> {
    help::text(command)
}

/// Whether a password is among the words of a command.
#[must_use]
pub fn holds_password(name: &str, command: &Command) -> bool {
    let all = definition();
    let arguments = find(&all, name).into_iter().flat_map(clap::Command::get_positionals);
    let passwords = arguments.filter(|argument| argument.get_id().as_str().ends_with("password"));
    let takes: usize = passwords.map(|one| one.get_value_names().map_or(1, <[_]>::len)).sum();
    command.asks().len() < takes
}

/// Whether a line gives a password.
pub(crate) fn gives_password(line: &str) -> bool {
    without_traces(|| has_password(line))
}

fn has_password(line: &str) -> bool {
    let (cut, all) = (shoal_prompt::split(line), definition());
    let command = cut.words.first().and_then(|word| find(&all, &word.text));
    let is_password = |argument: &clap::Arg| argument.get_id().as_str().ends_with("password");
    let place = command.and_then(|command| command.get_positionals().position(is_password));
    place.is_some_and(|place| cut.words.len() > place + 1)
}

/// Whether a line is a login.
pub(crate) fn logs_in(line: &str) -> bool {
    parse_apart(line).is_some_and(|parsed| matches!(parsed.command, Ok(Command::Login(_))))
}

/// The command with its arguments, as `help` shows it.
pub(crate) fn usage(command: &clap::Command) -> String {
    let mut usage = command.get_name().to_owned();
    for argument in command.get_positionals() {
        let names = argument.get_value_names().unwrap_or_default();
        for name in names {
            usage += &if argument.is_required_set() { format!(" <{name}>") } else { format!(" [<{name}>]") };
        }
    }
    let options = command.get_arguments().filter(|argument| !argument.is_positional());
    for option in options {
        let name = match (option.get_long(), option.get_short()) {
            (_, Some(short)) => format!("-{short}"),
            (Some(long), None) => format!("--{long}"),
            (None, None) => continue,
        };
        let value =
            option.get_value_names().and_then(|names| names.first()).map_or("VALUE", |name| name.as_str());
        usage += &match option.get_action() {
            clap::ArgAction::Append => format!(" [{name} {value}]..."),
            action if action.takes_values() => format!(" [{name} {value}]"),
            _ => format!(" [{name}]"),
        };
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_may_hold_a_password_are_known() {
        for line in [
            "create_user ann pw",
            "LOGIN ann pw",
            "  change_password a b",
            "lgoin ann pw",
            "'login' ann pw",
            "",
        ] {
            assert!(may_hold_password(line), "{line}");
        }
        assert!(!may_hold_password("List_Files g") && !may_hold_password("exit"));
    }

    #[test]
    fn passwords_among_words_are_known_and_what_is_asked_for_follows() {
        for (words, asks, holds) in [
            ("login ann", &[Secret::Present][..], false),
            ("login ann pw", &[], true),
            ("create_user ann --invite x", &[Secret::New], false),
            ("create_user ann pw", &[], true),
            ("change_password", &[Secret::Old, Secret::New], false),
            ("change_password new", &[Secret::Old], true),
            ("change_password old new", &[], true),
            ("whoami", &[], false),
        ] {
            let parsed = parse_words(words.split(' ').map(str::to_owned).collect()).unwrap();
            let command = parsed.command.unwrap();
            assert_eq!((command.asks(), holds_password(&parsed.name, &command)), (asks, holds), "{words}");
        }
        let words = |words: &[&str]| parse_words(words.iter().map(ToString::to_string).collect()).unwrap();
        assert!(
            format!("{:?}", words(&["list_files", "a b\\'"]).command).contains("a b"),
            "no quotes are undone"
        );
        assert!(words(&["login", "ann", "--", "-x"]).command.is_ok(), "behind -- nothing is an option");
        assert!(words(&["login", "ann", "-x"]).command.is_err());
        assert!(parse_words(Vec::new()).is_none());
    }

    #[test]
    fn every_command_is_whole() {
        let all = definition();
        all.clone().debug_assert();
        for command in all.get_subcommands() {
            let name = command.get_name();
            let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(command.get_about().is_some(), "{name} says what it does");
            assert_eq!(example.split(' ').next(), Some(name));
            assert!(parse(&example).unwrap().command.is_ok(), "the example of {name}: {example}");
        }
        assert!(find(&all, "EXIT").is_some_and(|command| command.get_name() == "quit"));
        assert!(find(&all, "show").is_none());
        let used = |name| usage(find(&all, name).unwrap());
        assert_eq!(
            used("download_file"),
            "download_file <group_id> <file_name> [<destination_path>] [--overwrite] [--only GLOB]... [--skip GLOB]... [--rename PATH=NAME]... [--keep-modes]"
        );
        assert_eq!(used("upload_file"), "upload_file <file_path> <group_id> [--mirror URL]...");
        assert_eq!(used("create_user"), "create_user <user_id> [<password>] [--invite code]");
        assert_eq!(used("show_downloads"), "show_downloads [-v] [--watch]");
        assert_eq!(used("change_password"), "change_password [<old_password>] [<new_password>]");
        assert_eq!(used("logout"), "logout [<user_id>@<client>]");
        assert_eq!(used("limit"), "limit [<up|down>] [<RATE>]");
    }
}
