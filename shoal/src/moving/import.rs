//! `shoal import`: a client comes out of an export, into a folder that has none.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;
use shoal_client::archive::{Archive, Looked, Unpacked};
use shoal_common::PeerId;
use shoal_session::text::{count, printable};

use super::folder::Folder;
use super::{CHOICE_PART, Outcome, TRACKER_DB_PART, TRACKER_KEY_PART, passphrase};
use crate::show::clean;
use crate::up::{setup, typed};

/// Files that are named one by one; of more, the rest is counted.
const MAX_NAMED: usize = 20;

/// The command line of `shoal import`.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// What `shoal export` wrote.
    file: PathBuf,
    /// Where it comes out, for `shoal up --data DIR`; a folder without a client [default: shoal under the XDG data home].
    #[arg(long, value_name = "DIR", conflicts_with = "client")]
    data: Option<PathBuf>,
    /// Where it comes out, for `shoal client … --data-dir DIR`; a folder without a client.
    #[arg(long, value_name = "DIR")]
    client: Option<PathBuf>,
    /// Look here for the shared files, and for partial files of downloads, in all folders below; repeatable.
    #[arg(long, value_name = "FOLDER")]
    shares_at: Vec<PathBuf>,
    /// Take the passphrase from the first line of a file that only you may read.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

pub(super) async fn run(options: &Import) -> Result<Outcome> {
    let folder = match (&options.client, &options.data) {
        (Some(dir), _) => Folder::Client(std::path::absolute(dir)?),
        (None, Some(dir)) => Folder::Up(std::path::absolute(dir)?),
        (None, None) => Folder::Up(setup::default_folder()?),
    };
    Archive::check_empty(&folder.client())?;
    let sealed = Archive::read(&options.file)?;
    let passphrase = passphrase::present(options.passphrase_file.as_deref())?;
    let mut archive = Archive::open(&options.file, &sealed, &passphrase)?;
    drop(sealed);
    let has_tracker = archive.part(TRACKER_DB_PART).is_some();
    if has_tracker && options.client.is_some() {
        bail!(
            "{} holds a client with a tracker of its own, which shoal up runs: import it with --data instead of --client",
            options.file.display()
        );
    }
    let downloads = dirs::download_dir().or_else(|| dirs::home_dir().map(|home| home.join("Downloads")));
    let downloads = downloads.unwrap_or_else(|| folder.path().join("downloads"));
    let unpacked = archive.locate(&options.shares_at, &downloads, &mut progress())?;
    let (data_dir, _) = folder.lock(false).await?;
    if let (true, Folder::Up(dir)) = (has_tracker, &folder) {
        check_no_tracker(dir, Archive::was_cut_off(data_dir.path()))?;
    }
    Archive::begin(&data_dir)?;
    place(&folder, &archive)?;
    let peer = archive.unpack(&data_dir).await?;
    let text = said(&folder, peer, &unpacked, has_tracker);
    let missing = |(file, was): &(shoal_client::FileRef, PathBuf)| json!({ "group": file.group, "file": file.file, "path": was.to_string_lossy() });
    let json = json!({
        "command": "import", "ok": true, "peer": peer.to_string(), "folder": folder.path(),
        "found": unpacked.found, "missing": unpacked.missing.iter().map(missing).collect::<Vec<_>>(),
        "downloads": unpacked.downloads, "restarted": unpacked.restarted.iter().map(missing).collect::<Vec<_>>(),
        "session": unpacked.session, "tracker": has_tracker,
    });
    Ok(Outcome { text: clean(&text), json })
}

/// Refuses a folder with a tracker, unless it is that of an import that was cut off.
fn check_no_tracker(dir: &Path, cut_off: bool) -> Result<()> {
    let database = setup::tracker_folder(dir).join("tracker.db");
    if !cut_off && database.symlink_metadata().is_ok() {
        bail!("{} has a tracker already; give another folder: --data DIR", dir.display());
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Writes what belongs beside the client.
fn place(folder: &Folder, archive: &Archive) -> Result<()> {
    let put = |path: &Path, bytes: &[u8]| {
        shoal_disk::replace(path, bytes).with_context(|| format!("cannot write {}", path.display()))
    };
    let Folder::Up(dir) = folder else {
        return put(&setup::trackers_file(folder.path()), archive.trackers().as_bytes());
    };
    if let (Some(database), Some(key)) = (archive.part(TRACKER_DB_PART), archive.part(TRACKER_KEY_PART)) {
        let tracker = setup::tracker_folder(dir);
        shoal_tracker::data_dir::make(&tracker)?;
        put(&tracker.join("identity.key"), key)?;
        // They belong to the database that is replaced.
        for name in ["tracker.db-wal", "tracker.db-shm"] {
            remove(&tracker.join(name))?;
        }
        put(&tracker.join("tracker.db"), database)?;
    }
    put(&setup::trackers_file(dir), archive.trackers().as_bytes())?;
    setup::place(dir, archive.part(CHOICE_PART))
}

/// Shows at a terminal which share is looked for.
fn progress() -> impl FnMut(&Looked<'_>) {
    let shown = io::stderr().is_terminal();
    move |looked: &Looked<'_>| {
        if shown {
            let (at, path) = (looked.at + 1, printable(&looked.path.to_string_lossy()));
            // Nobody reads it.
            let _ = writeln!(io::stderr(), "looking for {at} of {}: {path}", looked.total);
        }
    }
}

fn said(folder: &Folder, peer: PeerId, unpacked: &Unpacked, tracker: bool) -> String {
    let shares = unpacked.found + unpacked.missing.len();
    let mut text = format!(
        "Imported: the client {peer} with {} and {}.\n",
        count(shares, "share"),
        count(unpacked.downloads, "download")
    );
    if shares > 0 {
        text +=
            &format!("{} found, with the content that was shared.\n", count(unpacked.found, "shared file"));
    }
    let missing = unpacked.missing.iter().map(|(file, was)| {
        let (group, name, was) = (&file.group, &file.file, was.display());
        format!("  {name} of {group} was {was}\n")
    });
    list(
        &mut text,
        "Not found; put them there, or say where they are, once logged in, with relocate <group_id> <file_name> <file_path>:\n",
        missing,
    );
    let restarted = unpacked.restarted.iter().map(|(file, path)| {
        let (group, name, path) = (&file.group, &file.file, path.display());
        format!("  {name} of {group} to {path}\n")
    });
    list(&mut text, "Downloads that begin again, because their partial files were not found:\n", restarted);
    let unreadable = unpacked.unreadable.iter().map(|path| format!("  {}\n", path.display()));
    list(&mut text, "Folders that could not be looked into:\n", unreadable);
    if tracker {
        text += "Its tracker came along. Friends reach it at this machine's address: send them the line that shoal up shows.\n";
    }
    let login = if unpacked.session { "" } else { ", and log in with your account's password" };
    text + &match folder {
        Folder::Up(dir) if setup::default_folder().is_ok_and(|usual| usual == *dir) => {
            format!("Type: shoal up{login}")
        }
        Folder::Up(dir) => format!("Type: shoal up --data {}{login}", typed::word(dir)),
        Folder::Client(dir) => format!(
            "Type: shoal client IP:PORT {} --data-dir {}{login}",
            typed::word(&setup::trackers_file(dir)),
            typed::word(dir)
        ),
    }
}

/// Names the first few, under a heading.
fn list(text: &mut String, heading: &str, lines: impl ExactSizeIterator<Item = String>) {
    let total = lines.len();
    if total == 0 {
        return;
    }
    *text += heading;
    text.extend(lines.take(MAX_NAMED));
    if total > MAX_NAMED {
        *text += &format!("  and {} more\n", total - MAX_NAMED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracker_that_is_there_is_not_replaced_whether_it_was_set_up_here_or_not() {
        let dir = tempfile::tempdir().unwrap();
        check_no_tracker(dir.path(), false).unwrap();
        let tracker = setup::tracker_folder(dir.path());
        std::fs::create_dir_all(&tracker).unwrap();
        std::fs::write(tracker.join("tracker.db"), "").unwrap();
        let refused = check_no_tracker(dir.path(), false).unwrap_err().to_string();
        assert!(refused.contains("has a tracker already"), "{refused}");
        check_no_tracker(dir.path(), true).unwrap();
    }
}
