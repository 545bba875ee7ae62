//! GET: the file's chunks from all servers at once, through the engine, which checks, writes and resumes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use shoal_common::storage::StoreManifest;
use shoal_common::tracker_api::RefusalKind;
use shoal_common::tracker_api::storage::{StoreAnswer, StoreCall, StoredFile};
use shoal_common::{Bitfield, Blake3, FileDigest, Layout, PeerId, Sha1};
use shoal_engine::regular;
use shoal_engine::{
    AnySource, BoxFuture, Content, Discovery, DiskError, Download, DownloadError, Engine, EngineConfig,
    MAX_CHANGES, Outcome, Overwrite, SourceChange, SourceId, Target, feed,
};
use shoal_session::CallError;
use tokio::sync::mpsc;

use super::holders::held;
use super::nodes::Nodes;
use super::{Client, Lease, Progress, Report, Step, StoreError, hashing, store};
use crate::connection::NodeConnection;
use crate::keyring::Description;
use crate::name::StoredName;
use crate::seal::{Form, Sealer, StoredPieces};
use crate::source::{NodeSource, Sealed};

/// How often servers that are away are tried again.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// Nothing came and nothing is on its way for so long: what is missing cannot be had now.
const GIVE_UP: Duration = Duration::from_secs(12);

/// Where a file goes.
#[derive(Debug, Clone, Default)]
pub struct GetOptions {
    /// A folder, or a file name; the current folder without.
    pub to: Option<PathBuf>,
    /// Whether a file that is there already is replaced.
    pub force: bool,
}

/// A file that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    /// Its name in the store.
    pub name: StoredName,
    /// Where it is.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-1, which was checked.
    pub sha1: Sha1,
}

/// A stored file as its owner sees it.
pub(super) struct Opened {
    pub(super) description: Description,
    pub(super) manifest: StoreManifest,
    version: Blake3,
}

impl Client {
    /// Fetches a stored file.
    ///
    /// # Errors
    /// [`StoreError`]; what was fetched is kept, and another GET to the same place goes on.
    pub async fn get(
        &self,
        name: &StoredName,
        options: &GetOptions,
        report: &Report,
    ) -> Result<Got, StoreError> {
        self.refresh().await?;
        // First, so that nothing of the version that is found now goes while it is fetched.
        let lease = Lease::take(&self.session).await?;
        let got = self.persist(report, || self.fetch(name, options, report)).await;
        lease.end().await;
        got
    }

    async fn fetch(
        &self,
        name: &StoredName,
        options: &GetOptions,
        report: &Report,
    ) -> Result<Got, StoreError> {
        let Opened { description, manifest, version } = self.find(name).await?;
        let path = destination(options, name)?;
        let contradiction = |what| StoreError::Contradiction(name.clone(), what);
        let layout = Layout::stored(description.size)?;
        let form = Form::of(&layout, &manifest.chunks);
        let sealer = Arc::new(Sealer::in_form(&description.secret, layout.pieces(), form));
        let ids = manifest.chunks.iter().map(|chunk| chunk.id).collect();
        let pieces = Arc::new(StoredPieces::new(sealer.clone(), ids, version.0));
        let file = Sealed::new(layout.clone(), manifest.chunks, sealer)
            .ok_or_else(|| contradiction("its parts are not those of a file of its size"))?;
        let overwrite = if options.force { Overwrite::Replace } else { Overwrite::Refuse };
        let target = Target::new(&path, overwrite);
        let got = |path| Got { name: name.clone(), path, size: layout.size(), sha1: description.digest.sha1 };
        if !options.force && is_there(&path, layout.size(), description.digest).await {
            return Ok(got(path));
        }
        let engine = Engine::new(EngineConfig::default());
        let content = Content::sealed(layout.clone(), pieces, description.digest);
        let mut restarted = false;
        let (download, servers, outcome) = loop {
            let (changes, sources) = mpsc::channel(MAX_CHANGES);
            let download = engine.start(content.clone(), target.clone(), sources);
            let mut servers = Servers::new(self.nodes.clone(), file.clone(), &manifest.servers).await;
            let outcome = servers.carry(&download, changes, report).await;
            if is_of_another_version(&outcome) && !std::mem::replace(&mut restarted, true) {
                // What an interrupted GET of another version left is of no use to this one.
                let target = target.clone();
                let discarded = tokio::task::spawn_blocking(move || target.discard()).await;
                if matches!(discarded, Ok(Ok(()))) {
                    continue;
                }
            }
            break (download, servers, outcome);
        };
        let missing = match outcome {
            Outcome::Complete { path, .. } => return Ok(got(path)),
            Outcome::Failed(DownloadError::NoSources { missing }) => missing,
            Outcome::Failed(error) => return Err(StoreError::Download { name: name.clone(), error }),
            Outcome::Paused | Outcome::Cancelled => {
                layout.size() - download.progress().borrow().verified_bytes
            }
        };
        let who = servers.waits_for().unwrap_or_default();
        Err(StoreError::Unreachable { name: name.clone(), missing, who })
    }

    /// What the trackers have of a file, opened.
    pub(super) async fn find(&self, name: &StoredName) -> Result<Opened, StoreError> {
        let keyring = self.keyring()?;
        let key = keyring.pointer(name);
        let found = match store(&self.session, StoreCall::Get { key }).await {
            Ok(StoreAnswer::File(file)) => file,
            Ok(_) => return Err(CallError::Unexpected.into()),
            Err(error) if error.refusal() == Some(RefusalKind::NotFound) => {
                return Err(StoreError::not_found(name));
            }
            Err(error) => return Err(error.into()),
        };
        let StoredFile { manifest, sealed, .. } = *found;
        // The name of the version is counted here, not believed: the description is bound to it.
        let version = Blake3::of(&manifest);
        let description = keyring.open(&key, &version, &sealed)?;
        let manifest = StoreManifest::read(&manifest)
            .map_err(|_| StoreError::Contradiction(name.clone(), "its list of parts cannot be read"))?;
        Ok(Opened { description, manifest, version })
    }
}

/// Whether the file is there already.
async fn is_there(path: &Path, size: u64, digest: FileDigest) -> bool {
    let path = path.to_owned();
    let same = move || {
        let (file, metadata) = regular::open(&path).ok().filter(|(_, found)| found.len() == size)?;
        Some(hashing::digest(&file, metadata.len(), |_| true).ok()? == digest)
    };
    tokio::task::spawn_blocking(same).await.ok().flatten().unwrap_or(false)
}

fn is_of_another_version(outcome: &Outcome) -> bool {
    let Outcome::Failed(DownloadError::Disk(error)) = outcome else { return false };
    matches!(**error, DiskError::OtherContent(_))
}

/// A file's place: in the folder that was given, or at the path.
fn destination(options: &GetOptions, name: &StoredName) -> Result<PathBuf, StoreError> {
    let to = options.to.as_deref().unwrap_or(Path::new("."));
    let folder = to.is_dir() || to.as_os_str().as_encoded_bytes().ends_with(b"/");
    if folder && !to.is_dir() {
        let absent =
            std::io::Error::new(std::io::ErrorKind::NotFound, "there is no such folder; make it first");
        return Err(StoreError::File { action: "write to the folder", path: to.to_owned(), error: absent });
    }
    Ok(if folder { to.join(name.as_str()) } else { to.to_owned() })
}

/// A connection to a server with the chunks that it holds, or why there is none.
type Reached = Result<(NodeConnection, Bitfield), String>;

/// The servers of one GET.
struct Servers {
    nodes: Nodes,
    file: Arc<Sealed>,
    servers: Vec<Server>,
    /// For each server its place in the list, and what comes of the next try to reach it.
    tries: FuturesUnordered<BoxFuture<'static, (usize, Reached)>>,
    found: Vec<SourceChange>,
}

struct Server {
    peer: PeerId,
    name: String,
    /// The connection that its source uses.
    connection: Option<NodeConnection>,
    /// Why it was not reached the last time.
    reason: String,
}

impl Servers {
    async fn new(nodes: Nodes, file: Arc<Sealed>, listed: &[PeerId]) -> Self {
        let (servers, tries, found) = (Vec::new(), FuturesUnordered::new(), Vec::new());
        let mut all = Self { nodes, file, servers, tries, found };
        for peer in listed {
            let peer = all.nodes.present(*peer).await;
            if all.servers.iter().all(|server| server.peer != peer) {
                let name = all.nodes.name(peer).await;
                all.servers.push(Server { peer, name, connection: None, reason: String::new() });
                all.try_after(Duration::ZERO, all.servers.len() - 1);
            }
        }
        all
    }

    /// Tries to reach a server after a pause, or once the connection to it has ended.
    fn try_after(&self, pause: Duration, index: usize) {
        let (nodes, file, server) = (self.nodes.clone(), self.file.clone(), &self.servers[index]);
        let (peer, connection) = (server.peer, server.connection.clone());
        self.tries.push(Box::pin(async move {
            tokio::time::sleep(pause).await;
            if let Some(connection) = connection {
                connection.ended().await;
            }
            (index, reach(&nodes, &file, peer).await)
        }));
    }

    /// Keeps the download supplied with sources until it ends.
    async fn carry(
        &mut self,
        download: &Download,
        changes: mpsc::Sender<SourceChange>,
        report: &Report,
    ) -> Outcome {
        let (mut progress, total) = (download.progress(), self.file.layout.size());
        let outcome = tokio::select! {
            outcome = download.wait() => outcome,
            never = feed(download, changes, [self]) => match never {},
            () = async {
                while progress.borrow_and_update().idle < GIVE_UP && progress.changed().await.is_ok() {
                    let done = progress.borrow().verified_bytes;
                    report.send_replace(Progress { step: Step::Fetching, done, total });
                }
            } => download.pause().await,
        };
        report.send_replace(Progress { step: Step::Fetching, done: progress.borrow().verified_bytes, total });
        outcome
    }
}

impl Discovery for Servers {
    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Some((index, reached)) = self.tries.next().await else { return std::future::pending().await };
            match reached {
                Ok((connection, have)) => {
                    let source = AnySource::new(NodeSource::new(connection.clone(), self.file.clone(), have));
                    self.found.push(SourceChange::Add(SourceId(index as u64), source));
                    self.servers[index].connection = Some(connection);
                }
                Err(reason) => self.servers[index].reason = reason,
            }
            self.try_after(TRY_AGAIN, index);
        })
    }

    fn changes(&mut self, _: &shoal_engine::Progress) -> Vec<SourceChange> {
        std::mem::take(&mut self.found)
    }

    fn waits_for(&self) -> Option<String> {
        let said = self.servers.iter().map(|server| {
            let reason = match () {
                () if server.connection.as_ref().is_some_and(|connection| !connection.has_ended()) => {
                    "does not have them"
                }
                () if server.reason.is_empty() => "the connection was lost",
                () => server.reason.as_str(),
            };
            format!("{}: {reason}", server.name)
        });
        Some(said.collect::<Vec<_>>().join("; "))
    }
}

/// A connection to a server, and which of the chunks it holds.
async fn reach(nodes: &Nodes, file: &Sealed, peer: PeerId) -> Reached {
    let ids: Vec<_> = file.chunks.iter().map(|chunk| chunk.id).collect();
    let (connection, held) = held(nodes, peer, &ids).await?;
    let mut have = Bitfield::none(&file.layout);
    for (piece, _) in file.layout.iter().zip(held).filter(|(_, held)| *held) {
        have.insert(piece);
    }
    Ok((connection, have))
}
