//! The folders that a page may reach: those that `--web-root` names, else the download folder and the folders of what is shared. A
//! path from a page is looked up below one of them without following links out of it, and what is found is held, so that a link that
//! is swapped in afterwards changes nothing.
//!
//! Hidden names, and private folders such as the client's own with its keys, are never reached, not through links either.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use shoal_client::{Client, ClientError};
use shoal_disk::{Beneath, Held};

/// Folders that are named, at most.
const MAX_ROOTS: usize = 1_000;

/// How far paths reach that come with requests.
#[derive(Debug, Clone)]
pub(crate) enum Reach {
    /// Wherever the user may: the system says that the user asks.
    Everywhere,
    /// Into folders.
    Roots {
        /// These, or without any the usual ones.
        given: Arc<[PathBuf]>,
        /// Never into these, as into the client's own.
        private: Arc<[PathBuf]>,
    },
}

/// A folder that a page may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Root {
    /// Its path.
    pub(crate) path: PathBuf,
    /// Why it may.
    pub(crate) why: Why,
}

/// Why a page may reach a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    /// `--web-root` names it.
    Given,
    /// Downloads go there.
    DownloadFolder,
    /// Something in it is shared.
    Shared,
}

/// Why a path is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// It is in no folder that a page may reach.
    #[error(
        "{} is in no folder that a page may use; choose one of those that are offered, use shoal, or start with --web-root DIR",
        .0.display()
    )]
    Outside(PathBuf),
    /// Something in it is hidden.
    #[error("{} is hidden, or in a hidden folder: no page may use it; use shoal", .0.display())]
    Hidden(PathBuf),
    /// Its kind is wrong.
    #[error("{} is not a {expected}", .path.display())]
    OtherKind {
        /// The path.
        path: PathBuf,
        /// What was expected.
        expected: &'static str,
    },
    /// What the system says.
    #[error("cannot use {}: {error}", .path.display())]
    Unusable {
        /// The path.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
}

impl Refused {
    /// A code for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Outside(_) | Self::Hidden(_) => "not_allowed",
            Self::OtherKind { .. } => "other_kind",
            Self::Unusable { .. } => "unusable",
        }
    }
}

/// The folders that a page may reach now.
pub(crate) async fn roots(client: &Client, given: &[PathBuf]) -> Result<Vec<Root>, ClientError> {
    if !given.is_empty() {
        return Ok(given.iter().map(|path| Root { path: path.clone(), why: Why::Given }).collect());
    }
    let home = std::env::home_dir();
    let download = client.download_folder().await?;
    let mut roots: Vec<Root> =
        download.into_iter().map(|path| Root { path, why: Why::DownloadFolder }).collect();
    // Without a session nothing is shared.
    for share in client.shares().await.unwrap_or_default() {
        let Some(folder) = share.path.parent() else { continue };
        let is_known = roots.iter().any(|root| root.path == folder);
        if !is_known && roots.len() < MAX_ROOTS && !holds_too_much(folder, home.as_deref()) {
            roots.push(Root { path: folder.to_owned(), why: Why::Shared });
        }
    }
    Ok(roots)
}

/// Whether sharing one file of a folder cannot mean that a page may reach all of it: the user's own folder, those above it, and hidden
/// ones in it, where keys and settings are.
fn holds_too_much(folder: &Path, home: Option<&Path>) -> bool {
    let below = home.and_then(|home| folder.strip_prefix(home).ok());
    folder == Path::new("/")
        || home.is_some_and(|home| home.starts_with(folder))
        || below.is_some_and(has_hidden)
}

/// What is at a path below one of the roots, and not in one of the private folders. Blocks on the disk.
pub(crate) fn find(roots: &[Root], private: &[PathBuf], path: &Path) -> Result<Held, Refused> {
    let (root, below) = place(roots, path)?;
    let found = Beneath::open(&root).and_then(|root| root.find(&below));
    keep(found.map_err(|error| unusable(path, error))?, &root, private, path)
}

/// The folder at a path below one of the roots, and not in one of the private folders; what is lacking of it is made. Blocks on
/// the disk.
pub(crate) fn make_folder(roots: &[Root], private: &[PathBuf], path: &Path) -> Result<Held, Refused> {
    let (root, below) = place(roots, path)?;
    // Before anything is made there, also through a link; what is held is asked again.
    let wanted = root.join(&below);
    if let Some(there) = wanted.ancestors().find_map(|folder| std::fs::canonicalize(folder).ok()) {
        allow(&there, &root, private, path)?;
    }
    if below.as_os_str().is_empty() && !root.exists() {
        // The user's own setting names it.
        std::fs::create_dir_all(&root).map_err(|error| unusable(path, error))?;
    }
    let made = Beneath::open(&root).and_then(|root| root.make_folder(&below));
    keep(made.map_err(|error| unusable(path, error))?, &root, private, path)
}

/// The root that a path is below, the deepest of them, and the way from there.
fn place(roots: &[Root], path: &Path) -> Result<(PathBuf, PathBuf), Refused> {
    let outside = || Refused::Outside(path.to_owned());
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(outside());
    }
    let mut fitting: Vec<(PathBuf, PathBuf)> = Vec::new();
    for root in roots {
        // Or as it is without links: that is how what was found is named.
        for at in [Some(root.path.clone()), std::fs::canonicalize(&root.path).ok()].into_iter().flatten() {
            if let Ok(below) = path.strip_prefix(&at) {
                fitting.push((at.clone(), below.to_owned()));
            }
        }
    }
    let (root, below) =
        fitting.into_iter().min_by_key(|(_, below)| below.components().count()).ok_or_else(outside)?;
    if has_hidden(&below) {
        return Err(Refused::Hidden(path.to_owned()));
    }
    Ok((root, below))
}

/// Keeps what was found where a page may have it; what is held is asked, and not the path.
fn keep(found: Held, root: &Path, private: &[PathBuf], path: &Path) -> Result<Held, Refused> {
    let real = found.real_path().map_err(|error| unusable(path, error))?;
    allow(&real, root, private, path).map(|()| found)
}

/// Refuses what a path without links names in a private folder, or behind a hidden name below the root: a link may lead there.
fn allow(real: &Path, root: &Path, private: &[PathBuf], path: &Path) -> Result<(), Refused> {
    if private.iter().any(|folder| real.starts_with(whole(folder))) {
        return Err(Refused::Outside(path.to_owned()));
    }
    match real.strip_prefix(whole(root)) {
        Ok(below) if has_hidden(below) => Err(Refused::Hidden(path.to_owned())),
        _ => Ok(()),
    }
}

/// Whether a part of a path is hidden.
fn has_hidden(path: &Path) -> bool {
    path.iter().any(|part| part.as_encoded_bytes().starts_with(b"."))
}

/// A path without links, where it leads somewhere.
fn whole(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn unusable(path: &Path, error: io::Error) -> Refused {
    match error.kind() {
        // A link leads out.
        io::ErrorKind::PermissionDenied if error.raw_os_error().is_none() => {
            Refused::Outside(path.to_owned())
        }
        _ => Refused::Unusable { path: path.to_owned(), error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_what_is_below_a_root_and_not_hidden_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["films/new", "films/.secret", "films/data/sub", "films2", "real/in"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        for file in ["films/a.mkv", "films/.secret/key", "films/data/session.key", "films2/b.mkv", "c.mkv"] {
            std::fs::write(at(file), "x").unwrap();
        }
        symlink("../c.mkv", at("films/out.mkv")).unwrap();
        symlink(at("real"), at("link")).unwrap();
        symlink(".secret", at("films/to_hidden")).unwrap();
        symlink("data", at("films/to_data")).unwrap();
        let root = |name: &str| Root { path: at(name), why: Why::Given };
        let (roots, private) = ([root("films"), root("link")], [at("none"), at("films/data")]);
        let find = |name: &str| find(&roots, &private, &at(name));
        for good in ["films/a.mkv", "films", "films/new/", "films/./new", "link/in", "real/in"] {
            assert!(find(good).is_ok(), "{good}: {:?}", find(good));
        }
        for bad in [
            "films/../c.mkv",
            "films2/b.mkv",
            "c.mkv",
            "films/out.mkv",
            "films/.secret/key",
            "films/data/session.key",
            "films/data",
            "films/to_hidden",
            "films/to_hidden/key",
            "films/to_data/session.key",
            "films/none",
            "",
        ] {
            assert!(find(bad).is_err(), "{bad}");
        }
        assert!(matches!(find("films/.secret/key"), Err(Refused::Hidden(_))));
        assert!(matches!(find("films/to_hidden/key"), Err(Refused::Hidden(_))));
        assert!(matches!(find("films/out.mkv"), Err(Refused::Outside(_))));
        assert!(matches!(find("films/none"), Err(Refused::Unusable { .. })));
        assert!(super::find(&roots, &private, Path::new("films/a.mkv")).is_err(), "not whole");
        for bad in [
            "films/../x",
            "films/.x/y",
            "films/data/new",
            "films/to_data/new",
            "films/to_hidden/new",
            "films2/new",
        ] {
            assert!(make_folder(&roots, &private, &at(bad)).is_err() && !at(bad).exists(), "{bad}");
        }
        assert!(
            make_folder(&roots, &private, &at("films/more/of/it")).is_ok() && at("films/more/of/it").is_dir()
        );
    }

    #[test]
    fn sharing_one_file_of_the_home_folder_does_not_open_it() {
        let home = Path::new("/home/ann");
        for (folder, expected) in
            [("/", true), ("/home", true), ("/home/ann", true), ("/home/ann/films", false), ("/srv", false)]
        {
            assert_eq!(holds_too_much(Path::new(folder), Some(home)), expected, "{folder}");
        }
    }

    #[test]
    fn one_shared_file_opens_neither_the_home_folder_nor_hidden_ones() {
        let home = Some(Path::new("/home/ann"));
        for (folder, too_much) in [
            ("/", true),
            ("/home", true),
            ("/home/ann", true),
            ("/home/ann/.ssh", true),
            ("/home/ann/films/.secret/deep", true),
            ("/home/ann/films", false),
            ("/srv/films", false),
        ] {
            assert_eq!(holds_too_much(Path::new(folder), home), too_much, "{folder}");
        }
    }
}
