//! `shoal` as it can be typed into another terminal's shell.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use shoal_session::text::printable;

/// The program's name.
const NAME: &str = "shoal";

/// How this program is called from another terminal, with the socket if that has to be named.
pub(super) fn shoal(socket: Option<&Path>) -> String {
    let called = std::env::args_os().next();
    line(called.as_deref().map(Path::new), std::env::var_os("PATH").as_deref(), socket)
}

/// `called` is how it was called here. Another terminal is in another folder, so that is made absolute where PATH has no `shoal`.
fn line(called: Option<&Path>, path: Option<&OsStr>, socket: Option<&Path>) -> String {
    let program = called
        .filter(|called| called.components().count() > 1 && !is_in(path))
        .and_then(|called| std::path::absolute(called).ok());
    let program = program.map_or_else(|| NAME.to_owned(), |path| word(&path));
    match socket {
        Some(socket) => format!("{program} --socket {}", word(socket)),
        None => program,
    }
}

fn is_in(path: Option<&OsStr>) -> bool {
    let is_program = |file: &Path| {
        std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    path.is_some_and(|path| std::env::split_paths(path).any(|folder| is_program(&folder.join(NAME))))
}

/// A path as one word of a shell.
pub(crate) fn word(path: &Path) -> String {
    let path = printable(&path.to_string_lossy());
    shlex::try_quote(&path).map_or_else(|_| path.clone(), |quoted| quoted.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_typed() {
        let dir = tempfile::tempdir().unwrap();
        let called = dir.path().join("my builds/shoal");
        let socket = Path::new("/x y/it's/shoal.sock");
        let typed = line(Some(&called), Some(dir.path().as_os_str()), Some(socket));
        let words = shlex::split(&typed).unwrap();
        assert_eq!(words, [called.to_str().unwrap(), "--socket", "/x y/it's/shoal.sock"], "{typed}");
        // A file that is no program does not count; one that is does.
        let file = dir.path().join("shoal");
        std::fs::write(&file, "").unwrap();
        assert_ne!(line(Some(&called), Some(dir.path().as_os_str()), None), "shoal");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(line(Some(&called), Some(dir.path().as_os_str()), None), "shoal");
        // The shell that found it will find it again.
        assert_eq!(line(Some(Path::new("shoal")), None, None), "shoal");
        assert_eq!(line(None, None, Some(Path::new("/a/b.sock"))), "shoal --socket /a/b.sock");
    }
}
