//! Every bound of this crate in one place, each with its reason.

/// A day in milliseconds.
pub(crate) const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// Largest encoded frame, in bytes. A reader may allocate this much for a peer it has not met yet.
pub const MAX_FRAME_BYTES: usize = 256 * 1024;
/// Longest key of a row, in bytes: fits a name or path of 255 bytes and two ids.
pub const MAX_KEY_BYTES: usize = 512;
/// Longest value of a row, in bytes. Anything bigger is a blob.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// Longest user or group name in a key, in bytes.
pub const MAX_NAME_BYTES: usize = 255;
/// Most blobs that one row may name.
pub const MAX_BLOBS_PER_ROW: usize = 16;
/// Largest blob, in bytes: twice the size of 100,000 piece digests of 20 bytes.
pub const MAX_BLOB_BYTES: usize = 4 * 1024 * 1024;
/// Length of a blob's chunk on the wire, in bytes: the most that a small record has to wait behind.
pub const BLOB_CHUNK_BYTES: usize = 64 * 1024;
/// Blobs fetched at once. Their parts are in memory, so this bounds them to 16 MiB.
pub const MAX_BLOB_FETCHES: usize = 4;
/// Chunks of one blob requested ahead: 256 KiB in flight per blob.
pub const BLOB_CHUNKS_AHEAD: usize = 4;
/// Missing blobs known by hash at a time. More are looked up when these have arrived.
pub const MAX_MISSING_BLOBS: usize = 1024;
/// Rows of a sync that may wait for their blobs before its sender gets no more credit.
pub const MAX_HELD_ROWS: usize = 256;
/// Most rows in one call of `write`.
pub const MAX_ROWS_PER_WRITE: usize = 64;
/// Most bytes of rows in one call of `write`, so that a transaction always fits one frame.
pub const MAX_WRITE_BYTES: usize = 160 * 1024;
/// Writes whose acknowledgement is outstanding; more are refused as busy.
pub const MAX_PENDING_WRITES: usize = 8192;
/// Most rows in one frame.
pub const MAX_ROWS_PER_FRAME: usize = 512;
/// Bytes of rows after which a sync's frame is full. One more row of the largest size still fits a frame.
pub const SYNC_FRAME_BYTES: usize = 96 * 1024;
/// Frames of a sync in flight at once.
pub const SYNC_CREDIT: u32 = 8;
/// Most frames of credit a puller may have given and not used.
pub const MAX_SYNC_CREDIT: u32 = 64;
/// Rows read from the store at a time.
pub const READ_ROWS: usize = 64;
/// LIVE transactions to one peer without an ACK; beyond these it falls back to a sync.
pub const LIVE_WINDOW_FRAMES: usize = 4096;
/// Bytes of LIVE transactions to one peer without an ACK.
pub const LIVE_WINDOW_BYTES: usize = 8 * 1024 * 1024;
/// Transactions received ahead of the vector and remembered until the gap before them closes.
pub const MAX_STORED_AHEAD: usize = 4096;
/// Most acknowledgements in one frame.
pub const MAX_ACKS_PER_FRAME: usize = 4096;
/// Writers (process starts of any tracker) that a vector may hold.
pub const MAX_WRITERS: usize = 16 * 1024;
/// Entries of a vector in one frame.
pub const VECTOR_ENTRIES_PER_FRAME: usize = 2048;
/// Buckets of the digest.
pub const BUCKETS: usize = 4096;
/// Most configured trackers.
pub const MAX_TRACKERS: usize = 64;

/// Interval of PINGs, in milliseconds.
pub const PING_MS: u64 = 1_000;
/// A peer silent for this long is dead, in milliseconds.
pub const DEAD_MS: u64 = 3_000;
/// A peer silent for this long while a write waits for it is disconnected, in milliseconds.
pub const SILENT_MS: u64 = 1_500;
/// A write waits for one peer at most this long, whatever else the peer sends, in milliseconds.
pub const ACK_MS: u64 = 10_000;
/// A peer has this long to complete its handshake after link-up, in milliseconds.
pub const INTRO_MS: u64 = 10_000;
/// A sync without progress for this long ends the link, in milliseconds.
pub const SYNC_STALL_MS: u64 = 5_000;
/// A peer that could not serve a sync is asked again after this long, in milliseconds.
pub const BUSY_RETRY_MS: u64 = 500;
/// Interval of DIGESTs, in milliseconds.
pub const DIGEST_MS: u64 = 10_000;
/// Interval of sweeps over tombstones and unnamed blobs, in milliseconds.
pub const SWEEP_MS: u64 = 60_000;
/// Rows that one sweep reads.
pub const SWEEP_ROWS: usize = 256;
/// A tombstone or an unnamed blob is kept at least this long, in milliseconds.
pub const TOMBSTONE_MS: u64 = DAY_MS;
/// Names voted on in one transaction.
pub const NAMES_PER_STEP: usize = 128;
/// Rows must have been beyond the vector for this long before they are adopted, in milliseconds.
pub const ORPHAN_MS: u64 = 5_000;
/// Rows of one dead writer that are adopted while a configured tracker is away.
pub const MAX_ORPHANS_ALONE: usize = 1024;
/// A row of a sync is taken without a blob that no connected tracker has had for this long, in milliseconds.
pub const BLOB_LOST_MS: u64 = 30_000;
/// Interval of lookups of missing blobs, in milliseconds.
pub const BLOB_RETRY_MS: u64 = 2_000;
/// Stamps further ahead of the wall clock than this never move the local clock, in milliseconds.
pub const MAX_CLOCK_LEAD_MS: u64 = 60_000;
/// Clock skew that raises a warning, in milliseconds.
pub const SKEW_WARNING_MS: u64 = 5_000;
/// Least interval of alarms about refused rows of one peer, in milliseconds.
pub const REFUSAL_ALARM_MS: u64 = 60_000;
/// A difference that refused rows explain is compared again after this long, in milliseconds: a time that was
/// too far ahead may not be any more.
pub const REFUSAL_RETRY_MS: u64 = 600 * 1_000;
/// A row's stamp may lie this far ahead, in milliseconds. Rows further ahead are not taken, and a peer whose
/// clock differs by more is not linked with. Two clocks that are wrong by five days each still work together
/// (a wrong date is the most common error). A later write wins over such a stamp, but nothing wins over the
/// last of all stamps.
pub const MAX_AHEAD_MS: u64 = 14 * DAY_MS;
/// A peer with a wrong clock is tried again after this long, in milliseconds: an operator may have set it.
pub const CLOCK_RETRY_MS: u64 = 5_000;
/// The least time that a sync may take, in milliseconds.
pub const SYNC_BASE_MS: u64 = 30_000;
/// Beyond that a sync may take as long as its rows and blobs need at this rate, in bytes per second: a very
/// slow line.
pub const SYNC_MIN_RATE: u64 = 16 * 1024;
/// A peer that requires a full sync and does not serve it is waited for this long, in milliseconds.
pub const FULL_SYNC_WAIT_MS: u64 = 60_000;
/// A held removal is tried again after this long, in milliseconds, doubled each time.
pub const HELD_RETRY_MS: u64 = 60_000;
/// The longest such time, in milliseconds.
pub const MAX_HELD_RETRY_MS: u64 = 3_600 * 1_000;
/// Rows that a full sync may leave out; beyond that an operator decides. Bounds memory to about 20 MiB.
pub const MAX_REMOVALS: usize = 256 * 1024;
/// Without another tracker to ask, one tracker's word may remove one of this many rows per day …
pub const SMALL_PART: u64 = 100;
/// … or this many, whichever is more.
pub const SMALL_ROWS: u64 = 10;
/// Rows that restamping reads in one transaction.
pub const RESTAMP_ROWS: usize = 1024;
/// If a writer sends this many PINGs while more of its rows are covered than it wrote, another tracker made
/// them up. More than a link that is blocked one way and still up ([`DEAD_MS`]) may deliver late at once.
pub const DOUBT_PINGS: u32 = 5;
/// A peer that did not acknowledge a write in time is not waited for during this time, in milliseconds,
/// doubled each time up to [`MAX_SHUN_MS`].
pub const UNWAITED_MS: u64 = 1_000;
/// A peer failed to acknowledge if its link ends after a write has waited for it for this long, in
/// milliseconds.
pub const ACK_SLOW_MS: u64 = 500;
/// A write waits at most this long for a peer that sends frames but neither acknowledges anything nor asks
/// for blobs, in milliseconds.
pub const ACK_IDLE_MS: u64 = 3_000;
/// After a failed sync with a peer none is started for this long, in milliseconds, doubled each time.
pub const SYNC_PAUSE_MS: u64 = 1_000;
/// The longest such time, in milliseconds.
pub const MAX_SYNC_PAUSE_MS: u64 = 60_000;
/// A sync that has stored nothing for this long ends, in milliseconds.
pub const SYNC_IDLE_MS: u64 = 600_000;
/// The same for full syncs, in milliseconds: most of their rows are held already.
pub const FULL_SYNC_IDLE_MS: u64 = 3_600 * 1_000;
/// Blobs fetched at once from one peer.
pub const MAX_BLOB_FETCHES_PER_PEER: usize = 2;
/// A blob's next chunk may take this long, in milliseconds.
pub const BLOB_CHUNK_MS: u64 = 5_000;
/// Writer ids that one peer may introduce per day. For its own starts it has twice as many.
pub const WRITERS_PER_DAY: u64 = 1024;
/// A tracker that started with an empty store takes this many times as many.
pub const BLANK_FACTOR: u64 = 16;
/// Bytes that one peer may cause to be written to this disk at once, beyond [`PEER_BYTES_PER_S`].
pub const PEER_BYTES_BURST: u64 = 1024 * 1024 * 1024;
/// Bytes that one peer may cause to be written to this disk per second in the long run: 3,000 small records.
pub const PEER_BYTES_PER_S: u64 = 1024 * 1024;
/// Bytes that one peer may cause to be written to this disk per day. Beyond that one frame per
/// [`MAX_READ_PAUSE_MS`] is taken.
pub const PEER_BYTES_PER_DAY: u64 = 16 * 1024 * 1024 * 1024;
/// The longest pause in reading from a peer that is over its budget, in milliseconds: its PINGs must still be
/// read.
pub const MAX_READ_PAUSE_MS: u64 = 1_000;
/// Least interval of equal alarms about one peer, in milliseconds.
pub const ALARM_PAUSE_MS: u64 = 60_000;
/// A peer's failures are forgotten after this long without another, in milliseconds.
pub const FORGIVE_MS: u64 = DAY_MS;
/// The longest time for which a peer is avoided after failures, in milliseconds.
pub const MAX_SHUN_MS: u64 = 3_600 * 1_000;
/// Buckets of a peer whose digest keeps differing are compared again after this long, in milliseconds,
/// doubled each time up to [`MAX_SHUN_MS`].
pub const REPAIR_PAUSE_MS: u64 = 10_000;
