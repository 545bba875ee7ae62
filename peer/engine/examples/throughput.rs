//! How fast the engine is without a network: sources in memory, a file on a tmpfs.
//! `cargo run --release -p shoal-engine --features conformance --example throughput [MIB [SOURCES [FOLDER]]]`

use std::path::PathBuf;
use std::time::Instant;

use shoal_engine::conformance::{FakeSource, sample_file};
use shoal_engine::{AnySource, Engine, EngineConfig, Outcome, Overwrite, SourceChange, SourceId, Target};
use tokio::sync::mpsc;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the figures are its purpose")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mebibytes: usize = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(1024);
    let sources: u64 = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "/dev/shm".into()));
    let (bytes, content) = sample_file(mebibytes << 20, 1 << 20, 1);
    for run in 1..=5 {
        let path = folder.join(format!("shoal-throughput-{}", std::process::id()));
        let (changes, receiver) = mpsc::channel(64);
        for id in 0..sources.min(64) {
            let source = AnySource::new(FakeSource::new(bytes.clone(), content.layout().clone()));
            let _ = changes.send(SourceChange::Add(SourceId(id), source)).await;
        }
        let engine = Engine::new(EngineConfig::default());
        let started = Instant::now();
        let download = engine.start(content.clone(), Target::new(&path, Overwrite::Refuse), receiver);
        let outcome = download.wait().await;
        let took = started.elapsed().as_secs_f64();
        let whole = matches!(outcome, Outcome::Complete { .. });
        println!("run {run}: {:.0} MB/s, whole: {whole}", bytes.len() as f64 / 1e6 / took);
        let _ = std::fs::remove_file(&path);
    }
}
