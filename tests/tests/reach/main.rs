//! Who reaches whom, over which way, behind which router (P27). The expected way of each pair stands here, before it is run; which
//! way carried the bytes is read from the routers' counters, not from the client's word.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod matrix;
mod stage;
