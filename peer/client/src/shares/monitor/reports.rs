//! What the monitor reports: to users about their files, and to logins how many are served.

use shoal_session::events::Event;
use shoal_swarm::FileKey;
use tokio::time::Instant;

use super::super::facts::ShareFacts;
use super::super::health::Report;
use super::super::problem::{absent, changed};
use super::Monitor;
use crate::FileRef;

impl Monitor {
    pub(super) fn report(&self, key: FileKey, report: &Report) {
        let Some(entry) = self.entries.get(&key) else { return };
        let record = &entry.record;
        let ((group, file), path) = (self.parts.name_of(record), record.path.clone());
        match report {
            Report::Absent(absence) => self.parts.report_lost(record, absent(record, absence)),
            Report::Changed => self.parts.report_lost(record, changed(record)),
            Report::Checking => {
                let percent = self.checks.percent(key);
                let waiting = self.checks.waiting(key);
                self.parts.events.emit(Event::ShareChecking { group, file, path, percent, waiting });
            }
            Report::Back => self.parts.events.emit(Event::ShareBack { group, file, path }),
        }
    }

    /// What is known of all shares, or of that one.
    pub(super) fn facts(&self, file: Option<&FileRef>) -> Vec<ShareFacts> {
        let named = self.entries.iter().filter(|(_, entry)| match file {
            Some(file) => entry.record.manifest.name == file.file,
            None => true,
        });
        let facts = named.map(|(&key, entry)| {
            let (group, name) = self.parts.name_of(&entry.record);
            ShareFacts {
                key,
                file: FileRef { group, file: name },
                path: entry.record.path.clone(),
                standing: Some(entry.health.standing()),
                percent: self.checks.percent(key),
                waiting: if entry.health.is_reading() { self.checks.waiting(key) } else { 0 },
                problem: None,
            }
        });
        facts.filter(|share| file.is_none_or(|file| share.file == *file)).collect()
    }

    /// Answers logins after all their files were looked at, or after they waited long enough.
    pub(super) fn answer_logins(&mut self) {
        let now = Instant::now();
        let entries = &self.entries;
        let unknown = |key: &FileKey| entries.get(key).is_some_and(|entry| entry.health.is_unknown());
        for restoring in std::mem::take(&mut self.restoring) {
            if now < restoring.until && restoring.keys.iter().any(unknown) {
                self.restoring.push(restoring);
                continue;
            }
            let served = |key: &&FileKey| entries.get(key).is_some_and(|entry| entry.health.is_served());
            let _ = restoring.done.send(restoring.keys.iter().filter(served).count());
        }
    }
}
