//! Shares follow a file that this client moves.

use std::io;
use std::path::Path;

use shoal_engine::hash::FileIdentity;

use super::Shares;
use crate::store::StoreError;

/// Why shares do not follow a file.
#[derive(Debug)]
pub(crate) enum FollowError {
    /// The file was not touched: what is known of its shares cannot be read now.
    Before(StoreError),
    /// The file was not put there; it is where it was.
    Place(io::Error),
    /// It was put there, and is served from there. That cannot be recorded now, for this reason.
    Unrecorded(String),
}

impl Shares {
    /// Has `place` put the file of `source` at `target`, and serves it from there: at once, and without reading it. `before` is
    /// the file as it was. Gives whether its new place is durable.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub(crate) async fn follow(
        &self,
        (source, target): (&Path, &Path),
        before: FileIdentity,
        place: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<bool, FollowError> {
        let _turn = self.turn.lock().await;
        let user = self.parts.session.who().map(|who| who.user);
        let mut shares = match user {
            Some(user) => self.parts.store.shares(user).await.map_err(FollowError::Before)?,
            None => Vec::new(),
        };
        shares.retain(|share| share.path == source);
        let new = target.to_owned();
        let placed = tokio::task::spawn_blocking(move || put(place, &new));
        // Nobody knows how far one came that did not end.
        let placed = placed.await.unwrap_or_else(|error| Err(FollowError::Unrecorded(error.to_string())));
        let after = match placed {
            Err(FollowError::Unrecorded(problem)) => {
                shares.iter_mut().for_each(|share| share.path = target.to_owned());
                self.handle.restore(shares).await;
                return Err(FollowError::Unrecorded(problem));
            }
            placed => placed?,
        };
        for mut share in shares {
            share.path = target.to_owned();
            if !share.identity.is_still(&before) {
                // It is not what was shared: it is looked at there.
                self.handle.restore(vec![share]).await;
                continue;
            }
            share.identity = after;
            if let Err(error) = self.handle.put(share).await {
                tracing::warn!(%error, "a share does not follow its file before the next login");
            }
        }
        let folders = [source, target].map(|path| path.parent().unwrap_or(Path::new("/")).to_owned());
        let synced = tokio::task::spawn_blocking(move || {
            folders.iter().try_for_each(|folder| shoal_disk::sync_folder(folder))
        });
        let synced = synced.await.map_err(io::Error::other).and_then(|synced| synced);
        if let Err(error) = &synced {
            tracing::warn!(%error, "a move may not be durable yet");
        }
        self.parts
            .store
            .moved(source, target, before, after)
            .await
            .map_err(|error| FollowError::Unrecorded(error.to_string()))?;
        Ok(synced.is_ok())
    }
}

/// Puts a file at its new place; gives what it is there.
fn put(place: impl FnOnce() -> io::Result<()>, new: &Path) -> Result<FileIdentity, FollowError> {
    place().map_err(FollowError::Place)?;
    FileIdentity::of(new).map_err(|error| FollowError::Unrecorded(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_put_there_is_not_said_to_be_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("new");
        let refused = put(|| Err(io::ErrorKind::StorageFull.into()), &new);
        assert!(matches!(refused, Err(FollowError::Place(_))), "{refused:?}");
        // It cannot be looked at any more.
        let unseen = put(|| Ok(()), &new);
        assert!(matches!(unseen, Err(FollowError::Unrecorded(_))), "{unseen:?}");
        assert!(put(|| std::fs::write(&new, "x"), &new).is_ok_and(|found| found.size == 1));
    }
}
