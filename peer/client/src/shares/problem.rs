//! Why a file is not served, and what its sharer can do, in words.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::health::Absence;
use crate::store::ShareRecord;
use shoal_session::text::quoted;
use shoal_swarm::FileKey;

/// Shares whose last problem is remembered; of more, some are not explained until the next login.
const MAX_PROBLEMS: usize = 1_024;

/// What was reported last of each share that was lost.
#[derive(Debug, Default)]
pub(crate) struct Problems(Mutex<BTreeMap<FileKey, String>>);

impl Problems {
    pub(super) fn note(&self, key: FileKey, problem: String) {
        let mut problems = self.lock();
        if problems.len() < MAX_PROBLEMS || problems.contains_key(&key) {
            problems.insert(key, problem);
        }
    }

    pub(super) fn of(&self, key: FileKey) -> Option<String> {
        self.lock().get(&key).cloned()
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<FileKey, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
