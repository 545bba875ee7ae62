//! How many files and sockets this process may have open at once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The soft limit is raised to the hard one, but not beyond this: enough for thousands of downloads and peers. Systems without a
/// hard limit allow a thousand million, and a leak of descriptors would show only when memory is used up.
pub const MOST: u64 = 65_536;

/// Raises the soft limit to the hard one, which the system allows every process, bounded by [`MOST`]. Returns the
/// limit now. A higher soft limit stays. To be called before many files are opened.
pub fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let now = current.unwrap_or(u64::MAX);
    let wanted = maximum.unwrap_or(u64::MAX).min(MOST);
    if wanted > now
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        tracing::debug!(%error, now, wanted, "the limit of open files cannot be raised");
    }
    let limit = limit();
    tracing::debug!(before = now, limit, "files and sockets that may be open at once");
    limit
}

/// Files and sockets that this process may have open at once.
#[must_use]
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let before = getrlimit(Resource::Nofile);
        let hard = before.maximum.unwrap_or(u64::MAX);
        setrlimit(Resource::Nofile, Rlimit { current: Some(hard.min(64)), maximum: before.maximum }).unwrap();
        assert_eq!(limit(), hard.min(64));
        assert_eq!(raise(), hard.min(MOST));
        assert_eq!(raise(), hard.min(MOST), "a second call changes nothing");
    }
}
