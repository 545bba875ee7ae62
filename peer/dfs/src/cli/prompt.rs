//! Where lines come from: a user at a terminal, or a pipe in its place.

use std::io;
use std::path::{Path, PathBuf};

use shoal_common::Password;
use shoal_console::lines::read_line;
use shoal_console::password;
pub(super) use shoal_prompt::attended;
use shoal_prompt::{Candidate, Complete, Completion, Prompt, Read, cursor};
use shoal_session::text::quoted;
use zeroize::Zeroizing;

use super::command;
use super::show::Screen;

/// Longest line that is read from a pipe, in bytes.
const MAX_LINE: usize = 64 * 1024;
/// Local files that are listed at most.
const MAX_LOCAL: usize = 1_000;
/// The history's file in the data folder.
const HISTORY_FILE: &str = "history";

/// The source of lines. At a terminal the line editor is opened with the first line.
pub(super) struct Input {
    folder: PathBuf,
    screen: Screen,
    prompt: Option<Prompt>,
}

impl Input {
    /// The history is kept in `folder`; lines that come meanwhile are shown by `screen`.
    pub(super) fn new(folder: PathBuf, screen: Screen) -> Self {
        Self { folder, screen, prompt: None }
    }

    /// Reads a command line; `None` at the end of input. Ctrl-C gives an empty one.
    pub(super) async fn command(&mut self, prompt: &str) -> io::Result<Option<String>> {
        if !attended() {
            return Ok(piped().await?.map(|line| line.as_str().to_owned()));
        }
        Ok(match self.editor()?.command(prompt).await? {
            Read::Text(text) => Some(text),
            Read::Cancelled => Some(String::new()),
            Read::End => None,
        })
    }

    /// Asks a question; `None` if it was not answered.
    pub(super) async fn answer(&mut self, question: &str) -> io::Result<Option<String>> {
        if !attended() {
            return Ok(piped().await?.map(|line| line.as_str().to_owned()));
        }
        Ok(match self.editor()?.answer(question).await? {
            Read::Text(text) => Some(text),
            Read::Cancelled | Read::End => None,
        })
    }

    fn editor(&mut self) -> io::Result<&mut Prompt> {
        if self.prompt.is_none() {
            let (prompt, above) = Prompt::start(Some(self.folder.join(HISTORY_FILE)), Commands)?;
            self.screen.print_above(above);
            self.prompt = Some(prompt);
        }
        self.prompt.as_mut().ok_or_else(|| io::ErrorKind::Other.into())
    }
}

/// Asks for a password without showing it; `None` if it was not given.
pub(super) async fn secret(prompt: &'static str) -> io::Result<Option<Password>> {
    if attended() {
        return blocking(move || password::read(prompt)).await;
    }
    Ok(piped().await?.map(Password::from))
}

/// Asks the user at the terminal a question; Enter is no.
pub(super) async fn confirm(question: &'static str) -> io::Result<bool> {
    blocking(move || password::confirm(question, false)).await
}

/// The files of a folder, by name.
pub(super) fn local_files(folder: &Path) -> Vec<String> {
    let listed = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = listed.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let mut names: Vec<String> =
        files.filter_map(|entry| entry.file_name().into_string().ok()).take(MAX_LOCAL).collect();
    names.sort();
    names
}

async fn piped() -> io::Result<Option<Zeroizing<String>>> {
    blocking(|| read_line(MAX_LINE)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// What the prompt knows of the commands.
struct Commands;

impl Complete for Commands {
    fn complete(&self, line: &str) -> Completion {
        let at = cursor(line);
        let all = command::definition();
        let candidates: Vec<String> = match at.before.first() {
            None => all.get_subcommands().map(|command| command.get_name().to_owned()).collect(),
            Some(name) => {
                let Some(command) = all.find_subcommand(name.to_ascii_lowercase()) else {
                    return Completion::Words(at.start, Vec::new());
                };
                if !at.typed.starts_with('-') {
                    return Completion::Path;
                }
                let options = command.get_arguments().filter_map(clap::Arg::get_long);
                options.map(|long| format!("--{long}")).collect()
            }
        };
        let fits = candidates.into_iter().filter(|name| name.starts_with(&at.typed.to_lowercase()));
        let words = fits.map(|name| Candidate { replacement: quoted(&name) + " ", display: name }).collect();
        Completion::Words(at.start, words)
    }

    fn kept(&self, line: &str) -> Option<String> {
        let name = line.split_whitespace().next()?.to_ascii_lowercase();
        let all = command::definition();
        let command = all.find_subcommand(&name)?;
        // The others take neither a password nor an invitation.
        let secret = ["create_user", "change_password"].contains(&command.get_name());
        Some(if secret { name } else { line.trim().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_options_are_completed_and_secrets_not_kept() {
        let words = |line: &str| match Commands.complete(line) {
            Completion::Words(_, words) => words.into_iter().map(|word| word.display).collect(),
            Completion::Path => vec!["a path".to_owned()],
        };
        assert_eq!(words("cr"), ["create_user"]);
        assert!(words("put --c").contains(&"--copies".to_owned()));
        assert_eq!(words("put f"), ["a path"]);
        assert_eq!(Commands.kept(" put 'a b' "), Some("put 'a b'".to_owned()));
        assert_eq!(Commands.kept("create_user bob --invite code"), Some("create_user".to_owned()));
        assert_eq!(Commands.kept("secret"), None);
    }
}
