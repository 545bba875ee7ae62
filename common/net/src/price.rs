//! What others may make us do: every message has a price in units, and comes out of a budget of its connection and one that
//! the connections of its user, or of an address, share. An overdraft is slowed, and closed if it lasts.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_common::bucket::{Allowance, Bucket, Buckets};
use shoal_common::{PeerId, Uid};
use tokio::time::Instant;

use crate::address::site;

/// A connection that has been overdrawn for so long is closed: by then it is no misunderstanding.
const PATIENCE: Duration = Duration::from_secs(20);
/// A connection is no longer overdrawn when this part of its budget is there again.
const RECOVERED: u32 = 8;
/// Debts are paid in pauses of this length at least: timers are no finer than a millisecond.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// What a stranger may ask for whatever others at its address do: enough to open three files or to log in. It costs us no more
/// than its handshake did.
const FIRST: u32 = 64;
/// Users and addresses whose budgets are remembered, in some 500 kB.
const MAX_PAYERS: usize = 8_192;

/// Whose connections share a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Payer {
    /// Those from an address: of strangers.
    Address(IpAddr),
    /// Those of a user.
    User(Uid),
    /// Those of a peer that is no user's.
    Peer(PeerId),
    /// All.
    All,
}

impl Payer {
    /// The strangers at an address: an IPv4 address or an IPv6 /64.
    #[must_use]
    pub fn address(ip: IpAddr) -> Self {
        Self::Address(site(ip))
    }
}

/// The budgets of a connection and of all that share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tariff {
    /// Of each connection.
    pub own: Allowance,
    /// Of those that share one.
    pub shared: Allowance,
}

/// The connection asked for too much for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many messages for too long")]
pub struct Overdrawn;

/// The budgets that connections share. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Budgets(Arc<Mutex<Buckets<Payer>>>);

impl Default for Budgets {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Buckets::new(MAX_PAYERS))))
    }
}

impl Budgets {
    /// The budget of a connection that shares this payer's.
    #[must_use]
    pub fn connection(&self, payer: Payer, tariff: Tariff) -> MessageBudget {
        let own = Bucket::full(now());
        MessageBudget { own, payer, tariff, budgets: self.clone(), overdrawn_since: None }
    }

    fn change<T>(&self, payer: Payer, change: impl FnOnce(&mut Bucket) -> T) -> T {
        let (mut buckets, now) = (self.buckets(), now());
        let mut bucket = buckets.of(payer, now);
        let result = change(&mut bucket);
        buckets.set(payer, bucket, now);
        result
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets<Payer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The budget of one connection, and its part in a shared one.
#[derive(Debug)]
pub struct MessageBudget {
    own: Bucket,
    payer: Payer,
    tariff: Tariff,
    budgets: Budgets,
    overdrawn_since: Option<Instant>,
}

impl MessageBudget {
    /// From now on that payer's budget is charged, by that tariff.
    pub fn is_paid_by(&mut self, payer: Payer, tariff: Tariff) {
        if (self.payer, self.tariff) != (payer, tariff) {
            (self.payer, self.tariff) = (payer, tariff);
            self.own = Bucket::full(now());
        }
    }

    /// Charges for a message, and waits until an overdraft is paid. Dropped, it has charged.
    ///
    /// # Errors
    /// When the connection has been overdrawn for long: it is to be closed.
    pub async fn charge(&mut self, units: u32) -> Result<(), Overdrawn> {
        let wait = self.take(units)?;
        if wait >= SHORTEST_PAUSE {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Charges for what was done already; the next message is waited for if that is an overdraft.
    pub fn owe(&mut self, units: u32) {
        let (now, Tariff { own, shared }) = (now(), self.tariff);
        if units > 0 {
            let _ = self.own.charge(units, own, now);
            let _ = self.budgets.change(self.payer, |bucket| bucket.charge(units, shared, now));
        }
    }

    /// Gives units back, for what is of use to us or was asked for.
    pub fn put_back(&mut self, units: u32) {
        let (now, Tariff { own, shared }) = (now(), self.tariff);
        if units > 0 && self.own.spent(own, now) > 0 {
            self.own.put_back(units, own, now);
            self.budgets.change(self.payer, |bucket| bucket.put_back(units, shared, now));
        }
    }

    fn take(&mut self, units: u32) -> Result<Duration, Overdrawn> {
        let (now, Tariff { own, shared }) = (now(), self.tariff);
        let owed = self.own.charge(units, own, now);
        let together = self.budgets.change(self.payer, |bucket| bucket.charge(units, shared, now));
        let spent = self.own.spent(own, now);
        // One connection among many of all kinds of peers is not slowed for what the others do.
        let spares = match self.payer {
            Payer::All => spent < own.burst / 2,
            Payer::Address(_) => spent <= FIRST,
            Payer::User(_) | Payer::Peer(_) => false,
        };
        let wait = if spares { owed } else { owed.max(together) };
        if wait.is_zero() {
            if spent <= own.burst - own.burst / RECOVERED {
                self.overdrawn_since = None;
            }
            return Ok(wait);
        }
        let since = *self.overdrawn_since.get_or_insert_with(Instant::now);
        if since.elapsed() > PATIENCE { Err(Overdrawn) } else { Ok(wait) }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARIFF: Tariff = Tariff {
        own: Allowance { burst: 100, refill: Duration::from_millis(10) },
        shared: Allowance { burst: 150, refill: Duration::from_millis(5) },
    };
    const USER: Payer = Payer::User(Uid([1; 16]));

    /// How many units pass within that time.
    async fn passed(budget: &mut MessageBudget, time: Duration) -> u32 {
        let (end, mut passed) = (Instant::now() + time, 0);
        while tokio::time::timeout_at(end, budget.charge(1)).await.is_ok_and(|charged| charged.is_ok()) {
            passed += 1;
        }
        passed
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_slowed_to_its_rate_and_in_the_end_closed() {
        let mut budget = Budgets::default().connection(USER, TARIFF);
        let passed = passed(&mut budget, Duration::from_secs(10)).await;
        assert!((1_050..1_110).contains(&passed), "{passed}");
        let start = Instant::now();
        let closed = async { while budget.charge(1).await.is_ok() {} };
        closed.await;
        assert!(start.elapsed() > PATIENCE / 4 && start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_pays_for_an_overdraft() {
        let mut budget = Budgets::default().connection(USER, TARIFF);
        for _ in 0..10 {
            passed(&mut budget, Duration::from_secs(15)).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(budget.charge(1).await, Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_connections_of_a_user_share_a_budget_also_one_after_the_other() {
        let budgets = Budgets::default();
        let many = (0..10).map(|_| {
            let mut budget = budgets.connection(USER, TARIFF);
            tokio::spawn(async move { passed(&mut budget, Duration::from_secs(10)).await })
        });
        let mut all = 0;
        for task in many.collect::<Vec<_>>() {
            all += task.await.unwrap();
        }
        assert!((2_100..2_400).contains(&all), "{all}");
        let mut again = budgets.connection(USER, TARIFF);
        assert!(
            passed(&mut again, Duration::from_millis(100)).await < 50,
            "a new connection is no new budget"
        );
        let mut other = budgets.connection(Payer::User(Uid([2; 16])), TARIFF);
        assert!(passed(&mut other, Duration::from_millis(100)).await >= 100);
    }

    #[tokio::test(start_paused = true)]
    async fn of_all_connections_only_those_are_slowed_that_cause_it() {
        let budgets = Budgets::default();
        let tariff = Tariff { own: Allowance { burst: 1_000, ..TARIFF.own }, ..TARIFF };
        let mut flood = budgets.connection(Payer::All, tariff);
        assert!(passed(&mut flood, Duration::from_secs(2)).await < 1_000);
        let mut honest = budgets.connection(Payer::All, tariff);
        let start = Instant::now();
        honest.charge(10).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_gets_in_whatever_others_at_its_address_do() {
        let budgets = Budgets::default();
        let address = Payer::address([203, 0, 113, 7].into());
        let tariff = Tariff { own: Allowance { burst: 1_000, ..TARIFF.own }, ..TARIFF };
        let mut flood = budgets.connection(address, tariff);
        assert!(passed(&mut flood, Duration::from_secs(2)).await < 600);
        let mut honest = budgets.connection(address, tariff);
        let start = Instant::now();
        for _ in 0..3 {
            honest.charge(17).await.unwrap();
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        honest.charge(17).await.unwrap();
        assert!(start.elapsed() > Duration::ZERO, "then it waits like the others");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_of_use_costs_nothing() {
        let mut budget = Budgets::default().connection(USER, TARIFF);
        let start = Instant::now();
        for _ in 0..10_000 {
            budget.charge(2).await.unwrap();
            budget.put_back(2);
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
