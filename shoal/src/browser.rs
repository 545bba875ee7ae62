//! Opens the page in the browser of this desktop. What stands in the command line, which every user of the machine can read, is a file
//! of this user's alone; the code for the page is in that.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shoal_web::caller;

use crate::choose;

/// What opens a file with the program of the desktop for it (xdg-utils).
const OPENER: &str = "xdg-open";
/// How long it may take to say that there is no browser. One that is still there then is the browser itself.
const FAILS_WITHIN: Duration = Duration::from_secs(3);
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Why no browser is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoBrowser {
    /// There is no desktop.
    #[error("there is no desktop here (neither DISPLAY nor WAYLAND_DISPLAY is set)")]
    Desktop,
    /// Its user sits elsewhere.
    #[error("this is another machine's terminal (SSH)")]
    Remote,
    /// Nothing opens files.
    #[error("there is no {OPENER} in PATH")]
    Opener,
}

/// The program that opens a browser here. `variable` looks into the environment.
///
/// # Errors
/// [`NoBrowser`] says why there is none.
pub(crate) fn find(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, NoBrowser> {
    let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    if !is_set("DISPLAY") && !is_set("WAYLAND_DISPLAY") {
        return Err(NoBrowser::Desktop);
    }
    if is_set("SSH_CONNECTION") || is_set("SSH_TTY") {
        return Err(NoBrowser::Remote);
    }
    in_path(variable("PATH").as_deref()).ok_or(NoBrowser::Opener)
}

/// Whether a person began this: a service manager's start opens nothing.
pub(crate) fn is_attended(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    ["INVOCATION_ID", "NOTIFY_SOCKET"].iter().all(|name| variable(name).is_none())
}

fn in_path(path: Option<&OsStr>) -> Option<PathBuf> {
    let is_program = |file: &Path| {
        std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let folders = std::env::split_paths(path?).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join(OPENER)).find(|file| is_program(file))
}

/// Opens the page of the daemon at that socket; gives its address.
///
/// # Errors
/// In words: there is no page, or no browser came up.
pub(crate) async fn open(socket: &Path, opener: &Path) -> Result<String, String> {
    let made = caller::link_file(socket).await.map_err(|error| choose::in_words(&error))?;
    let text = |name: &str| made[name].as_str().map(str::to_owned);
    let (Some(file), Some(page)) = (text("file"), text("page")) else {
        return Err("the daemon is of another version; end it and start it again".to_owned());
    };
    let mut command = Command::new(opener);
    command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Ctrl-C in this terminal is not meant for the browser, and neither is a password.
    command.process_group(0).env_remove("SHOAL_PASSWORD");
    let opened = command.spawn().map_err(|error| format!("cannot run {}: {error}", opener.display()))?;
    if fails(opened).await {
        Err(format!("{} found no browser that opens a page", opener.display()))
    } else {
        Ok(page)
    }
}

/// Whether it ends soon, and with an error.
async fn fails(mut opened: Child) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < FAILS_WITHIN {
        match opened.try_wait() {
            Ok(Some(status)) => return !status.success(),
            Ok(None) => tokio::time::sleep(LOOK).await,
            Err(_) => return false,
        }
    }
    // It is waited for when it ends.
    std::thread::spawn(move || opened.wait());
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_opened_where_its_user_sits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let found = |variables: &[(&str, &str)]| {
            find(|name| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| value.into()))
        };
        let display = [("PATH", path), ("DISPLAY", ":0")];
        assert_eq!(found(&display), Err(NoBrowser::Opener));
        let opener = dir.path().join(OPENER);
        std::fs::write(&opener, "").unwrap();
        assert_eq!(found(&display), Err(NoBrowser::Opener), "it is no program");
        std::fs::set_permissions(&opener, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(found(&display), Ok(opener.clone()));
        assert_eq!(found(&[("PATH", path), ("WAYLAND_DISPLAY", "wayland-0")]), Ok(opener));
        assert_eq!(found(&[("PATH", path)]), Err(NoBrowser::Desktop));
        assert_eq!(found(&[("PATH", path), ("DISPLAY", "")]), Err(NoBrowser::Desktop));
        let remote = [("PATH", path), ("DISPLAY", ":0"), ("SSH_CONNECTION", "10.0.0.1 1 10.0.0.2 22")];
        assert_eq!(found(&remote), Err(NoBrowser::Remote));
        assert!(is_attended(|_| None) && !is_attended(|name| (name == "INVOCATION_ID").then(|| "x".into())));
    }
}
