//! All that a store holds at once, for a client that moves to another machine.

use std::collections::BTreeMap;

use shoal_common::Blake3;

use super::{DownloadRecord, ShareRecord, Store, StoreError, downloads, rows, shares};

/// The shares and downloads of all users, with their piece lists, and the settings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Whole {
    /// By user and path.
    pub shares: Vec<ShareRecord>,
    /// In the order in which they began.
    pub downloads: Vec<DownloadRecord>,
    /// In wire form, by their hash, which manifests name.
    pub piece_lists: BTreeMap<[u8; 32], Vec<u8>>,
    /// Names and values.
    pub settings: Vec<(String, String)>,
}

impl Whole {
    /// The piece list of that hash; empty if it is not there.
    pub(crate) fn piece_list(&self, hash: Blake3) -> &[u8] {
        self.piece_lists.get(&hash.0).map_or(&[], Vec::as_slice)
    }
}

impl Store {
    /// Everything, as of one moment.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn whole(&self) -> Result<Whole, StoreError> {
        self.run(|db| {
            let mut shares = db.prepare("select * from share order by user, path")?;
            let mut downloads = db.prepare("select * from download order by id")?;
            let mut lists = db.prepare("select hash, list from piece_list")?;
            let mut settings = db.prepare("select name, value from setting order by name")?;
            Ok(Whole {
                shares: shares.query_map((), shares::share)?.collect::<Result<_, _>>()?,
                downloads: downloads.query_map((), downloads::download)?.collect::<Result<_, _>>()?,
                piece_lists: lists
                    .query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect::<Result<_, _>>()?,
                settings: settings
                    .query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?
                    .collect::<Result<_, _>>()?,
            })
        })
        .await
    }

    /// Records all of it, in one transaction.
    ///
    /// # Errors
    /// When the database fails. Then nothing is recorded.
    pub(crate) async fn fill(&self, whole: Whole) -> Result<(), StoreError> {
        self.run(move |db| {
            for share in &whole.shares {
                shares::insert(db, share, whole.piece_list(share.manifest.piece_list))?;
            }
            for download in &whole.downloads {
                downloads::insert(db, download, whole.piece_list(download.manifest.piece_list))?;
            }
            for (name, value) in &whole.settings {
                db.execute("insert or replace into setting values (?, ?)", (name, value))?;
            }
            rows::sweep_piece_lists(db)
        })
        .await
    }
}
