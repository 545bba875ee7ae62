//! Finds the files of a client that moved: where they were, or somewhere below folders that its user names. What counts is the content:
//! names and sizes only say what to read first.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use shoal_common::{FileDigest, FileName, Manifest};
use shoal_engine::hash::{FileIdentity, hash_file};
use shoal_engine::{Content, Partial};
use tokio_util::sync::CancellationToken;

use super::ArchiveError;

/// Entries of folders that are looked at, in all.
const MAX_ENTRIES: usize = 2_000_000;
/// Folders below each other that are gone into.
const MAX_DEPTH: usize = 64;
/// Files of the right size that are looked at for one share, the likeliest first. Each is read once, for whichever share.
const MAX_READ: usize = 1_000;
/// Folders without access that are named.
const MAX_NAMED: usize = 5;

/// A share that is looked for.
#[derive(Debug)]
pub struct Looked<'a> {
    /// Shares that were looked for before.
    pub at: usize,
    /// Shares in all.
    pub total: usize,
    /// Where it was.
    pub path: &'a Path,
}

/// A file that is to be found.
pub(super) struct Wanted<'a> {
    path: &'a Path,
    size: u64,
    digest: FileDigest,
    known: FileIdentity,
}

impl<'a> Wanted<'a> {
    pub(super) fn of(path: &'a Path, manifest: &Manifest, known: FileIdentity) -> Self {
        Self { path, size: manifest.size, digest: manifest.digest(), known }
    }
}

/// What is looked for.
pub(super) struct Sought {
    /// Sizes of shared files.
    pub(super) sizes: BTreeSet<u64>,
    /// Names of partial files.
    pub(super) partials: BTreeSet<OsString>,
    /// Names of shared folders.
    pub(super) folders: BTreeSet<OsString>,
}

/// Knows which files there are, and what was read of them.
pub(super) struct Finder {
    by_size: HashMap<u64, Vec<PathBuf>>,
    /// Partial files by their names.
    partials: HashMap<OsString, Vec<PathBuf>>,
    /// Folders by their names.
    folders: HashMap<OsString, Vec<PathBuf>>,
    /// Paths of downloads that were given out: each belongs to one.
    given: HashSet<PathBuf>,
    read: HashMap<PathBuf, Option<(FileDigest, FileIdentity)>>,
    unreadable: Vec<PathBuf>,
}

/// Where the partial file of a download lies, with its bytes and with what is known of them.
fn partial(path: &Path) -> [PathBuf; 2] {
    [".part", ".pstate"].map(|end| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        name.into()
    })
}

/// What the partial file of a download is called.
pub(super) fn partial_name(path: &Path) -> Option<OsString> {
    partial(path)[0].file_name().map(OsStr::to_owned)
}

impl Finder {
    /// Looks through the folders for what is sought. Links are not followed.
    ///
    /// # Errors
    /// When one of the folders is none, or cannot be looked into.
    pub(super) fn new(folders: &[PathBuf], sought: &Sought) -> Result<Self, ArchiveError> {
        let mut finder = Self {
            by_size: HashMap::new(),
            partials: HashMap::new(),
            folders: HashMap::new(),
            given: HashSet::new(),
            read: HashMap::new(),
            unreadable: Vec::new(),
        };
        let mut left = MAX_ENTRIES;
        for folder in folders {
            let unusable = |error| ArchiveError::Read { path: folder.clone(), error };
            let folder = std::path::absolute(folder).map_err(unusable)?;
            fs::read_dir(&folder).map_err(unusable)?;
            finder.note_folder(&folder, sought);
            let mut waiting = vec![(folder, 0)];
            while let Some((folder, depth)) = waiting.pop() {
                let Ok(entries) = fs::read_dir(&folder) else {
                    finder.unreadable.push(folder);
                    continue;
                };
                for entry in entries.flatten() {
                    if left == 0 {
                        return Ok(finder);
                    }
                    left -= 1;
                    match entry.file_type() {
                        Ok(kind) if kind.is_dir() && depth < MAX_DEPTH => {
                            finder.note_folder(&entry.path(), sought);
                            waiting.push((entry.path(), depth + 1));
                        }
                        Ok(kind) if kind.is_file() => finder.note(&entry, sought),
                        _ => {}
                    }
                }
            }
        }
        Ok(finder)
    }

    fn note_folder(&mut self, path: &Path, sought: &Sought) {
        if let Some(name) = path.file_name().filter(|name| sought.folders.contains(*name)) {
            self.folders.entry(name.to_owned()).or_default().push(path.to_owned());
        }
    }

    /// Where the shared folder of that path may be: where it was, and under its name elsewhere.
    pub(super) fn folders_like(&self, path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
        let mut named = path.file_name().and_then(|name| self.folders.get(name)).cloned().unwrap_or_default();
        named.sort_by_cached_key(|found| (Reverse(likeness(found, path)), found.clone()));
        std::iter::once(path.to_owned()).chain(named.into_iter().take(MAX_READ))
    }

    fn note(&mut self, entry: &fs::DirEntry, sought: &Sought) {
        if sought.partials.contains(&entry.file_name()) {
            self.partials.entry(entry.file_name()).or_default().push(entry.path());
        }
        if let Ok(found) = entry.metadata()
            && sought.sizes.contains(&found.len())
        {
            self.by_size.entry(found.len()).or_default().push(entry.path());
        }
    }

    /// Where that content is, and which file that is.
    pub(super) fn find(&mut self, wanted: &Wanted<'_>) -> Option<(PathBuf, FileIdentity)> {
        let there =
            fs::metadata(wanted.path).is_ok_and(|found| found.is_file() && found.len() == wanted.size);
        if there {
            // Its drive may have come along.
            if let Ok(found) = FileIdentity::of(wanted.path)
                && wanted.known.is_still(&found)
            {
                return Some((wanted.path.to_owned(), found));
            }
            if let Some(identity) = self.has(wanted.path, &wanted.digest) {
                return Some((wanted.path.to_owned(), identity));
            }
        }
        let mut candidates = self.by_size.get(&wanted.size).cloned().unwrap_or_default();
        candidates.sort_by_cached_key(|path| (Reverse(likeness(path, wanted.path)), path.clone()));
        let mut likely = candidates.into_iter().take(MAX_READ);
        likely.find_map(|path| self.has(&path, &wanted.digest).map(|identity| (path, identity)))
    }

    /// Which file is at a path, if it has that content.
    fn has(&mut self, path: &Path, digest: &FileDigest) -> Option<FileIdentity> {
        let read = || {
            let hashed = hash_file(path, |_| {}, &CancellationToken::new()).ok()?;
            Some((hashed.digest, hashed.identity))
        };
        let known = self.read.entry(path.to_owned()).or_insert_with(read);
        known.filter(|(found, _)| found == digest).map(|(_, identity)| identity)
    }

    /// The path of a download whose partial file is there: where it was, or else in one of the folders. It is of that content, and
    /// is given out once.
    pub(super) fn partial(&mut self, path: &Path, content: &Content) -> Option<PathBuf> {
        let fits = |path: &Path| {
            let [bytes, state] = partial(path);
            let may_be =
                |state: PathBuf| fs::File::open(state).and_then(|state| Partial::may_be_of(state, content));
            bytes.is_file() && state.is_file() && may_be(state).unwrap_or(false)
        };
        let name = path.file_name()?;
        let [bytes, _] = partial(path);
        let elsewhere = self.partials.get(bytes.file_name()?).into_iter().flatten();
        let mut all =
            std::iter::once(path.to_owned()).chain(elsewhere.map(|found| found.with_file_name(name)));
        let found = all.find(|path| !self.given.contains(path) && fits(path))?;
        self.given.insert(found.clone());
        Some(found)
    }

    /// A path in that folder for a download that begins again.
    pub(super) fn place(&mut self, folder: &Path, name: &FileName) -> PathBuf {
        let name = Path::new(name.as_str());
        let (stem, end) = (name.file_stem().unwrap_or_default(), name.extension());
        let mut path = folder.join(name);
        for number in 2_u64.. {
            if self.given.insert(path.clone()) {
                break;
            }
            let mut other = stem.to_owned();
            other.push(format!(" ({number})"));
            if let Some(end) = end {
                other.push(".");
                other.push(end);
            }
            path = folder.join(other);
        }
        path
    }

    /// Folders that could not be looked into; the first few.
    pub(super) fn unreadable(mut self) -> Vec<PathBuf> {
        self.unreadable.truncate(MAX_NAMED);
        self.unreadable
    }
}

/// How many names at the end two paths have in common.
fn likeness(one: &Path, other: &Path) -> usize {
    let names = |path: &Path| path.iter().rev().map(OsStr::to_owned).collect::<Vec<_>>();
    names(one).iter().zip(names(other)).take_while(|(one, other)| **one == *other).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::{Blake3, Layout, Sha1};

    fn manifest(path: &Path) -> (Manifest, FileIdentity) {
        let hashed = hash_file(path, |_| {}, &CancellationToken::new()).unwrap();
        let name = FileName::create("a.bin").unwrap();
        let (manifest, _) = Manifest::new(name, hashed.layout, &hashed.pieces, hashed.digest, vec![]);
        (manifest, hashed.identity)
    }

    #[test]
    fn a_file_is_found_by_its_content_where_it_was_or_under_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old/music/a.bin"), dir.path().join("new"));
        fs::create_dir_all(old.parent().unwrap()).unwrap();
        fs::create_dir_all(new.join("x/music")).unwrap();
        fs::write(&old, "the content").unwrap();
        let (manifest, known) = manifest(&old);
        let find = |folders: &[PathBuf]| {
            let mut finder = Finder::new(folders, &sought(&[manifest.size], &[])).unwrap();
            finder.find(&Wanted::of(&old, &manifest, known)).map(|(path, _)| path)
        };
        assert_eq!(find(&[]), Some(old.clone()));
        fs::rename(&old, new.join("x/renamed")).unwrap();
        // As long, of the same name, and something else; and a link to the right one.
        fs::write(new.join("x/music/a.bin"), "another one").unwrap();
        std::os::unix::fs::symlink(new.join("x/renamed"), new.join("link")).unwrap();
        assert_eq!(find(&[]), None);
        assert_eq!(find(std::slice::from_ref(&new)), Some(new.join("x/renamed")));
        fs::write(&old, "another one").unwrap();
        assert_eq!(find(&[]), None, "what is there is something else");
        fs::remove_file(new.join("x/renamed")).unwrap();
        assert_eq!(find(std::slice::from_ref(&new)), None);
        assert!(Finder::new(&[dir.path().join("none")], &sought(&[], &[])).is_err());
    }

    fn sought(sizes: &[u64], partials: &[&str]) -> Sought {
        let partials = partials.iter().map(OsString::from).collect();
        Sought { sizes: sizes.iter().copied().collect(), partials, folders: BTreeSet::new() }
    }

    fn content(bytes: &[u8]) -> Content {
        let digest = FileDigest { sha1: Sha1::of(bytes), blake3: Blake3::of(bytes) };
        let layout = Layout::for_size(bytes.len() as u64).unwrap();
        Content::new(layout, [digest.sha1].into(), digest).unwrap()
    }

    #[test]
    fn a_partial_file_is_found_with_what_is_known_of_it_and_is_given_out_once() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("film.mkv"), dir.path().join("new/deep"));
        fs::create_dir_all(&new).unwrap();
        let wanted = sought(&[], &["film.mkv.part"]);
        let finder = || Finder::new(&[dir.path().join("new")], &wanted).unwrap();
        let content = content(b"film");
        fs::write(new.join("film.mkv.part"), "").unwrap();
        assert_eq!(finder().partial(&old, &content), None, "nothing says which pieces are there");
        // Cut off when the power went.
        fs::write(new.join("film.mkv.pstate"), "").unwrap();
        let mut finder_of_two = finder();
        assert_eq!(finder_of_two.partial(&old, &content), Some(new.join("film.mkv")));
        assert_eq!(finder_of_two.partial(&old, &content), None, "it belongs to another download");
        fs::write(new.join("film.mkv.pstate"), "something else altogether, and long enough for that")
            .unwrap();
        assert_eq!(finder().partial(&old, &content), None);
        for end in ["part", "pstate"] {
            fs::write(dir.path().join(format!("film.mkv.{end}")), "").unwrap();
        }
        assert_eq!(finder().partial(&old, &content), Some(old.clone()));
    }

    #[test]
    fn downloads_of_one_name_that_begin_again_get_paths_of_their_own() {
        let mut finder = Finder::new(&[], &sought(&[], &[])).unwrap();
        let mut place = |name| finder.place(Path::new("/d"), &FileName::create(name).unwrap());
        let places = ["film.mkv", "film.mkv", "film.mkv", "film", "film"].map(&mut place);
        let expected = ["/d/film.mkv", "/d/film (2).mkv", "/d/film (3).mkv", "/d/film", "/d/film (2)"];
        assert_eq!(places, expected.map(PathBuf::from));
    }
}
