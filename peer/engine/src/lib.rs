//! The download engine, generic over where pieces come from.
//!
//! A caller makes one [`Engine`], tells it with [`Engine::start`] what to download ([`Content`]), where to ([`Target`])
//! and, through a channel, from whom ([`SourceChange`]); it gets a [`Download`] to watch, pause, cancel or await. Peers,
//! HTTP servers and storage nodes are [`PieceSource`]s. The engine knows nothing of networks, trackers or accounts. What
//! to do next is decided in [`shoal_engine_core`]; here is what it takes to do it: tasks, buffers, disks.

mod buffer;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod content;
mod digest;
mod discovery;
mod disk;
mod driver;
mod engine;
pub mod hash;
mod part;
mod pool;
mod progress;
pub mod rate;
mod reader;
pub mod regular;
mod shared;
mod shortage;
mod source;
#[cfg(test)]
mod tests;
mod writer;

pub use buffer::{Arrivals, BufferError, PieceBuf, ReadError, Waiting};
pub use content::{Content, ContentError, Overwrite, SealedPieces, Target, Verification};
pub use discovery::{BoxFuture, Discovery, MAX_CHANGES, feed};
pub use disk::DiskError;
pub use engine::{Download, Engine, EngineConfig};
pub use progress::{
    Bottleneck, DownloadError, Outcome, Progress, SHOWN_DROPPED, SourceRow, SourceState, State,
};
pub use reader::{PieceReadError, PieceReader};
pub use shoal_engine_core::{Have, Limits, POOL_BYTES, PieceRun, Run, SourceError, SourceId};
pub use shortage::{Lack, Pauses, Shortage, Tries, back_off};
pub use source::{AnySource, PieceSource, SourceChange};
