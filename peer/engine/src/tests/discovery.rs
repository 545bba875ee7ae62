//! Downloads whose sources are discovered.

use tokio::sync::mpsc;

use super::{KIB, PATIENCE, World, add, ended};
use crate::{BoxFuture, Discovery, Download, DownloadError, Outcome, Progress, SourceChange, feed};

/// Finds what comes through a channel, and is over when that is closed.
struct Found {
    channel: mpsc::Receiver<SourceChange>,
    changes: Vec<SourceChange>,
    over: bool,
    waits_for: Option<&'static str>,
}

impl Found {
    fn new(waits_for: Option<&'static str>) -> (mpsc::Sender<SourceChange>, Self) {
        let (sender, channel) = mpsc::channel(1);
        (sender, Self { channel, changes: Vec::new(), over: false, waits_for })
    }
}

impl Discovery for Found {
    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            match self.channel.recv().await {
                Some(change) => self.changes.push(change),
                None if self.over => std::future::pending().await,
                None => self.over = true,
            }
        })
    }

    fn changes(&mut self, _: &Progress) -> Vec<SourceChange> {
        std::mem::take(&mut self.changes)
    }

    fn is_over(&self) -> bool {
        self.over
    }

    fn waits_for(&self) -> Option<String> {
        self.waits_for.map(str::to_owned)
    }
}

async fn until_it_waits_for(download: &Download, words: &str) {
    let mut waits_for = download.waits_for();
    let said = waits_for.wait_for(|now| now.as_deref() == Some(words));
    tokio::time::timeout(PATIENCE, said).await.expect("it does not say what it waits for").unwrap();
}

#[tokio::test]
async fn a_download_gets_the_sources_of_all_discoveries_and_says_what_it_waits_for() {
    let world = World::new(37 * 64 * KIB, 65_536);
    let (half, rest) = (world.source(), world.source());
    half.hold_pieces(0..20);
    rest.hold_pieces(20..37);
    let (one, mut first) = Found::new(None);
    let (other, mut second) = Found::new(Some("waiting for ann"));
    let (download, changes) = world.start(&[]);
    let used = async {
        until_it_waits_for(&download, "waiting for ann").await;
        one.send(add(0, &half)).await.unwrap();
        other.send(add(1, &rest)).await.unwrap();
        ended(&download).await
    };
    let outcome = tokio::select! {
        outcome = used => outcome,
        never = feed(&download, changes, [&mut first, &mut second]) => match never {},
    };
    world.assert_complete(&outcome);
}

#[tokio::test]
async fn a_download_without_sources_fails_once_all_discoveries_are_over() {
    let world = World::new(64 * KIB, 65_536);
    let (one, mut first) = Found::new(None);
    let (other, mut second) = Found::new(Some("waiting for ann"));
    let (download, changes) = world.start(&[]);
    drop(one);
    let used = async {
        until_it_waits_for(&download, "waiting for ann").await;
        assert!(download.outcome().is_none(), "another may find a source");
        drop(other);
        ended(&download).await
    };
    let outcome = tokio::select! {
        outcome = used => outcome,
        never = feed(&download, changes, [&mut first, &mut second]) => match never {},
    };
    assert!(matches!(outcome, Outcome::Failed(DownloadError::NoSources { missing: 65_536 })), "{outcome:?}");
}
