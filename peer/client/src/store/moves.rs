//! Moves of finished downloads that are under way, so that a crash loses none of their files.

use std::path::{Path, PathBuf};

use rusqlite::{Row, Transaction};
use shoal_engine::hash::FileIdentity;

use super::shares::{identity, identity_columns, share};
use super::{ShareRecord, Store, StoreError, rows};

/// A move that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MoveRecord {
    /// Where the file was.
    pub source: PathBuf,
    /// Where it goes.
    pub target: PathBuf,
    /// Where a copy lies while it is made, if it is not only renamed.
    pub copy: Option<PathBuf>,
    /// The file that comes to the target; of a copy it is known once that is whole and compared.
    pub identity: Option<FileIdentity>,
}

impl Store {
    /// Records a move, or how far it came.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn put_move(&self, record: MoveRecord) -> Result<(), StoreError> {
        self.run(move |db| {
            let (size, modified, changed, inode, device) = match &record.identity {
                Some(identity) => {
                    let (size, modified, inode, device, changed) = identity_columns(identity);
                    (Some(size), Some(modified), changed, Some(inode), Some(device))
                }
                None => (None, None, None, None, None),
            };
            db.execute(
                "insert or replace into move values (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    rows::path_column(&record.source),
                    rows::path_column(&record.target),
                    record.copy.as_deref().map(rows::path_column),
                    size,
                    modified,
                    inode,
                    device,
                    changed,
                ),
            )?;
            Ok(())
        })
        .await
    }

    /// A move is over.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn remove_move(&self, source: &Path) -> Result<(), StoreError> {
        let source = source.to_owned();
        self.run(move |db| {
            db.execute("delete from move where source = ?", (rows::path_column(&source),))?;
            Ok(())
        })
        .await
    }

    /// All moves that were not over.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn moves(&self) -> Result<Vec<MoveRecord>, StoreError> {
        self.run(|db| db.prepare_cached("select * from move")?.query_map((), record)?.collect()).await
    }

    /// A file was moved: the shares and the finished downloads of all users follow. `before` is the file as it was at its old
    /// place, `after` as it is now. A share of something else that was there once follows without being taken for it.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn moved(
        &self,
        source: &Path,
        target: &Path,
        before: FileIdentity,
        after: FileIdentity,
    ) -> Result<(), StoreError> {
        let (source, target) = (source.to_owned(), target.to_owned());
        self.run(move |db| {
            for share in shares_at(db, &source)? {
                let identity = if share.identity.is_still(&before) { after } else { share.identity };
                let (size, modified, inode, device, changed) = identity_columns(&identity);
                db.execute(
                    "update share set path = ?, size = ?, mtime_ns = ?, inode = ?, device = ?, ctime_ns = ?
                     where user = ? and gid = ? and fid = ?",
                    (
                        rows::path_column(&target),
                        size,
                        modified,
                        inode,
                        device,
                        changed,
                        share.user.0,
                        share.key.group.0,
                        share.key.file.0,
                    ),
                )?;
            }
            db.execute(
                "update download set path = ? where path = ? and state = 'complete'",
                (rows::path_column(&target), rows::path_column(&source)),
            )?;
            Ok(())
        })
        .await
    }
}

fn shares_at(db: &Transaction<'_>, path: &Path) -> rusqlite::Result<Vec<ShareRecord>> {
    db.prepare_cached("select * from share where path = ?")?
        .query_map((rows::path_column(path),), share)?
        .collect()
}

fn record(row: &Row<'_>) -> rusqlite::Result<MoveRecord> {
    let known = row.get::<_, Option<i64>>("size")?.is_some();
    let copy: Option<Vec<u8>> = row.get("copy")?;
    Ok(MoveRecord {
        source: rows::path_of(row.get("source")?),
        target: rows::path_of(row.get("target")?),
        copy: copy.map(rows::path_of),
        identity: if known { Some(identity(row)?) } else { None },
    })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[tokio::test]
    async fn moves_are_kept_until_they_are_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("client.db")).unwrap();
        let identity = FileIdentity {
            size: 5,
            modified: UNIX_EPOCH,
            changed: Some(UNIX_EPOCH),
            device: 3,
            inode: u64::MAX,
        };
        let mut record = MoveRecord { source: "/a".into(), target: "/b".into(), copy: None, identity: None };
        store.put_move(record.clone()).await.unwrap();
        assert_eq!(store.moves().await.unwrap(), [record.clone()]);
        (record.copy, record.identity) = (Some("/c".into()), Some(identity));
        store.put_move(record.clone()).await.unwrap();
        assert_eq!(store.moves().await.unwrap(), [record.clone()]);
        store.remove_move(&record.source).await.unwrap();
        assert_eq!(store.moves().await.unwrap(), []);
    }
}
