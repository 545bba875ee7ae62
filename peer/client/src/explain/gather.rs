//! Collects from the running client what is known of it, its downloads and its shares, and has it explained.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shoal_common::tracker_api::{Answer, Call, Completeness, RefusalKind};
use shoal_common::{FileName, GroupName};

use shoal_engine::Phase;

use super::here::Here;
use super::{Around, Explanation, Facts, Level, Subject, explain};
use crate::shares::{Absence, ShareFacts, Standing};
use crate::transfers::{Asked, Doing, DownloadFacts, RowState};
use crate::{Client, ClientError, FileRef};

/// How long the trackers may take to say who else has a file; what they have not said by then is left open.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// Downloads of which it is asked.
const MAX_FINDS: usize = 32;
/// How long what they said of a group is kept.
const FRESH: Duration = Duration::from_secs(5);
/// Groups of which it is asked.
const MAX_GROUPS: usize = 64;

impl Client {
    /// Explains a download or a share, or both of that file; without a file, all that are not well, and the client itself
    /// first where there is something to say of it. Takes some seconds at most. Safe to drop.
    ///
    /// # Errors
    /// When there is neither a download nor a share of the file here, or the store fails.
    pub async fn explain(&self, file: Option<&FileRef>) -> Result<Vec<Explanation>, ClientError> {
        let mut here = self.here().await?;
        let about_client = explain(Facts { here: &here, of: Subject::Client });
        let Some(who) = self.0.session.who() else { return Ok(about_client.into_iter().collect()) };
        let mut downloads = self.0.transfers.facts();
        let fetches = |download: &&DownloadFacts| matches!(&download.now, Doing::Works(working) if working.phase == Phase::Downloading);
        here.fetching = u32::try_from(downloads.iter().filter(fetches).count()).unwrap_or(u32::MAX);
        let shares = match file {
            None => self.0.shares.facts(who.user).await?,
            Some(file) => {
                downloads
                    .retain(|download| download.row.group == file.group && download.row.file == file.file);
                // What is being downloaded is no share yet.
                let unfinished = downloads.iter().any(|download| download.row.state != RowState::Complete);
                for download in
                    downloads.iter_mut().filter(|download| download.row.state == RowState::Complete)
                {
                    download.is_gone = is_gone(download.row.path.clone()).await;
                }
                let shares = self.0.shares.facts_of(who.user, file, !unfinished).await?;
                if downloads.is_empty() && shares.is_empty() {
                    return Err(ClientError::NothingOf(file.clone()));
                }
                shares
            }
        };
        self.ask_whether_known(&mut downloads).await;
        let around = self.around(&shares, file.is_some()).await;
        let of_downloads = downloads.iter().map(Subject::Download);
        let of_shares = shares.iter().zip(around).map(|(share, around)| Subject::Share(share, around));
        let explained = of_downloads.chain(of_shares).filter_map(|of| explain(Facts { here: &here, of }));
        Ok(match file {
            Some(_) => explained.collect(),
            None => about_client.into_iter().chain(explained.filter(|one| one.level > Level::Well)).collect(),
        })
    }

    async fn here(&self) -> Result<Here, ClientError> {
        let (now, usual) = (self.limits_now(), self.limits().await?);
        let who = self.0.session.who();
        Ok(Here {
            is_provisional: who.as_ref().is_some_and(|who| who.provisional),
            user: who.map(|who| who.name),
            tracker: self.0.session.tracker(),
            tries: self.0.session.tries(),
            up: now.up,
            down: now.down,
            fetching: 0,
            is_up_scheduled: now.up != usual.0,
            is_down_scheduled: now.down != usual.1,
            address: self.reached_at(),
            is_forwarded: self.is_forwarded(),
            was_reached: self.0.swarm.was_reached(),
        })
    }

    /// Asks of downloads that nobody has whether the trackers know their files still: everyone may be offline, or may have
    /// taken it back.
    async fn ask_whether_known(&self, downloads: &mut [DownloadFacts]) {
        if self.0.session.tracker().is_none() {
            return;
        }
        let ask = async {
            let nobody = downloads.iter_mut().filter_map(|download| match &mut download.now {
                Doing::Works(working) if working.known.asked == Asked::Holders(0) => {
                    Some((&download.row, working))
                }
                _ => None,
            });
            for (row, working) in nobody.take(MAX_FINDS) {
                let call = Call::Find { group: row.group.clone(), file: row.file.clone() };
                if let Err(error) = self.0.session.call(call).await
                    && error.refusal() == Some(RefusalKind::NotFound)
                {
                    working.known.asked = Asked::Unknown;
                }
            }
        };
        let _ = tokio::time::timeout(ASK_WITHIN, ask).await;
    }

    /// What is known around shares, in their order. `precise`: for a few shares, who has them is asked for each.
    async fn around(&self, shares: &[ShareFacts], precise: bool) -> Vec<Around> {
        let mut others: HashMap<usize, u32> = HashMap::new();
        if self.0.session.tracker().is_some() {
            let ask = async {
                if precise {
                    self.ask_each(shares, &mut others).await;
                } else {
                    self.ask_by_group(shares, &mut others).await;
                }
            };
            let _ = tokio::time::timeout(ASK_WITHIN, ask).await;
        }
        let folders = missing_folders(shares).await;
        let around = shares.iter().zip(folders).enumerate();
        around
            .map(|(at, (_, folder_is_missing))| Around {
                others: others.get(&at).copied(),
                folder_is_missing,
            })
            .collect()
    }

    async fn ask_each(&self, shares: &[ShareFacts], others: &mut HashMap<usize, u32>) {
        for (at, share) in shares.iter().enumerate().filter(|(_, share)| is_served(share)) {
            let call = Call::Holders { group: share.key.group, file: share.key.file };
            if let Ok(Answer::Holders { holders, .. }) = self.0.session.call(call).await {
                let whole = holders.iter().filter(|holder| {
                    holder.completeness == Completeness::Complete && holder.peer != self.peer_id()
                });
                others.insert(at, u32::try_from(whole.count()).unwrap_or(u32::MAX));
            }
        }
    }

    /// From the lists of the groups, which count this client too.
    async fn ask_by_group(&self, shares: &[ShareFacts], others: &mut HashMap<usize, u32>) {
        let mut groups: BTreeMap<&str, (&GroupName, HashMap<&FileName, usize>)> = BTreeMap::new();
        for (at, share) in shares.iter().enumerate().filter(|(_, share)| is_served(share)) {
            let group = &share.file.group;
            groups
                .entry(group.as_str())
                .or_insert_with(|| (group, HashMap::new()))
                .1
                .insert(&share.file.file, at);
        }
        for (group, files) in groups.into_values().take(MAX_GROUPS) {
            let known = self.0.counts.of(group);
            let counts = match known {
                Some(counts) => counts,
                None => {
                    let Ok(listed) = self.files(group).await else { continue };
                    let mut counts: HashMap<FileName, u32> =
                        listed.into_iter().map(|entry| (entry.name, entry.sharers)).collect();
                    counts.retain(|name, _| files.contains_key(name));
                    self.0.counts.keep(group, counts.clone());
                    counts
                }
            };
            for (name, at) in files {
                if let Some(sharers) = counts.get(name) {
                    others.insert(at, sharers.saturating_sub(1));
                }
            }
        }
    }
}

/// When the trackers said it of a group, and of its files.
type Kept = HashMap<GroupName, (Instant, HashMap<FileName, u32>)>;

/// How many share this client's shares, by group, as the trackers said a moment ago: a page that looks again and again does not ask
/// them each time.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<Kept>);

impl Counts {
    fn of(&self, group: &GroupName) -> Option<HashMap<FileName, u32>> {
        let counts = self.lock();
        counts.get(group).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, counts)| counts.clone())
    }

    fn keep(&self, group: &GroupName, counts: HashMap<FileName, u32>) {
        let mut all = self.lock();
        all.retain(|_, (at, _)| at.elapsed() < FRESH);
        if all.len() < MAX_GROUPS {
            all.insert(group.clone(), (Instant::now(), counts));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a file is not there. One on a drive that does not answer counts as there.
async fn is_gone(path: PathBuf) -> bool {
    let look = tokio::task::spawn_blocking(move || path.try_exists().is_ok_and(|exists| !exists));
    matches!(tokio::time::timeout(ASK_WITHIN, look).await, Ok(Ok(true)))
}

fn is_served(share: &ShareFacts) -> bool {
    share.standing == Some(Standing::Served)
}

/// Of each share whose file is gone, whether its folder is gone too. A drive that does not answer counts as there.
async fn missing_folders(shares: &[ShareFacts]) -> Vec<bool> {
    let is_gone = |share: &ShareFacts| share.standing == Some(Standing::Missing(Absence::Gone));
    let folders: Vec<_> = shares
        .iter()
        .map(|share| share.path.parent().filter(|_| is_gone(share)).map(ToOwned::to_owned))
        .collect();
    let none = vec![false; folders.len()];
    if folders.iter().all(Option::is_none) {
        return none;
    }
    let look = tokio::task::spawn_blocking(move || {
        folders.into_iter().map(|folder| folder.is_some_and(|folder| !folder.is_dir())).collect()
    });
    match tokio::time::timeout(ASK_WITHIN, look).await {
        Ok(Ok(missing)) => missing,
        _ => none,
    }
}
