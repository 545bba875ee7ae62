//! How urgent a download is, and so, which of those that wait is next.

use serde::Serialize;

/// How urgent a download is. The more urgent come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Before all others. It takes the place of a less urgent one that runs.
    High,
    /// As begun.
    #[default]
    Normal,
    /// After all others.
    Low,
}

impl Priority {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// Its name in commands.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// Whether it is the one that every download begins with.
    #[must_use]
    pub fn is_normal(&self) -> bool {
        *self == Self::Normal
    }
}

/// An end of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueEnd {
    /// Before all others of its priority.
    First,
    /// After all others of its priority.
    Last,
}

/// Where a download stands among all: by priority, then by position. What is less is next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// How urgent it is.
    pub priority: Priority,
    /// Its place among those that are as urgent.
    pub position: i64,
}
