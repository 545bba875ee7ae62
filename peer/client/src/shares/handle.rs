//! The way to the monitor: commands that it carries out in order, so that a share that was stopped stays stopped.

use tokio::sync::{mpsc, oneshot};

use super::ShareError;
use super::facts::ShareFacts;
use crate::FileRef;
use crate::store::ShareRecord;
use shoal_swarm::FileKey;

/// Commands that may wait.
const MAX_COMMANDS: usize = 64;

/// What is wanted of the monitor.
pub(super) enum Command {
    /// Share this file, whose content is known.
    Put(Box<ShareRecord>, oneshot::Sender<Result<(), ShareError>>),
    /// Share these files after a look at each; gives how many are served at once.
    Restore(Vec<ShareRecord>, oneshot::Sender<usize>),
    /// Share that file no longer.
    Remove(FileKey, oneshot::Sender<()>),
    /// The parts of this download are offered no longer.
    PartEnded(FileKey, oneshot::Sender<()>),
    /// Give the share of this file, if it is served.
    Served(FileKey, oneshot::Sender<Option<Box<ShareRecord>>>),
    /// Give what is known of all shares, or of that one.
    Facts(Option<FileRef>, oneshot::Sender<Vec<ShareFacts>>),
    /// Share nothing.
    Clear(oneshot::Sender<()>),
}

/// The way to the monitor. Cheap to clone. After the monitor has ended, nothing is shared.
#[derive(Clone)]
pub(super) struct Handle(mpsc::Sender<Command>);

impl Handle {
    /// A handle, and the receiver of its commands.
    pub(super) fn new() -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
        (Self(commands), receiver)
    }

    /// Serves and announces a file whose content is known.
    pub(super) async fn put(&self, record: ShareRecord) -> Result<(), ShareError> {
        let put = |done| Command::Put(Box::new(record), done);
        self.ask(put).await.unwrap_or(Ok(()))
    }

    /// Looks at files and serves those that are there and untouched; gives their number after 2 s at most. The others are
    /// looked after from then on.
    pub(super) async fn restore(&self, records: Vec<ShareRecord>) -> usize {
        self.ask(|done| Command::Restore(records, done)).await.unwrap_or(0)
    }

    /// Neither serves nor announces a file any more.
    pub(super) async fn remove(&self, key: FileKey) {
        self.ask(|done| Command::Remove(key, done)).await;
    }

    /// Offers the parts of a download no longer. The share of that file, if there is one, goes on.
    pub(super) async fn part_ended(&self, key: FileKey) {
        self.ask(|done| Command::PartEnded(key, done)).await;
    }

    /// The share of a file that is served now.
    pub(super) async fn served(&self, key: FileKey) -> Option<ShareRecord> {
        self.ask(|done| Command::Served(key, done)).await.flatten().map(|record| *record)
    }

    /// What is known of all shares that are looked after, or of that one.
    pub(super) async fn facts(&self, file: Option<FileRef>) -> Vec<ShareFacts> {
        self.ask(|done| Command::Facts(file, done)).await.unwrap_or_default()
    }

    /// Neither serves nor announces any file any more.
    pub(super) async fn clear(&self) {
        self.ask(Command::Clear).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (done, answer) = oneshot::channel();
        self.0.send(command(done)).await.ok()?;
        answer.await.ok()
    }
}
