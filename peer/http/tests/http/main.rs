//! Tests of the HTTP side with real processes on loopback.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod conformance;
mod crowds;
mod fetch;
mod https;
mod metalinks;
mod names;
mod oddities;
mod partial;
mod parts;
mod redirects;
mod refusals;
mod server;
mod support;
mod versions;
