//! The files that this client shares: hashed, recorded, registered with the trackers and served. The [`Monitor`] looks
//! after the files on disk. A file that is gone or changed is neither served nor announced, and its user gets an event. It is
//! shared again as soon as it is what it was.

mod checks;
mod drives;
mod error;
mod facts;
mod folder;
mod follow;
mod handle;
mod health;
mod known;
mod list;
mod look;
mod monitor;
mod problem;
mod watcher;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shoal_common::manifest::ManifestError;
use shoal_common::tracker_api::{Answer, Call, Completeness, Holding, RefusalKind};
use shoal_common::{FileName, Gid, GroupName, Manifest, NameError, RequestId, Sha1, Uid, mirrors};
use shoal_disk::Held;
use shoal_engine::hash::{HashError, Hashed};
use shoal_engine::regular::{self, Kind, NotRegular};
use shoal_http::mirror::Reach;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

pub use error::ShareError;
pub(crate) use facts::ShareFacts;
pub(crate) use follow::FollowError;
pub(crate) use health::{Absence, Standing};
pub(crate) use monitor::Monitor;
pub(crate) use problem::Problems;

use crate::FileRef;
use crate::folders::Folders;
use crate::hashing::{Hashing, hash, hash_held};
use crate::store::{ShareRecord, Store, StoreError};
use handle::Handle;
use health::Found;
use look::look;

use shoal_session::events::{Event, Events};
use shoal_session::holdings::Holdings;
use shoal_session::text;
use shoal_session::{CallError, Session, Who};
use shoal_swarm::{FileKey, Swarm};

/// When this client leaves, it asks for this many files whether anybody else shares them.
const MAX_ASKED_ABOUT: usize = 64;
/// How long that may take.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// How long a look at a file may take before its drive counts as away.
const LOOK_WITHIN: Duration = Duration::from_secs(1);
/// How long a command waits until a tracker knows what it changed, so that others find it when the command is done.
const ANNOUNCE_WITHIN: Duration = Duration::from_secs(2);

/// A file that is shared now.
#[derive(Debug, Clone)]
pub(crate) struct Uploaded {
    /// Its name in the group.
    pub file: FileName,
    /// Size in bytes.
    pub size: u64,
    /// SHA-1 of the whole file; of a folder's listing.
    pub sha1: Sha1,
    /// What there is to say of a folder.
    pub folder: Option<UploadedFolder>,
}

/// A folder that is shared now.
#[derive(Debug, Clone)]
pub(crate) struct UploadedFolder {
    /// Files in it.
    pub files: u32,
    /// Links, pipes, sockets and devices in it, which are not shared.
    pub left_out: usize,
}

/// This client's shares. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shares {
    parts: Arc<Parts>,
    handle: Handle,
    /// Who has it changes records and what is served of them, so that both stay the same.
    turn: Arc<Mutex<()>>,
}

/// What shares are made of.
pub(crate) struct Parts {
    /// Where shares are recorded.
    pub store: Store,
    /// Where they are served.
    pub swarm: Swarm,
    /// What is known of folders.
    pub folders: Folders,
    /// Where they are registered.
    pub session: Session,
    /// Where they are announced.
    pub holdings: Holdings,
    /// Where the user learns of lost ones.
    pub events: Events,
    /// What was reported last of each that was lost.
    pub problems: Problems,
}

impl Shares {
    /// No shares yet; see [`Shares::restore`]. Nothing is served unless the monitor runs.
    #[must_use]
    pub(crate) fn new(parts: Parts) -> (Self, Monitor) {
        let parts = Arc::new(parts);
        let (monitor, handle) = Monitor::new(parts.clone());
        (Self { parts, handle, turn: Arc::default() }, monitor)
    }

    /// Hashes a file and shares it. Dropping the future stops the hashing. If it is dropped later, the file may be shared or
    /// not.
    ///
    /// # Errors
    /// See [`ShareError`].
    pub(crate) async fn upload(
        &self,
        path: &Path,
        group: &GroupName,
        mirrors: Vec<String>,
        progress: &watch::Sender<Option<Hashing>>,
    ) -> Result<Uploaded, ShareError> {
        let who = self.parts.session.who().ok_or(ShareError::NotLoggedIn)?;
        check_mirrors(&mirrors)?;
        let absolute = found(path).await?;
        if is_folder(&absolute).await {
            if !mirrors.is_empty() {
                return Err(ShareError::FolderMirrors);
            }
            return self.upload_folder(&who, &absolute, group, progress).await;
        }
        file_name(&absolute)?;
        self.must_be_member(&who, group).await?;
        let hashed = match self.hashed_before(&who, group, &absolute).await? {
            Some(hashed) => hashed,
            None => hash(absolute.clone(), progress).await?,
        };
        self.enter(&who, group, absolute, hashed, mirrors).await
    }

    /// The same for a file that is held: what is shared is that file, whatever its path leads to meanwhile.
    ///
    /// # Errors
    /// See [`ShareError`].
    pub(crate) async fn upload_held(
        &self,
        held: &Held,
        group: &GroupName,
        progress: &watch::Sender<Option<Hashing>>,
    ) -> Result<Uploaded, ShareError> {
        let who = self.parts.session.who().ok_or(ShareError::NotLoggedIn)?;
        let path = held.real_path().map_err(|error| ShareError::Path { path: held.path(), error })?;
        file_name(&path)?;
        self.must_be_member(&who, group).await?;
        let hashed = hash_held(held, path.clone(), progress).await?;
        self.enter(&who, group, path, hashed, Vec::new()).await
    }

    /// Registers, records and serves a file that was hashed.
    async fn enter(
        &self,
        who: &Who,
        group: &GroupName,
        absolute: PathBuf,
        hashed: Hashed,
        mirrors: Vec<String>,
    ) -> Result<Uploaded, ShareError> {
        let name = file_name(&absolute)?;
        let Hashed { layout, pieces, digest, identity } = hashed;
        let (manifest, piece_list) = Manifest::new(name, layout, &pieces, digest, mirrors);
        manifest.validate_new()?;
        let replaced = self.replaced(who, group, &absolute, &manifest).await?;
        for &old in &replaced {
            // This frees its name. If the new version is refused, the old one is registered again once it is back.
            self.take_back(old).await?;
        }
        let key = self.register(group, &manifest, piece_list.clone()).await?;
        for old in replaced {
            self.handle.remove(old).await;
            self.parts.store.remove_share(who.user, old).await?;
        }
        let (file, size, sha1) = (manifest.name.clone(), manifest.size, manifest.sha1);
        let uploaded = Uploaded { file, size, sha1, folder: None };
        let record =
            ShareRecord { user: who.user, key, group: group.clone(), manifest, path: absolute, identity };
        let turn = self.turn.lock().await;
        self.parts.store.put_share(record.clone(), piece_list).await?;
        self.handle.put(record).await?;
        drop(turn);
        self.parts.holdings.settled(ANNOUNCE_WITHIN).await;
        Ok(uploaded)
    }

    /// Shares again what the user shared before, after a look at each file; gives how many are shared at once. Files that
    /// are gone or changed are reported as events.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn restore(&self, user: Uid) -> Result<usize, StoreError> {
        let shared = self.handle.restore(self.parts.store.shares(user).await?).await;
        self.parts.holdings.settled(ANNOUNCE_WITHIN).await;
        Ok(shared)
    }

    /// Stops sharing a file and forgets it; false if it was not shared.
    ///
    /// # Errors
    /// When no tracker answers, or the store fails. The file is not served any more in any case.
    pub(crate) async fn stop(&self, user: Uid, key: FileKey) -> Result<bool, ShareError> {
        self.handle.remove(key).await;
        if self.record(user, key).await?.is_none() {
            return Ok(false);
        }
        let taken_back = self.take_back(key).await;
        let turn = self.turn.lock().await;
        // A download that was being completed may have put it there meanwhile.
        self.handle.remove(key).await;
        taken_back?;
        self.parts.store.remove_share(user, key).await?;
        drop(turn);
        self.parts.holdings.settled(ANNOUNCE_WITHIN).await;
        Ok(true)
    }

    async fn record(&self, user: Uid, key: FileKey) -> Result<Option<ShareRecord>, StoreError> {
        Ok(self.parts.store.shares(user).await?.into_iter().find(|record| record.key == key))
    }

    /// The share of that name, as recorded here.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn find(&self, who: &Who, file: &FileRef) -> Result<Option<FileKey>, StoreError> {
        let gid = gid(who, &file.group);
        let records = self.parts.store.shares(who.user).await?;
        let same_group =
            |record: &&ShareRecord| gid.map_or(record.group == file.group, |gid| record.key.group == gid);
        Ok(records.iter().filter(same_group).find(|record| record.manifest.name == file.file).map(|r| r.key))
    }

    /// Stops serving everything, and keeps the record of it.
    pub(crate) async fn suspend(&self) {
        self.parts.problems.clear();
        self.handle.clear().await;
    }

    /// The user left a group: its files are not served any more, and forgotten.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn leave(&self, user: Uid, group: Gid) -> Result<(), StoreError> {
        let turn = self.turn.lock().await;
        for record in self.parts.store.shares(user).await?.iter().filter(|record| record.key.group == group) {
            self.handle.remove(record.key).await;
            self.parts.store.remove_share(user, record.key).await?;
        }
        drop(turn);
        self.parts.holdings.settled(ANNOUNCE_WITHIN).await;
        Ok(())
    }

    /// Shares a complete download. When no tracker answers, or none knows the file, it is registered as soon as one does.
    ///
    /// # Errors
    /// When the file changed already, or the store fails.
    pub(crate) async fn completed(&self, record: ShareRecord) -> Result<(), ShareError> {
        let key = record.key;
        if self.there(key).await.is_some() {
            // It came back at another place meanwhile; that one stays shared.
            return Ok(());
        }
        let piece_list = self.parts.store.piece_list(&record.manifest).await?;
        self.parts.store.put_share(record.clone(), piece_list).await?;
        if self.parts.session.who().is_none_or(|who| who.user != record.user) {
            // The session ended meanwhile; the next login shares it.
            return Ok(());
        }
        let call = Call::ShareKnown { request: RequestId::random(), group: key.group, file: key.file };
        let registered = self.parts.session.call(call).await;
        if let Err(error) = &registered {
            tracing::info!(%error, file = %record.manifest.name, "a finished download is not recorded as shared yet");
            if matches!(error, CallError::Refused { kind: RefusalKind::Limit | RefusalKind::Wait, .. }) {
                // Over a quota: the next login shares it, if there is room then.
                self.parts.report_lost(&record, error.to_string());
                return Ok(());
            }
        }
        let turn = self.turn.lock().await;
        let stopped = self.record(record.user, key).await?.is_none();
        if stopped || self.parts.session.who().is_none_or(|who| who.user != record.user) {
            // If the session ended meanwhile, the next login shares it.
            return Ok(());
        }
        self.handle.put(record).await?;
        drop(turn);
        self.parts.holdings.settled(ANNOUNCE_WITHIN).await;
        Ok(())
    }

    /// Offers the parts of a download no longer. A share of the same file goes on.
    pub(crate) async fn part_ended(&self, key: FileKey) {
        self.handle.part_ended(key).await;
    }

    /// Where a file is that is shared here, served, and there as it was shared.
    pub(crate) async fn there(&self, key: FileKey) -> Option<PathBuf> {
        let record = self.handle.served(key).await?;
        is_untouched(&record, &self.parts.folders).await.then_some(record.path)
    }

    /// Shares again what the trackers do not know, or forgets it where the user is no member any more. Gives what has to be
    /// announced again after a while: parts, which a sharer has to share again first, and what no tracker took now.
    pub(crate) async fn unknown(&self, holdings: Vec<Holding>) -> Vec<Holding> {
        let Some(who) = self.parts.session.who() else { return Vec::new() };
        // Memberships may be older than what the trackers say now.
        let who = self.parts.session.renew().await.unwrap_or(who);
        let records = match self.parts.store.shares(who.user).await {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(%error, "shares cannot be read");
                return holdings;
            }
        };
        let (mut known, mut later) = (Vec::new(), Vec::new());
        for holding in holdings {
            let key = FileKey { group: holding.group, file: holding.file };
            let record = records.iter().find(|record| record.key == key);
            match (holding.completeness, record) {
                // It is not shared any more.
                (Completeness::None, _) | (Completeness::Complete, None) => {}
                (Completeness::Complete, Some(record)) => match self.share_again(&who, record).await {
                    Ok(()) => known.push(holding),
                    Err(error) => {
                        let file = &record.manifest.name;
                        tracing::warn!(%error, %file, "a share that the trackers do not know cannot be registered");
                        later.push(holding);
                    }
                },
                (Completeness::Some, _) => later.push(holding),
            }
        }
        // When they were announced, the tracker did not know them.
        self.parts.holdings.again(&known);
        later
    }

    /// Announces these again.
    pub(crate) fn announce_again(&self, holdings: &[Holding]) {
        self.parts.holdings.again(holdings);
    }

    /// Reports as events which of the user's shares no other client that is online has whole. Takes 2 s at most.
    pub(crate) async fn report_sole_shares(&self, user: Uid) {
        let mut questions = JoinSet::new();
        let records = self.parts.store.shares(user).await.unwrap_or_default();
        let served =
            records.into_iter().filter(|r| self.parts.holdings.completeness(r.key) == Completeness::Complete);
        for record in served.take(MAX_ASKED_ABOUT) {
            let session = self.parts.session.clone();
            questions.spawn(async move {
                let call = Call::Holders { group: record.key.group, file: record.key.file };
                let Ok(Answer::Holders { holders, .. }) = session.call(call).await else { return None };
                let sole = !holders.iter().any(|holder| holder.completeness == Completeness::Complete);
                sole.then_some(record)
            });
        }
        let collect = async {
            while let Some(answer) = questions.join_next().await {
                if let Ok(Some(record)) = answer {
                    let (group, file) = self.parts.name_of(&record);
                    self.parts.events.emit(Event::LastSharer { group, file });
                }
            }
        };
        let _ = tokio::time::timeout(ASK_WITHIN, collect).await;
    }

    /// Refuses before the hashing what the trackers would refuse after it.
    pub(crate) async fn must_be_member(&self, who: &Who, group: &GroupName) -> Result<(), ShareError> {
        if gid(who, group).is_none() {
            self.parts.session.call(Call::ListMembers { group: group.clone(), after: None }).await?;
        }
        Ok(())
    }

    async fn register(
        &self,
        group: &GroupName,
        manifest: &Manifest,
        piece_list: Vec<u8>,
    ) -> Result<FileKey, CallError> {
        let request = RequestId::random();
        let call = Call::Share { request, group: group.clone(), manifest: manifest.clone(), piece_list };
        match self.parts.session.call(call).await? {
            Answer::Shared { group, file } => Ok(FileKey { group, file }),
            _ => Err(CallError::Unexpected),
        }
    }

    async fn share_again(&self, who: &Who, record: &ShareRecord) -> Result<(), ShareError> {
        let Some((_, group)) = who.groups.iter().find(|(gid, _)| *gid == record.key.group) else {
            self.handle.remove(record.key).await;
            self.parts.store.remove_share(who.user, record.key).await?;
            self.parts.report_lost(record, format!("you are not a member of {} any more", record.group));
            return Ok(());
        };
        let piece_list = self.parts.store.piece_list(&record.manifest).await?;
        let mut manifest = Manifest { name: record.manifest.name.base(), ..record.manifest.clone() };
        // An earlier version took some that trackers refuse now.
        manifest.mirrors.retain(|url| mirrors::check_one(url).is_ok());
        match self.register(group, &manifest, piece_list).await {
            Ok(_) => Ok(()),
            // Another tracker, or another time, would say the same.
            Err(CallError::Refused {
                kind:
                    RefusalKind::NotAllowed | RefusalKind::Limit | RefusalKind::Malformed | RefusalKind::Wait,
                text,
                ..
            }) => {
                self.handle.remove(record.key).await;
                self.parts.report_lost(record, text);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the registration of a share back.
    async fn take_back(&self, key: FileKey) -> Result<(), ShareError> {
        let call = Call::StopShare { request: RequestId::random(), group: key.group, file: key.file };
        match self.parts.session.call(call).await {
            // What the trackers do not know needs no stopping.
            Err(error) if error.refusal() != Some(RefusalKind::NotFound) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Shares of files that were at this path before: the user shares what is there now.
    async fn replaced(
        &self,
        who: &Who,
        group: &GroupName,
        path: &Path,
        new: &Manifest,
    ) -> Result<Vec<FileKey>, StoreError> {
        let gid = gid(who, group);
        let here = |old: &ShareRecord| old.path == path && gid == Some(old.key.group);
        let mut old = self.parts.store.shares(who.user).await?;
        old.retain(|old| here(old) && old.manifest.digest() != new.digest());
        Ok(old.into_iter().map(|old| old.key).collect())
    }
}

impl Parts {
    /// What a share is called now: another group may have been given the name that its group had.
    fn name_of(&self, record: &ShareRecord) -> (GroupName, FileName) {
        let who = self.session.who();
        let group = who.as_ref().and_then(|who| who.group_name(record.key.group)).unwrap_or(&record.group);
        (group.clone(), record.manifest.name.clone())
    }

    fn report_lost(&self, record: &ShareRecord, problem: String) {
        let ((group, file), path) = (self.name_of(record), record.path.clone());
        let problem = text::error_line(&problem);
        self.problems.note(record.key, problem.clone());
        self.events.emit(Event::ShareLost { group, file, path, problem });
    }
}

/// The id of a group that the user is a member of.
#[must_use]
pub(crate) fn gid(who: &Who, group: &GroupName) -> Option<Gid> {
    who.groups.iter().find(|(_, name)| name == group).map(|(gid, _)| *gid)
}

/// Refuses before the hashing mirrors that no client would use. Private addresses pass: some users allow them.
fn check_mirrors(mirrors: &[String]) -> Result<(), ShareError> {
    mirrors::check(mirrors).map_err(ManifestError::from)?;
    let unusable = |url: &String| {
        let refused = Reach::Anywhere.allow(url).err()?;
        Some(ShareError::Mirror(format!("the mirror {url:?} {refused}")))
    };
    mirrors.iter().find_map(unusable).map_or(Ok(()), Err)
}

/// Whether the file is there as it was shared, as far as can be seen without reading it.
async fn is_untouched(record: &ShareRecord, folders: &Folders) -> bool {
    let (path, manifest, folders) = (record.path.clone(), record.manifest.clone(), folders.clone());
    let looked = tokio::task::spawn_blocking(move || look(&path, &manifest, &folders));
    let looked = tokio::time::timeout(LOOK_WITHIN, looked).await;
    matches!(looked, Ok(Ok(Found::File(found))) if record.identity.is_still(&found))
}

/// The whole path of a file that a user named, in the normal form in which it is there.
async fn found(path: &Path) -> Result<PathBuf, ShareError> {
    let unreadable = |error| ShareError::Path { path: path.to_owned(), error };
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    let found = tokio::task::spawn_blocking(move || regular::found(&absolute)).await;
    found.map_err(|error| unreadable(std::io::Error::other(error)))
}

/// Whether a path leads to a folder that has a name.
async fn is_folder(path: &Path) -> bool {
    let path = path.to_owned();
    let looked = tokio::task::spawn_blocking(move || path.file_name().is_some() && path.is_dir());
    looked.await.unwrap_or(false)
}

fn file_name(path: &Path) -> Result<FileName, ShareError> {
    let fault = |problem: String| ShareError::Name { path: path.to_owned(), problem };
    let Some(name) = path.file_name() else {
        // `/` and what ends in `..`.
        let found = NotRegular { path: path.to_owned(), kind: Kind::Folder };
        return Err(HashError::NotAFile(found).into());
    };
    let name = name.to_str().ok_or_else(|| fault("it is not UTF-8".to_owned()))?;
    FileName::create(name).map_err(|error: NameError| fault(error.to_string()))
}
