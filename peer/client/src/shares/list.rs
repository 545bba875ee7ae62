//! What this client shares, to be looked at.

use shoal_common::tracker_api::Completeness;
use shoal_session::Who;

use super::Shares;
use crate::results::{ShareRow, ShareState};
use crate::store::StoreError;

impl Shares {
    /// All that a user shares here, by group and name.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn rows(&self, who: &Who) -> Result<Vec<ShareRow>, StoreError> {
        let records = self.parts.store.shares(who.user).await?;
        let row = |record| {
            let (group, file) = self.parts.name_of(&record);
            let served = self.parts.holdings.completeness(record.key) == Completeness::Complete;
            let state = if served { ShareState::Served } else { ShareState::Away };
            ShareRow { group, file, path: record.path, size: record.manifest.size, state }
        };
        let mut rows: Vec<ShareRow> = records.into_iter().map(row).collect();
        rows.sort_by(|one, other| {
            let of = |row: &ShareRow| (row.group.as_str().to_owned(), row.file.as_str().to_owned());
            of(one).cmp(&of(other))
        });
        Ok(rows)
    }
}
