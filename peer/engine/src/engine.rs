//! The engine as the rest of the program sees it: one [`Engine`] per process, one [`Download`] per file.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use shoal_common::Bitfield;
use shoal_engine_core::POOL_BYTES;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::chosen::Chosen;
use crate::content::{Content, Target};
use crate::driver::{self, Start};
use crate::pool::{BLOCK_BYTES, POOL_BLOCKS, Pool};
use crate::progress::{DownloadError, Outcome, Progress};
use crate::rate::Limiter;
use crate::reader::PieceReader;
use crate::resources::{Control, Resources};
use crate::source::SourceChange;

/// What all downloads of a process share: the pool of buffers and the download rate limit. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    resources: Arc<Resources>,
}

/// Settings of an engine.
#[derive(Debug, Clone, Copy)]
pub struct EngineConfig {
    /// Bytes per second that all downloads together may receive; `None` or 0 is no limit.
    pub download_limit: Option<u64>,
    /// Bytes of piece buffers for all downloads together; [`POOL_BYTES`] at most, and by default.
    pub memory: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { download_limit: None, memory: POOL_BYTES }
    }
}

impl Engine {
    /// An engine without downloads.
    #[must_use]
    pub fn new(config: EngineConfig) -> Self {
        let limiter = Limiter::new(config.download_limit);
        let blocks = (config.memory / BLOCK_BYTES).clamp(1, POOL_BLOCKS);
        Self { resources: Arc::new(Resources::new(Pool::new(blocks), limiter)) }
    }

    /// Blocks of the pool that are kept for later.
    #[cfg(test)]
    pub(crate) fn kept_blocks(&self) -> usize {
        self.resources.pool.kept()
    }

    /// Bytes that sources delivered to all downloads so far, whatever became of them.
    #[must_use]
    pub fn fetched(&self) -> u64 {
        self.resources.fetched.load(Ordering::Relaxed)
    }

    /// Changes the limit of all downloads together, running ones included. `None` or 0 is no limit.
    pub fn set_download_limit(&self, bytes_per_second: Option<u64>) {
        self.resources.limiter.set_rate(bytes_per_second);
    }

    /// The limit of all downloads together, in bytes per second.
    #[must_use]
    pub fn download_limit(&self) -> Option<u64> {
        self.resources.limiter.rate()
    }

    /// Starts a download, or continues an interrupted one. While `sources` is open, a download without a source waits. Once
    /// it is closed and no source is left, the download fails.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn start(&self, content: Content, target: Target, sources: mpsc::Receiver<SourceChange>) -> Download {
        self.start_limited(content, target, sources, Limiter::new(None))
    }

    /// As [`Engine::start`], with a limit of its own. Both limits hold: the lower one is felt. It may be changed meanwhile.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn start_limited(
        &self,
        content: Content,
        target: Target,
        sources: mpsc::Receiver<SourceChange>,
        limiter: Limiter,
    ) -> Download {
        let (_, chosen) = watch::channel(Chosen::all());
        self.start_chosen(content, target, sources, limiter, chosen)
    }

    /// As [`Engine::start_limited`], for some files of a folder; which ones may be changed meanwhile. Pieces of the others are
    /// never asked for.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn start_chosen(
        &self,
        content: Content,
        target: Target,
        sources: mpsc::Receiver<SourceChange>,
        limiter: Limiter,
        chosen: watch::Receiver<Chosen>,
    ) -> Download {
        let layout = content.layout().clone();
        let (control, control_seen) = watch::channel(Control::Run);
        let (progress_sender, progress) =
            watch::channel(Progress { total: chosen.borrow().bytes(&layout), ..Progress::default() });
        let (verified_sender, verified) = watch::channel(Arc::new(Bitfield::none(&layout)));
        let (outcome_sender, outcome) = watch::channel(None);
        let part = Arc::new(OnceLock::new());
        let start = Start {
            resources: self.resources.clone(),
            limiter,
            content: content.clone(),
            target: target.clone(),
            sources,
            chosen,
            control: control_seen,
            progress: progress_sender,
            verified: verified_sender,
            part: part.clone(),
        };
        let tracker = TaskTracker::new();
        let run = async move {
            let ended = driver::run(start).await;
            outcome_sender.send_replace(Some(ended));
        };
        tracker.spawn(run.in_current_span());
        tracker.close();
        let reader = PieceReader::new(layout, part, verified.clone());
        let waits_for = watch::Sender::new(None);
        Download { content, target, control, progress, verified, waits_for, outcome, reader, tracker }
    }
}

/// A download, running or ended. Dropping it pauses it.
#[derive(Debug)]
pub struct Download {
    content: Content,
    target: Target,
    control: watch::Sender<Control>,
    progress: watch::Receiver<Progress>,
    verified: watch::Receiver<Arc<Bitfield>>,
    pub(crate) waits_for: watch::Sender<Option<String>>,
    outcome: watch::Receiver<Option<Outcome>>,
    reader: PieceReader,
    tracker: TaskTracker,
}

impl Download {
    /// What it is doing, updated a few times per second.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// What it waits for while it has no source, in one sentence, as far as [`feed`](crate::feed) knows.
    #[must_use]
    pub fn waits_for(&self) -> watch::Receiver<Option<String>> {
        self.waits_for.subscribe()
    }

    /// The pieces that are verified and written.
    #[must_use]
    pub fn verified(&self) -> watch::Receiver<Arc<Bitfield>> {
        self.verified.clone()
    }

    /// Reads verified pieces for others.
    #[must_use]
    pub fn reader(&self) -> PieceReader {
        self.reader.clone()
    }

    /// How it ended; `None` while it runs.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.borrow().clone()
    }

    /// Waits for the end. No task of the download is left then. Safe to drop.
    pub async fn wait(&self) -> Outcome {
        self.tracker.wait().await;
        self.outcome().unwrap_or(Outcome::Failed(DownloadError::Stopped))
    }

    /// Stops it and keeps the verified pieces. It may have ended otherwise before: the outcome says how. Safe to drop; it stops
    /// all the same.
    pub async fn pause(&self) -> Outcome {
        self.control.send_if_modified(|wish| {
            let runs = *wish == Control::Run;
            if runs {
                *wish = Control::Pause;
            }
            runs
        });
        self.wait().await
    }

    /// Stops it and removes its partial file, also after a pause or failure. A complete file stays.
    /// Safe to drop; a running download stops all the same.
    pub async fn cancel(&self) -> Outcome {
        self.control.send_replace(Control::Cancel);
        match self.wait().await {
            Outcome::Paused | Outcome::Failed(_) => {
                let (target, content) = (self.target.clone(), self.content.clone());
                match tokio::task::spawn_blocking(move || target.discard_content(&content)).await {
                    Ok(Ok(())) => Outcome::Cancelled,
                    Ok(Err(error)) => Outcome::Failed(Arc::new(error).into()),
                    Err(_) => Outcome::Failed(DownloadError::Stopped),
                }
            }
            outcome => outcome,
        }
    }
}
