//! Why a download is stopped, and how it ended.

/// Why a run is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Its user paused it.
    Pause,
    /// The session ended.
    Suspend,
    /// Its user gave it up.
    Cancel,
    /// Its user left the group.
    Left,
}

/// How a run of a download ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Complete,
    Failed(String),
    /// Its user paused it.
    Paused,
    /// The session ended; it goes on with the next.
    Suspended,
    Cancelled,
}
