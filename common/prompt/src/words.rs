//! Cuts a command line into words as a shell would: blanks separate, quotes and backslashes keep blanks. Nothing else is
//! special, so that passwords and names may hold `#`, `$` or `*`.

/// One word of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The word with quotes and backslashes undone.
    pub text: String,
    /// Where it begins in the line, its quote included, in bytes.
    pub start: usize,
    /// Whether it began with that quote.
    pub quote: Option<char>,
}

/// A line's words, and whether it ended within a quote or behind a backslash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// The words in order.
    pub words: Vec<Word>,
    /// Whether the last word is closed; an unfinished one can still be completed.
    pub closed: bool,
}

/// Cuts a line into words.
#[must_use]
pub fn split(line: &str) -> Words {
    let mut words: Vec<Word> = Vec::new();
    let mut within = false;
    let mut quote: Option<char> = None;
    let mut escaped = false;
    for (at, character) in line.char_indices() {
        if !within {
            if character.is_whitespace() {
                continue;
            }
            let opening = matches!(character, '"' | '\'').then_some(character);
            words.push(Word { text: String::new(), start: at, quote: opening });
            within = true;
        }
        let Some(word) = words.last_mut() else { continue };
        match (character, quote) {
            _ if escaped => {
                // Within double quotes a backslash escapes only what would otherwise end or begin something.
                if quote.is_some() && !matches!(character, '"' | '\\') {
                    word.text.push('\\');
                }
                word.text.push(character);
                escaped = false;
            }
            ('\\', None | Some('"')) => escaped = true,
            (_, Some(open)) if character == open => quote = None,
            ('"' | '\'', None) => quote = Some(character),
            (_, None) if character.is_whitespace() => within = false,
            _ => word.text.push(character),
        }
    }
    Words { words, closed: quote.is_none() && !escaped }
}

/// Where in a line the cursor is, which stands at its end.
#[derive(Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The words before the one that is being typed.
    pub before: Vec<String>,
    /// As much of that word as there is, unquoted.
    pub typed: String,
    /// Where it begins in the line.
    pub start: usize,
}

/// The word that is being typed at the line's end, and the words before it.
#[must_use]
pub fn cursor(line: &str) -> Cursor {
    let cut = split(line);
    let mut words = cut.words;
    let within = !cut.closed || !line.ends_with(char::is_whitespace);
    let last = if within { words.pop() } else { None };
    let before = words.into_iter().map(|word| word.text).collect();
    match last {
        Some(Word { text, start, .. }) => Cursor { before, typed: text, start },
        None => Cursor { before, typed: String::new(), start: line.len() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        split(line).words.into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn words_are_those_of_a_shell() {
        for (line, expected) in [
            ("", vec![]),
            ("  a  b\t", vec!["a", "b"]),
            ("a \"b c\" 'd e'", vec!["a", "b c", "d e"]),
            (r"a\ b", vec!["a b"]),
            (r#""say \"hi\" \n""#, vec![r#"say "hi" \n"#]),
            (r"'a\b'", vec![r"a\b"]),
            ("x\"y z\"w", vec!["xy zw"]),
            ("login bob #secret$", vec!["login", "bob", "#secret$"]),
            ("''", vec![""]),
        ] {
            assert_eq!(texts(line), expected, "{line}");
            assert!(split(line).closed, "{line}");
        }
        for line in ["\"a", "'a", "a\\", "a \"b c"] {
            assert!(!split(line).closed, "{line}");
        }
    }

    #[test]
    fn starts_and_quotes_are_kept_for_completion() {
        let words = split("é \"b c").words;
        assert_eq!((words[1].start, words[1].quote), (3, Some('"')));
    }

    #[test]
    fn the_word_being_typed_is_found() {
        for (line, before, typed, start) in [
            ("", vec![], "", 0),
            ("lo", vec![], "lo", 0),
            ("login ", vec!["login"], "", 6),
            ("list_files \"my gr", vec!["list_files"], "my gr", 11),
            ("stop_share \"my group\" a\\ b", vec!["stop_share", "my group"], "a b", 22),
            ("stop_share g 'a ", vec!["stop_share", "g"], "a ", 13),
        ] {
            let before = before.into_iter().map(str::to_owned).collect();
            assert_eq!(cursor(line), Cursor { before, typed: typed.into(), start }, "{line}");
        }
    }
}
