//! What `download_file` is told about how to take a folder, kept with the download.

use std::collections::HashMap;
use std::sync::Arc;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};
use shoal_common::folder::check_path;
use shoal_common::{FileName, Layout, Listing, normal_form};
use shoal_engine::{Chosen, Placing};

/// Most rules that a download keeps; more are of no use to people.
const MAX_RULES: usize = 1_000;
/// Longest pattern in bytes: as long as the longest path.
const MAX_PATTERN_BYTES: usize = 1_024;
/// Most files that are given other names.
const MAX_RENAMES: usize = 1_000;

/// How a download goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DownloadOptions {
    /// Whether different files that are there are replaced, each when the new one is whole.
    pub overwrite: bool,
    /// How a folder is taken.
    pub folder: FolderOptions,
}

/// How a folder is taken; kept as JSON. A field more has a default, so that what an earlier version kept is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FolderOptions {
    /// Which files are fetched: of those that match a file the last one counts. Without a rule that matches, a file is
    /// fetched if the first rule leaves files out, or there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Other names for files: the path in the folder, and the name that the file gets in its place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub renames: Vec<(String, String)>,
    /// Whether files are executable that were where they were shared.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep_modes: bool,
}

/// What is on record of how a folder is taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Take {
    /// What was chosen.
    pub(crate) options: FolderOptions,
    /// The files that are fetched, once that is known; `None` if it is all of them, under their own names.
    pub(crate) part: Option<TakenPart>,
}

/// A part of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TakenPart {
    /// How many files.
    pub(crate) files: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

impl Take {
    /// With these files.
    pub(crate) fn of(options: FolderOptions, chosen: &Chosen, layout: &Layout) -> Self {
        let whole = chosen.is_all() && options.renames.is_empty();
        let part = (!whole)
            .then(|| TakenPart { files: chosen.files(layout).count() as u64, bytes: chosen.bytes(layout) });
        Self { options, part }
    }
}

/// Says of files whether they are fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Whether they are.
    pub fetch: bool,
    /// Which files: a path, the path of a folder above them, or a glob. A glob without `/` is compared with each name on the
    /// path, one with `/` with the path from the folder on; `*` does not match `/`, `**` does.
    pub glob: String,
}

/// Why a choice is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// It is no glob.
    #[error("{glob:?} is no pattern: {problem}; write for example '*.mp3' or 'season 2/'")]
    Glob {
        /// What was given.
        glob: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It is no name for a file.
    #[error(
        "{given:?} cannot be used for another name: {problem}; write for example --rename 'deep/a:b.txt=a-b.txt'"
    )]
    Rename {
        /// What was given.
        given: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There are too many.
    #[error("{MAX_RULES} patterns and {MAX_RENAMES} other names are the most; choose with fewer")]
    TooMany,
    /// No file matches it.
    #[error("no file of {folder} matches {glob:?}; see: list_files <group_id> <file_name>")]
    Nothing {
        /// The folder.
        folder: FileName,
        /// The pattern, or all of them.
        glob: String,
    },
    /// It is no folder.
    #[error("{0} is a file, not a folder: there is nothing to choose in it")]
    NotAFolder(FileName),
    /// Nothing would be left to fetch.
    #[error("that leaves no file of {0} to fetch; give it up with: cancel_download <group_id> <file_name>")]
    NothingLeft(FileName),
}

impl FolderOptions {
    /// Whether a download with them is like one without.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Adds rules, the last ones to count. Where one covers everything, those before it go.
    ///
    /// # Errors
    /// When one is no pattern, or there are too many.
    pub fn add(&mut self, rules: Vec<Rule>) -> Result<(), ChoiceError> {
        self.rules.extend(rules);
        if let Some(last) = self.rules.iter().rposition(|rule| matches!(rule.glob.as_str(), "*" | "**")) {
            self.rules.drain(..last);
        }
        self.check()
    }

    /// Whether they can be used.
    ///
    /// # Errors
    /// When a rule is no pattern, another name leads elsewhere, or there are too many.
    pub fn check(&self) -> Result<(), ChoiceError> {
        if self.rules.len() > MAX_RULES || self.renames.len() > MAX_RENAMES {
            return Err(ChoiceError::TooMany);
        }
        for (path, name) in &self.renames {
            check_path(path).map_err(|problem| ChoiceError::Rename {
                given: path.clone(),
                problem: format!("as a path it {problem}"),
            })?;
            let one = if name.contains('/') { Err("it is more than a name".to_owned()) } else { Ok(()) };
            one.and_then(|()| check_path(name).map_err(|problem| format!("it {problem}")))
                .map_err(|problem| ChoiceError::Rename { given: name.clone(), problem })?;
        }
        Matcher::new(&self.rules).map(drop)
    }

    /// The files of a folder that are fetched.
    ///
    /// # Errors
    /// See [`FolderOptions::check`].
    pub fn chosen(&self, listing: &Listing) -> Result<Chosen, ChoiceError> {
        if self.rules.is_empty() {
            return Ok(Chosen::all());
        }
        let matcher = Matcher::new(&self.rules)?;
        let fetch = |path: &str| matcher.last(path).map_or(matcher.otherwise(), |rule| rule.fetch);
        Ok(Chosen::of(listing.files().map(|(path, _)| fetch(path)).collect()))
    }

    /// The first rule that no file of the folder matches.
    ///
    /// # Errors
    /// See [`FolderOptions::check`].
    pub fn useless<'a>(rules: &'a [Rule], listing: &Listing) -> Result<Option<&'a Rule>, ChoiceError> {
        let matcher = Matcher::new(rules)?;
        let mut used = vec![false; rules.len()];
        for (path, _) in listing.files() {
            for number in matcher.all(path) {
                if let Some(used) = used.get_mut(number) {
                    *used = true;
                }
            }
        }
        Ok(rules.iter().zip(used).find(|(_, used)| !used).map(|(rule, _)| rule))
    }

    /// How the files are put in place.
    #[must_use]
    pub fn placing(&self, listing: &Listing) -> Placing {
        // Of two for one file the first counts.
        let renames: HashMap<_, _> =
            self.renames.iter().rev().map(|(old, new)| (normal_form(old), new)).collect();
        let renamed = |(number, (path, _)): (usize, (&str, _))| {
            let new = renames.get(&normal_form(path))?;
            let above = path.rsplit_once('/').map_or(String::new(), |(above, _)| format!("{above}/"));
            Some((number, format!("{above}{new}")))
        };
        let names: HashMap<usize, String> = match self.renames.is_empty() {
            true => HashMap::new(),
            false => listing.files().enumerate().filter_map(renamed).collect(),
        };
        Placing { names: Arc::new(names), keeps_modes: self.keep_modes }
    }
}

/// Rules, ready to be compared with paths.
struct Matcher<'a> {
    rules: &'a [Rule],
    globs: GlobSet,
    /// The rule of each glob.
    of: Vec<usize>,
    /// The rules as paths, to be taken by the letter.
    literal: HashMap<String, Vec<usize>>,
}

impl<'a> Matcher<'a> {
    fn new(rules: &'a [Rule]) -> Result<Self, ChoiceError> {
        let (mut globs, mut of) = (GlobSetBuilder::new(), Vec::new());
        let mut literal: HashMap<String, Vec<usize>> = HashMap::new();
        for (number, rule) in rules.iter().enumerate() {
            let fault = |problem: String| ChoiceError::Glob { glob: rule.glob.clone(), problem };
            let glob = normal_form(rule.glob.trim_start_matches('/'));
            if glob.len() > MAX_PATTERN_BYTES {
                return Err(fault(format!("it is longer than {MAX_PATTERN_BYTES} bytes")));
            }
            let path = glob.trim_end_matches('/');
            if path.is_empty() {
                return Err(fault("it is empty".to_owned()));
            }
            literal.entry(path.to_owned()).or_default().push(number);
            let from = if path.contains('/') || rule.glob.starts_with('/') { "" } else { "**/" };
            // What ends in a slash is a folder.
            let ends: &[&str] = if glob.ends_with('/') { &["/**"] } else { &["", "/**"] };
            for end in ends {
                let built = GlobBuilder::new(&format!("{from}{path}{end}")).literal_separator(true).build();
                // A path that is no glob, as with a bracket in it, is taken by the letter.
                match built {
                    Ok(built) => {
                        globs.add(built);
                        of.push(number);
                    }
                    Err(_) if path.contains('[') || path.contains('{') => {}
                    Err(error) => return Err(fault(error.kind().to_string())),
                }
            }
        }
        let fault = |error: globset::Error| ChoiceError::Glob {
            glob: error.glob().unwrap_or_default().to_owned(),
            problem: error.kind().to_string(),
        };
        Ok(Self { rules, globs: globs.build().map_err(fault)?, of, literal })
    }

    /// The numbers of the rules that match a path.
    fn all(&self, path: &str) -> Vec<usize> {
        let path = normal_form(path);
        let globs = self.globs.matches(&path).into_iter().filter_map(|glob| self.of.get(glob).copied());
        let mut all: Vec<usize> = globs.collect();
        let above = path.match_indices('/').map(|(end, _)| &path[..end]);
        for part in above.chain([path.as_str()]) {
            all.extend(self.literal.get(part).into_iter().flatten());
        }
        all
    }

    fn last(&self, path: &str) -> Option<&Rule> {
        self.rules.get(self.all(path).into_iter().max()?)
    }

    /// Whether files are fetched that no rule matches.
    fn otherwise(&self) -> bool {
        self.rules.first().is_none_or(|rule| !rule.fetch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::folder::Entry;
    use shoal_common::{FileHasher, ListedFile};

    fn listing(paths: &[&str]) -> Listing {
        let digest = FileHasher::default().finish();
        let file = ListedFile { size: 0, sha1: digest.sha1, blake3: digest.blake3, exec: false, mtime_s: 0 };
        let entry = |path: &&str| Entry { path: (*path).to_owned(), file: Some(file) };
        Listing::new(paths.iter().map(entry).collect()).unwrap()
    }

    fn rules(text: &str) -> Vec<Rule> {
        let rule = |word: &str| Rule { fetch: word.starts_with('+'), glob: word[1..].to_owned() };
        text.split_whitespace().map(rule).collect()
    }

    #[test]
    fn the_last_rule_that_matches_counts() {
        let paths = [
            "cover.jpg",
            "cd1/01.mp3",
            "cd1/scans/back.jpg",
            "cd2/01.mp3",
            "cd2/[live].mp3",
            "cd20/x",
            "e\u{301}t\u{e9}/a",
        ];
        let all = listing(&paths);
        for (text, expected) in [
            (
                "",
                "cover.jpg cd1/01.mp3 cd1/scans/back.jpg cd2/01.mp3 cd2/[live].mp3 cd20/x e\u{301}t\u{e9}/a",
            ),
            ("+*.mp3", "cd1/01.mp3 cd2/01.mp3 cd2/[live].mp3"),
            ("-*.mp3", "cover.jpg cd1/scans/back.jpg cd20/x e\u{301}t\u{e9}/a"),
            ("+cd2/", "cd2/01.mp3 cd2/[live].mp3"),
            ("+cd2", "cd2/01.mp3 cd2/[live].mp3"),
            ("+scans", "cd1/scans/back.jpg"),
            ("+cd1/scans +*.mp3 -cd2", "cd1/01.mp3 cd1/scans/back.jpg"),
            ("+*/01.mp3", "cd1/01.mp3 cd2/01.mp3"),
            ("+/cover.jpg", "cover.jpg"),
            ("+/back.jpg", ""),
            ("+**/*.jpg", "cover.jpg cd1/scans/back.jpg"),
            ("+cd2/[live].mp3", "cd2/[live].mp3"),
            ("+cd{1,2}/*", "cd1/01.mp3 cd1/scans/back.jpg cd2/01.mp3 cd2/[live].mp3"),
            ("+\u{e9}te\u{301}", "e\u{301}t\u{e9}/a"),
            ("-* +cover.jpg", "cover.jpg"),
        ] {
            let mut options = FolderOptions::default();
            options.add(rules(text)).unwrap();
            let chosen = options.chosen(&all).unwrap();
            let files = all.files().enumerate().filter(|(number, _)| chosen.has(*number));
            let mut found: Vec<&str> = files.map(|(_, (path, _))| path).collect();
            let mut expected: Vec<&str> = expected.split_whitespace().collect();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn bad_patterns_are_refused_and_useless_ones_named() {
        let mut options = FolderOptions::default();
        assert!(matches!(options.add(rules("+")), Err(ChoiceError::Glob { .. })));
        let mut options = FolderOptions::default();
        let long = Rule { fetch: true, glob: "a".repeat(MAX_PATTERN_BYTES + 1) };
        assert!(options.add(vec![long]).is_err());
        let many = vec![Rule { fetch: true, glob: "a".into() }; MAX_RULES + 1];
        assert_eq!(FolderOptions::default().add(many), Err(ChoiceError::TooMany));
        let mut covered = FolderOptions::default();
        covered.add(rules("+a -b +** -c")).unwrap();
        assert_eq!(covered.rules, rules("+** -c"));
        let all = listing(&["a/b", "c"]);
        let given = rules("+a +x");
        assert_eq!(FolderOptions::useless(&given, &all).unwrap(), Some(&given[1]));
        assert_eq!(FolderOptions::useless(&given[..1], &all).unwrap(), None);
        // An open bracket is a letter of a name.
        assert!(FolderOptions::default().add(rules("+[2020")).is_ok());
    }

    #[test]
    fn other_names_stay_in_the_folder_and_options_are_kept() {
        let options = FolderOptions {
            renames: [("a/b", "other"), ("c", "d"), ("c", "later")]
                .map(|(old, new)| (old.into(), new.into()))
                .into(),
            ..FolderOptions::default()
        };
        let placing = options.placing(&listing(&["a/b", "b", "c"]));
        assert_eq!(*placing.names, HashMap::from([(0, "a/other".to_owned()), (2, "d".to_owned())]));
        let bad = FolderOptions { renames: vec![("../a".into(), "x".into())], ..FolderOptions::default() };
        assert!(bad.check().is_err());
        let mut full = FolderOptions { keep_modes: true, ..options };
        full.add(rules("+a -b")).unwrap();
        let text = serde_json::to_string(&full).unwrap();
        assert_eq!(serde_json::from_str::<FolderOptions>(&text).unwrap(), full);
        assert_eq!(serde_json::from_str::<FolderOptions>("{}").unwrap(), FolderOptions::default());
    }
}
