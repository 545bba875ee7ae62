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
    /// What is unneeded on storage nodes now may go.
    AllowDeletions,
    /// Let somebody create one account within so many days.
    InviteUser(u16),
    /// See or set how much users and groups may have.
    Quota(quota::Command),
    /// The storage nodes, and those that wait to be admitted.
    Nodes,
    /// Admit storage nodes, by key, or by name where one of that name waits.
    Admit(Vec<String>),
    /// Take a storage node out, by name or key.
    Expel(String),
    /// Believe that key of a tracker; without one, say which it shows.
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

/// For how many days an invitation is good when it is not said, and at most.
const DEFAULT_DAYS: u16 = 7;
/// See [`DEFAULT_DAYS`].
const MAX_DAYS: u16 = 366;

/// The text of `help`.
pub const HELP: &str = "\
status            how this tracker and the others are, and what they hold
backup FILE       copy the database into a new file while the tracker goes on
allow-deletions   let storage nodes delete what no stored file names now, though it is much or a tracker began anew
invite_user DAYS  a code with which one account can be created, where registration is by invitation
quota             how much users and groups may have, and who has used most of it; quota user NAME, or group NAME, for one
quota user NAME files N bytes SIZE groups N stored SIZE
                  set what that user may have, or with users, group NAME or groups in place of user NAME: each user, that
                  group (files and bytes), each group; none is no bound, default takes a figure, or all, back
nodes             the storage nodes, and those that wait to be admitted
admit KEY|NAME …  admit storage nodes, by key also before they ask
expel NAME|KEY    take a storage node out of the cluster
accept-tracker N PEERID   believe that key of tracker N, because it was replaced on purpose; without one, see which it shows
allow-removal N   let the comparison with tracker N remove here what N does not hold (after restoring an old backup)
restamp           give the present time to records whose time is impossible; this machine's clock must be right
help              this list
quit              close this tracker cleanly; the others go on without it";

/// Reads a line.
///
/// # Errors
/// What to show for a line that is no command.
pub fn parse(line: &str) -> Result<Option<Command>, String> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    if word.eq_ignore_ascii_case("backup") {
        let path = rest.trim().trim_matches('"');
        return if path.is_empty() {
            Err("say where to: backup FILE, a new file outside the data directory".into())
        } else {
            Ok(Some(Command::Backup(path.into())))
        };
    }
    if word.eq_ignore_ascii_case("invite_user") {
        let days = if rest.trim().is_empty() { Ok(DEFAULT_DAYS) } else { rest.trim().parse() };
        let days = days.ok().filter(|days| (1..=MAX_DAYS).contains(days));
        return match days {
            Some(days) => Ok(Some(Command::InviteUser(days))),
            None => Err(format!("say for how many days, from 1 to {MAX_DAYS}: invite_user 7")),
        };
    }
    if word.eq_ignore_ascii_case("quota") {
        return quota::parse(rest).map(|command| Some(Command::Quota(command)));
    }
    let named = || rest.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    if word.eq_ignore_ascii_case("admit") {
        let nodes = named();
        return if nodes.is_empty() {
            Err("say which: admit KEY, or the node's name; \"nodes\" lists those that wait".into())
        } else {
            Ok(Some(Command::Admit(nodes)))
        };
    }
    if word.eq_ignore_ascii_case("expel") {
        return match <[String; 1]>::try_from(named()) {
            Ok([node]) => Ok(Some(Command::Expel(node))),
            Err(_) => Err("say which one: expel NAME, or the node's key".into()),
        };
    }
    if word.eq_ignore_ascii_case("accept-tracker") {
        let mut words = rest.split_whitespace();
        let number = words.next().and_then(|number| number.parse().ok());
        let key = words.next().map(str::parse::<PeerId>).transpose().map_err(|error| error.to_string())?;
        return match (number, words.next()) {
            (Some(number), None) => Ok(Some(Command::AcceptTracker(number, key))),
            _ => Err("say which: accept-tracker N PEERID, the number of its line and its key".into()),
        };
    }
    if word.eq_ignore_ascii_case("allow-removal") {
        let number = rest.trim().parse().ok().filter(|&number: &u8| number > 0);
        return match number {
            Some(number) => Ok(Some(Command::AllowRemoval(number))),
            None => Err("say by whose word: allow-removal N, the number that the alarm names".into()),
        };
    }
    let word = word.to_lowercase();
    let command = match word.as_str() {
        "" => return Ok(None),
        "quit" | "exit" => Command::Quit,
        "status" => Command::Status,
        "allow-deletions" => Command::AllowDeletions,
        "nodes" => Command::Nodes,
        "restamp" => Command::Restamp,
        "help" | "?" => Command::Help,
        other => {
            let shown: String = other.chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(format!(
                "unknown command {shown:?}; there are: status, nodes, admit, expel, backup, allow-deletions, accept-tracker, \
                 allow-removal, restamp, invite_user, quota, help, quit"
            ));
        }
    };
    if rest.is_empty() { Ok(Some(command)) } else { Err(format!("{word} takes no arguments")) }
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
        for wrong in ["accept-tracker", "accept-tracker x", "accept-tracker 2 key", "accept-tracker 300"] {
            assert!(parse(wrong).is_err(), "{wrong}");
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
