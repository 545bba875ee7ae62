//! How much each user and each group may have on the trackers' disks and on the storage nodes.
//!
//! Everything that is kept counts for one user or group:
//!
//! - a share, with what is kept of its file, for the user who shares it;
//! - a stored file for its user;
//! - a file that is no longer shared for the founder of its group. Beyond a small bound such files are dropped.
//!
//! Quotas are checked when something new is written, against what this tracker holds then. In a partition each side therefore
//! admits up to the quota. What was acknowledged stays, and a user over the quota may still delete.

mod daily;
mod operator;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use shoal_common::storage::PointerKey;
use shoal_common::tracker_api::{Answer, ClientShares, Level, QuotaAnswer, Refusal, RefusalKind};
use shoal_common::{Gid, PeerId, Uid, size_text};
use shoal_replica::Write;

use crate::database::{Fault, Tx, refuse};
use crate::record::{
    FILE, QUOTA, Quota, QuotaOf, SHARE, Share, StoredSize, delete, file_key, pointer_key, share_key,
};
use crate::store::{GroupUsage, ROW_BYTES, ShareOf, UserUsage, pointer_cost, share_cost};
use daily::Daily;

pub(crate) use operator::{AtQuota, at_quota, run};
pub use operator::{Command, parse};

/// What each user may have unless an operator says otherwise. 256 MiB of metadata are those of 20,000 files of up to 40 MB,
/// or of 6,000 films (a piece list of 40 KB each).
pub const USERS: Limits = Limits { files: 20_000, bytes: 256 << 20, groups: 1_000, stored: 100 << 30 };
/// What each group may have unless an operator says otherwise: several users' quotas, so that no member alone fills it.
pub const GROUPS: Limits = Limits { files: 100_000, bytes: 1 << 30, groups: u64::MAX, stored: u64::MAX };
/// Bytes of metadata of files that are not shared, in all groups that one user founded. Beyond that such files are dropped.
const MAX_IDLE_BYTES: u64 = 32 << 20;
/// Rows that are dropped with one new share at most: what one write takes besides its own.
const MAX_DROPPED: usize = 20;
/// Clients that a user's quota lists: those with the most shares.
const MAX_CLIENTS: usize = 50;
/// From this percentage on a user or group is reported to operators as near a quota.
const NEAR_PERCENT: u64 = 80;

/// What one user or group may have. `u64::MAX` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For a user shares and stored files; for a group shared files.
    pub files: u64,
    /// Bytes of metadata on each tracker.
    pub bytes: u64,
    /// Groups that a user may found.
    pub groups: u64,
    /// Bytes on the storage nodes, in all copies.
    pub stored: u64,
}

impl Limits {
    /// These limits, with those that the quota sets in their place.
    fn with(self, quota: Quota) -> Self {
        Self {
            files: quota.files.unwrap_or(self.files),
            bytes: quota.bytes.unwrap_or(self.bytes),
            groups: quota.groups.unwrap_or(self.groups),
            stored: quota.stored.unwrap_or(self.stored),
        }
    }
}

/// How much each user wrote lately, which a tracker keeps in memory. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Quotas(Arc<Mutex<Daily>>);

/// What a command is about to write of a share.
pub(crate) struct NewShare<'a> {
    /// Which.
    pub(crate) of: ShareOf,
    /// Its record, if that is written.
    pub(crate) share: Option<&'a Share>,
    /// What is kept of the file, if its record is written.
    pub(crate) file: Option<u64>,
}

impl Quotas {
    /// Checks a share that is about to be written. Returns what is to be dropped in the same write: the user's shares in groups
    /// that the user left, and files that are no longer shared.
    pub(crate) fn admit_share(
        &self,
        tx: &Tx<'_>,
        user: Uid,
        new: &NewShare<'_>,
    ) -> Result<Vec<Write>, Fault> {
        let mut drops = self.admit_for_user(tx, user, new)?;
        admit_for_group(tx, new)?;
        let (group, file, _) = new.of;
        if new.file.is_some()
            && let Some(founder) = tx.store().founder(group)?
            && tx.store().idle_of_founder(founder)? > MAX_IDLE_BYTES
        {
            let idle = tx.store().idle_files(founder, MAX_DROPPED)?.into_iter();
            let others = idle.filter(|idle| *idle != (group, file));
            drops.extend(others.map(|(group, file)| delete(FILE, file_key(group, file))));
        }
        Ok(drops)
    }

    fn admit_for_user(&self, tx: &Tx<'_>, user: Uid, new: &NewShare<'_>) -> Result<Vec<Write>, Fault> {
        let (old, limits) = (tx.store().share_usage(new.of, user)?, user_limits(tx, user)?);
        let files = u64::from(new.share.is_some() && old.is_none());
        let bytes = new.share.map_or(0, share_cost).saturating_sub(old.unwrap_or(0));
        let mut usage = tx.store().usage(user)?;
        let mut drops = Vec::new();
        if over(usage.files, files, limits.files) || over(usage.bytes, bytes, limits.bytes) {
            for ((group, file, peer), cost) in tx.store().shares_left(user, MAX_DROPPED)? {
                usage.files = usage.files.saturating_sub(1);
                usage.bytes = usage.bytes.saturating_sub(cost);
                drops.push(delete(SHARE, share_key(group, file, user, peer)));
            }
        }
        check_user(usage, UserUsage { files, bytes, stored: 0 }, limits)?;
        self.count_written(user, new.share.map_or(0, |_| ROW_BYTES) + new.file.unwrap_or(0), limits)?;
        Ok(drops)
    }

    /// Checks a stored file that is about to be named.
    pub(crate) fn admit_stored(
        &self,
        tx: &Tx<'_>,
        user: Uid,
        key: PointerKey,
        (sealed, size): (usize, StoredSize),
    ) -> Result<(), Fault> {
        let limits = user_limits(tx, user)?;
        let old = tx.store().pointer_usage(&pointer_key(user, key))?;
        let ((old_bytes, old_stored), cost) = (old.unwrap_or_default(), pointer_cost(sealed, size));
        let more = UserUsage {
            files: u64::from(old.is_none()),
            bytes: cost.saturating_sub(old_bytes),
            stored: size.stored.saturating_sub(old_stored),
        };
        check_user(tx.store().usage(user)?, more, limits)?;
        self.count_written(user, cost, limits)
    }

    /// Counts what a user writes now, because what is replaced or deleted stays on the trackers' disks for a day.
    fn count_written(&self, user: Uid, bytes: u64, limits: Limits) -> Result<(), Fault> {
        let mut daily = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        daily.count(user, bytes, limits.bytes, Instant::now()).map_err(|wait| {
            let text = format!(
                "you changed more within a day than your quota allows; try again in {} s (see: quota)",
                wait.as_secs() + 1
            );
            Fault::Refused(Refusal::new(RefusalKind::Wait, text).retry_after(wait))
        })
    }
}

/// Checks one more group that a user is about to found.
pub(crate) fn admit_group(tx: &Tx<'_>, user: Uid) -> Result<(), Fault> {
    let most = user_limits(tx, user)?.groups;
    if over(tx.store().founded(user)?, 1, most) {
        let text = format!(
            "you founded {} groups, which is your quota, left ones included; ask the trackers' operator for more",
            number(most)
        );
        return Err(refuse(RefusalKind::Limit, text));
    }
    Ok(())
}

/// The quota of the user of that client, or of a group for one of its members.
pub(crate) fn answer(tx: &Tx<'_>, (user, peer): (Uid, PeerId), group: Option<Gid>) -> Result<Answer, Fault> {
    let level = |used, most: u64| Level { used, most: Some(most).filter(|most| *most != u64::MAX) };
    let answer = match group {
        Some(group) => {
            let (usage, limits) = (tx.store().group_usage(group)?, group_limits(tx, group)?);
            let (files, bytes) = (level(usage.files, limits.files), level(usage.bytes, limits.bytes));
            QuotaAnswer { files, bytes, ..QuotaAnswer::default() }
        }
        None => {
            let (usage, limits) = (tx.store().usage(user)?, user_limits(tx, user)?);
            let clients = tx.store().shares_by_client(user, MAX_CLIENTS)?.into_iter();
            QuotaAnswer {
                files: level(usage.files, limits.files),
                bytes: level(usage.bytes, limits.bytes),
                groups: Some(level(tx.store().founded(user)?, limits.groups)),
                stored: Some(level(usage.stored, limits.stored)),
                clients: Some(
                    clients.map(|(of, files)| ClientShares { peer: of, files, own: of == peer }).collect(),
                ),
            }
        }
    };
    Ok(Answer::Quota(Box::new(answer)))
}

/// Bytes that a user may still store, in all copies; `None` is no limit.
pub(crate) fn room_for_stored(tx: &Tx<'_>, user: Uid) -> Result<Option<u64>, Fault> {
    let most = user_limits(tx, user)?.stored;
    Ok((most != u64::MAX).then_some(most.saturating_sub(tx.store().usage(user)?.stored)))
}

/// Bytes that one storage node may hold of a user: twice the quota, to have room for chunks that are not named yet or no longer.
pub(crate) fn node_allowance(tx: &Tx<'_>, user: Uid) -> Result<Option<u64>, Fault> {
    let most = user_limits(tx, user)?.stored;
    Ok((most != u64::MAX).then_some(most.saturating_mul(2)))
}

fn user_limits(tx: &Tx<'_>, user: Uid) -> Result<Limits, Fault> {
    Ok(USERS.with(quota(tx, QuotaOf::Users)?).with(quota(tx, QuotaOf::User(user))?))
}

fn group_limits(tx: &Tx<'_>, group: Gid) -> Result<Limits, Fault> {
    Ok(GROUPS.with(quota(tx, QuotaOf::Groups)?).with(quota(tx, QuotaOf::Group(group))?))
}

/// What operators set of one quota.
fn quota(tx: &Tx<'_>, of: QuotaOf) -> Result<Quota, Fault> {
    if let Some(quota) = tx.store().quota_noted(of) {
        return Ok(quota);
    }
    let quota = tx.store().live(QUOTA, &of.key())?.unwrap_or_default();
    tx.store().note_quota(of, quota);
    Ok(quota)
}

/// Whether more of something breaks a limit. No addition never does.
fn over(used: u64, more: u64, most: u64) -> bool {
    more > 0 && used.saturating_add(more) > most
}

fn check_user(usage: UserUsage, more: UserUsage, limits: Limits) -> Result<(), Fault> {
    let what = if over(usage.files, more.files, limits.files) {
        format!("your quota of {} files is used up", number(limits.files))
    } else if over(usage.bytes, more.bytes, limits.bytes) {
        format!(
            "your quota of {} for what the trackers keep of your files does not take this one; {} are used",
            size_text(limits.bytes),
            size_text(usage.bytes)
        )
    } else if over(usage.stored, more.stored, limits.stored) {
        format!(
            "your quota of {} of stored files, all copies counted, does not take this one of {}; {} are used",
            size_text(limits.stored),
            size_text(more.stored),
            size_text(usage.stored)
        )
    } else {
        return Ok(());
    };
    let text = format!(
        "{what}; stop sharing something, remove stored files, or ask the trackers' operator for more"
    );
    Err(refuse(RefusalKind::Limit, text))
}

fn admit_for_group(tx: &Tx<'_>, new: &NewShare<'_>) -> Result<(), Fault> {
    let (group, file, _) = new.of;
    let known = tx.store().file_usage(group, file)?;
    let kept = known.map_or(0, |(cost, _)| cost);
    let cost = new.file.unwrap_or(kept);
    let (files, bytes) = match known {
        Some((_, shares)) if shares > 0 => (0, cost.saturating_sub(kept)),
        _ => (1, cost),
    };
    let GroupUsage { files: has_files, bytes: has_bytes, .. } = tx.store().group_usage(group)?;
    let limits = group_limits(tx, group)?;
    let what = if over(has_files, files, limits.files) {
        format!("{} files", number(limits.files))
    } else if over(has_bytes, bytes, limits.bytes) {
        format!("{} for what the trackers keep of its files", size_text(limits.bytes))
    } else {
        return Ok(());
    };
    let text = format!(
        "the group's quota of {what} is used up; its members can stop sharing something, or ask the trackers' operator for more"
    );
    Err(refuse(RefusalKind::Limit, text))
}

/// A number as people read it: `20,000`.
fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_that_says_nothing_of_a_figure_leaves_it() {
        let all = USERS.with(Quota { files: Some(5), stored: Some(u64::MAX), ..Quota::default() });
        assert_eq!(all, Limits { files: 5, stored: u64::MAX, ..USERS });
        assert_eq!(all.with(Quota { files: Some(7), ..Quota::default() }).files, 7);
    }

    #[test]
    fn who_is_over_may_still_shrink_and_nobody_else_may_grow() {
        assert!(!over(10, 0, 5) && over(10, 1, 5) && over(5, 1, 5) && !over(4, 1, 5));
        assert!(!over(u64::MAX - 1, 1, u64::MAX) && over(1, u64::MAX, u64::MAX - 1));
        let more = UserUsage { files: 0, bytes: 0, stored: 0 };
        let all = UserUsage { files: u64::MAX, bytes: u64::MAX, stored: u64::MAX };
        assert!(check_user(all, more, USERS).is_ok());
    }

    #[test]
    fn numbers_have_commas() {
        assert_eq!(
            [0, 999, 1_000, 20_000, 1_234_567].map(number),
            ["0", "999", "1,000", "20,000", "1,234,567"]
        );
    }
}
