//! Settings: names and values.

use rusqlite::OptionalExtension;

use super::{Store, StoreError};

impl Store {
    /// The setting of that name, if it was ever made.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn setting(&self, name: &'static str) -> Result<Option<String>, StoreError> {
        self.run(move |db| {
            db.query_row("select value from setting where name = ?", (name,), |row| row.get(0)).optional()
        })
        .await
    }

    /// Forgets a setting.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn remove_setting(&self, name: &'static str) -> Result<(), StoreError> {
        self.run(move |db| {
            db.execute("delete from setting where name = ?", (name,))?;
            Ok(())
        })
        .await
    }

    /// Makes a setting, or changes it.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn set_setting(&self, name: &'static str, value: String) -> Result<(), StoreError> {
        self.run(move |db| {
            db.execute("insert or replace into setting values (?, ?)", (name, value))?;
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn settings_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.db");
        let store = Store::open(&path).unwrap();
        assert_eq!(store.setting("limit_up").await.unwrap(), None);
        store.set_setting("limit_up", "5".into()).await.unwrap();
        store.set_setting("limit_up", "6".into()).await.unwrap();
        drop(store);
        let again = Store::open(&path).unwrap();
        assert_eq!(again.setting("limit_up").await.unwrap().as_deref(), Some("6"));
    }
}
