//! Why a file is not served, and what its sharer can do, in words.

use super::health::Absence;
use crate::store::ShareRecord;
use shoal_session::text::quoted;

/// There is no file that could be served.
pub(super) fn absent(record: &ShareRecord, absence: &Absence) -> String {
    let (what, when) = match absence {
        Absence::Gone => ("it is not there any more".to_owned(), "it is put back or its drive is connected"),
        Absence::NotAFile => ("something that is not a file is there now".to_owned(), "the file is put back"),
        Absence::Unreadable(error) => (format!("it cannot be read ({error})"), "it can be read"),
        Absence::Silent => ("its drive does not answer".to_owned(), "the drive answers"),
    };
    let moved = match absence {
        Absence::Gone => format!("; if it was moved: relocate {} <file_path>", named(record)),
        Absence::NotAFile | Absence::Unreadable(_) | Absence::Silent => String::new(),
    };
    format!(
        "{what}; it is shared again as soon as {when}{moved}; to end the share: stop_share {}",
        named(record)
    )
}

/// There is another file.
pub(super) fn changed(record: &ShareRecord) -> String {
    format!(
        "it changed since it was shared; restore it, and it is shared again, or share it as it is now: upload_file {} {}",
        quoted(&record.path.to_string_lossy()),
        quoted(record.group.as_str())
    )
}

/// The arguments by which a command names the share.
fn named(record: &ShareRecord) -> String {
    format!("{} {}", quoted(record.group.as_str()), quoted(record.manifest.name.as_str()))
}
