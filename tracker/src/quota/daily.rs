//! How much each user wrote lately. What is replaced or deleted stays on the trackers' disks for a day. So what a user writes
//! in a day is bounded too, not only what is there at its end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use shoal_common::Uid;

const DAY: Duration = Duration::from_secs(86_400);
/// How often a user may write the whole quota within a day: once to fill it, once more to rearrange all of it.
const TIMES: f64 = 2.0;
/// Users that are remembered, in some 3 MB. Those who may write most are forgotten first.
const MAX_USERS: usize = 50_000;

/// When each user may write the whole day's share again. It is in the past for those who wrote nothing lately.
#[derive(Debug, Default)]
pub(super) struct Daily(HashMap<Uid, Instant>);

impl Daily {
    /// Counts bytes that a user with that quota writes.
    ///
    /// # Errors
    /// How long to wait before that much may be written; nothing is counted then.
    pub(super) fn count(&mut self, user: Uid, bytes: u64, quota: u64, now: Instant) -> Result<(), Duration> {
        if quota == u64::MAX || bytes == 0 {
            return Ok(());
        }
        #[expect(clippy::cast_precision_loss, reason = "shares of a day need not be exact")]
        let share = (bytes as f64 / (quota.max(1) as f64 * TIMES)).min(1.0);
        let whole_at = self.0.get(&user).map_or(now, |at| (*at).max(now)) + DAY.mul_f64(share);
        if whole_at > now + DAY {
            return Err(whole_at - (now + DAY));
        }
        self.make_room(user, now);
        self.0.insert(user, whole_at);
        Ok(())
    }

    fn make_room(&mut self, user: Uid, now: Instant) {
        if self.0.len() < MAX_USERS || self.0.contains_key(&user) {
            return;
        }
        self.0.retain(|_, at| *at > now);
        if self.0.len() >= MAX_USERS
            && let Some(least) = self.0.iter().min_by_key(|(_, at)| **at).map(|(user, _)| *user)
        {
            self.0.remove(&least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_writes_the_quota_twice_a_day() {
        let (now, user) = (Instant::now(), Uid([1; 16]));
        let mut daily = Daily::default();
        for _ in 0..200 {
            daily.count(user, 999, 100_000, now).unwrap();
        }
        let wait = daily.count(user, 1_000, 100_000, now).unwrap_err();
        assert!(wait.as_secs().abs_diff(346) < 3, "{wait:?}");
        daily.count(Uid([2; 16]), 1_000, 100_000, now).unwrap();
        daily.count(user, 1_000, 100_000, now + wait + Duration::from_secs(3)).unwrap();
        for _ in 0..200 {
            daily.count(user, 999, 100_000, now + 3 * DAY).unwrap();
        }
        assert!(daily.count(user, 1_000, 100_000, now + 3 * DAY).is_err());
    }

    #[test]
    fn without_a_bound_nothing_is_counted_and_one_huge_thing_is_a_day() {
        let (now, user) = (Instant::now(), Uid([1; 16]));
        let mut daily = Daily::default();
        daily.count(user, u64::MAX, u64::MAX, now).unwrap();
        daily.count(user, u64::MAX, 1, now).unwrap();
        assert!(daily.count(user, 1, 0, now).is_err());
    }

    #[test]
    fn the_users_remembered_are_bounded_and_those_who_wrote_most_stay() {
        let now = Instant::now();
        let mut daily = Daily::default();
        let user = |number: usize| Uid((number as u128).to_be_bytes());
        daily.count(user(0), 100, 100, now).unwrap();
        for number in 1..=MAX_USERS {
            daily.count(user(number), 1, 100, now).unwrap();
        }
        assert_eq!(daily.0.len(), MAX_USERS);
        daily.count(user(0), 100, 100, now).unwrap();
        assert!(daily.count(user(0), 100, 100, now).is_err());
    }
}
