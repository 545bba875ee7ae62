//! The fronts of the client: the prompt, scripts and JSON. They read lines as commands, call [`shoal_client::Client`] and
//! show what comes of it.

pub mod client;
pub mod command;
pub mod daemon;
pub mod options;
mod prompt;
pub mod reply;
mod runner;
pub mod screen;
mod script;
mod watch;
