//! A table of attacks on names, and properties.

use super::*;
use proptest::prelude::*;

#[test]
fn bad_names_are_refused_with_their_reason() {
    for (text, reason) in [
        ("", "empty"),
        (&"x".repeat(65) as &str, "too long"),
        (&"x".repeat(10_000), "too long: 64 bytes are the most"),
        ("a\nb", "character"),
        ("a\u{202e}b", "character"),
        (" a", "space"),
        ("bob~12abEF", "six hex digits"),
    ] {
        let error = UserName::create(text).unwrap_err().to_string();
        assert!(error.contains(reason), "{text:?}: {error}");
    }
    for text in
        ["../../etc/x", "..", ".", "a/b", "a\\b", "a\0b", "", &"x".repeat(256), "a\u{1b}b", "a\u{85}b"]
    {
        assert!(FileName::refer(text).is_err(), "{text:?}");
    }
}

#[test]
fn good_names_pass() {
    for text in ["bob", "Zoë", "a b", "naïve~", "x~12345g", "-", "~123456x"] {
        assert_eq!(GroupName::create(text).unwrap().as_str(), text);
    }
    assert_eq!(FileName::create(".hidden file.tar.gz").unwrap().as_str(), ".hidden file.tar.gz");
}

#[test]
fn renamed_names_are_known_and_undone() {
    let name = UserName::create(&"n".repeat(64)).unwrap();
    let renamed = name.renamed(&[0xab; 16]);
    assert_eq!(renamed.as_str(), format!("{}~ababab", "n".repeat(64)));
    assert!(renamed.is_renamed() && !name.is_renamed());
    assert_eq!(renamed.base(), name);
    assert_eq!(UserName::refer(renamed.as_str()), Ok(renamed));
}

proptest! {
    #[test]
    fn no_text_panics_and_what_passes_is_safe(text in ".{0,300}") {
        let _ = UserName::refer(&text);
        if let Ok(name) = FileName::refer(&text) {
            let path = std::path::Path::new(name.as_str());
            prop_assert_eq!(path.components().count(), 1);
            prop_assert!(matches!(path.components().next(), Some(std::path::Component::Normal(_))));
        }
    }
}

/// Hidden characters, one of each kind that is known to have been used.
const HIDDEN: [(&str, char); 34] = [
    ("soft hyphen", '\u{ad}'),
    ("grapheme joiner", '\u{34f}'),
    ("Arabic letter mark", '\u{61c}'),
    ("Hangul choseong filler", '\u{115f}'),
    ("Hangul jungseong filler", '\u{1160}'),
    ("Hangul filler", '\u{3164}'),
    ("halfwidth Hangul filler", '\u{ffa0}'),
    ("Khmer inherent vowel", '\u{17b4}'),
    ("Mongolian selector", '\u{180b}'),
    ("Mongolian vowel separator", '\u{180e}'),
    ("zero width space", '\u{200b}'),
    ("non-joiner", '\u{200c}'),
    ("joiner", '\u{200d}'),
    ("left-to-right mark", '\u{200e}'),
    ("right-to-left override", '\u{202e}'),
    ("line separator", '\u{2028}'),
    ("word joiner", '\u{2060}'),
    ("invisible times", '\u{2062}'),
    ("isolate", '\u{2066}'),
    ("deprecated format", '\u{206a}'),
    ("byte order mark", '\u{feff}'),
    ("text selector", '\u{fe0e}'),
    ("emoji selector", '\u{fe0f}'),
    ("selector 17", '\u{e0100}'),
    ("language tag", '\u{e0001}'),
    ("tag letter", '\u{e0061}'),
    ("cancel tag", '\u{e007f}'),
    ("interlinear anchor", '\u{fff9}'),
    ("Braille blank", '\u{2800}'),
    ("null notehead", '\u{1d159}'),
    ("musical begin beam", '\u{1d173}'),
    ("shorthand control", '\u{1bca0}'),
    ("private use", '\u{e000}'),
    ("no-break space", '\u{a0}'),
];

#[test]
fn hidden_characters_are_refused_in_new_names_and_shown_escaped_in_others() {
    for (what, hidden) in HIDDEN {
        for text in [format!("ann{hidden}"), format!("a{hidden}nn"), format!("{hidden}ann")] {
            assert!(UserName::create(&text).is_err(), "{what}: {text:?}");
            assert!(GroupName::create(&text).is_err(), "{what}");
            let file = FileName::create(&text).unwrap();
            assert_eq!(file.as_str(), text, "a file keeps the name that it has");
            let escape = hidden.escape_unicode().to_string();
            assert!(file.to_string().contains(&escape), "{what}: {file}");
            assert_eq!(FileName::typed(&file.to_string()).unwrap().as_str(), text, "typed as it is shown");
        }
        let earlier = UserName::refer(&format!("a{hidden}nn")).unwrap();
        assert_eq!(earlier.to_string(), format!("a{}nn", hidden.escape_unicode()));
    }
    for unassigned in ['\u{378}', '\u{1fbfe}', '\u{fffe}', '\u{fdd0}', '\u{10ffff}', '\u{e0fff}'] {
        assert!(UserName::create(&format!("ann{unassigned}")).is_err(), "{unassigned:?}");
    }
    for marks in ["\u{301}ann", "an\u{323}\u{323}n", "a\u{300}\u{302}\u{303}\u{304}\u{305}"] {
        assert!(UserName::create(marks).is_err(), "{marks:?}");
    }
    for spaces in ["\u{3000}ann", "ann\u{3000}", "ann ", "a\u{2003}nn", "a\u{202f}nn"] {
        assert!(UserName::create(spaces).is_err(), "{spaces:?}");
    }
}

#[test]
fn scripts_keep_the_joiners_that_they_need() {
    let names = [
        ("Persian", "می\u{200c}خواهم"),
        ("Hindi, joiner", "क्\u{200d}ष"),
        ("Hindi, non-joiner", "क्\u{200c}ष"),
        ("Sinhala", "ශ්\u{200d}රී"),
        ("a family", "👨\u{200d}👩\u{200d}👧"),
        ("a skin tone in a sequence", "👩🏽\u{200d}🚀"),
        ("a heart", "❤\u{fe0f}"),
        ("a rainbow flag", "🏳\u{fe0f}\u{200d}🌈"),
        ("a key cap", "1\u{fe0f}\u{20e3}"),
        ("Japanese with its space", "山田\u{3000}太郎"),
        ("Hebrew with points", "שָׁלוֹם"),
        ("Vietnamese", "Nguyễn"),
        ("Thai", "กำกี่"),
        ("Korean", "한국어"),
        ("a space", "ann lee"),
    ];
    for (what, text) in names {
        let name = UserName::create(text).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(name.to_string(), name.as_str(), "{what} is shown as it is");
    }
    for text in ["ann\u{200d}lee", "रा\u{200d}म", "ر\u{200c}ا", "1\u{fe0f}", "a\u{200d}👩", "👩\u{200d}a"]
    {
        assert!(UserName::create(text).is_err(), "{text:?}");
    }
}

#[test]
fn names_that_look_alike_have_one_skeleton() {
    let alike = [
        ("Cyrillic", "ann", "аnn"),
        ("Greek", "bob", "bοb"),
        ("digit one", "paul", "pau1"),
        ("capital i", "paul", "pauI"),
        ("zero", "BOB", "B0B"),
        ("rn", "tom", "torn"),
        ("full width", "ann", "ａｎｎ"),
        ("mathematical", "ann", "𝐚𝐧𝐧"),
        ("script letters", "ann", "𝒶𝓃𝓃"),
        ("Armenian", "nos", "ոos"),
        ("Cherokee", "AB", "ᎪᏴ"),
        ("Lisu", "ABE", "ꓮꓐꓰ"),
        ("small capitals", "vow", "ᴠᴏᴡ"),
        ("ligature", "fine", "ﬁne"),
        ("roman numeral", "x", "ⅹ"),
        ("Latin alpha", "ann", "ɑnn"),
        ("normal forms", "zo\u{eb}", "zoe\u{308}"),
        ("Angstrom", "\u{c5}", "\u{212b}"),
        ("Cyrillic yo", "\u{451}va", "\u{eb}va"),
        ("spaces", "ann lee", "ann  lee"),
        ("ideographic space", "ann lee", "ann\u{3000}lee"),
        ("hyphens", "ann-lee", "ann‐lee"),
        ("quotes", "o'neil", "o’neil"),
        ("dotless i", "i", "ı"),
        ("joiner", "می\u{200c}خ", "میخ"),
        ("emoji selector", "❤\u{fe0f}", "❤"),
        ("Arabic letters of two languages", "کتاب", "كتاب"),
    ];
    for (what, one, other) in alike {
        assert_eq!(Skeleton::of(one), Skeleton::of(other), "{what}: {one} and {other}");
    }
    for (one, other) in
        [("ann", "anna"), ("ann", "Ann"), ("zoe", "zo\u{eb}"), ("bob", "rob"), ("анна", "инна")]
    {
        assert_ne!(Skeleton::of(one), Skeleton::of(other), "{one} and {other}");
    }
}

#[test]
fn no_name_looks_as_if_it_were_renamed() {
    for text in ["ann~аbcdef", "ann~OO1234", "ann∼abcdef", "ann~abcdе\u{440}".trim_end_matches('\u{440}')]
    {
        let renamed = UserName::create(text);
        let six = text.chars().rev().position(|c| c == '~' || c == '∼') == Some(6);
        assert_eq!(renamed.is_err(), six, "{text:?}");
    }
}

#[test]
fn a_new_name_is_composed_and_all_forms_are_equal() {
    let (composed, decomposed) = ("zo\u{eb}", "zoe\u{308}");
    assert_eq!(UserName::create(decomposed).unwrap().as_str(), composed);
    let (one, other) = (FileName::create(composed).unwrap(), FileName::create(decomposed).unwrap());
    assert_eq!(other.as_str(), decomposed, "a file is written as it was shared");
    assert_eq!(one, other);
    assert_eq!(one.lookup_key(), other.lookup_key());
    assert_eq!(std::collections::HashSet::from([one, other]).len(), 1);
}

#[test]
fn a_file_name_of_255_bytes_is_renamed_within_255_bytes() {
    for letter in ["x", "é", "字", "𝐱"] {
        let text = letter.repeat(255 / letter.len());
        let name = FileName::create(&text).unwrap();
        let renamed = name.renamed(&[0xab; 16]);
        assert!(renamed.as_str().len() <= 255 && renamed.is_renamed());
        assert_eq!(FileName::refer(renamed.as_str()).unwrap(), renamed);
        assert_eq!(renamed.lookup_key(), name.lookup_key());
    }
}

proptest! {
    #[test]
    fn what_is_created_is_seen_and_equal_in_every_form(text in "\\PC{1,20}|[a-zéа-я0-9 \u{200c}\u{200d}\u{fe0f}\u{301}~]{1,12}") {
        if let Ok(name) = UserName::create(&text) {
            prop_assert_eq!(name.to_string(), name.as_str());
            let decomposed: String = name.as_str().nfd().collect();
            if decomposed.len() <= 64 {
                prop_assert_eq!(&UserName::create(&decomposed).unwrap(), &name);
            }
            prop_assert_eq!(UserName::refer(&text).ok().is_none_or(|typed| typed == name), true);
            prop_assert_eq!(Skeleton::of(name.as_str()), Skeleton::of(&text));
            prop_assert!(Skeleton::of(name.as_str()).is_possible(name.as_str()));
            prop_assert!(!name.as_str().chars().all(is_hidden));
        }
    }

    #[test]
    fn what_is_shown_hides_nothing_and_can_be_typed(text in "[a-z\u{202e}\u{200d}\u{ad}👩é]{1,12}") {
        let name = FileName::create(&text).unwrap();
        let shown = name.to_string();
        let hidden = shown.contains(['\u{202e}', '\u{ad}']);
        prop_assert!(!hidden);
        let typed = FileName::typed(&shown).unwrap();
        prop_assert_eq!(typed.as_str(), text);
    }

    #[test]
    fn a_skeleton_is_short_and_stays_what_it_is(text in "\\PC{1,64}") {
        let key = Skeleton::of(&text).key().to_vec();
        prop_assert!(!key.is_empty() && key.len() <= 255);
    }
}
