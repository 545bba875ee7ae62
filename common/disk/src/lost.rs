//! What is lost without a feature: said once per process, in the log.

use std::sync::atomic::{AtomicBool, Ordering};

/// A feature that file systems lack, with what its lack means to users.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lost {
    FileSync,
    FolderSync,
    Lock,
    Modes,
    #[cfg(feature = "sqlite")]
    SharedMemory,
}

impl Lost {
    /// Says it, unless it was said. `detail` tells where, and what the system answered.
    pub(crate) fn warn(self, detail: impl FnOnce() -> String) {
        static SAID: [AtomicBool; 5] = [const { AtomicBool::new(false) }; 5];
        if !SAID[self as usize].swap(true, Ordering::Relaxed) {
            tracing::warn!("{} ({})", self.text(), detail());
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::FileSync => {
                "this file system does not sync files: a power cut may lose what was written last"
            }
            Self::FolderSync => {
                "this file system does not sync folders: a power cut may undo the last changes of names"
            }
            Self::Lock => {
                "this file system has no locks: let no program on another machine use this folder at the same time"
            }
            Self::Modes => {
                "this file system keeps no permissions: other users of this machine may be able to read keys here"
            }
            #[cfg(feature = "sqlite")]
            Self::SharedMemory => {
                "this file system has no shared memory or no locks for the database: it is written more slowly"
            }
        }
    }
}
