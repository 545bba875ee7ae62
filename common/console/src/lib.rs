//! What the binaries share towards whoever runs them: where log lines go, what comes on a pipe, how a rate is typed. It
//! knows nothing of Shoal.

pub mod log;
pub mod pipe;
mod rate;

pub use log::LogFormat;
pub use rate::rate;
