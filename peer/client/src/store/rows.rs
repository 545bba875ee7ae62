//! How ids, names, paths and manifests become columns and come back, proven valid again.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rusqlite::types::Type;
use rusqlite::{Row, Transaction};
use shoal_common::{Blake3, Fid, Gid, GroupName, Manifest};

use shoal_swarm::FileKey;

pub(super) fn key(row: &Row<'_>) -> rusqlite::Result<FileKey> {
    Ok(FileKey { group: Gid(row.get("gid")?), file: Fid(row.get("fid")?) })
}

pub(super) fn group_name(row: &Row<'_>) -> rusqlite::Result<GroupName> {
    let text: String = row.get("group_name")?;
    GroupName::refer(&text).map_err(|error| damaged(Type::Text, error))
}

pub(super) fn manifest(row: &Row<'_>) -> rusqlite::Result<Manifest> {
    let bytes: Vec<u8> = row.get("manifest")?;
    minicbor::decode(&bytes).map_err(|error| damaged(Type::Blob, error))
}

pub(super) fn manifest_column(manifest: &Manifest) -> Vec<u8> {
    minicbor::to_vec(manifest).expect("a vector takes every write")
}

pub(super) fn path(row: &Row<'_>) -> rusqlite::Result<PathBuf> {
    Ok(path_of(row.get("path")?))
}

pub(super) fn path_of(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

pub(super) fn path_column(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

pub(super) fn damaged(kind: Type, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, kind, Box::new(error))
}

pub(super) fn put_piece_list(db: &Transaction<'_>, manifest: &Manifest, list: &[u8]) -> rusqlite::Result<()> {
    db.execute("insert or ignore into piece_list values (?, ?)", (manifest.piece_list.0, list))?;
    Ok(())
}

pub(super) fn piece_list(db: &Transaction<'_>, hash: Blake3) -> rusqlite::Result<Vec<u8>> {
    db.query_row("select list from piece_list where hash = ?", (hash.0,), |row| row.get(0))
}

/// Drops piece lists that nothing names any more.
pub(super) fn sweep_piece_lists(db: &Transaction<'_>) -> rusqlite::Result<()> {
    db.execute(
        "delete from piece_list where not exists (select 1 from share where piece_list = hash)
         and not exists (select 1 from download where piece_list = hash)",
        (),
    )?;
    Ok(())
}
