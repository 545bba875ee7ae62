//! Who may create an account here: anyone, anyone with an invitation, or no one; and how many accounts one address may
//! create. The rates are this tracker's own. Invitations are records, so any tracker takes them.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use shoal_common::Blake3;
use shoal_common::bucket::{Allowance, Bucket, Buckets};
use shoal_common::tracker_api::{Refusal, RefusalKind};
use shoal_net::site;
use shoal_replica::{Rows, Write};

use crate::database::{Fault, Tx, refuse};
use crate::record::{INVITATION, Invitation, delete, put};

/// Who may create an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Registration {
    /// Anyone.
    #[default]
    Open,
    /// Anyone with an invitation: `invite_user` at a tracker's prompt.
    Invite,
    /// No one.
    Closed,
}

/// On what terms accounts are created at this tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Who may create one.
    pub who: Registration,
    /// How many one address may create at once; see [`PER_ADDRESS`].
    pub per_address: u32,
}

impl Default for Terms {
    fn default() -> Self {
        Self { who: Registration::Open, per_address: PER_ADDRESS }
    }
}

/// Accounts that one address may create at once: a school behind one address on its first day.
pub const PER_ADDRESS: u32 = 300;
/// Beyond that, one account in this time: 1,440 a day.
const REFILL: Duration = Duration::from_secs(60);
/// Accounts that all addresses together may create at once, and then one in [`REFILL_ALL`].
const BURST_ALL: u32 = 3_000;
/// See [`BURST_ALL`]: at most 86,400 a day, some 60 MB of records.
const REFILL_ALL: Duration = Duration::from_secs(1);
/// One IPv6 /48 may use up a quarter of the two above. It is handed out as one and has 65,536 /64.
const NETWORK_SHARE: u32 = 4;
/// Addresses that are remembered, in some 5 MB. Those that may create most are forgotten first.
const MAX_ADDRESSES: usize = 50_000;
/// Invitations that may be open at a time.
const MAX_INVITATIONS: usize = 10_000;
/// An invitation that is open for longer does not count. No operator can make one (366 days), and with it a tracker that lies
/// could fill all places for good.
const LONGEST_MS: u64 = 400 * 24 * 3_600_000;
/// Random bytes of an invitation: enough that it cannot be guessed.
const CODE_BYTES: usize = 16;

/// Why no account may be created now, and how long to wait before another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooMany {
    /// Many were created from that address, or from its network.
    There(Duration),
    /// Many were created from everywhere together.
    Everywhere(Duration),
}

/// How many accounts were created from where.
#[derive(Debug)]
pub struct Rates {
    per_address: u32,
    all: Bucket,
    sites: Buckets<IpAddr>,
    networks: Buckets<IpAddr>,
}

impl Rates {
    /// Rates of a tracker at which no account was created yet; one address may create so many at once.
    #[must_use]
    pub fn new(per_address: u32, now: Instant) -> Self {
        let none = Buckets::new(MAX_ADDRESSES);
        Self { per_address, all: Bucket::full(now), sites: none.clone(), networks: none }
    }

    /// Counts one account, unless it is one too many: then nothing is counted. This machine's own addresses are not limited.
    ///
    /// # Errors
    /// How long to wait before another try, and because of whom.
    pub fn count(&mut self, from: IpAddr, now: Instant) -> Result<(), TooMany> {
        if from.to_canonical().is_loopback() {
            return Ok(());
        }
        let (site, network) = (site(from), network(from));
        let of_all = Allowance { burst: BURST_ALL.max(self.per_address), refill: REFILL_ALL };
        let of_site = Allowance { burst: self.per_address, refill: REFILL };
        let of_network = Allowance {
            burst: (of_all.burst / NETWORK_SHARE).max(self.per_address),
            refill: REFILL_ALL * NETWORK_SHARE,
        };
        // All are looked at before any is written.
        let mut by_site = self.sites.of(site, now);
        by_site.take(1, of_site, now).map_err(TooMany::There)?;
        let mut by_network = network.map(|network| (network, self.networks.of(network, now)));
        if let Some((_, bucket)) = &mut by_network {
            bucket.take(1, of_network, now).map_err(TooMany::There)?;
        }
        self.all.take(1, of_all, now).map_err(TooMany::Everywhere)?;
        self.sites.set(site, by_site, now);
        if let Some((network, bucket)) = by_network {
            self.networks.set(network, bucket, now);
        }
        Ok(())
    }
}

/// The IPv6 /48 of an address: as much as one customer is usually given at most (RFC 6177).
fn network(ip: IpAddr) -> Option<IpAddr> {
    match ip.to_canonical() {
        IpAddr::V4(_) => None,
        IpAddr::V6(ip) => Some(Ipv6Addr::from_bits(ip.to_bits() >> 80 << 80).into()),
    }
}

/// Writes an invitation that is good for one account for so long, and returns its code.
///
/// # Errors
/// When too many are open, or the database fails.
pub fn invite(tx: &mut Tx<'_>, life: Duration) -> Result<String, Fault> {
    let now_ms = tx.now().wall_ms;
    let rows = tx.store().scan(INVITATION, &[], None, 2 * MAX_INVITATIONS)?;
    let live = rows.iter().filter(|row| !row.tombstone);
    let (open, over): (Vec<_>, Vec<_>) = live.partition(|row| is_open(&row.value, now_ms));
    if open.len() >= MAX_INVITATIONS {
        return Err(refuse(
            RefusalKind::Limit,
            format!("{MAX_INVITATIONS} invitations are open, which is the most"),
        ));
    }
    let mut code = [0; CODE_BYTES];
    getrandom::fill(&mut code).expect("the system provides randomness");
    let code = bs58::encode(code).into_string();
    let until_ms = now_ms.saturating_add(u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
    let mut writes = vec![put(INVITATION, key(&code), &Invitation { until_ms })];
    writes.extend(over.iter().take(16).map(|row| delete(INVITATION, row.key.clone())));
    tx.write(writes)?;
    Ok(code)
}

/// Checks whether an account of that name may be created now from there. Returns what is to be written with it.
///
/// # Errors
/// Why it may not, and what to do.
pub fn admit(
    tx: &Tx<'_>,
    registration: Registration,
    rates: &mut Rates,
    from: IpAddr,
    (code, name): (Option<&str>, &str),
) -> Result<Option<Write>, Fault> {
    let write = match registration {
        Registration::Closed => {
            let text = "no accounts are created here; ask the trackers' operator";
            return Err(refuse(RefusalKind::NotAllowed, text));
        }
        Registration::Invite => Some(redeem(tx, code, name)?),
        Registration::Open => None,
    };
    rates.count(from, Instant::now()).map_err(|too_many| {
        let (wait, whence) = match too_many {
            TooMany::There(wait) => (wait, "from your address or network"),
            TooMany::Everywhere(wait) => (wait, "at this tracker, from everywhere together,"),
        };
        let seconds = wait.as_secs() + 1;
        let text = format!("too many accounts were created {whence} lately; try again in {seconds} s");
        Fault::Refused(Refusal::new(RefusalKind::Wait, text).retry_after(wait))
    })?;
    Ok(write)
}

/// What uses an invitation up. Each tracker decides alone: one that is used at several trackers in the same moment is good at
/// each of them.
fn redeem(tx: &Tx<'_>, code: Option<&str>, name: &str) -> Result<Write, Fault> {
    let Some(code) = code else {
        let text = format!(
            "accounts are created by invitation here; ask a tracker's operator for a code, then: create_user {name} --invite CODE"
        );
        return Err(refuse(RefusalKind::NotAllowed, text));
    };
    let row = tx.store().get(INVITATION, &key(code))?.filter(|row| !row.tombstone);
    match row {
        Some(row) if is_open(&row.value, tx.now().wall_ms) => Ok(delete(INVITATION, row.key)),
        _ => {
            let text =
                "that invitation is not known, was used, or is too old; ask a tracker's operator for another";
            Err(refuse(RefusalKind::NotAllowed, text))
        }
    }
}

fn is_open(value: &[u8], now_ms: u64) -> bool {
    minicbor::decode::<Invitation>(value).is_ok_and(|invitation| {
        invitation.until_ms > now_ms && invitation.until_ms <= now_ms.saturating_add(LONGEST_MS)
    })
}

/// Trackers keep the hash of a code, so that a stolen disk does not give it away.
fn key(code: &str) -> Vec<u8> {
    Blake3::of(&[b"shoal invitation 1\0", code.trim().as_bytes()].concat()).0[..16].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_creates_many_accounts_at_once_and_then_few() {
        let start = Instant::now();
        let mut rates = Rates::new(PER_ADDRESS, start);
        for _ in 0..PER_ADDRESS {
            rates.count(ip("203.0.113.7"), start).unwrap();
        }
        assert_eq!(rates.count(ip("203.0.113.7"), start), Err(TooMany::There(REFILL)));
        let mapped = ip("::ffff:203.0.113.7");
        assert_eq!(rates.count(mapped, start), Err(TooMany::There(REFILL)), "the same address");
        rates.count(ip("203.0.113.8"), start).unwrap();
        rates.count(ip("203.0.113.7"), start + REFILL).unwrap();
        assert!(rates.count(ip("203.0.113.7"), start + REFILL).is_err());
    }

    #[test]
    fn an_ipv6_subscriber_is_one_address() {
        let start = Instant::now();
        let mut rates = Rates::new(PER_ADDRESS, start);
        for host in 0..PER_ADDRESS {
            rates.count(ip(&format!("2001:db8:1:2::{host:x}")), start).unwrap();
        }
        assert!(rates.count(ip("2001:db8:1:2:ffff::1"), start).is_err());
        rates.count(ip("2001:db8:1:3::1"), start).unwrap();
    }

    #[test]
    fn many_addresses_together_are_limited_and_this_machine_is_not() {
        let start = Instant::now();
        let mut rates = Rates::new(PER_ADDRESS, start);
        for number in 0..BURST_ALL {
            rates.count(IpAddr::from(number.to_be_bytes().map(|byte| byte | 0x40)), start).ok();
            rates.count(ip("127.0.0.1"), start).unwrap();
            rates.count(ip("::1"), start).unwrap();
        }
        let mut taken = 0;
        for number in 0..2 * BURST_ALL {
            taken +=
                u32::from(rates.count(IpAddr::from((0x0a00_0000 + number).to_be_bytes()), start).is_ok());
        }
        assert!(taken < BURST_ALL, "{taken}");
        assert!(rates.sites.len() <= MAX_ADDRESSES);
        // Those that were turned away are not remembered, and it is not said to be their doing.
        let before = rates.sites.len();
        assert_eq!(rates.count(ip("192.0.2.1"), start), Err(TooMany::Everywhere(REFILL_ALL)));
        assert_eq!(rates.sites.len(), before);
    }

    #[test]
    fn one_customer_of_ipv6_does_not_use_up_what_all_have() {
        let start = Instant::now();
        let mut rates = Rates::new(PER_ADDRESS, start);
        // A customer's /56 has 256 /64; another provider's /48 has 65,536.
        let from = |subnet: u32, host: u32| ip(&format!("2001:db8:1:{subnet:x}::{host:x}"));
        let mut taken = 0;
        for subnet in 0..256 {
            for host in 0..PER_ADDRESS {
                taken += u32::from(rates.count(from(subnet, host), start).is_ok());
            }
        }
        assert_eq!(taken, BURST_ALL / NETWORK_SHARE);
        rates.count(ip("203.0.113.7"), start).unwrap();
        rates.count(ip("2001:db8:2::1"), start).unwrap();
        let wait = REFILL_ALL * NETWORK_SHARE;
        assert_eq!(rates.count(from(255, 1), start), Err(TooMany::There(wait)));
        rates.count(from(255, 1), start + wait).unwrap();
    }

    #[test]
    fn tries_that_come_to_nothing_cost_nothing() {
        let start = Instant::now();
        let mut rates = Rates::new(PER_ADDRESS, start);
        for number in 0..BURST_ALL {
            rates.count(IpAddr::from((0x0a00_0000 + number).to_be_bytes()), start).unwrap();
        }
        for _ in 0..2 * PER_ADDRESS {
            assert_eq!(rates.count(ip("192.0.2.1"), start), Err(TooMany::Everywhere(REFILL_ALL)));
        }
        rates.count(ip("192.0.2.1"), start + REFILL_ALL).unwrap();
        // As good as if it had not asked before.
        for _ in 1..PER_ADDRESS {
            rates.all = Bucket::full(start);
            rates.count(ip("192.0.2.1"), start + REFILL_ALL).unwrap();
        }
    }
}
