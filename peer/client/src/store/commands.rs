//! Completed downloads for which the command on completion has not begun yet, so that no crash loses one.

use std::path::PathBuf;

use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row};
use shoal_common::{FileName, GroupName, Sha1};

use super::{Store, StoreError, rows};

/// A complete download for which the command is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Completed {
    pub(crate) group: GroupName,
    pub(crate) file: FileName,
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    pub(crate) sha1: Sha1,
}

impl Store {
    /// Puts a download at the end of the line; whether fewer than `most` were in it.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn put_command(&self, completed: Completed, most: usize) -> Result<bool, StoreError> {
        self.run(move |db| {
            let waiting: usize = db.query_row("select count(*) from command", (), |row| row.get(0))?;
            if waiting >= most {
                return Ok(false);
            }
            db.execute(
                "insert into command (group_name, file_name, path, size, sha1) values (?, ?, ?, ?, ?)",
                (
                    completed.group.as_str(),
                    completed.file.as_str(),
                    rows::path_column(&completed.path),
                    completed.size.cast_signed(),
                    completed.sha1.0,
                ),
            )?;
            Ok(true)
        })
        .await
    }

    /// Takes the first one out of the line.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn take_command(&self) -> Result<Option<Completed>, StoreError> {
        self.run(|db| {
            let taken = "delete from command where id = (select min(id) from command) returning *";
            db.query_row(taken, (), completed).optional()
        })
        .await
    }

    /// Forgets all that wait.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn remove_commands(&self) -> Result<(), StoreError> {
        self.run(|db| db.execute("delete from command", ()).map(drop)).await
    }
}

fn completed(row: &Row<'_>) -> rusqlite::Result<Completed> {
    Ok(Completed {
        group: rows::group_name(row)?,
        file: FileName::refer(&row.get::<_, String>("file_name")?)
            .map_err(|error| rows::damaged(Type::Text, error))?,
        path: rows::path_of(row.get("path")?),
        size: row.get::<_, i64>("size")?.cast_unsigned(),
        sha1: Sha1(row.get("sha1")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn they_are_taken_in_their_order_once_and_outlive_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.db");
        let of = |name: &str| Completed {
            group: GroupName::refer("g").unwrap(),
            file: FileName::refer(name).unwrap(),
            path: folder.path().join(name),
            size: u64::MAX,
            sha1: Sha1([7; 20]),
        };
        let store = Store::open(&path).unwrap();
        for name in ["b", "a"] {
            assert!(store.put_command(of(name), 2).await.unwrap());
        }
        assert!(!store.put_command(of("c"), 2).await.unwrap(), "the line is full");
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.take_command().await.unwrap(), Some(of("b")));
        assert!(store.put_command(of("b"), 2).await.unwrap());
        for name in ["a", "b"] {
            assert_eq!(store.take_command().await.unwrap(), Some(of(name)));
        }
        assert_eq!(store.take_command().await.unwrap(), None);
        store.put_command(of("a"), 1).await.unwrap();
        store.remove_commands().await.unwrap();
        assert_eq!(store.take_command().await.unwrap(), None);
    }
}
