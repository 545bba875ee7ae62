//! What an operator can type at the prompt.

use std::path::PathBuf;

/// What an operator can type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Close cleanly.
    Quit,
    /// How things are.
    Status,
    /// What is unneeded on storage nodes now may go.
    AllowDeletions,
    /// What a round of everything with that tracker leaves out may be removed.
    AllowRemoval(u8),
    /// Records with a time far ahead get the present one.
    Restamp,
    /// Copy the database into a new file.
    Backup(PathBuf),
    /// What can be typed.
    Help,
}

/// The text of `help`.
pub const HELP: &str = "\
status            how this tracker and the others are, and what they hold
backup FILE       copy the database into a new file while the tracker goes on
allow-deletions   let storage nodes delete what no stored file names now, though it is much or a tracker began anew
allow-removal N   let the comparison with tracker N remove here what N does not hold (after restoring an old backup)
restamp           give the present time to records whose time is far ahead
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
    let word = word.to_lowercase();
    if word == "allow-removal" {
        let number = rest.trim().parse().ok().filter(|&number: &u8| number > 0);
        let number = number.ok_or("say by whose word: allow-removal N, the number that the alarm names")?;
        return Ok(Some(Command::AllowRemoval(number)));
    }
    let command = match word.as_str() {
        "" => return Ok(None),
        "quit" | "exit" => Command::Quit,
        "status" => Command::Status,
        "allow-deletions" => Command::AllowDeletions,
        "restamp" => Command::Restamp,
        "help" | "?" => Command::Help,
        other => {
            let shown: String = other.chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(format!(
                "unknown command {shown:?}; there are: status, backup, allow-deletions, allow-removal, restamp, help, \
                 quit"
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
        assert_eq!(parse("Allow-Removal 3"), Ok(Some(Command::AllowRemoval(3))));
        assert!(parse("allow-removal").is_err() && parse("allow-removal 0").is_err());
        assert_eq!(parse("Status x").unwrap_err(), "status takes no arguments");
        assert_eq!(parse("quit now").unwrap_err(), "quit takes no arguments");
        assert_eq!(parse("quit\t "), Ok(Some(Command::Quit)));
        assert!(parse("reboot\u{1b}[2J").unwrap_err().contains("unknown command \"reboot[2j\""));
    }
}
