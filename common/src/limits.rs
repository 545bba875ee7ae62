//! Every bound that both ends of a wire must share, each with its reason.

/// Pieces of one file at most: 100,000 digests of 20 bytes are a piece list of 2 MB.
pub const MAX_PIECES: u32 = 100_000;
/// Smallest piece: small files spread faster in many pieces (see the swarm model in ARCHITECTURE.md).
pub const MIN_PIECE_LENGTH: u32 = 64 * 1024;
/// Largest piece in common use; only files over 100,000 pieces of this length get longer ones.
pub const USUAL_MAX_PIECE_LENGTH: u32 = 1024 * 1024;
/// Largest piece of all: two of them still fit the engine's pool of buffers.
pub const MAX_PIECE_LENGTH: u32 = 16 * 1024 * 1024;
/// Longest file: `MAX_PIECES` of the largest pieces, 1.6 TB.
pub const MAX_FILE_SIZE: u64 = MAX_PIECES as u64 * MAX_PIECE_LENGTH as u64;

/// Files and empty folders of one folder at most: a file has a piece of its own.
pub const MAX_FOLDER_ENTRIES: usize = MAX_PIECES as usize;
/// Longest path within a folder in bytes: a quarter of what systems take (`PATH_MAX`), so that there is room for where it lies.
pub const MAX_FOLDER_PATH_BYTES: usize = 1_024;
/// Names in such a path at most.
pub const MAX_FOLDER_DEPTH: usize = 32;
/// Longest listing of a folder: 100,000 entries with paths of 250 bytes.
pub const MAX_LISTING_BYTES: u32 = 32 * 1024 * 1024;

/// Longest user or group name in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 64;
/// Longest file name in bytes: what common file systems take (`NAME_MAX`). What is added to a name (on conflict, or for files of
/// ours beside it) shortens it instead.
pub const MAX_FILE_NAME_BYTES: usize = 255;
/// Longest password in bytes. Argon2 takes any length, but no one types more.
pub const MAX_PASSWORD_BYTES: usize = 1024;
/// HTTP mirrors of one file at most, and the longest URL of one.
pub const MAX_MIRRORS: usize = 16;
/// See [`MAX_MIRRORS`].
pub const MAX_MIRROR_BYTES: usize = 2048;

/// Largest message that a client may send before it logged in: the longest login is under 1 KiB.
pub const MAX_STRANGER_MESSAGE: usize = 16 * 1024;
/// Largest message between a logged-in client and its tracker: one whole piece list and its header.
pub const MAX_CLIENT_MESSAGE: usize = MAX_PIECES as usize * 20 + 64 * 1024;
/// Entries of any list in an answer at most; longer ones are continued with `after`.
pub const MAX_LIST: usize = 1_000;
/// Files that one client may announce as shared or downloading, at most.
pub const MAX_ANNOUNCED: usize = 100_000;

/// Blocks in which a piece is served, in bytes.
pub const BLOCK: u32 = 16 * 1024;
/// Largest control frame between peers: a bitfield of `MAX_PIECES` is 12.5 KB.
pub const MAX_PEER_MESSAGE: usize = 32 * 1024;
/// Most bytes of a piece in one data frame between peers, without the frame's head.
pub const MAX_PEER_DATA: usize = 64 * 1024;
/// Files that one connection between peers may have open at once.
pub const MAX_CHANNELS: usize = 256;
/// Requests in flight on one connection between peers, all its files together, at most: 16 MiB in the smallest pieces.
pub const MAX_PEER_REQUESTS: usize = 256;
