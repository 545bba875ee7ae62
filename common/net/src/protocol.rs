//! The names of what is spoken on a channel.

use std::fmt;

/// The name of what is spoken on a channel, beginning with a slash: `/shoal/client/1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Protocol(pub &'static str);

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
