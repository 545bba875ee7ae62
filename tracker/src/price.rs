//! What a client's calls cost, in units, and the budgets that they come out of: a connection's own, and its user's or, of
//! strangers, its address'. A unit is some 300 microseconds of a core.

use std::time::Duration;

use shoal_common::bucket::Allowance;
use shoal_common::tracker_api::{Answer, Call, Reply};
use shoal_net::Tariff;

/// A session begins or is renewed: a ticket is signed for each of the user's groups.
const SESSION: u32 = 4;
/// A list of accounts, groups or files is read.
const LIST: u32 = 2;
/// Users or groups in an answer for one unit: each is named by the claims on its name.
const ENTRIES_PER_UNIT: usize = 16;
/// Bytes of a call, or of an answer, for one unit: a piece list of the largest file costs 31.
const BYTES_PER_UNIT: usize = 64 * 1024;

/// The budgets of a client that is logged in, and of its user. A client that shares or downloads ten thousand files at once
/// makes some twenty thousand calls; after that, a thousand per second come back, which is more than a client makes and a
/// third of a core.
pub const MEMBER: Tariff = Tariff {
    own: Allowance { burst: 20_000, refill: Duration::from_millis(1) },
    shared: Allowance { burst: 40_000, refill: Duration::from_millis(1) },
};
/// The budgets of a storage node: it reports every 400 ms, and more often while it gets chunks.
pub const NODE: Tariff = Tariff {
    own: Allowance { burst: 20_000, refill: Duration::from_millis(1) },
    shared: Allowance { burst: 20_000, refill: Duration::from_millis(1) },
};
/// The budgets of a connection without a login, and of all of those from one address. One comes, is asked for a password and
/// logs in with three calls, or resumes with two: six units. A university's sixteen thousand clients behind one address, as
/// many as a tracker takes, do so at once after a restart.
pub const STRANGER: Tariff = Tariff {
    own: Allowance { burst: 500, refill: Duration::from_millis(10) },
    shared: Allowance { burst: 100_000, refill: Duration::from_millis(1) },
};

/// The price of a call of that length.
#[must_use]
pub fn of_call(call: &Call, length: usize) -> u32 {
    let units = match call {
        Call::Login { .. } | Call::Resume { .. } | Call::Renew | Call::ChangePassword { .. } => SESSION,
        Call::ListGroups { .. }
        | Call::ListFiles { .. }
        | Call::ListMembers { .. }
        | Call::ListRequests { .. }
        | Call::Sessions => LIST,
        _ => 1,
    };
    units + of_bytes(length)
}

/// The price of an answer of that length.
#[must_use]
pub fn of_answer(reply: &Reply, length: usize) -> u32 {
    let entries = match reply {
        Reply::Done(Answer::Users { users, .. }) => users.len(),
        Reply::Done(Answer::Groups { groups, .. }) => groups.len(),
        _ => 0,
    };
    of_bytes(length) + u32::try_from(entries / ENTRIES_PER_UNIT).unwrap_or(u32::MAX)
}

fn of_bytes(length: usize) -> u32 {
    u32::try_from(length / BYTES_PER_UNIT).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::UserName;
    use shoal_common::tracker_api::UserEntry;

    #[test]
    fn a_list_costs_what_is_on_it() {
        let user = UserEntry { name: UserName::create("ann").unwrap(), provisional: false };
        let list = |length| Reply::Done(Answer::Users { users: vec![user.clone(); length], more: false });
        assert_eq!([0, 10, 1_000].map(|length| of_answer(&list(length), 10 * length)), [0, 0, 62]);
        assert_eq!(of_answer(&Reply::Done(Answer::Ok), BYTES_PER_UNIT), 1);
    }
}
