//! The download engine, generic over where pieces come from.
//!
//! A caller makes one [`Engine`] and passes to [`Engine::start`] what to download ([`Content`]), where to ([`Target`]) and a
//! channel of sources ([`SourceChange`]). It gets a [`Download`] to watch, pause, cancel or await. Peers, HTTP servers and
//! storage nodes are [`PieceSource`]s. A [`Discovery`] finds sources of one kind, and [`feed`] passes them to the download.
//!
//! The engine knows nothing of networks, trackers or accounts. [`shoal_engine_core`] decides what to do next; this crate has
//! the tasks, buffers and disk access to do it.

mod buffer;
mod chosen;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod content;
mod digest;
mod discovery;
mod disk;
mod driver;
mod engine;
pub mod folder;
pub mod hash;
mod part;
mod pool;
mod progress;
pub mod rate;
mod reader;
pub mod regular;
mod resources;
mod shortage;
mod source;
#[cfg(test)]
mod tests;
mod writer;

pub use buffer::{Arrivals, BufferError, PieceBuf, ReadError, Waiting};
pub use chosen::Chosen;
pub use content::{Content, ContentError, Overwrite, Placing, SealedPieces, Target, Verification};
pub use discovery::{BoxFuture, Discovery, MAX_CHANGES, feed};
pub use disk::{DiskError, Partial};
pub use engine::{Download, Engine, EngineConfig};
pub use progress::{
    Bottleneck, DownloadError, FilesProgress, Outcome, Phase, Progress, SHOWN_DROPPED, SourceRow, SourceState,
};
pub use reader::{PieceReadError, PieceReader};
pub use shoal_engine_core::{Have, Limits, POOL_BYTES, PieceRun, Run, SourceError, SourceId, back_off};
pub use shortage::{Lack, Pauses, Shortage, Tries};
pub use source::{AnySource, PieceSource, SourceChange};
