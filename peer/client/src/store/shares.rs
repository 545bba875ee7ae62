//! The files that this client shares, by the user who shares them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Row, Transaction};
use shoal_common::{Blake3, GroupName, Manifest, Uid};
use shoal_engine::hash::FileIdentity;

use super::{Store, StoreError, rows};
use shoal_swarm::FileKey;

/// A file that a user shares from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShareRecord {
    /// Who shares it.
    pub user: Uid,
    /// The file.
    pub key: FileKey,
    /// What the group was called when it was shared.
    pub group: GroupName,
    /// The file's metadata; its piece list is kept apart.
    pub manifest: Manifest,
    /// Where the content is.
    pub path: PathBuf,
    /// Which file was at that path when its content was known.
    pub identity: FileIdentity,
}

impl Store {
    /// Records a share, or replaces the record of it.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn put_share(&self, share: ShareRecord, piece_list: Vec<u8>) -> Result<(), StoreError> {
        self.run(move |db| insert(db, &share, &piece_list)).await
    }

    /// All shares of a user, by path.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn shares(&self, user: Uid) -> Result<Vec<ShareRecord>, StoreError> {
        self.run(move |db| {
            db.prepare_cached("select * from share where user = ? order by path")?
                .query_map((user.0,), share)?
                .collect()
        })
        .await
    }

    /// The piece list of a share or download in wire form.
    ///
    /// # Errors
    /// When the database fails, or nothing with this manifest is recorded.
    pub(crate) async fn piece_list(&self, manifest: &Manifest) -> Result<Vec<u8>, StoreError> {
        let hash = manifest.piece_list;
        self.run(move |db| rows::piece_list(db, hash)).await
    }

    /// The listings of all folders on record, of all users.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn listings(&self) -> Result<HashSet<Blake3>, StoreError> {
        self.run(move |db| {
            let manifests = "select manifest from share union all select manifest from download";
            db.prepare(manifests)?
                .query_map((), rows::manifest)?
                .filter_map(|manifest| manifest.map(|manifest| Some(manifest.folder?.listing)).transpose())
                .collect()
        })
        .await
    }

    /// Forgets a share; true if there was one.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn remove_share(&self, user: Uid, key: FileKey) -> Result<bool, StoreError> {
        self.run(move |db| {
            let removed = db.execute(
                "delete from share where user = ? and gid = ? and fid = ?",
                (user.0, key.group.0, key.file.0),
            )?;
            rows::sweep_piece_lists(db)?;
            Ok(removed > 0)
        })
        .await
    }
}

/// Records a share, or replaces the record of it.
pub(super) fn insert(db: &Transaction<'_>, share: &ShareRecord, piece_list: &[u8]) -> rusqlite::Result<()> {
    rows::put_piece_list(db, &share.manifest, piece_list)?;
    let (size, modified, inode, device, changed) = identity_columns(&share.identity);
    db.execute(
        "insert or replace into share (user, gid, fid, group_name, manifest, piece_list, path,
         size, mtime_ns, inode, device, ctime_ns) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            share.user.0,
            share.key.group.0,
            share.key.file.0,
            share.group.as_str(),
            rows::manifest_column(&share.manifest),
            share.manifest.piece_list.0,
            rows::path_column(&share.path),
            size,
            modified,
            inode,
            device,
            changed,
        ),
    )?;
    Ok(())
}

pub(super) fn share(row: &Row<'_>) -> rusqlite::Result<ShareRecord> {
    Ok(ShareRecord {
        user: Uid(row.get("user")?),
        key: rows::key(row)?,
        group: rows::group_name(row)?,
        manifest: rows::manifest(row)?,
        path: rows::path(row)?,
        identity: identity(row)?,
    })
}

/// The identity of a file, from its columns.
pub(super) fn identity(row: &Row<'_>) -> rusqlite::Result<FileIdentity> {
    Ok(FileIdentity {
        size: row.get::<_, i64>("size")?.cast_unsigned(),
        modified: time(row.get("mtime_ns")?),
        changed: row.get::<_, Option<i64>>("ctime_ns")?.map(time),
        inode: row.get::<_, i64>("inode")?.cast_unsigned(),
        device: row.get::<_, i64>("device")?.cast_unsigned(),
    })
}

/// The columns of an identity: size, time of modification, inode, device, time of change.
pub(super) fn identity_columns(identity: &FileIdentity) -> (i64, i64, i64, i64, Option<i64>) {
    (
        identity.size.cast_signed(),
        time_column(identity.modified),
        identity.inode.cast_signed(),
        identity.device.cast_signed(),
        identity.changed.map(time_column),
    )
}

/// Nanoseconds since 1970. Times out of their range, which end in 2262, become one that no file has.
pub(crate) fn time_column(time: SystemTime) -> i64 {
    let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).ok();
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => nanos(since).unwrap_or(i64::MAX),
        Err(before) => nanos(before.duration()).map_or(i64::MIN, |nanos| -nanos),
    }
}

pub(crate) fn time(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use shoal_common::{Fid, FileDigest, FileName, Gid, Layout, Sha1};

    pub(in crate::store) fn sample(name: &str) -> (Manifest, Vec<u8>) {
        let digest = FileDigest { sha1: Sha1::of(name.as_bytes()), blake3: Blake3::of(name.as_bytes()) };
        let pieces = [Sha1::of(name.as_bytes()), Sha1([4; 20])];
        Manifest::new(
            FileName::create(name).unwrap(),
            Layout::for_size(100_000).unwrap(),
            &pieces,
            digest,
            vec![],
        )
    }

    pub(in crate::store) fn key(n: u8) -> FileKey {
        FileKey { group: Gid([n; 16]), file: Fid([n + 1; 16]) }
    }

    fn record(n: u8, name: &str) -> (ShareRecord, Vec<u8>) {
        let (manifest, list) = sample(name);
        let modified = UNIX_EPOCH - Duration::from_nanos(5);
        let identity = FileIdentity {
            size: u64::MAX,
            modified,
            changed: Some(modified),
            inode: u64::MAX - 1,
            device: 3,
        };
        let path = std::ffi::OsString::from("/tmp/\u{e9} ").into();
        let group = GroupName::refer("g").unwrap();
        (ShareRecord { user: Uid([9; 16]), key: key(n), group, manifest, path, identity }, list)
    }

    #[tokio::test]
    async fn shares_are_kept_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.db");
        let store = Store::open(&path).unwrap();
        let (first, list) = record(1, "a.bin");
        let (second, other) = record(2, "b.bin");
        store.put_share(first.clone(), list.clone()).await.unwrap();
        store.put_share(first.clone(), list.clone()).await.unwrap();
        store.put_share(second.clone(), other).await.unwrap();
        drop(store);

        let store = Store::open(&path).unwrap();
        assert_eq!(store.shares(first.user).await.unwrap(), [first.clone(), second.clone()]);
        assert_eq!(store.shares(Uid([1; 16])).await.unwrap(), []);
        assert_eq!(store.piece_list(&first.manifest).await.unwrap(), list);

        assert!(store.remove_share(first.user, first.key).await.unwrap());
        assert!(!store.remove_share(first.user, first.key).await.unwrap());
        assert!(store.piece_list(&first.manifest).await.is_err(), "its piece list goes with it");
        assert!(store.piece_list(&second.manifest).await.is_ok(), "the other's stays");
    }
}
