//! A command of the prompt as it was typed behind `shoal`.

use std::ffi::OsString;
use std::path::PathBuf;

/// A command of the prompt as it was typed.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Invocation {
    pub(crate) words: Vec<String>,
    pub(crate) json: bool,
    pub(crate) socket: Option<PathBuf>,
    /// More about the command is asked for.
    pub(crate) help: bool,
    /// A word that is no text, as far as it can be shown: names and paths are text everywhere in Shoal.
    pub(crate) no_text: Option<String>,
}

/// A command of the prompt with its words; nothing if it is something else.
pub(crate) fn read(arguments: &[OsString]) -> Option<Invocation> {
    let mut read = Invocation::default();
    let mut arguments = arguments.iter();
    let mut options_end = false;
    while let Some(argument) = arguments.next() {
        let word = argument.to_string_lossy().into_owned();
        if argument.to_str().is_none() {
            read.no_text.get_or_insert_with(|| word.clone());
        }
        match word.as_str() {
            _ if options_end => read.words.push(word),
            "--" => {
                options_end = true;
                read.words.push(word);
            }
            "--json" => read.json = true,
            "--socket" => read.socket = Some(arguments.next()?.into()),
            "--help" | "-h" if !read.words.is_empty() => read.help = true,
            _ if word.starts_with("--socket=") => {
                read.socket = word.split_once('=').map(|(_, path)| path.into())
            }
            _ => read.words.push(word),
        }
    }
    let name = read.words.first()?;
    shoal_peer::command::find(&shoal_peer::command::definition(), name).is_some().then_some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_words(line: &str) -> Option<Invocation> {
        read(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_word_that_is_no_text_is_named_and_not_changed() {
        use std::os::unix::ffi::OsStringExt;
        let words = ["upload_file".into(), OsString::from_vec(b"n\xe9.txt".to_vec()), "g".into()];
        assert_eq!(read(&words).unwrap().no_text.as_deref(), Some("n\u{fffd}.txt"));
        assert_eq!(read_words("upload_file né.txt g").unwrap().no_text, None);
    }

    #[test]
    fn commands_of_the_prompt_are_told_from_the_rest() {
        for (line, words, json, socket) in [
            ("whoami", &["whoami"][..], false, None),
            ("--json whoami", &["whoami"], true, None),
            ("List_Files g --json", &["List_Files", "g"], true, None),
            ("--socket /s whoami", &["whoami"], false, Some("/s")),
            ("whoami --socket=/s", &["whoami"], false, Some("/s")),
            ("login ann -- --json", &["login", "ann", "--", "--json"], false, None),
            (
                "upload_file --mirror http://a/ x g",
                &["upload_file", "--mirror", "http://a/", "x", "g"],
                false,
                None,
            ),
        ] {
            let read = read_words(line).unwrap();
            assert_eq!(read.words, words, "{line}");
            assert_eq!((read.json, read.socket), (json, socket.map(PathBuf::from)), "{line}");
        }
        for line in
            ["up", "watch", "completions bash", "--version", "--json", "xyzzy", "whoami --socket", "--help"]
        {
            assert!(read_words(line).is_none(), "{line}");
        }
        assert!(read_words("list_files --help").unwrap().help);
    }
}
