//! Every bound of this crate in one place, each with its reason.

/// Largest encoded frame, in bytes. A reader may allocate this much for a peer it has not met yet.
pub const MAX_FRAME_BYTES: usize = 256 * 1024;
/// Longest key of a row, in bytes: a name or path of 255 bytes with two ids beside it fits with room.
pub const MAX_KEY_BYTES: usize = 512;
/// Longest value of a row, in bytes. Anything bigger is a blob.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// Longest user or group name in a key, in bytes.
pub const MAX_NAME_BYTES: usize = 255;
/// Most blobs that one row may name.
pub const MAX_BLOBS_PER_ROW: usize = 16;
/// Largest blob, in bytes: 100,000 piece digests of 20 bytes, with as much again to spare.
pub const MAX_BLOB_BYTES: usize = 4 * 1024 * 1024;
/// Length of a blob's chunk on the wire, in bytes: what a small record may have to wait behind.
pub const BLOB_CHUNK_BYTES: usize = 64 * 1024;
/// Blobs fetched at once. Their parts are in memory, so this bounds it to 16 MiB.
pub const MAX_BLOB_FETCHES: usize = 4;
/// Chunks of one blob requested ahead: 256 KiB in flight a blob.
pub const BLOB_CHUNKS_AHEAD: usize = 4;
/// Missing blobs known by hash at a time; more are looked up again when these have come.
pub const MAX_MISSING_BLOBS: usize = 1024;
/// Rows of a round that wait for their blobs, from which on its sender is not given more credit.
pub const MAX_HELD_ROWS: usize = 256;
/// Most rows in one call of `write`.
pub const MAX_ROWS_PER_WRITE: usize = 64;
/// Most bytes of rows in one call of `write`, so that a transaction always travels as one frame.
pub const MAX_WRITE_BYTES: usize = 160 * 1024;
/// Writes whose acknowledgement is outstanding; more are refused as busy.
pub const MAX_PENDING_WRITES: usize = 8192;
/// Most rows in one frame.
pub const MAX_ROWS_PER_FRAME: usize = 512;
/// Bytes of rows after which a round's frame is full. One more row of the largest size still fits a frame.
pub const ROUND_FRAME_BYTES: usize = 96 * 1024;
/// Frames of a round on their way at once.
pub const ROUND_CREDIT: u32 = 8;
/// Most frames of credit a puller may have given and not used.
pub const MAX_ROUND_CREDIT: u32 = 64;
/// Rows read from the store at a time.
pub const READ_ROWS: usize = 64;
/// LIVE transactions to one peer without an ACK; beyond these it falls back to a round.
pub const LIVE_WINDOW_FRAMES: usize = 4096;
/// Bytes of LIVE transactions to one peer without an ACK.
pub const LIVE_WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// Transactions received ahead of the vector and remembered until the gap before them closes.
pub const MAX_STORED_AHEAD: usize = 4096;
/// Most acknowledgements in one frame.
pub const MAX_ACKS_PER_FRAME: usize = 4096;
/// Origins (process starts of any tracker) that a vector may hold.
pub const MAX_ORIGINS: usize = 16 * 1024;
/// Entries of a vector in one frame.
pub const VECTOR_ENTRIES_PER_FRAME: usize = 2048;
/// Buckets of the digest.
pub const BUCKETS: usize = 4096;
/// Most configured trackers.
pub const MAX_TRACKERS: usize = 64;

/// A PING goes out this often, in milliseconds.
pub const PING_MS: u64 = 1_000;
/// A peer silent for this long is dead, in milliseconds.
pub const DEAD_MS: u64 = 3_000;
/// A peer silent for this long while a write waits for it is disconnected, in milliseconds.
pub const SILENT_MS: u64 = 1_500;
/// A write waits for one peer at most this long, however talkative it is, in milliseconds.
pub const ACK_MS: u64 = 10_000;
/// A peer has this long to introduce itself after link-up, in milliseconds.
pub const INTRO_MS: u64 = 10_000;
/// A round without progress for this long ends the link, in milliseconds.
pub const ROUND_STALL_MS: u64 = 5_000;
/// A peer that could not serve a round is asked again after this long, in milliseconds.
pub const BUSY_RETRY_MS: u64 = 500;
/// DIGESTs go out this often, in milliseconds.
pub const DIGEST_MS: u64 = 10_000;
/// Tombstones and unnamed blobs are looked through this often, in milliseconds.
pub const SWEEP_MS: u64 = 60_000;
/// Rows that one sweep looks at.
pub const SWEEP_ROWS: usize = 256;
/// A tombstone or an unnamed blob is kept at least this long, in milliseconds.
pub const TOMBSTONE_MS: u64 = 24 * 3_600 * 1_000;
/// Names voted on in one transaction.
pub const NAMES_PER_STEP: usize = 128;
/// Rows beyond the vector must have been so for this long before they are adopted, in milliseconds.
pub const ORPHAN_MS: u64 = 5_000;
/// Rows of one dead origin that are adopted while a configured tracker is away.
pub const MAX_ORPHANS_ALONE: usize = 1024;
/// A row of a round is taken without a blob that no connected tracker has had for this long, in milliseconds.
pub const BLOB_LOST_MS: u64 = 30_000;
/// Missing blobs are looked up again this often, in milliseconds.
pub const BLOB_RETRY_MS: u64 = 2_000;
/// Stamps further ahead of the wall clock than this never move the local clock, in milliseconds.
pub const MAX_CLOCK_LEAD_MS: u64 = 60_000;
/// Clock skew from which on a warning is given, in milliseconds.
pub const SKEW_WARNING_MS: u64 = 5_000;
/// Rows that a peer sends and that are refused raise an alarm this often at most, in milliseconds; so does every other
/// complaint about one peer.
pub const REFUSAL_ALARM_MS: u64 = 60_000;
/// A difference that refused rows explain is compared again after this long, in milliseconds: what was too far ahead may not
/// be any more.
pub const REFUSAL_RETRY_MS: u64 = 600 * 1_000;
/// A row's stamp may lie this far ahead, in milliseconds; further ahead it is not taken, and a peer whose clock differs by
/// more is not linked with. Two clocks that are wrong by five days each way still work together (a wrong date is the
/// commonest of wrong clocks). A later write wins over such a stamp anyway; over the last stamp of all nothing wins.
pub const MAX_AHEAD_MS: u64 = 14 * 24 * 3_600 * 1_000;
/// A peer with a wrong clock is looked at again after this long, in milliseconds: an operator may have set it.
pub const CLOCK_RETRY_MS: u64 = 5_000;
/// A round may take this long in any case, in milliseconds.
pub const ROUND_BASE_MS: u64 = 30_000;
/// And as long as its rows and blobs take at this rate, in bytes per second: a very slow line.
pub const ROUND_MIN_RATE: u64 = 16 * 1024;
/// A peer that says that everything has to be compared with it, and does not serve that, is waited for this long, in
/// milliseconds.
pub const FRESH_WAIT_MS: u64 = 60_000;
/// A removal that is held back is tried again after this long, in milliseconds; twice as long after each further time.
pub const HELD_RETRY_MS: u64 = 60_000;
/// The longest such time, in milliseconds.
pub const MAX_HELD_RETRY_MS: u64 = 3_600 * 1_000;
/// Rows that a round of everything may leave out; with more an operator decides. Bounds memory to some 20 MiB.
pub const MAX_REMOVALS: usize = 256 * 1024;
/// With nobody else to ask, one tracker's word may remove one of this many rows in a day …
pub const SMALL_PART: u64 = 100;
/// … or this many, whichever is more.
pub const SMALL_ROWS: u64 = 10;
/// Rows that restamping looks at in one transaction.
pub const RESTAMP_ROWS: usize = 1024;
/// So many signs of life in a row of a writer whose rows are covered beyond what it wrote show that somebody made them up.
/// More than a link that is blocked one way and still stands ([`DEAD_MS`]) may bring late at once.
pub const DOUBT_PINGS: u32 = 5;
/// A peer that did not acknowledge a write in time is not waited for during this time, in milliseconds; twice as long after
/// each further time, up to [`MAX_SHUN_MS`].
pub const UNWAITED_MS: u64 = 1_000;
/// A link that ends while a write has waited for it for this long failed to acknowledge it, in milliseconds, whatever it ends by.
pub const ACK_SLOW_MS: u64 = 500;
/// A write waits for a talkative peer that neither acknowledges anything nor asks for blobs at most this long, in
/// milliseconds.
pub const ACK_IDLE_MS: u64 = 3_000;
/// A peer whose round came to nothing is not pulled from for this long, in milliseconds; twice as long after each further
/// time.
pub const PULL_PAUSE_MS: u64 = 1_000;
/// The longest such time, in milliseconds.
pub const MAX_PULL_PAUSE_MS: u64 = 60_000;
/// A round that has stored nothing for this long ends, whatever it sends, in milliseconds.
pub const ROUND_IDLE_MS: u64 = 600_000;
/// The same for rounds of everything, of which most is held already, in milliseconds.
pub const FRESH_IDLE_MS: u64 = 3_600 * 1_000;
/// Blobs fetched at once from one peer.
pub const MAX_BLOB_FETCHES_PER_PEER: usize = 2;
/// A blob's next chunk may take this long, in milliseconds.
pub const BLOB_CHUNK_MS: u64 = 5_000;
/// Writer ids that one peer may bring in a day; and twice as many of its own starts.
pub const WRITERS_PER_DAY: u64 = 1024;
/// A tracker that began empty takes this many times as many: it has everything to learn.
pub const BLANK_FACTOR: u64 = 16;
/// Bytes that one peer may have written to this disk at once, beyond [`PEER_BYTES_PER_S`].
pub const PEER_BYTES_BURST: u64 = 1024 * 1024 * 1024;
/// Bytes that one peer may have written to this disk per second in the long run: 3,000 small records.
pub const PEER_BYTES_PER_S: u64 = 1024 * 1024;
/// Bytes that one peer may have written to this disk in a day; beyond that one frame per [`MAX_READ_PAUSE_MS`] is taken.
pub const PEER_BYTES_PER_DAY: u64 = 16 * 1024 * 1024 * 1024;
/// The longest pause in reading from a peer that is over its budget, in milliseconds: its signs of life must be heard.
pub const MAX_READ_PAUSE_MS: u64 = 1_000;
/// An alarm about one peer is repeated this often at most, in milliseconds.
pub const ALARM_PAUSE_MS: u64 = 60_000;
/// After this long without another, what a peer did wrong is forgotten, in milliseconds.
pub const FORGIVE_MS: u64 = 24 * 3_600 * 1_000;
/// The longest time for which a peer is not asked again for what came to nothing, in milliseconds.
pub const MAX_SHUN_MS: u64 = 3_600 * 1_000;
/// Buckets of a peer whose digest differs again and again are compared after this long, in milliseconds; twice as long after
/// each further time, up to [`MAX_SHUN_MS`].
pub const REPAIR_PAUSE_MS: u64 = 10_000;
