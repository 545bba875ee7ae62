//! The downloads of this client, finished ones included, by the user who began them.

use std::path::{Path, PathBuf};

use rusqlite::types::Type;
use rusqlite::{Row, Transaction};
use shoal_common::{GroupName, Manifest, Uid};

use super::{Store, StoreError, rows};
use crate::priority::{Priority, Rank};
use crate::taking::{FolderOptions, Take, TakenPart};
use shoal_swarm::FileKey;

/// A download that a user began here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DownloadRecord {
    /// Who began it.
    pub user: Uid,
    /// The file.
    pub key: FileKey,
    /// What the group was called when it began.
    pub group: GroupName,
    /// The file's metadata; its piece list is kept apart.
    pub manifest: Manifest,
    /// The final path.
    pub path: PathBuf,
    /// Whether a file that is there already is replaced.
    pub overwrite: bool,
    /// Whether it is shared, while it runs and when it is complete.
    pub share: bool,
    /// How far it came.
    pub state: DownloadState,
    /// Bytes that were verified when it last stopped.
    pub verified: u64,
    /// Where it stands in the queue.
    pub rank: Rank,
    /// Its own limit in bytes per second.
    pub limit: Option<u64>,
    /// How a folder is taken.
    pub take: Take,
}

/// How far a download came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DownloadState {
    /// It goes on whenever its user is logged in.
    Running,
    /// Its user paused it.
    Paused,
    /// The file is whole and in its place.
    Complete,
    /// It cannot go on by itself, and why.
    Failed(String),
}

impl DownloadState {
    fn columns(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Running => ("running", None),
            Self::Paused => ("paused", None),
            Self::Complete => ("complete", None),
            Self::Failed(error) => ("failed", Some(error)),
        }
    }
}

/// A state that no version wrote.
#[derive(Debug, thiserror::Error)]
#[error("no download has the state {0:?}")]
struct StateError(String);

/// A priority that no version wrote.
#[derive(Debug, thiserror::Error)]
#[error("no download has the priority {0:?}")]
struct PriorityError(String);

impl Store {
    /// Records a download, or replaces the record of it, which moves it to the end of the list.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn put_download(
        &self,
        download: DownloadRecord,
        piece_list: Vec<u8>,
    ) -> Result<(), StoreError> {
        self.run(move |db| insert(db, &download, &piece_list)).await
    }

    /// Records how far a download came, with the bytes that are verified; nothing happens if it is not on record.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn set_download_state(
        &self,
        user: Uid,
        key: FileKey,
        state: DownloadState,
        verified: u64,
    ) -> Result<(), StoreError> {
        self.run(move |db| {
            let (state, error) = state.columns();
            db.execute(
                "update download set state = ?, error = ?, verified = ? where user = ? and gid = ? and fid = ?",
                (state, error, verified, user.0, key.group.0, key.file.0),
            )?;
            Ok(())
        })
        .await
    }

    /// Records that a download is, or goes, to another path.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn set_download_path(
        &self,
        user: Uid,
        key: FileKey,
        path: &Path,
    ) -> Result<(), StoreError> {
        let path = path.to_owned();
        self.run(move |db| {
            db.execute(
                "update download set path = ? where user = ? and gid = ? and fid = ?",
                (rows::path_column(&path), user.0, key.group.0, key.file.0),
            )?;
            Ok(())
        })
        .await
    }

    /// Records how many bytes of a download are verified, whatever its state is by now.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn note_verified(
        &self,
        user: Uid,
        key: FileKey,
        verified: u64,
    ) -> Result<(), StoreError> {
        self.run(move |db| {
            db.execute(
                "update download set verified = ? where user = ? and gid = ? and fid = ?",
                (verified, user.0, key.group.0, key.file.0),
            )?;
            Ok(())
        })
        .await
    }

    /// Records where a download stands in the queue.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn set_download_rank(
        &self,
        user: Uid,
        key: FileKey,
        rank: Rank,
    ) -> Result<(), StoreError> {
        self.run(move |db| {
            db.execute(
                "update download set priority = ?, position = ? where user = ? and gid = ? and fid = ?",
                (rank.priority.name(), rank.position, user.0, key.group.0, key.file.0),
            )?;
            Ok(())
        })
        .await
    }

    /// Records a download's own limit, in bytes per second.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn set_download_limit(
        &self,
        user: Uid,
        key: FileKey,
        limit: Option<u64>,
    ) -> Result<(), StoreError> {
        self.run(move |db| {
            db.execute(
                "update download set rate_limit = ? where user = ? and gid = ? and fid = ?",
                (limit, user.0, key.group.0, key.file.0),
            )?;
            Ok(())
        })
        .await
    }

    /// Records how a folder is taken.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn set_take(&self, user: Uid, key: FileKey, take: Take) -> Result<(), StoreError> {
        self.run(move |db| set_take(db, user, key, &take)).await
    }

    /// Records that a download is not to be shared.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn unshare_download(&self, user: Uid, key: FileKey) -> Result<(), StoreError> {
        self.run(move |db| {
            db.execute(
                "update download set share = 0 where user = ? and gid = ? and fid = ?",
                (user.0, key.group.0, key.file.0),
            )?;
            Ok(())
        })
        .await
    }

    /// All downloads of a user in the order in which they began.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn downloads(&self, user: Uid) -> Result<Vec<DownloadRecord>, StoreError> {
        self.run(move |db| {
            db.prepare_cached("select * from download where user = ? order by id")?
                .query_map((user.0,), download)?
                .collect()
        })
        .await
    }

    /// Forgets a download; true if there was one.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn remove_download(&self, user: Uid, key: FileKey) -> Result<bool, StoreError> {
        self.run(move |db| {
            let removed = db.execute(
                "delete from download where user = ? and gid = ? and fid = ?",
                (user.0, key.group.0, key.file.0),
            )?;
            rows::sweep_piece_lists(db)?;
            Ok(removed > 0)
        })
        .await
    }
}

/// Records a download, or replaces the record of it, which moves it to the end of the list.
pub(super) fn insert(
    db: &Transaction<'_>,
    download: &DownloadRecord,
    piece_list: &[u8],
) -> rusqlite::Result<()> {
    rows::put_piece_list(db, &download.manifest, piece_list)?;
    let (state, error) = download.state.columns();
    db.execute(
        "insert or replace into download (user, gid, fid, group_name, manifest, piece_list, path,
         overwrite, share, state, error, verified, priority, position, rate_limit)
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            download.user.0,
            download.key.group.0,
            download.key.file.0,
            download.group.as_str(),
            rows::manifest_column(&download.manifest),
            download.manifest.piece_list.0,
            rows::path_column(&download.path),
            download.overwrite,
            download.share,
            state,
            error,
            download.verified,
            download.rank.priority.name(),
            download.rank.position,
            download.limit,
        ),
    )?;
    set_take(db, download.user, download.key, &download.take)
}

pub(super) fn download(row: &Row<'_>) -> rusqlite::Result<DownloadRecord> {
    let state: String = row.get("state")?;
    let state = match state.as_str() {
        "running" => DownloadState::Running,
        "paused" => DownloadState::Paused,
        "complete" => DownloadState::Complete,
        "failed" => DownloadState::Failed(row.get::<_, Option<String>>("error")?.unwrap_or_default()),
        _ => return Err(rows::damaged(Type::Text, StateError(state))),
    };
    // An earlier version wrote none, and downloads went in the order in which they began.
    let position: Option<i64> = row.get("position")?;
    Ok(DownloadRecord {
        user: Uid(row.get("user")?),
        key: rows::key(row)?,
        group: rows::group_name(row)?,
        manifest: rows::manifest(row)?,
        path: rows::path(row)?,
        overwrite: row.get("overwrite")?,
        share: row.get("share")?,
        state,
        verified: row.get("verified")?,
        rank: Rank { priority: priority(row)?, position: position.map_or_else(|| row.get("id"), Ok)? },
        limit: row.get("rate_limit")?,
        take: take(row)?,
    })
}

fn set_take(db: &Transaction<'_>, user: Uid, key: FileKey, take: &Take) -> rusqlite::Result<()> {
    let options =
        (!take.options.is_plain()).then(|| serde_json::to_string(&take.options).unwrap_or_default());
    db.execute(
        "update download set folder_options = ?, part_files = ?, part_bytes = ?
         where user = ? and gid = ? and fid = ?",
        (
            options,
            take.part.map(|part| part.files),
            take.part.map(|part| part.bytes),
            user.0,
            key.group.0,
            key.file.0,
        ),
    )?;
    Ok(())
}

fn take(row: &Row<'_>) -> rusqlite::Result<Take> {
    let options = match row.get::<_, Option<String>>("folder_options")? {
        None => FolderOptions::default(),
        Some(text) => serde_json::from_str(&text).map_err(|error| rows::damaged(Type::Text, error))?,
    };
    let (files, bytes): (Option<u64>, Option<u64>) = (row.get("part_files")?, row.get("part_bytes")?);
    let part = files.zip(bytes).map(|(files, bytes)| TakenPart { files, bytes });
    Ok(Take { options, part })
}

fn priority(row: &Row<'_>) -> rusqlite::Result<Priority> {
    let name: String = row.get("priority")?;
    let found = Priority::ALL.into_iter().find(|priority| priority.name() == name);
    found.ok_or_else(|| rows::damaged(Type::Text, PriorityError(name)))
}

#[cfg(test)]
mod tests {
    use super::super::shares::tests::{key, sample};
    use super::*;

    #[tokio::test]
    async fn downloads_are_kept_in_order_with_their_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.db");
        let store = Store::open(&path).unwrap();
        let (manifest, list) = sample("a.bin");
        let user = Uid([1; 16]);
        let record = |n: u8| DownloadRecord {
            user,
            key: key(n),
            group: GroupName::refer("g").unwrap(),
            manifest: manifest.clone(),
            path: format!("/tmp/{n}").into(),
            overwrite: n == 1,
            share: true,
            state: DownloadState::Running,
            verified: 0,
            rank: Rank { priority: Priority::Normal, position: i64::from(n) },
            limit: None,
            take: Take::default(),
        };
        for n in [3, 1, 2] {
            store.put_download(record(n), list.clone()).await.unwrap();
        }
        let failed = DownloadState::Failed("disk full".into());
        store.set_download_state(user, key(1), failed.clone(), 7).await.unwrap();
        store.set_download_state(user, key(9), DownloadState::Paused, 0).await.unwrap();
        store.unshare_download(user, key(2)).await.unwrap();
        let rank = Rank { priority: Priority::Low, position: -4 };
        store.set_download_rank(user, key(2), rank).await.unwrap();
        store.set_download_limit(user, key(2), Some(500)).await.unwrap();
        let options = FolderOptions { keep_modes: true, ..FolderOptions::default() };
        let take = Take { options, part: Some(TakenPart { files: 2, bytes: 70 }) };
        store.set_take(user, key(1), take.clone()).await.unwrap();
        drop(store);

        let store = Store::open(&path).unwrap();
        let expected = [
            record(3),
            DownloadRecord { state: failed, verified: 7, take, ..record(1) },
            DownloadRecord { share: false, rank, limit: Some(500), ..record(2) },
        ];
        assert_eq!(store.downloads(user).await.unwrap(), expected);
        assert_eq!(store.downloads(Uid([2; 16])).await.unwrap(), []);

        assert!(store.remove_download(user, key(1)).await.unwrap());
        assert!(store.piece_list(&manifest).await.is_ok(), "others still need it");
        store.remove_download(user, key(2)).await.unwrap();
        store.remove_download(user, key(3)).await.unwrap();
        assert!(store.piece_list(&manifest).await.is_err());
    }
}
