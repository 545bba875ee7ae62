//! Which characters a name may hold, and how hidden ones are shown. A character is *hidden* if a reader does not see it, or
//! if it changes how the text around it is read.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::canonical_combining_class;
use unicode_properties::{GeneralCategory, UnicodeEmoji, UnicodeGeneralCategory};
use unicode_script::{Script, UnicodeScript};
use unicode_security::skeleton;

const ZWNJ: char = '\u{200c}';
const ZWJ: char = '\u{200d}';
/// Asks for the coloured form of an emoji.
const EMOJI_SELECTOR: char = '\u{fe0f}';
/// Makes a key cap of a digit.
const KEYCAP: char = '\u{20e3}';
/// The combining class of a virama, which joiners follow in the scripts of India (UAX 44).
const VIRAMA: u8 = 9;
/// Longest run of nonspacing marks in a name (UTS 39, section 5.4).
const MAX_MARKS: usize = 4;
/// Characters that Unicode does not count as ignorable but that no font shows: the Braille blank, the null notehead, the
/// Khitan filler, and the placeholder of an object.
const BLANKS: [char; 4] = ['\u{2800}', '\u{1d159}', '\u{16fe4}', '\u{fffc}'];

/// The first character that nobody sees or that misleads, unless its script needs it there.
pub(super) fn first_hidden(text: &str) -> Option<char> {
    let characters: Vec<char> = text.chars().collect();
    (0..characters.len()).find(|&at| is_hidden_at(&characters, at)).map(|at| characters[at])
}

/// Whether a character is hidden wherever it stands. Joiners and the emoji selector count as hidden.
#[must_use]
pub fn is_hidden(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    let category = character.general_category();
    matches!(
        category,
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
            | GeneralCategory::PrivateUse
            | GeneralCategory::Surrogate
            | GeneralCategory::Unassigned
    ) || (category == GeneralCategory::SpaceSeparator && character != '\u{3000}')
        || BLANKS.contains(&character)
        || is_ignorable(character)
}

/// The text with hidden characters escaped as `\u{202e}`, for lists, prompts and logs. Joiners that a script needs stay.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    if first_hidden(text).is_none() {
        return Cow::Borrowed(text);
    }
    let characters: Vec<char> = text.chars().collect();
    let mut escaped = String::with_capacity(text.len() + 16);
    for (at, &character) in characters.iter().enumerate() {
        if is_hidden_at(&characters, at) {
            // Writing to a String does not fail.
            let _ = write!(escaped, "{}", character.escape_unicode());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// The text with what [`shown`] escaped. For names of files, in which no backslash stands for itself.
pub(super) fn unescaped(text: &str) -> Cow<'_, str> {
    const START: &str = "\\u{";
    if !text.contains(START) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(START) {
        plain.push_str(before);
        let escape = after.split_once('}');
        let character = escape
            .and_then(|(digits, rest)| Some((char::from_u32(u32::from_str_radix(digits, 16).ok()?)?, rest)));
        match character {
            Some((character, behind)) => {
                plain.push(character);
                rest = behind;
            }
            None => {
                plain.push_str(START);
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// What is wrong with the marks in a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// It begins with one, which would join the text before it.
    First,
    /// One stands twice in a row, or more than four in all: they lie on each other and are not seen.
    Stacked,
}

/// Checks the nonspacing marks of a name (UTS 39, section 5.4).
pub(super) fn check_marks(text: &str) -> Result<(), Marks> {
    let (mut run, mut last) = (0, None);
    for (at, character) in text.nfd().enumerate() {
        if !is_mark(character) {
            (run, last) = (0, None);
            continue;
        }
        if at == 0 {
            return Err(Marks::First);
        }
        run += 1;
        // The selector of an emoji is a mark too, and is judged as a hidden character.
        if run > MAX_MARKS || last == Some(character) {
            return Err(Marks::Stacked);
        }
        last = Some(character);
    }
    Ok(())
}

fn is_mark(character: char) -> bool {
    matches!(character.general_category(), GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark)
}

/// Whether Unicode calls it default-ignorable: a skeleton leaves out exactly those (UTS 39, section 4).
fn is_ignorable(character: char) -> bool {
    skeleton(character.encode_utf8(&mut [0; 4])).next().is_none()
}

fn is_hidden_at(characters: &[char], at: usize) -> bool {
    let Some(&character) = characters.get(at) else { return false };
    is_hidden(character) && !is_needed(characters, at)
}

/// Whether the script needs this joiner or selector here (UAX 31, section 2.3; UTS 51). The contexts for Arabic are wider
/// than in UAX 31. That gives no second name, because a joiner does not count in the skeleton.
fn is_needed(characters: &[char], at: usize) -> bool {
    let (before, after) = characters.split_at(at);
    let Some((&character, after)) = after.split_first() else { return false };
    let (last, next) = (before.last().copied(), after.first().copied());
    match character {
        EMOJI_SELECTOR => last.is_some_and(|last| {
            is_emoji(last) || (matches!(last, '0'..='9' | '#' | '*') && next == Some(KEYCAP))
        }),
        ZWJ | ZWNJ if last.is_some_and(|last| canonical_combining_class(last) == VIRAMA) => {
            before.len() >= 2 && !is_mark(before[before.len() - 2])
        }
        ZWJ => {
            let base = before.iter().rev().find(|&&it| it != EMOJI_SELECTOR);
            base.is_some_and(|&base| is_emoji(base)) && next.is_some_and(is_emoji)
        }
        ZWNJ => {
            let base = before.iter().rev().find(|&&it| !is_mark(it));
            let follows = after.iter().find(|&&it| !is_mark(it));
            base.zip(follows).is_some_and(|(&base, &follows)| joins_on(base) && joins_back(follows))
        }
        _ => false,
    }
}

/// An emoji that is no text by itself: not a digit, `#` or `*`.
fn is_emoji(character: char) -> bool {
    !character.is_ascii() && character.is_emoji_char()
}

fn is_cursive(character: char) -> bool {
    character.is_alphabetic()
        && matches!(
            character.script(),
            Script::Arabic
                | Script::Syriac
                | Script::Mongolian
                | Script::Nko
                | Script::Mandaic
                | Script::Adlam
        )
}

/// Whether a letter joins the one after it. Letters of Arabic that never do make a non-joiner invisible.
fn joins_on(character: char) -> bool {
    const ALONE: [char; 21] = [
        'ء', 'آ', 'أ', 'ؤ', 'إ', 'ا', 'ة', 'د', 'ذ', 'ر', 'ز', 'و', 'ٱ', 'ڈ', 'ڑ', 'ژ', 'ۆ', 'ۇ', 'ۈ', 'ۋ',
        'ە',
    ];
    is_cursive(character) && !ALONE.contains(&character)
}

/// Whether a letter joins the one before it.
fn joins_back(character: char) -> bool {
    is_cursive(character) && character != 'ء'
}
