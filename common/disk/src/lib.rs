//! What Shoal does on file systems that lack a feature. All crates that write files use it, so that each fallback stands in
//! one place. `docs/file-systems.md` says what users meet. Everything here blocks on the disk.
//!
//! A call that a file system does not know is replaced or left out, and the log says once what is lost. A real failure,
//! such as EIO, ENOSPC or EROFS, stays one.

mod beneath;
mod lock;
mod lost;
mod modes;
mod names;
mod rename;
mod replace;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod sync;
mod tree;

use std::io;

use rustix::io::Errno;

pub use beneath::{Beneath, Held};
pub use lock::{Lock, lock, try_lock};
pub use modes::{is_exposed, warn_of_modes};
pub use names::{is_about_name, try_name};
pub use rename::{rename_new, rename_new_folder};
pub use replace::{create, drafts, replace};
pub use sync::{sync_data, sync_file, sync_folder};
pub use tree::Tree;

/// Whether an error says that this call is not to be had here, by the file system (EINVAL, ENOSYS, EOPNOTSUPP, ENOTTY) or by
/// the filter of a container (EPERM). EPERM and EINVAL have other reasons too: callers go on with a call that meets those
/// again.
#[must_use]
pub fn is_refused(error: &io::Error) -> bool {
    let refusals = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOTTY, Errno::PERM];
    refusals.iter().any(|refusal| is(error, *refusal))
}

/// Whether an error is the system's of this number.
fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_failures_are_no_refusals() {
        let of = |errno: Errno| is_refused(&io::Error::from(errno));
        for errno in [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::PERM, Errno::NOTTY] {
            assert!(of(errno), "{errno}");
        }
        for errno in [Errno::IO, Errno::NOSPC, Errno::ROFS, Errno::DQUOT, Errno::ACCESS, Errno::NOENT] {
            assert!(!of(errno), "{errno}");
        }
        assert!(!is_refused(&io::ErrorKind::InvalidInput.into()), "not the system's");
    }
}
