//! Tells apart what was typed: a command of the prompt for the daemon, help, or what `shoal` does itself.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::FromArgMatches;
use clap::error::ErrorKind;
use shoal_console::wrapped;

use crate::definition::{Own, definition};
use crate::invocation::{Invocation, read};
use crate::show::failed;
use crate::{ask, link, moving, up, watch};

/// Does what the arguments say.
pub(crate) fn run(arguments: Vec<OsString>) -> ExitCode {
    match read(&arguments) {
        Some(invocation) if invocation.words[0].eq_ignore_ascii_case("help") || invocation.help => {
            help(&invocation.words)
        }
        Some(Invocation { no_text: Some(word), .. }) => {
            failed(&format!(
                "{word:?} is not UTF-8: names and paths are text here; rename it, or give another"
            ));
            ExitCode::FAILURE
        }
        Some(invocation) => ask::run(invocation),
        None => own(arguments),
    }
}

/// Shows the help of a command of the prompt, of what `shoal` does itself, or of all.
fn help(words: &[String]) -> ExitCode {
    let about = if words[0].eq_ignore_ascii_case("help") { words.get(1) } else { words.first() };
    let mut all = definition();
    let Some(about) = about else { return printed(&all.render_long_help().to_string()) };
    if let Some(text) = shoal_peer::command::help_text(Some(about)) {
        return printed(&wrapped(&text));
    }
    all.build();
    match all.find_subcommand_mut(about) {
        Some(found) => printed(&found.render_long_help().to_string()),
        None => all
            .error(ErrorKind::InvalidSubcommand, format!("there is no command {about:?}; see shoal help"))
            .exit(),
    }
}

/// What `shoal` does itself. A usage error ends the process.
fn own(arguments: Vec<OsString>) -> ExitCode {
    let called = std::iter::once(OsString::from("shoal")).chain(arguments);
    let matches = definition().get_matches_from(called);
    let own = Own::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match own {
        Own::Up(options) => up::main(options),
        Own::Watch => {
            let socket = matches.get_one::<PathBuf>("socket").cloned();
            watch::main(socket, matches.get_flag("json"))
        }
        Own::Web { open } => {
            let socket = matches.get_one::<PathBuf>("socket").cloned();
            link::main(socket, open, matches.get_flag("json"))
        }
        Own::Export(options) => {
            let socket = matches.get_one::<PathBuf>("socket").cloned();
            moving::export(&options, socket, matches.get_flag("json"))
        }
        Own::Import(options) => moving::import(&options, matches.get_flag("json")),
        Own::Completions { shell } => completions(&shell),
        Own::Man { dir } => match man(&dir) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&format!("cannot write the man pages into {}: {error}", dir.display())),
        },
    }
}

fn completions(shell: &str) -> ExitCode {
    let shell = match shell {
        "zsh" => clap_complete::Shell::Zsh,
        "fish" => clap_complete::Shell::Fish,
        _ => clap_complete::Shell::Bash,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut definition(), "shoal", &mut text);
    printed(String::from_utf8_lossy(&text).trim_end())
}

fn man(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(definition(), dir)
}

/// Shows text; a reader that has seen enough is no error.
fn printed(text: &str) -> ExitCode {
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_and_man_pages_name_every_command() {
        let mut text = Vec::new();
        clap_complete::generate(clap_complete::Shell::Bash, &mut definition(), "shoal", &mut text);
        let text = String::from_utf8(text).unwrap();
        let dir = tempfile::tempdir().unwrap();
        man(&dir.path().join("man")).unwrap();
        for command in definition().get_subcommands() {
            let name = command.get_name();
            assert!(text.contains(name), "{name}");
            assert!(dir.path().join(format!("man/shoal-{name}.1")).is_file(), "{name}");
        }
    }
}
