//! In front of [`client`](crate::client): the command line, the prompt, and what is printed. Nothing else prints.

mod command;
mod jobs;
mod login;
mod options;
mod prompt;
mod run;
mod show;

pub use options::Options;
pub use run::main;
