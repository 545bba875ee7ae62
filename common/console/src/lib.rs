//! What the binaries share towards their users: logs, the limit of open files, commands on a pipe, what is typed on a command
//! line or at a terminal, files that a user names, and data folders.

pub mod data_dir;
pub mod descriptors;
pub mod disk;
mod input;
mod key_file;
pub mod lines;
pub mod log;
pub mod password;
pub mod pipe;
mod runtime;
pub mod secrets;
pub mod service;
mod table;
mod terminal;
mod text_file;
mod trackers;
mod typed;
mod wrapped;

pub use input::read_input;
pub use key_file::read_key;
pub use log::LogFormat;
pub use runtime::{runtime, runtime_with};
pub use table::table;
pub use terminal::Restored;
pub use text_file::read_text;
pub use trackers::read_trackers;
pub use typed::{address, ip_address, number, rate, size, time};
pub use wrapped::wrapped;
