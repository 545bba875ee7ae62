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
    format!("{what}; it is shared again as soon as {when}; to end the share: {}", stop(record))
}

/// There is another file.
pub(super) fn changed(record: &ShareRecord) -> String {
    format!(
        "it changed since it was shared; restore it, and it is shared again, or share it as it is now: upload_file {} {}",
        quoted(&record.path.to_string_lossy()),
        quoted(record.group.as_str())
    )
}

fn stop(record: &ShareRecord) -> String {
    format!("stop_share {} {}", quoted(record.group.as_str()), quoted(record.manifest.name.as_str()))
}
