//! What messages between peers cost, in units, and the budgets that they come out of. A unit is some ten microseconds of a
//! core. Data costs nothing, and a piece that was asked for and sent pays for its request.

use std::time::Duration;

use shoal_common::Layout;
use shoal_common::bucket::Allowance;
use shoal_common::limits::BLOCK;
use shoal_common::peer_wire::{ToRequester, ToServer};
use shoal_net::Tariff;

/// A ticket: its signature is verified.
const TICKET: u32 = 16;
/// A request: the upload scheduler runs. It is paid back with the piece. One that is put off by a seeder may come again after
/// 100 ms; so much is left for 32 of those.
const REQUEST: u32 = 4;
/// A cancellation: what was read from the disk is thrown away.
const CANCEL: u32 = 8;
/// A message that means nothing: of a channel that is not open, an empty announcement, or one of pieces that were announced
/// before. An honest requester sends the first when its messages cross with the end of a channel, the second every 30 s on
/// each channel, the third when it opens a file again.
pub(crate) const USELESS: u32 = 16;
/// What a server's message costs beside its price if it says nothing new: no more than a look at what is known already.
pub(crate) const NOTHING_NEW: u32 = 4;
/// Announced pieces for one unit.
const PIECES_PER_UNIT: usize = 64;
/// Pieces of a file for one unit when it is opened: the scheduler keeps a table of them, and drops it at the end.
const TABLE_PER_UNIT: u32 = 128;
/// Bytes of a message for one unit.
const BYTES_PER_UNIT: usize = 1024;

/// The budgets of a member. Pieces are announced one by one at worst, so a file of `MAX_PIECES` costs 100,000 units, and to
/// open it 800: the burst lets one such file pass on a connection, and two of a user, however fast they come. Our own
/// requesters announce what came within 25 ms in one message: at 10 Gbit/s 40 messages of 475 pieces of 64 KiB, which is 336
/// units per second, of 2,000 that come back.
pub(crate) const MEMBER: Tariff = Tariff {
    own: Allowance { burst: 120_000, refill: Duration::from_micros(500) },
    shared: Allowance { burst: 240_000, refill: Duration::from_micros(250) },
};
/// The budgets of a stranger and of its address. One opens a file or is refused, 64 times at most, with tickets of 16 units
/// and a bit; a network of 200 peers does so at once.
pub(crate) const STRANGER: Tariff = Tariff {
    own: Allowance { burst: 1_200, refill: Duration::from_millis(20) },
    shared: Allowance { burst: 20_000, refill: Duration::from_millis(1) },
};
/// The budgets of one server and of all from which we fetch. One that downloads itself announces as its requesters do; fifty
/// of those at 336 units per second are 16,800.
pub(crate) const SERVER: Tariff = Tariff {
    own: Allowance { burst: 120_000, refill: Duration::from_micros(500) },
    shared: Allowance { burst: 1_000_000, refill: Duration::from_micros(50) },
};
/// A block with fewer bytes costs a unit. Under a rate limit blocks have a KiB at least, but for the last of a piece.
pub(crate) const SMALL_BLOCK: u32 = 1024;

/// The price of a requester's message of that length.
pub(crate) fn of_request(message: &ToServer, length: usize) -> u32 {
    let units = match message {
        ToServer::Open { .. } | ToServer::Ticket { .. } => TICKET,
        ToServer::Request { .. } => REQUEST,
        ToServer::Cancel { .. } => CANCEL,
        ToServer::Have { pieces, .. } if pieces.is_empty() => USELESS,
        ToServer::Have { pieces, .. } => announced(pieces),
        ToServer::Close { .. } => 1,
    };
    units + bytes(length)
}

/// The price of opening a file, its end included.
pub(crate) fn of_table(layout: &Layout) -> u32 {
    layout.pieces() / TABLE_PER_UNIT
}

/// What a requester is given back for a piece of that length that it got.
pub(crate) fn earned(length: u32) -> u32 {
    REQUEST + length / BLOCK
}

/// The price of a server's message of that length.
pub(crate) fn of_answer(message: &ToRequester, length: usize) -> u32 {
    let units = match message {
        ToRequester::Have { pieces, .. } if pieces.is_empty() => USELESS,
        ToRequester::Have { pieces, .. } => announced(pieces),
        // Both make the download choose again.
        ToRequester::NotNow { .. } | ToRequester::Busy { .. } => REQUEST,
        ToRequester::Opened { .. } | ToRequester::Refused { .. } => 1,
    };
    units + bytes(length)
}

fn announced(pieces: &[u32]) -> u32 {
    1 + u32::try_from(pieces.len() / PIECES_PER_UNIT).unwrap_or(u32::MAX)
}

fn bytes(length: usize) -> u32 {
    u32::try_from(length / BYTES_PER_UNIT).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use shoal_common::limits::{MAX_PIECES, MIN_PIECE_LENGTH};

    use super::*;

    #[test]
    fn a_file_of_as_many_pieces_as_there_may_be_is_announced_piece_by_piece_within_the_burst() {
        let size = u64::from(MAX_PIECES) * u64::from(MIN_PIECE_LENGTH);
        let layout = Layout::new(size, MIN_PIECE_LENGTH).unwrap();
        let have = of_request(&ToServer::Have { channel: 1, pieces: vec![7] }, 12);
        let all = TICKET + of_table(&layout) + have * MAX_PIECES;
        assert!(all <= MEMBER.own.burst && 2 * all <= MEMBER.shared.burst, "{all}");
        let told = of_answer(&ToRequester::Have { channel: 1, pieces: vec![7] }, 12);
        assert!(told * MAX_PIECES <= SERVER.own.burst);
    }

    #[test]
    fn a_piece_pays_for_its_request_and_its_announcement() {
        let request = of_request(&ToServer::Request { channel: 1, piece: 1 }, 10);
        let have = of_request(&ToServer::Have { channel: 1, pieces: vec![1] }, 10);
        assert!(earned(MIN_PIECE_LENGTH) >= request + have);
    }
}
