//! A folder with a client: that of `shoal up`, with everything, or that of a client alone.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use shoal_console::data_dir::{DataDir, DataDirError};
use shoal_web::{Said, caller, socket};

use crate::up::setup;

/// How long a client that is asked to end may take, with its tracker.
const END_WITHIN: Duration = Duration::from_secs(10);
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// A folder with a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Folder {
    /// Of `shoal up`.
    Up(PathBuf),
    /// Of a client alone.
    Client(PathBuf),
}

impl Folder {
    /// What is in that folder. Where there is nothing, it is taken for one of `shoal up`.
    pub(super) fn of(dir: &Path) -> Result<Self> {
        let dir = std::path::absolute(dir)?;
        let has_client = |dir: &Path| dir.join("identity.key").exists();
        if has_client(&setup::client_folder(&dir)) || !has_client(&dir) {
            return Ok(Self::Up(dir));
        }
        match dir.parent() {
            Some(parent) if setup::is_set_up(parent) && setup::client_folder(parent) == dir => {
                Ok(Self::Up(parent.to_owned()))
            }
            _ => Ok(Self::Client(dir)),
        }
    }

    /// The client's data folder.
    pub(super) fn client(&self) -> PathBuf {
        match self {
            Self::Up(dir) => setup::client_folder(dir),
            Self::Client(dir) => dir.clone(),
        }
    }

    /// The folder that was meant.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Up(dir) | Self::Client(dir) => dir,
        }
    }

    /// Locks the client's data folder; if `ends`, what runs there is asked to end first. Gives whether something ran.
    pub(super) async fn lock(&self, ends: bool) -> Result<(DataDir, bool)> {
        let folder = self.client();
        match DataDir::open(&folder) {
            Err(DataDirError::InUse { pid, .. }) if ends => {
                end(&folder, &pid).await?;
                Ok((DataDir::open(&folder)?, true))
            }
            opened => Ok((opened?, false)),
        }
    }
}

/// Asks the client of a folder to end, and waits until its process is gone: its tracker ends after it.
async fn end(folder: &Path, pid: &str) -> Result<()> {
    let at = socket::in_data(folder);
    let process = match caller::about(&at).await {
        Ok(about) => about["pid"].as_u64(),
        Err(error) => bail!(
            "a client runs in {}{pid} and takes no commands ({error}); end it, with quit at its prompt, and try again",
            folder.display()
        ),
    };
    let argv = vec!["quit".to_owned()];
    let mut lines =
        caller::command(&at, caller::Command { argv, folder: None, passwords: Vec::new() }).await?;
    // It may end before it has answered.
    while let Ok(said) = lines.said().await {
        if matches!(said, Said::Done(_)) {
            break;
        }
    }
    let asked = Instant::now();
    // One that has ended and was not waited for by its parent has no program any more.
    let runs = || process.is_some_and(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok());
    while runs() || matches!(DataDir::open(folder), Err(DataDirError::InUse { .. })) {
        if asked.elapsed() > END_WITHIN {
            bail!(
                "the client in {}{pid} did not end within {END_WITHIN:?}; end it and try again",
                folder.display()
            );
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_that_of_shoal_up_or_of_a_client_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (up, alone) = (dir.path().join("up"), dir.path().join("alone"));
        assert_eq!(Folder::of(&up).unwrap(), Folder::Up(up.clone()), "nothing is there yet");
        std::fs::create_dir_all(up.join("client")).unwrap();
        std::fs::create_dir_all(&alone).unwrap();
        for key in [up.join("client/identity.key"), alone.join("identity.key"), up.join("up.json")] {
            std::fs::write(key, "").unwrap();
        }
        assert_eq!(Folder::of(&up).unwrap(), Folder::Up(up.clone()));
        assert_eq!(Folder::of(&up.join("client")).unwrap(), Folder::Up(up));
        assert_eq!(Folder::of(&alone).unwrap(), Folder::Client(alone));
    }
}
