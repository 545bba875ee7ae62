//! What an unfinished download left on the disk: looked for, moved, removed.

use std::io;

use shoal_common::Layout;

use crate::content::{Content, Target};
use crate::disk::journal::Saved;
use crate::disk::{DiskError, PartFile, PartFolder, io_error, partial};

impl Target {
    /// Whether there is a partial file. Blocking.
    ///
    /// # Errors
    /// When the system cannot say now.
    pub fn has_partial(&self) -> Result<bool, DiskError> {
        let path = self.part_path();
        match std::fs::symlink_metadata(&path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("look at", &path, error)),
        }
    }

    /// Moves what an unfinished download left, for another target of the same content. Blocking. After a failure it can be
    /// done again.
    ///
    /// # Errors
    /// When the system does not do it, as between two drives, or something is in the way.
    pub fn move_partial(&self, to: &Self) -> Result<(), DiskError> {
        let paths = |of: &Self| [of.part_path(), of.state_path(), of.info_path()];
        for (from, to) in paths(self).into_iter().zip(paths(to)) {
            match shoal_disk::rename_new(&from, &to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("move", &from, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes what an unfinished download left. Blocking. Does nothing when there is nothing.
    ///
    /// # Errors
    /// When a download to this target is running, or the files there are not an unfinished download's.
    pub fn discard(&self) -> Result<(), DiskError> {
        if !self.state_path().exists() {
            return Ok(());
        }
        if !Saved::is_ours(&self.state_path())? {
            return Err(DiskError::Foreign(self.state_path()));
        }
        self.remove_unfinished()
    }

    /// Removes what an unfinished download of this content left; another content's stays.
    pub(crate) fn discard_content(&self, content: &Content) -> Result<(), DiskError> {
        match Saved::read(&self.state_path(), content)? {
            Saved::Known { .. } | Saved::Torn => self.remove_unfinished(),
            Saved::Absent | Saved::Foreign | Saved::OtherContent => Ok(()),
        }
    }

    fn remove_unfinished(&self) -> Result<(), DiskError> {
        let (part, state) = (self.part_path(), self.state_path());
        if std::fs::symlink_metadata(&part).is_ok_and(|found| found.is_dir()) {
            PartFolder::discard(&part)?;
        } else if part.exists() {
            // The layout does not matter: nothing is read or written.
            let empty = Layout::new(0, shoal_common::limits::MIN_PIECE_LENGTH);
            let Ok(layout) = empty else { return Ok(()) };
            let _locked = PartFile::lock(part.clone(), layout)?;
            std::fs::remove_file(&part).map_err(|error| io_error("remove", &part, error))?;
        }
        let _ = std::fs::remove_file(self.new_state_path());
        partial::forget(self);
        std::fs::remove_file(&state).map_err(|error| io_error("remove", &state, error))
    }
}
