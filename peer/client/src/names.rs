//! Names for the completer. They come from the trackers and are kept for a few seconds, so that pressing a key twice asks
//! once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shoal_common::GroupName;
use shoal_common::tracker_api::{Answer, Call};
use tokio::time::Instant;

use crate::Client;

/// How long names are kept.
const FRESH: Duration = Duration::from_secs(3);
/// Lists that are kept at a time.
const MAX_LISTS: usize = 16;

/// A list of names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Names {
    /// All groups.
    Groups,
    /// A group's files.
    Files(GroupName),
    /// Who asks to join a group.
    Requests(GroupName),
}

/// Names that were asked for recently.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<HashMap<Names, (Instant, Vec<String>)>>);

impl Client {
    /// Names to complete from: one answer's worth of them, and none when no tracker answers. Safe to drop.
    pub async fn names(&self, names: Names) -> Vec<String> {
        let kept = self.0.names.0.lock().unwrap_or_else(PoisonError::into_inner).get(&names).cloned();
        if let Some((at, list)) = kept
            && at.elapsed() < FRESH
        {
            return list;
        }
        let call = match names.clone() {
            Names::Groups => Call::ListGroups { after: None },
            Names::Files(group) => Call::ListFiles { group, after: None },
            Names::Requests(group) => Call::ListRequests { group, after: None },
        };
        let list: Vec<String> = match self.0.session.call(call).await {
            Ok(Answer::Groups { groups, .. }) => {
                groups.iter().map(|group| group.name.as_str().to_owned()).collect()
            }
            Ok(Answer::Files { files, .. }) => files.iter().map(|file| file.name.to_string()).collect(),
            Ok(Answer::Users { users, .. }) => {
                users.iter().map(|user| user.name.as_str().to_owned()).collect()
            }
            Ok(_) | Err(_) => return Vec::new(),
        };
        let mut kept = self.0.names.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (at, _)| at.elapsed() < FRESH);
        if kept.len() < MAX_LISTS {
            kept.insert(names, (Instant::now(), list.clone()));
        }
        list
    }
}
