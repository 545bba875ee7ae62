//! What an operator can type at the prompt.

use std::path::PathBuf;

use shoal_common::PeerId;

use crate::quota;

/// What an operator can type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Close cleanly.
    Quit,
    /// How things are.
    Status,
    /// What is unneeded on storage nodes now may be deleted.
    AllowDeletions,
    /// Let one account be created within so many days.
    InviteUser(u16),
    /// See or set how much users and groups may have.
    Quota(quota::Command),
    /// The storage nodes, and those that wait to be admitted.
    Nodes,
    /// Admit storage nodes, by key, or by name where one of that name waits.
    Admit(Vec<String>),
    /// Take a storage node out, by name or key.
    Expel(String),
    /// Believe that key of a tracker. Without a key: say which one it shows.
    AcceptTracker(u8, Option<PeerId>),
    /// What a full sync with that tracker leaves out may be removed.
    AllowRemoval(u8),
    /// Records with an impossible time get the present one.
    Restamp,
    /// Copy the database into a new file.
    Backup(PathBuf),
    /// What can be typed.
    Help,
}

/// For how many days an invitation is good by default.
const DEFAULT_DAYS: u16 = 7;
/// The longest that one may be good, in days.
const MAX_DAYS: u16 = 366;

/// All commands.
pub const COMMANDS: [&str; 13] = [
    "status",
    "backup",
    "allow-deletions",
    "invite_user",
    "quota",
    "nodes",
    "admit",
    "expel",
    "accept-tracker",
    "allow-removal",
    "restamp",
    "help",
    "quit",
];

/// The text of `help`.
pub const HELP: &str = "\
status            show how this tracker and the others are, and what they hold
backup FILE       copy the database into a new file; the tracker goes on meanwhile
allow-deletions   let storage nodes delete what no stored file names now, even if that is a lot or a tracker started blank
invite_user DAYS  make a code that creates one account, where registration is by invitation
quota             show the quotas, and who has used most of theirs; quota user NAME, or group NAME, shows one
quota user NAME files N bytes SIZE groups N stored SIZE
                  set what that user may have. In place of user NAME: users for each user, group NAME for one group (files
                  and bytes only), groups for each group. none is no limit; default takes one figure, or all, back
nodes             list the storage nodes, and those that wait to be admitted
admit KEY|NAME …  admit storage nodes; by key also before they ask
expel NAME|KEY    take a storage node out of the cluster
accept-tracker N PEERID   believe that key of tracker N, which was replaced on purpose; without a key, show its present one
allow-removal N   let the comparison with tracker N remove here what N does not hold (after restoring an old backup)
restamp           give the present time to records whose time is impossible; set this machine's clock right first
help              show this list
quit              close this tracker cleanly; the others go on without it";

/// Reads a line.
///
/// # Errors
/// What to show for a line that is no command.
pub fn parse(line: &str) -> Result<Option<Command>, String> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let (word, rest) = (word.to_lowercase(), rest.trim());
    let words: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
    let plain = |command| match rest {
        "" => Ok(command),
        _ => Err(format!("{word} takes no arguments")),
    };
    let command = match word.as_str() {
        "" => return Ok(None),
        "quit" | "exit" => plain(Command::Quit)?,
        "status" => plain(Command::Status)?,
        "allow-deletions" => plain(Command::AllowDeletions)?,
        "nodes" => plain(Command::Nodes)?,
        "restamp" => plain(Command::Restamp)?,
        "help" | "?" => plain(Command::Help)?,
        "backup" => match rest.trim_matches('"') {
            "" => return Err("give a file: backup FILE, a new one outside the data directory".into()),
            path => Command::Backup(path.into()),
        },
        "invite_user" => Command::InviteUser(days(rest)?),
        "quota" => Command::Quota(quota::parse(rest)?),
        "admit" if words.is_empty() => {
            return Err("give a node: admit KEY, or its name; \"nodes\" lists those that wait".into());
        }
        "admit" => Command::Admit(words),
        "expel" => match <[String; 1]>::try_from(words) {
            Ok([node]) => Command::Expel(node),
            Err(_) => return Err("give one node: expel NAME, or its key".into()),
        },
        "accept-tracker" => {
            let usage = "accept-tracker N PEERID, with the number of its line and the key that --id prints on its machine";
            let number = words.first().and_then(|word| tracker_number(word));
            let (Some(number), 1..=2) = (number, words.len()) else {
                return Err(format!("give a tracker: {usage}"));
            };
            let key = words.get(1).map(|word| word.parse());
            let key = key
                .transpose()
                .map_err(|error| format!("{:?} is {error}; type: {usage}", shown(&words[1])))?;
            Command::AcceptTracker(number, key)
        }
        "allow-removal" => match tracker_number(rest) {
            Some(number) => Command::AllowRemoval(number),
            None => {
                return Err("give a tracker: allow-removal N, with the number that the alarm names".into());
            }
        },
        other => {
            return Err(format!(
                "unknown command {:?}; there are: status, nodes, admit, expel, backup, allow-deletions, accept-tracker, \
                 allow-removal, restamp, invite_user, quota, help, quit",
                shown(other)
            ));
        }
    };
    Ok(Some(command))
}

fn days(typed: &str) -> Result<u16, String> {
    let days = if typed.is_empty() { Ok(DEFAULT_DAYS) } else { typed.parse() };
    let days = days.ok().filter(|days| (1..=MAX_DAYS).contains(days));
    days.ok_or_else(|| format!("give a number of days from 1 to {MAX_DAYS}: invite_user 7"))
}

fn tracker_number(typed: &str) -> Option<u8> {
    typed.parse().ok().filter(|number| *number > 0)
}

/// What was typed, as far as an error message shows it.
fn shown(typed: &str) -> String {
    typed.chars().filter(|c| !c.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_in_any_case() {
        assert_eq!(parse(" QUIT "), Ok(Some(Command::Quit)));
        assert_eq!(parse("Status"), Ok(Some(Command::Status)));
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse("Backup  /a b/C"), Ok(Some(Command::Backup("/a b/C".into()))));
        assert!(parse("backup ").is_err());
        assert_eq!(parse("nodes"), Ok(Some(Command::Nodes)));
        assert_eq!(parse("Admit DFS1  DFS2"), Ok(Some(Command::Admit(vec!["DFS1".into(), "DFS2".into()]))));
        assert_eq!(parse("expel DFS1"), Ok(Some(Command::Expel("DFS1".into()))));
        assert!(parse("admit").is_err() && parse("expel").is_err() && parse("expel a b").is_err());
        assert_eq!(parse("Accept-Tracker 2"), Ok(Some(Command::AcceptTracker(2, None))));
        let key = PeerId([7; 32]);
        assert_eq!(parse(&format!("accept-tracker 2 {key}")), Ok(Some(Command::AcceptTracker(2, Some(key)))));
        for wrong in ["", " x", " 0", " 2 key", " 300", " 2 key more"] {
            let problem = parse(&format!("accept-tracker{wrong}")).unwrap_err();
            assert!(problem.contains("accept-tracker N PEERID"), "{wrong}: {problem}");
        }
        for wrong in ["invite_user x", "invite_user 0", "invite_user 367"] {
            assert_eq!(parse(wrong).unwrap_err(), "give a number of days from 1 to 366: invite_user 7");
        }
        assert_eq!(parse("Allow-Removal 3"), Ok(Some(Command::AllowRemoval(3))));
        assert!(parse("allow-removal").is_err() && parse("allow-removal 0").is_err());
        assert_eq!(parse("restamp"), Ok(Some(Command::Restamp)));
        assert_eq!(parse("Status x").unwrap_err(), "status takes no arguments");
        assert_eq!(parse("quit now").unwrap_err(), "quit takes no arguments");
        assert_eq!(parse("quit\t "), Ok(Some(Command::Quit)));
        assert!(parse("reboot\u{1b}[2J").unwrap_err().contains("unknown command \"reboot[2j\""));
    }
}
