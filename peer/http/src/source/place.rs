//! Where the file is asked for: at the URL that was given, or, to save a round trip for each part, where that one redirected
//! to last. Such a target may say no at any time: its signature expires, it was good for one request, its host is gone. Then
//! the URL that was given is asked again.

use std::sync::Mutex;

use reqwest::Url;

use crate::client;
use crate::source::lock;

/// How often in a row a target that was just named may say no before the source is given up.
const TRIES: u32 = 5;
/// After so many targets that said no when they were asked a second time, each request begins at the URL that was given.
const SHORT_LIVED: u32 = 2;

/// See the module.
#[derive(Debug)]
pub(super) struct Place {
    /// The URL that was given.
    pub(super) original: Url,
    /// Targets are asked directly.
    remembers: bool,
    state: Mutex<TargetState>,
}

#[derive(Debug, Default)]
struct TargetState {
    target: Option<Url>,
    /// Targets that said no, since one was last asked directly with success.
    expired: u32,
    /// Targets in a row that said no as soon as they were named, since the file last got on.
    refused: u32,
}

impl Place {
    pub(super) fn new(original: Url) -> Self {
        Self { original, remembers: false, state: Mutex::default() }
    }

    /// Asks where `target` is directly.
    pub(super) fn remember(&mut self, target: Url) {
        self.remembers = true;
        self.led_to(&target);
    }

    /// Where to ask instead of the URL that was given.
    pub(super) fn target(&self) -> Option<Url> {
        lock(&self.state).target.clone()
    }

    /// The URL that was given led there, and was answered well.
    pub(super) fn led_to(&self, target: &Url) {
        let target = client::with_credentials(target.clone(), &self.original);
        let mut state = lock(&self.state);
        let worth = self.remembers && target != self.original && state.expired < SHORT_LIVED;
        state.target = worth.then_some(target);
    }

    /// A target was asked directly, and answered well.
    pub(super) fn still_works(&self) {
        lock(&self.state).expired = 0;
    }

    /// A target does not do what it did.
    pub(super) fn expired(&self, target: &Url) {
        let mut state = lock(&self.state);
        if state.target.as_ref() == Some(target) {
            state.target = None;
            state.expired += 1;
        }
    }

    /// A target that was just named says no: whether to ask again nevertheless.
    pub(super) fn refused(&self) -> bool {
        let mut state = lock(&self.state);
        state.refused += 1;
        state.refused < TRIES
    }

    /// The file got on.
    pub(super) fn delivered(&self) {
        lock(&self.state).refused = 0;
    }
}
