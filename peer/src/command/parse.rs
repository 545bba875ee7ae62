//! Lines into commands. Every mistake gets one line that says what was expected; what was typed where a password may
//! stand is never repeated.

use std::path::PathBuf;
use std::time::Duration;

use shoal_common::names::NameError;
use shoal_common::{FileName, GroupName, UserName};

use super::spec::{self, Spec};
use super::words::{Word, split};
use super::{Command, Direction, FileRef, Password};
use crate::text;

/// Longest line that is read as a command, in bytes; longer ones are no command's.
pub const MAX_LINE_BYTES: usize = 64 * 1024;
/// Longest time that `wait` takes, in seconds: some 31 years.
const MAX_WAIT_SECONDS: f64 = 1e9;

/// A line that is not blank and no comment.
#[derive(Debug)]
pub struct Parsed {
    /// The command's name as the table has it; else what was typed instead, made printable and cut.
    pub name: String,
    /// The command, or what is wrong.
    pub command: Result<Command, ParseError>,
}

/// Why a line is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// No such command.
    #[error("there is no command {typed}{}; type help for the list", .nearest.map(|n| format!(", did you mean {n}?")).unwrap_or_default())]
    Unknown {
        /// What was typed, made printable.
        typed: String,
        /// What was probably meant.
        nearest: Option<&'static str>,
    },
    /// Too few or too many arguments.
    #[error("{problem}; use: {usage}")]
    Arguments {
        /// What is wrong.
        problem: String,
        /// How it is used.
        usage: String,
    },
    /// A name that cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A quote that is not closed.
    #[error("a quote is not closed, or the line ends in a backslash")]
    Unclosed,
    /// Absurdly long.
    #[error("the line is too long for a command: {MAX_LINE_BYTES} bytes are the most")]
    TooLong,
}

/// Reads a line; `None` if there is nothing on it, or a comment.
#[must_use]
pub fn parse(line: &str) -> Option<Parsed> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let first = line.split_whitespace().next().unwrap_or_default();
    if line.len() > MAX_LINE_BYTES {
        return Some(Parsed { name: text::short(first), command: Err(ParseError::TooLong) });
    }
    let cut = split(line);
    if !cut.closed && cut.words.len() == 1 {
        return Some(Parsed { name: text::short(first), command: Err(ParseError::Unclosed) });
    }
    let typed = cut.words.first().map_or(first, |word| word.text.as_str());
    let Some(spec) = spec::find(typed) else {
        let typed = text::short(typed);
        let nearest = spec::nearest(&typed);
        return Some(Parsed { name: typed.clone(), command: Err(ParseError::Unknown { typed, nearest }) });
    };
    let command = if cut.closed { arguments(spec, &cut.words[1..]) } else { Err(ParseError::Unclosed) };
    Some(Parsed { name: spec.name.to_owned(), command })
}

/// A command's options and arguments, told apart.
struct Given<'a> {
    spec: &'static Spec,
    arguments: Vec<&'a str>,
    options: Vec<(&'static str, &'a str)>,
}

fn arguments(spec: &'static Spec, words: &[Word]) -> Result<Command, ParseError> {
    let fault = |problem: String| ParseError::Arguments { problem, usage: spec.synopsis() };
    let mut given = Given { spec, arguments: Vec::new(), options: Vec::new() };
    let mut words = words.iter();
    let mut options_end = spec.options.is_empty();
    while let Some(word) = words.next() {
        let plain = options_end || word.quote.is_some() || !word.text.starts_with('-') || word.text.len() < 2;
        if plain {
            given.arguments.push(&word.text);
        } else if word.text == "--" {
            options_end = true;
        } else if let Some(option) = spec.options.iter().find(|option| **option == word.text) {
            given.options.push((option, ""));
        } else if let Some((option, value)) = valued(spec, &word.text) {
            let value = match value {
                Some(value) => value,
                None => &words.next().ok_or_else(|| fault(format!("{} needs a value", word.text)))?.text,
            };
            given.options.push((option, value));
        } else {
            return Err(fault(format!("there is no option {}", text::short(&word.text))));
        }
    }
    if given.arguments.len() < spec.required {
        let missing = spec.usage.split_whitespace().nth(given.arguments.len()).unwrap_or_default();
        return Err(fault(format!("{missing} is missing")));
    }
    if let Some(at) = given.arguments.iter().position(|argument| argument.is_empty()) {
        let empty = spec.usage.split_whitespace().nth(at).unwrap_or_default();
        return Err(fault(format!("{empty} is empty")));
    }
    if given.arguments.len() > spec.arguments.len() {
        return Err(fault("there are too many arguments (quote names that hold spaces)".to_owned()));
    }
    given.command()
}

/// The option with a value that this word is, and the value if it is in the same word.
fn valued<'a>(spec: &'static Spec, word: &'a str) -> Option<(&'static str, Option<&'a str>)> {
    spec.options.iter().filter(|option| option.ends_with('=')).find_map(|option| {
        let name = option.trim_end_matches('=');
        let rest = word.strip_prefix(name)?;
        if rest.is_empty() { Some((*option, None)) } else { Some((*option, Some(rest.strip_prefix('=')?))) }
    })
}

impl Given<'_> {
    fn command(&self) -> Result<Command, ParseError> {
        Ok(match self.spec.name {
            "create_user" => Command::CreateUser {
                user: UserName::create(self.at(0))?,
                password: self.password(1),
                invitation: self.options.last().map(|(_, code)| (*code).to_owned()),
            },
            "login" => Command::Login { user: UserName::refer(self.at(0))?, password: self.password(1) },
            "logout" => self.logout()?,
            "sessions" => Command::Sessions,
            "quota" => Command::Quota(self.arguments.first().map(|_| self.group()).transpose()?),
            "forget_client" => Command::ForgetClient(self.at(0).to_owned()),
            "whoami" => Command::WhoAmI,
            "change_password" => match self.arguments.len() {
                0 => Command::ChangePassword { old: None, new: None },
                1 => Command::ChangePassword { old: None, new: self.password(0) },
                _ => Command::ChangePassword { old: self.password(0), new: self.password(1) },
            },
            "create_group" => Command::CreateGroup(GroupName::create(self.at(0))?),
            "join_group" => Command::JoinGroup(self.group()?),
            "leave_group" => Command::LeaveGroup(self.group()?),
            "list_groups" => Command::ListGroups,
            "list_members" => Command::ListMembers(self.group()?),
            "list_requests" => Command::ListRequests(self.group()?),
            "accept_request" => self.decide(true)?,
            "reject_request" => self.decide(false)?,
            "upload_file" => Command::UploadFile {
                path: path(self.at(0)),
                group: GroupName::refer(self.at(1))?,
                mirrors: self.options.iter().map(|(_, url)| (*url).to_owned()).collect(),
            },
            "stop_share" => Command::StopShare(self.file()?),
            "list_files" => Command::ListFiles(self.group()?),
            "show_peers" => Command::ShowPeers(self.file()?),
            "download_file" => Command::DownloadFile {
                file: self.file()?,
                destination: path(self.at(2)),
                overwrite: self.has("--overwrite"),
            },
            "show_downloads" => Command::ShowDownloads {
                verbose: self.has("-v") || self.has("--verbose"),
                watch: self.has("--watch"),
            },
            "pause_download" => Command::PauseDownload(self.file()?),
            "resume_download" => Command::ResumeDownload(self.file()?),
            "cancel_download" => Command::CancelDownload(self.file()?),
            "limit" => self.limit()?,
            "wait" => self.wait()?,
            "help" => self.help()?,
            _ => Command::Quit,
        })
    }

    fn at(&self, index: usize) -> &str {
        self.arguments.get(index).copied().unwrap_or_default()
    }

    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|(name, _)| *name == option)
    }

    fn password(&self, index: usize) -> Option<Password> {
        self.arguments.get(index).map(|text| Password::new((*text).to_owned()))
    }

    fn logout(&self) -> Result<Command, ParseError> {
        let Some(which) = self.arguments.first() else { return Ok(Command::Logout) };
        // A user id may hold an @, a key never does.
        let Some((user, client)) = which.rsplit_once('@').filter(|(_, client)| !client.is_empty()) else {
            let problem =
                "logout ends this client's session; another one's is named <user_id>@<client>".to_owned();
            return Err(ParseError::Arguments { problem, usage: self.spec.synopsis() });
        };
        Ok(Command::SignOut { user: UserName::refer(user)?, client: client.to_owned() })
    }

    fn group(&self) -> Result<GroupName, ParseError> {
        Ok(GroupName::refer(self.at(0))?)
    }

    fn file(&self) -> Result<FileRef, ParseError> {
        Ok(FileRef { group: GroupName::refer(self.at(0))?, file: FileName::refer(self.at(1))? })
    }

    fn decide(&self, accept: bool) -> Result<Command, ParseError> {
        Ok(Command::Decide { group: self.group()?, user: UserName::refer(self.at(1))?, accept })
    }

    fn fault(&self, problem: String) -> ParseError {
        ParseError::Arguments { problem, usage: self.spec.synopsis() }
    }

    fn limit(&self) -> Result<Command, ParseError> {
        let direction = match self.at(0).to_ascii_lowercase().as_str() {
            "up" => Direction::Up,
            "down" => Direction::Down,
            other => return Err(self.fault(format!("{:?} is neither up nor down", text::short(other)))),
        };
        let rate = shoal_console::rate(self.at(1)).ok_or_else(|| {
            self.fault(format!("{:?} is no rate; write for example 500K, 20M or 0", text::short(self.at(1))))
        })?;
        Ok(Command::Limit { direction, rate: (rate > 0).then_some(rate) })
    }

    fn wait(&self) -> Result<Command, ParseError> {
        if self.arguments.is_empty() {
            return Ok(Command::Wait(None));
        }
        let seconds: Option<f64> = self.at(0).parse().ok().filter(|s| (0.0..=MAX_WAIT_SECONDS).contains(s));
        match seconds {
            Some(seconds) => Ok(Command::Wait(Some(Duration::from_secs_f64(seconds)))),
            None => Err(self.fault(format!("{:?} is no number of seconds", text::short(self.at(0))))),
        }
    }

    fn help(&self) -> Result<Command, ParseError> {
        if self.arguments.is_empty() {
            return Ok(Command::Help(None));
        }
        spec::find(self.at(0)).map(|spec| Command::Help(Some(spec))).ok_or_else(|| {
            let typed = text::short(self.at(0));
            let nearest = spec::nearest(&typed);
            ParseError::Unknown { typed, nearest }
        })
    }
}

/// A path as typed, with `~/` for the home folder, as a shell has it.
fn path(typed: &str) -> PathBuf {
    let home = || std::env::var_os("HOME").filter(|home| !home.is_empty());
    match (typed.strip_prefix('~'), home()) {
        (Some(""), Some(home)) => home.into(),
        (Some(rest), Some(home)) if rest.starts_with('/') => {
            PathBuf::from(home).join(rest.trim_start_matches('/'))
        }
        _ => typed.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn command(line: &str) -> Command {
        parse(line).unwrap().command.unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    fn error(line: &str) -> String {
        parse(line).unwrap().command.unwrap_err().to_string()
    }

    fn group(name: &str) -> GroupName {
        GroupName::refer(name).unwrap()
    }

    fn file(group_name: &str, name: &str) -> FileRef {
        FileRef { group: group(group_name), file: FileName::refer(name).unwrap() }
    }

    #[test]
    fn commands_in_any_case_with_quotes() {
        let bob = UserName::create("bob").unwrap();
        assert_eq!(command("LIST_Groups"), Command::ListGroups);
        assert_eq!(command("  join_group  \"my group\" "), Command::JoinGroup(group("my group")));
        assert_eq!(command("Login bob"), Command::Login { user: bob.clone(), password: None });
        let password = Some(Password::new("#a b".into()));
        assert_eq!(command("login bob '#a b'"), Command::Login { user: bob.clone(), password });
        assert_eq!(
            command("accept_request g bob"),
            Command::Decide { group: group("g"), user: bob, accept: true }
        );
        assert_eq!(command("stop_share g 'a b.txt'"), Command::StopShare(file("g", "a b.txt")));
        assert_eq!(command("exit"), Command::Quit);
    }

    #[test]
    fn options_and_values() {
        assert_eq!(
            command("upload_file --mirror http://a/ ./x g --mirror=http://b/"),
            Command::UploadFile {
                path: "./x".into(),
                group: group("g"),
                mirrors: vec!["http://a/".into(), "http://b/".into()]
            }
        );
        assert_eq!(
            command("upload_file -- -x g"),
            Command::UploadFile { path: "-x".into(), group: group("g"), mirrors: vec![] }
        );
        assert_eq!(command("show_downloads -v"), Command::ShowDownloads { verbose: true, watch: false });
        assert_eq!(command("show_downloads --watch"), Command::ShowDownloads { verbose: false, watch: true });
        assert_eq!(
            command("download_file g f /tmp --overwrite"),
            Command::DownloadFile { file: file("g", "f"), destination: "/tmp".into(), overwrite: true }
        );
        assert_eq!(
            command("limit up 20M"),
            Command::Limit { direction: Direction::Up, rate: Some(20 << 20) }
        );
        assert_eq!(command("limit DOWN 0"), Command::Limit { direction: Direction::Down, rate: None });
        assert_eq!(command("wait 1.5"), Command::Wait(Some(Duration::from_millis(1500))));
        assert_eq!(command("wait"), Command::Wait(None));
        assert_eq!(command("quota"), Command::Quota(None));
        assert_eq!(command("Quota g"), Command::Quota(Some(group("g"))));
    }

    #[test]
    fn mistakes_say_what_was_expected() {
        for (line, expected) in [
            ("frobnicate", "there is no command frobnicate; type help"),
            ("list_grups", "did you mean list_groups?"),
            ("login", "<user_id> is missing; use: login <user_id> [<password>]"),
            ("download_file g f", "<destination_path> is missing"),
            ("join_group my group", "too many arguments"),
            ("join_group \"my", "quote is not closed"),
            ("\"abc", "quote is not closed"),
            ("it's", "quote is not closed"),
            ("upload_file '' g", "<file_path> is empty"),
            ("create_user bob~abcdef x", "six hex digits"),
            ("download_file g ../../etc/x /tmp", "must not contain the character '/'"),
            ("show_downloads --all", "there is no option --all"),
            ("upload_file a g --mirror", "--mirror needs a value"),
            ("limit sideways 3", "neither up nor down"),
            ("limit up fast", "is no rate"),
            ("limit up 99999999999999999999G", "is no rate"),
            ("wait soon", "is no number of seconds"),
            ("wait -1", "is no number of seconds"),
            ("wait 1e300", "is no number of seconds"),
            ("help frobnicate", "there is no command"),
        ] {
            assert!(error(line).contains(expected), "{line}: {}", error(line));
        }
        assert!(error(&format!("join_group {}", "x".repeat(10_000))).contains("bytes are the most"));
        assert!(error(&"x".repeat(100_000)).contains("too long"));
        assert!(parse("").is_none() && parse("  # a comment").is_none());
    }

    #[test]
    fn names_of_commands_are_the_tables() {
        assert_eq!(parse("Show_Downloads -x").unwrap().name, "show_downloads");
        assert_eq!(parse("bad\u{1b}[31m").unwrap().name, "bad[31m");
    }

    #[test]
    fn passwords_are_not_printed() {
        let shown = format!("{:?}", parse("login bob secret"));
        assert!(!shown.contains("secret"), "{shown}");
        let wrong = format!("{:?}", parse("login bob secret more"));
        assert!(!wrong.contains("secret"), "{wrong}");
    }

    proptest! {
        #[test]
        fn no_line_panics(line in ".{0,200}|(login|limit|wait|upload_file|help) .{0,40}") {
            let _ = parse(&line);
        }
    }
}
