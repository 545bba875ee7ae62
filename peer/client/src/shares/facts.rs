//! What is known of each share, for its explanation.

use std::collections::HashSet;
use std::path::PathBuf;

use shoal_common::Uid;
use shoal_swarm::FileKey;

use super::Shares;
use super::health::Standing;
use crate::FileRef;
use crate::store::{ShareRecord, StoreError};

/// What is known of a share.
#[derive(Debug, Clone)]
pub(crate) struct ShareFacts {
    /// The file.
    pub(crate) key: FileKey,
    /// What it is called.
    pub(crate) file: FileRef,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// How it stands; `None` while it is on record and not looked after, because the trackers did not take it.
    pub(crate) standing: Option<Standing>,
    /// How much of it was read, in percent, while it is being read.
    pub(crate) percent: Option<u8>,
    /// Other files that wait to be read.
    pub(crate) waiting: usize,
    /// Why it is not looked after, as far as that is known.
    pub(crate) problem: Option<String>,
}

impl Shares {
    /// What is known of all of a user's shares, by group and name.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn facts(&self, user: Uid) -> Result<Vec<ShareFacts>, StoreError> {
        let mut facts = self.handle.facts(None).await;
        let looked_after: HashSet<FileKey> = facts.iter().map(|share| share.key).collect();
        facts.extend(self.not_taken(user, |record| !looked_after.contains(&record.key)).await?);
        facts.sort_by(|one, other| one.name().cmp(&other.name()));
        Ok(facts)
    }

    /// What is known of the shares of one file. `on_record`: also of one that is not looked after, which costs more.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn facts_of(
        &self,
        user: Uid,
        file: &FileRef,
        on_record: bool,
    ) -> Result<Vec<ShareFacts>, StoreError> {
        let mut facts = self.handle.facts(Some(file.clone())).await;
        if facts.is_empty() && on_record {
            facts = self.not_taken(user, |record| record.manifest.name == file.file).await?;
            facts.retain(|share| share.file == *file);
        }
        Ok(facts)
    }

    /// Shares that are on record and not looked after.
    async fn not_taken(
        &self,
        user: Uid,
        wanted: impl Fn(&ShareRecord) -> bool,
    ) -> Result<Vec<ShareFacts>, StoreError> {
        let mut records = self.parts.store.shares(user).await?;
        records.retain(wanted);
        let facts = records.into_iter().map(|record| {
            let (group, file) = self.parts.name_of(&record);
            let (key, problem) = (record.key, self.parts.problems.of(record.key));
            let file = FileRef { group, file };
            ShareFacts { key, file, path: record.path, standing: None, percent: None, waiting: 0, problem }
        });
        Ok(facts.collect())
    }
}

impl ShareFacts {
    fn name(&self) -> (&str, &str) {
        (self.file.group.as_str(), self.file.file.as_str())
    }
}
