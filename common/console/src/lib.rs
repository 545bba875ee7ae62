//! What the binaries share towards whoever runs them: where log lines go, how many files they may open, what comes on a
//! pipe, how a rate is typed, how a file that they name is read, where they keep what they remember.

pub mod data_dir;
pub mod descriptors;
mod input;
mod key_file;
pub mod log;
pub mod password;
pub mod pipe;
mod rate;
mod runtime;
mod terminal;
mod text_file;
mod trackers;
mod wrapped;

pub use input::read_input;
pub use key_file::read_key;
pub use log::LogFormat;
pub use rate::{rate, size};
pub use runtime::runtime;
pub use terminal::Restored;
pub use text_file::read_text;
pub use trackers::read_trackers;
pub use wrapped::wrapped;
