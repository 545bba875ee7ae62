//! GET: the file's chunks from all servers at once, through the engine, which checks, writes and resumes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shoal_common::storage::{MAX_COPIES, StoreManifest};
use shoal_common::tracker_api::RefusalKind;
use shoal_common::tracker_api::storage::{StoreAnswer, StoreCall, StoredFile};
use shoal_common::{Bitfield, Blake3, FileDigest, Layout, PeerId, Sha1};
use shoal_engine::regular;
use shoal_engine::{
    AnySource, Content, DiskError, Download, DownloadError, Engine, EngineConfig, Outcome, Overwrite,
    SourceChange, SourceId, State, Target,
};
use shoal_session::CallError;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::holders::held;
use super::nodes::Nodes;
use super::{Client, Lease, Progress, Report, Step, StoreError, hashing, store};
use crate::keyring::Description;
use crate::lane::Lane;
use crate::name::StoredName;
use crate::seal::{Form, Sealer, StoredPieces};
use crate::source::{NodeSource, Sealed};

/// How often servers that are away are tried again, and progress is looked at.
const LOOK: Duration = Duration::from_millis(250);
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// Nothing came and nothing is on its way for so long: what is missing cannot be had now.
const GIVE_UP: Duration = Duration::from_secs(12);
/// Changes of the set of sources that wait to be taken.
const CHANGES: usize = 2 * MAX_COPIES as usize + 64;

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
        let file = Sealed::new(layout, manifest.chunks, sealer)
            .ok_or_else(|| contradiction("its parts are not those of a file of its size"))?;
        let overwrite = if options.force { Overwrite::Replace } else { Overwrite::Refuse };
        let target = Target::new(&path, overwrite);
        let got = |path| Got { name: name.clone(), path, size: layout.size(), sha1: description.digest.sha1 };
        if !options.force && is_there(&path, layout.size(), description.digest).await {
            return Ok(got(path));
        }
        let engine = Engine::new(EngineConfig::default());
        let content = Content::sealed(layout, pieces, description.digest);
        let mut restarted = false;
        let (download, servers, outcome) = loop {
            let (changes, sources) = mpsc::channel(CHANGES);
            let download = engine.start(content.clone(), target.clone(), sources);
            let mut servers =
                Servers::new(self.nodes.clone(), file.clone(), &manifest.servers, changes).await;
            let outcome = servers.carry(&download, report).await;
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
        match outcome {
            Outcome::Complete { path, .. } => Ok(got(path)),
            Outcome::Failed(DownloadError::NoSources { missing }) => {
                let who = servers.reasons().await;
                Err(StoreError::Unreachable { name: name.clone(), missing, who })
            }
            Outcome::Failed(error) => Err(StoreError::Download { name: name.clone(), error }),
            Outcome::Paused | Outcome::Cancelled => {
                let missing = layout.size() - download.progress().borrow().verified_bytes;
                let who = servers.reasons().await;
                Err(StoreError::Unreachable { name: name.clone(), missing, who })
            }
        }
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

/// The servers of one GET.
struct Servers {
    nodes: Nodes,
    file: Arc<Sealed>,
    peers: Vec<PeerId>,
    /// The connection that each source uses.
    lanes: Vec<Option<Lane>>,
    changes: Option<mpsc::Sender<SourceChange>>,
    reasons: Vec<String>,
}

impl Servers {
    async fn new(
        nodes: Nodes,
        file: Arc<Sealed>,
        listed: &[PeerId],
        changes: mpsc::Sender<SourceChange>,
    ) -> Self {
        let mut peers = Vec::new();
        for peer in listed {
            let present = nodes.present(*peer).await;
            if !peers.contains(&present) {
                peers.push(present);
            }
        }
        let (lanes, reasons) = (vec![None; peers.len()], vec![String::new(); peers.len()]);
        Self { nodes, file, peers, lanes, changes: Some(changes), reasons }
    }

    /// Keeps the download supplied with sources until it ends.
    async fn carry(&mut self, download: &Download, report: &Report) -> Outcome {
        let progress = download.progress();
        let total = self.file.layout.size();
        let (mut tried, mut moved, mut before) = (None::<Instant>, Instant::now(), 0);
        loop {
            if tried.is_none_or(|at| at.elapsed() >= TRY_AGAIN) {
                // The first round takes as long as the slowest server takes to be given up, and no piece waits for it.
                let ended = tokio::select! {
                    () = self.connect() => None,
                    outcome = download.wait() => Some(outcome),
                };
                if let Some(outcome) = ended {
                    return outcome;
                }
                tried = Some(Instant::now());
            }
            tokio::select! {
                outcome = download.wait() => {
                    report.send_replace(Progress { step: Step::Fetching, done: progress.borrow().verified_bytes, total });
                    return outcome;
                }
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = progress.borrow().clone();
            report.send_replace(Progress { step: Step::Fetching, done: now.verified_bytes, total });
            if now.verified_bytes + now.fetched_bytes != before || now.state != State::Waiting {
                before = now.verified_bytes + now.fetched_bytes;
                moved = Instant::now();
            } else if moved.elapsed() >= GIVE_UP {
                self.changes = None;
                return download.pause().await;
            }
        }
    }

    /// Adds those that are not in use, as they answer.
    async fn connect(&mut self) {
        let Some(changes) = self.changes.clone() else { return };
        let (nodes, file) = (&self.nodes, &self.file);
        let away = self
            .peers
            .iter()
            .enumerate()
            .filter(|(index, _)| self.lanes[*index].as_ref().is_none_or(Lane::has_ended));
        let tries = away.map(|(index, &peer)| {
            let changes = changes.clone();
            async move {
                let (lane, have) = match reach(nodes, file, peer).await {
                    Ok(reached) => reached,
                    Err(reason) => return (index, Err(reason)),
                };
                let source = AnySource::new(NodeSource::new(lane.clone(), file.clone(), have));
                // Only a download that has ended takes no more.
                let _ = changes.send(SourceChange::Add(SourceId(index as u64), source)).await;
                (index, Ok(lane))
            }
        });
        for (index, reached) in futures::future::join_all(tries).await {
            match reached {
                Ok(lane) => self.lanes[index] = Some(lane),
                Err(reason) => self.reasons[index] = reason,
            }
        }
    }

    async fn reasons(&self) -> String {
        let mut said = Vec::new();
        for (index, peer) in self.peers.iter().enumerate() {
            let there = self.lanes[index].as_ref().is_some_and(|lane| !lane.has_ended());
            let reason = match () {
                () if there => "does not have them",
                () if self.reasons[index].is_empty() => "the connection was lost",
                () => self.reasons[index].as_str(),
            };
            said.push(format!("{}: {reason}", self.nodes.name(*peer).await));
        }
        said.join("; ")
    }
}

/// A connection to a server, and which of the chunks it holds.
async fn reach(nodes: &Nodes, file: &Sealed, peer: PeerId) -> Result<(Lane, Bitfield), String> {
    let ids: Vec<_> = file.chunks.iter().map(|chunk| chunk.id).collect();
    let (lane, held) = held(nodes, peer, &ids).await?;
    let mut have = Bitfield::none(&file.layout);
    for (piece, _) in file.layout.iter().zip(held).filter(|(_, held)| *held) {
        have.insert(piece);
    }
    Ok((lane, have))
}
