//! Shortages that may pass by themselves: of space, descriptors, memory, a drive. Pure: it distinguishes such a lack from an
//! error that waiting does not mend, and says when to try again. The caller decides for how long.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use shoal_common::size_text;
use shoal_engine_core::back_off;

/// The first pause: most lacks of descriptors or memory are over by then.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause: about as long as a user who made room or mounted a drive watches for an effect.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What is lacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lack {
    /// File descriptors, of this process or of the machine.
    Descriptors,
    /// Memory or threads of the system.
    Memory,
    /// Space on the drive, or quota.
    Space,
    /// The drive cannot be written to.
    ReadOnly,
    /// The drive, or the server behind it, does not answer.
    Drive,
    /// The folder, whose drive may not be mounted.
    Folder,
    /// The permission to write there.
    Permission,
    /// The partial file, whose drive may not be mounted.
    Partial,
}

impl Lack {
    /// What an error of the system says is lacking; `None` for one that waiting does not mend.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Self> {
        let Some(errno) = Errno::from_io_error(error) else {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Some(Self::Folder),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Self::Space),
                io::ErrorKind::PermissionDenied => Some(Self::Permission),
                _ => None,
            };
        };
        Some(match errno {
            Errno::MFILE | Errno::NFILE => Self::Descriptors,
            Errno::NOMEM | Errno::AGAIN | Errno::NOBUFS => Self::Memory,
            Errno::NOSPC | Errno::DQUOT => Self::Space,
            Errno::ROFS => Self::ReadOnly,
            // A drive that was pulled out, and a server of NFS, SMB or FUSE that is away.
            Errno::IO
            | Errno::NODEV
            | Errno::NXIO
            | Errno::NOMEDIUM
            | Errno::REMOTEIO
            | Errno::STALE
            | Errno::NOTCONN
            | Errno::SHUTDOWN
            | Errno::TIMEDOUT
            | Errno::CONNRESET
            | Errno::CONNABORTED
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NETDOWN
            | Errno::NETUNREACH => Self::Drive,
            Errno::NOENT | Errno::NOTDIR => Self::Folder,
            Errno::ACCESS | Errno::PERM => Self::Permission,
            _ => return None,
        })
    }

    /// Whether it concerns the chosen folder, so that a user who has just chosen it may have made a mistake.
    #[must_use]
    pub fn is_of_the_place(self) -> bool {
        matches!(self, Self::ReadOnly | Self::Drive | Self::Folder | Self::Permission | Self::Partial)
    }
}

/// A lack, with a sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// What is lacking.
    pub lack: Lack,
    words: String,
}

impl Shortage {
    /// What an error with something in this folder says is lacking; `None` for one that waiting does not mend.
    #[must_use]
    pub fn of(error: &io::Error, folder: &Path) -> Option<Self> {
        let (lack, shown) = (Lack::of(error)?, folder.display());
        let words = match lack {
            Lack::Descriptors => {
                format!("too many files are open in this process or on this machine ({error})")
            }
            Lack::Memory => format!("the system has too little memory, or too many threads ({error})"),
            Lack::Space => return Some(Self::space(folder, 0)),
            Lack::ReadOnly => format!("the drive of {shown} is read-only now"),
            Lack::Drive => format!("the drive of {shown} does not work now ({error})"),
            Lack::Folder => return Some(Self::folder(folder)),
            Lack::Permission => format!("{shown} cannot be written to ({error})"),
            Lack::Partial => format!("the partial file in {shown} is not there; mount its drive"),
        };
        Some(Self { lack, words })
    }

    /// A lack with the caller's own words.
    #[must_use]
    pub fn new(lack: Lack, words: impl Into<String>) -> Self {
        Self { lack, words: words.into() }
    }

    /// The folder itself is not there.
    #[must_use]
    pub fn folder(folder: &Path) -> Self {
        let folder = folder.display();
        Self::new(
            Lack::Folder,
            format!("the folder {folder} is not there; mount its drive, or make the folder"),
        )
    }

    /// The partial file is not there.
    #[must_use]
    pub fn partial(path: &Path) -> Self {
        Self::new(Lack::Partial, format!("the partial file {} is not there; mount its drive", path.display()))
    }

    /// The drive of a folder lacks this many bytes; 0 if that is not known.
    pub(crate) fn space(folder: &Path, bytes: u64) -> Self {
        let none = format!("no space left on the drive of {}", folder.display());
        match bytes {
            0 => Self::new(Lack::Space, none),
            _ => Self::new(Lack::Space, format!("{none}; {} more are needed", size_text(bytes))),
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// The pauses between tries while something is lacking: each twice as long as the one before, up to [`LONGEST_PAUSE`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pauses {
    failures: u32,
}

impl Pauses {
    /// The pause before the next try.
    pub fn pause(&mut self) -> Duration {
        let pause = back_off(self.failures, FIRST_PAUSE, LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// Something was done since: the next lack is a new one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Retries for a user who waits: they end a fixed time after the first lack.
#[derive(Debug, Clone)]
pub struct Tries {
    within: Duration,
    deadline: Option<Instant>,
    pauses: Pauses,
    /// When the next try begins.
    next: Option<Instant>,
}

impl Tries {
    /// Retries for this long.
    #[must_use]
    pub fn new(within: Duration) -> Self {
        Self { within, deadline: None, pauses: Pauses::default(), next: None }
    }

    /// Whether nothing has been tried again yet.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.next.is_none()
    }

    /// The pause before the next try, after one that ended `now`; `None` when the time is over. A try that lasted longer than
    /// the longest pause achieved something, so its lack is a new one.
    pub fn pause(&mut self, now: Instant) -> Option<Duration> {
        if self.next.is_some_and(|begun| now.saturating_duration_since(begun) > LONGEST_PAUSE) {
            self.deadline = None;
            self.pauses.reset();
        }
        let deadline = *self.deadline.get_or_insert(now + self.within);
        let left = deadline.saturating_duration_since(now);
        let pause = self.pauses.pause().min(left);
        self.next = Some(now + pause);
        (left > Duration::ZERO).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DiskError;
    use std::path::PathBuf;
    use std::sync::Arc;

    #[test]
    fn a_lack_that_passes_is_distinguished_from_an_error_that_does_not() {
        for (errno, lack) in [
            (Errno::MFILE, Some(Lack::Descriptors)),
            (Errno::NFILE, Some(Lack::Descriptors)),
            (Errno::NOMEM, Some(Lack::Memory)),
            (Errno::AGAIN, Some(Lack::Memory)),
            (Errno::NOSPC, Some(Lack::Space)),
            (Errno::DQUOT, Some(Lack::Space)),
            (Errno::ROFS, Some(Lack::ReadOnly)),
            (Errno::IO, Some(Lack::Drive)),
            (Errno::NODEV, Some(Lack::Drive)),
            (Errno::STALE, Some(Lack::Drive)),
            (Errno::NOTCONN, Some(Lack::Drive)),
            (Errno::NOENT, Some(Lack::Folder)),
            (Errno::ACCESS, Some(Lack::Permission)),
            // A file system that takes no file so long, a name that is too long, a loop of links: nothing passes.
            (Errno::FBIG, None),
            (Errno::NAMETOOLONG, None),
            (Errno::LOOP, None),
            (Errno::ISDIR, None),
            (Errno::INVAL, None),
        ] {
            assert_eq!(Lack::of(&io::Error::from(errno)), lack, "{errno:?}");
        }
        assert_eq!(Lack::of(&io::ErrorKind::NotADirectory.into()), Some(Lack::Folder));
        assert_eq!(Lack::of(&io::ErrorKind::UnexpectedEof.into()), None);
        assert_eq!(Lack::of(&io::Error::other("anything")), None);
    }

    #[test]
    fn an_error_of_the_disk_says_what_is_lacking_and_where() {
        let folder = PathBuf::from("/home/ann/Videos");
        let path = folder.join("a.part");
        let io = |errno: Errno| DiskError::Io { action: "write", path: path.clone(), error: errno.into() };
        let words = |error: &DiskError| error.shortage().map(|shortage| shortage.to_string());
        let full = DiskError::Full { path: path.clone(), bytes: 1, lacking: 3_435_973_837 };
        assert_eq!(
            words(&full).unwrap(),
            "no space left on the drive of /home/ann/Videos; 3.2 GiB more are needed"
        );
        let unknown = DiskError::Full { path: path.clone(), bytes: 1, lacking: 0 };
        assert_eq!(words(&unknown).unwrap(), "no space left on the drive of /home/ann/Videos");
        assert!(words(&io(Errno::IO)).unwrap().contains("the drive of /home/ann/Videos does not work now"));
        assert!(
            words(&DiskError::Gone(path.clone())).unwrap().contains("/home/ann/Videos/a.part is not there")
        );
        for lasting in [
            DiskError::Exists(path.clone()),
            DiskError::Foreign(path.clone()),
            DiskError::OtherContent(path.clone()),
            DiskError::Locked(path.clone()),
            io(Errno::FBIG),
        ] {
            assert_eq!(lasting.shortage(), None, "{lasting}");
        }
        let error = crate::DownloadError::from(Arc::new(io(Errno::MFILE)));
        assert_eq!(error.shortage().map(|shortage| shortage.lack), Some(Lack::Descriptors));
        assert_eq!(crate::DownloadError::Stopped.shortage(), None);
    }

    #[test]
    fn pauses_grow_to_a_bound_and_start_over() {
        let mut pauses = Pauses::default();
        let first: Vec<u128> = (0..7).map(|_| pauses.pause().as_millis()).collect();
        assert_eq!(first, [500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
        pauses.reset();
        assert_eq!(pauses.pause(), FIRST_PAUSE);
    }

    #[test]
    fn tries_end_in_time_and_a_long_one_starts_over() {
        let begin = Instant::now();
        let mut tries = Tries::new(Duration::from_secs(4));
        assert!(tries.is_first());
        let (mut now, mut pauses) = (begin, Vec::new());
        while let Some(pause) = tries.pause(now) {
            pauses.push(pause.as_millis());
            now += pause;
        }
        assert_eq!(pauses, [500, 1_000, 2_000, 500], "the last try is at the end of the time");
        assert!(!tries.is_first());
        let later = now + LONGEST_PAUSE + Duration::from_secs(1);
        assert_eq!(tries.pause(later), Some(FIRST_PAUSE));
    }
}
