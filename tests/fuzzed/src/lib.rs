//! What the fuzzers feed: one function per format that comes from the network or from a user's file. Each takes any bytes, and
//! panics where a decoder does or where a property does not hold. `fuzz/fuzz_targets/` calls them with what the fuzzer finds, a
//! test with the seeds in `fuzz/seeds/` and mutations of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is what the fuzzer looks for")]

mod requests;
mod texts;
mod wires;

pub use requests::requests;
pub use texts::{conf, metalink, names, tracker_info};
pub use wires::{frames, listing, messages, storage, tokens};

/// One of the functions.
pub type Target = fn(&[u8]);

/// All of them, by the name of their seeds' folder and of the fuzz target.
pub const TARGETS: [(&str, Target); 10] = [
    ("conf", conf),
    ("frames", frames),
    ("listing", listing),
    ("messages", messages),
    ("metalink", metalink),
    ("names", names),
    ("requests", requests),
    ("storage", storage),
    ("tokens", tokens),
    ("tracker_info", tracker_info),
];
