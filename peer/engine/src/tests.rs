//! Whole downloads from sources in memory to files in a scratch folder.

mod discovery;
mod faults;
mod folder;
mod plain;
mod resume;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::conformance::{FakeSource, sample_file};
use crate::{
    AnySource, Content, Download, Engine, EngineConfig, Outcome, Overwrite, Progress, SourceChange, SourceId,
    Target,
};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(60);
const KIB: usize = 1024;

/// A file, its description and a folder to download it to.
struct World {
    bytes: Arc<[u8]>,
    content: Content,
    folder: TempDir,
}

impl World {
    fn new(size: usize, piece_length: u32) -> Self {
        let (bytes, content) = sample_file(size, piece_length, 1);
        Self { bytes, content, folder: TempDir::new().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("file")
    }

    fn target(&self) -> Target {
        Target::new(self.path(), Overwrite::Refuse)
    }

    fn source(&self) -> FakeSource {
        FakeSource::new(self.bytes.clone(), self.content.layout().clone())
    }

    /// Starts a download from these sources, numbered from 0; the channel adds more.
    fn start(&self, sources: &[&FakeSource]) -> (Download, mpsc::Sender<SourceChange>) {
        self.start_on(&Engine::new(EngineConfig::default()), sources)
    }

    fn start_on(&self, engine: &Engine, sources: &[&FakeSource]) -> (Download, mpsc::Sender<SourceChange>) {
        let (changes, receiver) = mpsc::channel(128);
        for (id, source) in sources.iter().enumerate() {
            changes.try_send(add(id as u64, source)).unwrap();
        }
        (engine.start(self.content.clone(), self.target(), receiver), changes)
    }

    /// The file is there, right, and alone.
    fn assert_complete(&self, outcome: &Outcome) {
        assert!(matches!(outcome, Outcome::Complete { path, .. } if *path == self.path()), "{outcome:?}");
        assert!(std::fs::read(self.path()).unwrap() == *self.bytes, "the file differs");
        assert_eq!(self.files(), ["file"]);
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn add(id: u64, source: &FakeSource) -> SourceChange {
    SourceChange::Add(SourceId(id), AnySource::new(source.clone()))
}

async fn ended(download: &Download) -> Outcome {
    tokio::time::timeout(PATIENCE, download.wait()).await.expect("the download does not end")
}

/// Waits until the download's progress is so.
async fn until(download: &Download, is: impl FnMut(&Progress) -> bool) -> Progress {
    let mut progress = download.progress();
    let seen = tokio::time::timeout(PATIENCE, progress.wait_for(is)).await;
    seen.expect("the progress never comes").expect("the download ended").clone()
}

/// Waits until at least so many pieces are verified.
async fn until_verified(download: &Download, pieces: u32) {
    let mut verified = download.verified();
    let seen = tokio::time::timeout(PATIENCE, verified.wait_for(|bits| bits.count() >= pieces)).await;
    seen.expect("the pieces never come").expect("the download ended");
}
