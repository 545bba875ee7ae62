//! A file that leads a browser to a link. The link's code is in no command line, which every user of the machine can read: what is in one is the
//! file's path, and the file is its owner's alone.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::socket;

/// How such files are called; those that a killed daemon left are known by it.
const PREFIX: &str = "shoal-open-";
const SUFFIX: &str = ".html";
/// A file of this age leads nowhere: its code is good for a minute.
const OLD: Duration = Duration::from_secs(120);
/// Old ones that are removed at a time.
const MAX_SWEPT: usize = 16;
/// Where snaps are. A browser from there reads no hidden folder and no runtime folder, but what lies openly in the home folder.
const SNAPS: [&str; 2] = ["/snap/bin/firefox", "/snap/bin/chromium"];

/// The file; it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Redirect(PathBuf);

impl Redirect {
    /// Writes one. `data` is the client's data folder, for where there is no better place. `link` is a URL of this program's making.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(data: &Path, link: &str) -> io::Result<Self> {
        let folder = folder(data);
        sweep(&folder);
        let mut name = [0_u8; 8];
        getrandom::fill(&mut name).map_err(io::Error::other)?;
        let path = folder.join(format!("{PREFIX}{:016x}{SUFFIX}", u64::from_le_bytes(name)));
        shoal_disk::create(&path, page(link).as_bytes())?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Redirect {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            // Its code is used up, or soon no good.
            tracing::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// No script; a browser that follows nothing by itself shows the link.
fn page(link: &str) -> String {
    format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta http-equiv=\"refresh\" content=\"0; url={link}\">\n<title>Shoal</title>\n<p><a href=\"{link}\">Open Shoal</a></p>\n"
    )
}

fn folder(data: &Path) -> PathBuf {
    let home = || std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_dir());
    if SNAPS.iter().any(|snap| Path::new(snap).exists())
        && let Some(home) = home()
    {
        return home;
    }
    let runtime = socket::runtime_folder().map(|runtime| runtime.join(socket::FOLDER));
    runtime.filter(|folder| socket::own_folder(folder).is_ok()).unwrap_or_else(|| data.to_owned())
}

/// Removes what a killed daemon of this user left. Codes of another one that runs are good for a minute: its file is left alone for longer.
fn sweep(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let old = |entry: &std::fs::DirEntry| {
        let name = entry.file_name();
        let is_one = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        is_one && age().is_some_and(|age| age > OLD)
    };
    for entry in entries.filter(old).take(MAX_SWEPT) {
        let _ = std::fs::remove_file(entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_file_leads_to_the_link_for_its_owner_alone_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let link = "http://127.0.0.1:8384/#00ff";
        let path = dir.path().join(format!("{PREFIX}1{SUFFIX}"));
        std::fs::write(&path, page(link)).unwrap();
        let found = Redirect(path.clone());
        assert!(page(link).contains(&format!("url={link}\"")) && !page(link).contains("<script"));
        sweep(dir.path());
        assert!(found.path().exists(), "it is not old");
        drop(found);
        assert!(!path.exists());
        let written = Redirect::write(dir.path(), link).unwrap();
        assert_eq!(written.path().metadata().unwrap().mode() & 0o777, 0o600);
    }
}
