//! What an operator sees: the prompt on a terminal, its commands, and the status in words.

use std::fmt::Write as _;

use shoal_replica::MemberStatus;

use crate::core::Status;
use crate::node::Node;

/// What an operator can type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Close cleanly.
    Quit,
    /// How things are.
    Status,
    /// What is unneeded on storage nodes now may go.
    AllowDeletions,
    /// What can be typed.
    Help,
}

/// The text of `help`.
pub const HELP: &str = "\
status            how this tracker and the others are, and what they hold
allow-deletions   let storage nodes delete what no stored file names now, though it is much or a tracker began anew
help              this list
quit              close this tracker cleanly; the others go on without it";

/// Reads a line.
///
/// # Errors
/// What to show for a line that is no command.
pub fn parse(line: &str) -> Result<Option<Command>, String> {
    match line.trim().to_lowercase().as_str() {
        "" => Ok(None),
        "quit" | "exit" => Ok(Some(Command::Quit)),
        "status" => Ok(Some(Command::Status)),
        "allow-deletions" => Ok(Some(Command::AllowDeletions)),
        "help" | "?" => Ok(Some(Command::Help)),
        other => {
            let shown: String = other.chars().filter(|c| !c.is_control()).take(40).collect();
            Err(format!("unknown command {shown:?}; there are: status, allow-deletions, help, quit"))
        }
    }
}

/// The text of `status`.
pub async fn status(node: &Node) -> String {
    let Some(status) = node.status().await else { return "this tracker is closing".into() };
    let mut text = String::new();
    let all = node.info().iter().count();
    for (number, line) in node.info().iter() {
        let state = if number == node.number() {
            format!("this tracker, 1 of {all}")
        } else {
            status.members.iter().find(|member| member.no.0 == number).map_or("unknown".into(), describe)
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "tracker {number}  {:<24} {state}", line.to_string());
    }
    if status.disk_full {
        text.push_str("THE DISK IS FULL: writes are refused until there is room\n");
    }
    let Status { users, groups, files, database_bytes, .. } = status;
    let _ = write!(
        text,
        "users {users}, groups {groups}, files {files}, peers online {}, database {} KiB",
        node.online(),
        database_bytes.div_ceil(1024)
    );
    text
}

fn describe(member: &MemberStatus) -> String {
    match (member.connected, member.in_sync) {
        (false, _) => "not connected".into(),
        (true, true) => "up, in sync".into(),
        (true, false) => format!("up, lags by {} records, we by {}", member.lag_rows, member.behind_rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_in_any_case() {
        assert_eq!(parse(" QUIT "), Ok(Some(Command::Quit)));
        assert_eq!(parse("Status"), Ok(Some(Command::Status)));
        assert_eq!(parse(""), Ok(None));
        assert!(parse("reboot\u{1b}[2J").unwrap_err().contains("unknown command \"reboot[2j\""));
    }
}
