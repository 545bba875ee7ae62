//! Names that the file system of a destination cannot hold, or takes for one: found before anything is written, so that no
//! file silently takes the place of another.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;

use rustix::io::Errno;
use unicode_normalization::UnicodeNormalization;

/// What shows how the file system of a folder treats names: empty folders that are made in it and removed again.
pub(super) trait Probe {
    /// Makes an empty folder of that name.
    fn make(&self, name: &str) -> io::Result<()>;
    /// Whether that name leads to something.
    fn finds(&self, name: &str) -> bool;
    /// Removes the empty folder of that name.
    fn remove(&self, name: &str);
}

/// Begins the names that are tried. No path of a listing has a name that begins so and ends as ours do.
const PROBE: &str = ".shoal-probe~";
/// Characters that file systems of other systems refuse.
const SPECIAL: [char; 7] = ['<', '>', ':', '"', '|', '?', '*'];
/// Names that are devices there, whatever ending follows.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "com", "lpt"];

/// How a file system treats names.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    /// Upper and lower case are the same.
    pub(super) case_blind: bool,
    /// Composed and decomposed letters are the same.
    pub(super) form_blind: bool,
    /// Dots and spaces at the end do not count, or are refused.
    pub(super) cuts_ends: bool,
    /// Refused characters.
    pub(super) refused: Vec<char>,
    /// Names of devices are refused.
    pub(super) no_devices: bool,
    /// Longest name in bytes.
    pub(super) longest: usize,
}

/// What cannot be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// Two paths are one.
    Same(String, String),
    /// A path with a name that is none.
    Refused(String),
}

impl Rules {
    /// Rules stricter than those of any file system with names that long.
    pub(super) fn strictest(longest: usize) -> Self {
        let refused = SPECIAL.to_vec();
        Self { case_blind: true, form_blind: true, cuts_ends: true, refused, no_devices: true, longest }
    }

    /// Finds out the rules of a file system.
    ///
    /// # Errors
    /// When nothing can be made there.
    pub(super) fn find(probe: &(impl Probe + ?Sized), longest: usize) -> io::Result<Self> {
        let lower = format!("{PROBE}x");
        // One that a crash left.
        probe.remove(&lower);
        probe.make(&lower)?;
        let case_blind = probe.finds(&lower.to_uppercase());
        let cuts_ends = [".", " "].iter().any(|end| {
            let name = format!("{lower}{end}");
            let made = !probe.finds(&name) && probe.make(&name).is_ok();
            if made {
                probe.remove(&name);
            }
            !made
        });
        probe.remove(&lower);
        let takes = |name: &str| match probe.make(name) {
            Ok(()) => {
                probe.remove(name);
                true
            }
            Err(error) => error.kind() == io::ErrorKind::AlreadyExists,
        };
        let composed = format!("{PROBE}\u{e9}");
        let form_blind = probe.make(&composed).is_ok() && probe.finds(&format!("{PROBE}e\u{301}"));
        probe.remove(&composed);
        let refused = SPECIAL.into_iter().filter(|special| !takes(&format!("{PROBE}{special}"))).collect();
        let no_devices = !takes("aux");
        Ok(Self { case_blind, form_blind, cuts_ends, refused, no_devices, longest })
    }

    /// The first of these paths of files that such a file system cannot hold beside the others.
    pub(super) fn problem(&self, paths: &[&str]) -> Option<Problem> {
        let mut seen: HashMap<String, &str> = HashMap::with_capacity(paths.len());
        for &path in paths {
            if path.split('/').any(|name| self.refuses(name)) {
                return Some(Problem::Refused(path.to_owned()));
            }
            if let Some(before) = seen.insert(self.folded(path), path) {
                return Some(Problem::Same(before.to_owned(), path.to_owned()));
            }
        }
        // A file where another's folder is.
        paths.iter().find_map(|path| {
            let ends = path.match_indices('/').map(|(at, _)| at);
            ends.filter_map(|end| seen.get(&self.folded(&path[..end])))
                .map(|file| Problem::Same((*file).to_owned(), (*path).to_owned()))
                .next()
        })
    }

    fn refuses(&self, name: &str) -> bool {
        let stem = name.split('.').next().unwrap_or_default().trim_end_matches(|c: char| c.is_ascii_digit());
        name.len() > self.longest
            || name.contains(|c| self.refused.contains(&c))
            || (self.cuts_ends && name.ends_with(['.', ' ']))
            || (self.no_devices && DEVICES.contains(&stem.to_ascii_lowercase().as_str()))
    }

    /// What is the same for two paths that such a file system takes for one.
    fn folded(&self, path: &str) -> String {
        let formed: String = if self.form_blind { path.nfd().collect() } else { path.to_owned() };
        if self.case_blind { formed.to_lowercase() } else { formed }
    }
}

/// Whether a folder of that name was made to try names, and left by a crash.
pub(super) fn is_probe(name: &OsStr) -> bool {
    name.as_encoded_bytes().to_ascii_lowercase().starts_with(PROBE.as_bytes())
}

impl Probe for std::path::Path {
    fn make(&self, name: &str) -> io::Result<()> {
        std::fs::create_dir(self.join(name)).map_err(|error| match error.raw_os_error() {
            Some(errno) if errno == Errno::INVAL.raw_os_error() => io::ErrorKind::InvalidFilename.into(),
            _ => error,
        })
    }

    fn finds(&self, name: &str) -> bool {
        std::fs::symlink_metadata(self.join(name)).is_ok()
    }

    fn remove(&self, name: &str) {
        let _ = std::fs::remove_dir(self.join(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::HashSet;

    /// A file system that treats names as the rules say.
    struct Mock(Rules, RefCell<HashSet<String>>);

    impl Mock {
        fn key(&self, name: &str) -> String {
            let name = self.0.folded(name);
            if self.0.cuts_ends { name.trim_end_matches(['.', ' ']).to_owned() } else { name }
        }
    }

    impl Probe for Mock {
        fn make(&self, name: &str) -> io::Result<()> {
            let refused =
                name.contains(|c| self.0.refused.contains(&c)) || (self.0.no_devices && name == "aux");
            match refused {
                true => Err(io::ErrorKind::InvalidFilename.into()),
                false if self.1.borrow_mut().insert(self.key(name)) => Ok(()),
                false => Err(io::ErrorKind::AlreadyExists.into()),
            }
        }
        fn finds(&self, name: &str) -> bool {
            self.1.borrow().contains(&self.key(name))
        }
        fn remove(&self, name: &str) {
            self.1.borrow_mut().remove(&self.key(name));
        }
    }

    #[test]
    fn the_rules_of_a_file_system_are_found_out_and_nothing_is_left() {
        let windows = Rules { form_blind: false, ..Rules::strictest(255) };
        let mac = Rules { case_blind: true, form_blind: true, longest: 255, ..Rules::default() };
        let linux = Rules { longest: 255, ..Rules::default() };
        for rules in [windows, mac, linux.clone()] {
            let mock = Mock(rules.clone(), RefCell::default());
            assert_eq!(Rules::find(&mock, 255).unwrap(), rules);
            assert!(mock.1.borrow().is_empty());
        }
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Rules::find(folder.path(), 255).unwrap(), linux);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_collides_or_is_refused_is_named() {
        let problem = |rules: &Rules, paths: &[&str]| rules.problem(paths);
        let same = |one: &str, other: &str| Some(Problem::Same(one.into(), other.into()));
        let strict = Rules::strictest(255);
        let plain = Rules { longest: 255, ..Rules::default() };
        for (paths, expected) in [
            (&["A", "a"][..], same("A", "a")),
            (&["d/\u{e9}", "d/e\u{301}"], same("d/\u{e9}", "d/e\u{301}")),
            (&["Python/x", "python"], same("python", "Python/x")),
            (&["A/x", "a/y"], None),
            (&["a/b:c"], Some(Problem::Refused("a/b:c".into()))),
            (&["a./b"], Some(Problem::Refused("a./b".into()))),
            (&["lib/AUX.c"], Some(Problem::Refused("lib/AUX.c".into()))),
            (&["com1"], Some(Problem::Refused("com1".into()))),
            (&["command", "auxiliary", "console.log"], None),
        ] {
            assert_eq!(problem(&strict, paths), expected, "{paths:?}");
            assert_eq!(problem(&plain, paths), None, "{paths:?}");
        }
        let long = "n".repeat(200);
        assert_eq!(problem(&Rules { longest: 143, ..plain }, &[&long]), Some(Problem::Refused(long)));
    }
}
