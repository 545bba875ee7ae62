//! `shoal export`: ends the client, and writes what makes it itself into one file.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;
use shoal_client::archive::{self, Archive, ArchiveError};
use shoal_common::tracker_info;
use shoal_console::{read_input, read_text};
use shoal_tracker::store::back_up;
use shoal_web::caller;

use super::folder::Folder;
use super::{CHOICE_PART, Outcome, TRACKER_DB_PART, TRACKER_KEY_PART, passphrase};
use crate::choose;
use crate::show::clean;
use crate::up::{setup, typed};

/// Longest database of a tracker that goes along, in bytes; a larger one is that of many friends, and moved as docs/operating.md says.
const MAX_DATABASE: u64 = 256 * 1024 * 1024;
/// Longest small file, in bytes.
const MAX_SMALL: u64 = 64 * 1024;
/// The copy of the tracker's database, until it is in the export.
const DRAFT: &str = "tracker.db.export";

/// The command line of `shoal export`.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The new file.
    file: PathBuf,
    /// The folder of `shoal up`, or the data folder of a client [default: those of the client that runs, else shoal under the XDG
    /// data home].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The file that names the trackers, for a client that `shoal up` does not run.
    #[arg(long, value_name = "TRACKER_INFO")]
    trackers: Option<PathBuf>,
    /// Take the session of login --keep along: the file and its passphrase are enough then to be logged in.
    #[arg(long)]
    session: bool,
    /// Take the passphrase from the first line of a file that only you may read.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

pub(super) async fn run(options: &Export, socket: Option<PathBuf>) -> Result<Outcome> {
    let folder = folder(options, socket).await?;
    let client = folder.client();
    archive::marks::check(&client)?;
    if !client.join("identity.key").exists() {
        return Err(ArchiveError::NoClient(folder.path().to_owned()).into());
    }
    let file = std::path::absolute(&options.file)?;
    check(&file, folder.path())?;
    let trackers = trackers(options, &folder)?;
    let passphrase = passphrase::new(options.passphrase_file.as_deref())?;
    let (data_dir, ran) = folder.lock(true).await?;
    let mut archive = Archive::of(&data_dir, trackers, options.session).await?;
    let with_tracker = match &folder {
        Folder::Up(dir) => beside(dir, &mut archive)?,
        Folder::Client(_) => false,
    };
    archive
        .move_to(&file, &passphrase, &data_dir)
        .context("the client ended, and can be started again here: it was not exported")?;
    let (shares, downloads) = archive.counts();
    let session = archive.has_session();
    let mark = client.join("moved");
    let text = said(&folder, &file, &archive, (ran, with_tracker));
    let json = json!({
        "command": "export", "ok": true, "file": file, "shares": shares, "downloads": downloads,
        "session": session, "tracker": with_tracker, "ended": ran, "mark": mark,
    });
    Ok(Outcome { text: clean(&text), json })
}

/// Which client is meant.
async fn folder(options: &Export, socket: Option<PathBuf>) -> Result<Folder> {
    if let Some(dir) = &options.data {
        return Folder::of(dir);
    }
    if socket.is_some() || !shoal_web::socket::find().is_empty() {
        let socket = choose::socket(socket).await.map_err(anyhow::Error::msg)?;
        let about = caller::about(&socket).await?;
        let Some(dir) = about["data_dir"].as_str() else {
            bail!("the client that runs does not say where its data is; name it with --data");
        };
        return Folder::of(Path::new(dir));
    }
    Folder::of(&setup::default_folder()?)
}

/// Whether the export can go there, before anything ends.
fn check(file: &Path, folder: &Path) -> Result<()> {
    if file.symlink_metadata().is_ok() {
        return Err(ArchiveError::Exists(file.to_owned()).into());
    }
    let parent = file.parent().unwrap_or(file);
    let parent = parent.canonicalize().with_context(|| format!("cannot write into {}", parent.display()))?;
    if parent.starts_with(folder.canonicalize()?) {
        bail!(
            "{} is in the client's own folder; name a file elsewhere, best on another disk",
            file.display()
        );
    }
    let tried = shoal_disk::try_name(file);
    tried.with_context(|| format!("cannot write {}", file.display()))
}

/// The text that names the trackers.
fn trackers(options: &Export, folder: &Folder) -> Result<String> {
    let path = match (&options.trackers, folder) {
        (Some(path), _) => path.clone(),
        (None, Folder::Up(dir)) => setup::trackers_file(dir),
        (None, Folder::Client(dir)) => bail!(
            "{} is a client that shoal up does not run; name its tracker file: --trackers TRACKER_INFO",
            dir.display()
        ),
    };
    let text = read_text(&path, tracker_info::MAX_FILE_BYTES);
    text.with_context(|| format!("cannot read the tracker file {}", path.display()))
}

/// What `shoal up` has beside the client; whether there is a tracker among it.
fn beside(dir: &Path, archive: &mut Archive) -> Result<bool> {
    let choice = setup::choice_file(dir);
    let read = |path: &Path, most| {
        read_input(path, most).with_context(|| format!("cannot take {} along", path.display()))
    };
    archive.add(CHOICE_PART, read(&choice, MAX_SMALL)?);
    let tracker = setup::tracker_folder(dir);
    if !tracker.join("tracker.db").exists() {
        return Ok(false);
    }
    archive.add(TRACKER_KEY_PART, read(&tracker.join("identity.key"), MAX_SMALL)?);
    let draft = dir.join(DRAFT);
    // One that a crash left.
    let _ = std::fs::remove_file(&draft);
    let copied = back_up(&tracker, &draft).map_err(anyhow::Error::from);
    let database = copied.and_then(|()| read(&draft, MAX_DATABASE));
    let _ = std::fs::remove_file(&draft);
    archive.add(
        TRACKER_DB_PART,
        database.context(
            "nothing was exported; the tracker's database is moved as docs/operating.md says (Backup)",
        )?,
    );
    Ok(true)
}

fn said(folder: &Folder, file: &Path, archive: &Archive, (ran, tracker): (bool, bool)) -> String {
    let (shares, downloads) = archive.counts();
    let count = shoal_session::text::count;
    let mut with = vec!["its key".to_owned(), count(shares, "share"), count(downloads, "download")];
    if tracker {
        with.push("its tracker with all accounts".to_owned());
    }
    if archive.has_session() {
        with.push("its session".to_owned());
    }
    let shown = typed::word(file);
    format!(
        "{shown} holds this client: {}. The shared files themselves are not in it: copy them as you like.\n\
         {} and does not start here again, because its key is for one machine at a time.\n\
         On the new machine type: shoal import {shown} --shares-at FOLDER\n\
         If nobody imports it, the client starts here again after: rm {}",
        with.join(", "),
        if ran { "The client here ended" } else { "The client here is retired" },
        typed::word(&folder.client().join("moved")),
    )
}
