//! A client in the background, and what asks it (B1 to B8).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod address;
mod api;
mod cli;
mod keep;
mod openapi;
mod resources;
mod roots;
mod silent;
mod socket;
mod units;
mod up;
mod upload;
mod web;
