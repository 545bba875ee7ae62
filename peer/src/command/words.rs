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

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_session::text::quoted;

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
    fn quoted_words_read_back() {
        for word in ["plain", "two words", "", "a\"b", "a\\b", "it's", " "] {
            assert_eq!(texts(&quoted(word)), [word]);
        }
    }
}
