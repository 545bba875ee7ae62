//! Whether a shared file is still there and unchanged, as far as that shows without reading it.

use shoal_engine::hash::FileIdentity;

use crate::command::quoted;
use crate::store::ShareRecord;

/// What is found at a shared file's path.
pub(super) enum Found {
    /// The same file, untouched.
    Same,
    /// A file of the same size that was touched, or put there since: only its content tells.
    Touched,
    /// Another file or none, and what to do.
    Other(String),
}

/// Looks at a shared file without reading it. Blocks on the disk.
pub(super) fn look(record: &ShareRecord) -> Found {
    match FileIdentity::of(&record.path) {
        Ok(found) if found == record.identity => Found::Same,
        Ok(found) if found.size == record.identity.size => Found::Touched,
        Ok(_) => Found::Other(change_problem(record)),
        Err(error) => Found::Other(format!(
            "it cannot be read ({error}); put it back and log in again, or forget it: stop_share {} {}",
            quoted(record.group.as_str()),
            quoted(record.manifest.name.as_str())
        )),
    }
}

pub(super) fn change_problem(record: &ShareRecord) -> String {
    format!(
        "it changed since it was shared; share it as it is now: upload_file {} {}",
        quoted(&record.path.to_string_lossy()),
        quoted(record.group.as_str())
    )
}
