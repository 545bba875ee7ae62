//! What was asked of a node on one connection, and whether what comes is that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::LaneError;
use crate::wire::{DataHead, MAX_REQUESTS, ToClient};

/// Acknowledged how many bytes came so far.
pub(super) type Progress = Box<dyn Fn(u64) + Send + Sync>;

/// See the module.
#[derive(Default)]
pub(super) struct Requests(Mutex<State>);

struct State {
    last: u32,
    pending: HashMap<u32, Pending>,
    grant: Option<oneshot::Sender<ToClient>>,
    heard: Instant,
    owed_since: Instant,
    fault: Option<String>,
}

impl Default for State {
    fn default() -> Self {
        let now = Instant::now();
        Self { last: 0, pending: HashMap::new(), grant: None, heard: now, owed_since: now, fault: None }
    }
}

enum Pending {
    Answer(oneshot::Sender<Result<ToClient, LaneError>>),
    Data(Data),
}

/// A chunk that is coming in.
struct Data {
    /// Away while bytes are read into it.
    buffer: Option<Vec<u8>>,
    length: usize,
    /// None once it was taken back.
    done: Option<oneshot::Sender<Result<Vec<u8>, LaneError>>>,
    progress: Progress,
}

/// A request that was noted.
pub(super) struct Asked<T> {
    pub(super) number: u32,
    result: oneshot::Receiver<Result<T, LaneError>>,
    requests: Arc<Requests>,
}

impl<T> Asked<T> {
    async fn end(mut self) -> Result<T, LaneError> {
        let result = (&mut self.result).await;
        result.unwrap_or_else(|_| Err(self.requests.lost()))
    }
}

impl Asked<ToClient> {
    pub(super) async fn answer(self) -> Result<ToClient, LaneError> {
        self.end().await
    }
}

impl Asked<Vec<u8>> {
    pub(super) async fn data(self) -> Result<Vec<u8>, LaneError> {
        self.end().await
    }
}

impl<T> Drop for Asked<T> {
    /// A request that nobody waits for any more stays until its end, holding nothing.
    fn drop(&mut self) {
        let mut state = self.requests.state();
        if let Some(Pending::Data(data)) = state.pending.get_mut(&self.number) {
            data.done = None;
            data.progress = Box::new(|_| {});
            if let Some(buffer) = &mut data.buffer {
                // Its length is what tells the next block's place; its memory is not needed.
                let came = buffer.len();
                *buffer = Vec::new();
                data.length = data.length.saturating_sub(came);
            }
        }
    }
}

impl Requests {
    /// Notes a request that is answered by a message.
    pub(super) fn ask(self: &Arc<Self>) -> Result<Asked<ToClient>, LaneError> {
        let (done, result) = oneshot::channel();
        let number = self.state().note(Pending::Answer(done))?;
        Ok(Asked { number, result, requests: self.clone() })
    }

    /// Notes a request that is answered by so many bytes.
    pub(super) fn ask_for_data(
        self: &Arc<Self>,
        length: usize,
        progress: Progress,
    ) -> Result<Asked<Vec<u8>>, LaneError> {
        let (done, result) = oneshot::channel();
        let data = Data { buffer: Some(Vec::with_capacity(length)), length, done: Some(done), progress };
        let number = self.state().note(Pending::Data(data))?;
        Ok(Asked { number, result, requests: self.clone() })
    }

    /// Notes that a ticket is shown.
    pub(super) fn expect_grant(&self) -> Result<oneshot::Receiver<ToClient>, LaneError> {
        let mut state = self.state();
        if let Some(fault) = &state.fault {
            return Err(LaneError::Lost(fault.clone()));
        }
        state.owe();
        let (grant, granted) = oneshot::channel();
        state.grant = Some(grant);
        Ok(granted)
    }

    pub(super) fn told(&self, message: ToClient) -> Result<(), String> {
        let mut state = self.state();
        let (request, result) = match message {
            ToClient::Granted { .. } | ToClient::Refused { .. } => {
                if let Some(grant) = state.grant.take() {
                    let _ = grant.send(message);
                }
                return Ok(());
            }
            ToClient::Failed { request, reason } => (request, Err(LaneError::Failed(reason))),
            ToClient::Stored { request }
            | ToClient::Done { request }
            | ToClient::Held { request, .. }
            | ToClient::Status { request, .. } => (request, Ok(message)),
        };
        match (state.pending.remove(&request), result) {
            // Whoever asked may have left.
            (Some(Pending::Answer(done)), result) => {
                let _ = done.send(result);
            }
            (Some(Pending::Data(data)), Err(error)) => {
                if let Some(done) = data.done {
                    let _ = done.send(Err(error));
                }
            }
            _ => return Err("it answered what it was not asked".to_owned()),
        }
        Ok(())
    }

    /// The buffer for the next `length` bytes of a chunk; none if nobody wants them any more.
    pub(super) fn lend(&self, head: DataHead, length: usize) -> Result<Option<Vec<u8>>, String> {
        let mut state = self.state();
        let Some(Pending::Data(data)) = state.pending.get_mut(&head.request) else {
            return Err("it sent bytes that it was not asked for".to_owned());
        };
        if data.done.is_none() {
            // The rest of what was taken back: it ends when all of it came, or with a word.
            data.length = data.length.checked_sub(length).ok_or("it sent more than it was asked for")?;
            if data.length == 0 {
                state.pending.remove(&head.request);
            }
            return Ok(None);
        }
        let came = data.buffer.as_ref().map_or(usize::MAX, Vec::len);
        if length == 0 || head.offset as usize != came || length > data.length - came {
            return Err("it sent bytes out of order".to_owned());
        }
        Ok(data.buffer.take())
    }

    pub(super) fn put_back(&self, request: u32, buffer: Vec<u8>) {
        let mut state = self.state();
        let Some(Pending::Data(data)) = state.pending.get_mut(&request) else { return };
        let came = buffer.len();
        (data.progress)(came as u64);
        if came == data.length {
            let Some(Pending::Data(data)) = state.pending.remove(&request) else { return };
            if let Some(done) = data.done {
                let _ = done.send(Ok(buffer));
            }
        } else if data.done.is_some() {
            data.buffer = Some(buffer);
        } else {
            // Taken back while these bytes came.
            data.length -= came;
        }
    }

    pub(super) fn heard(&self) {
        self.state().heard = Instant::now();
    }

    pub(super) fn silent_for(&self) -> Duration {
        self.state().heard.elapsed()
    }

    /// For how long the node has owed an answer.
    pub(super) fn owed_for(&self) -> Duration {
        let state = self.state();
        if state.pending.is_empty() && state.grant.is_none() {
            Duration::ZERO
        } else {
            state.owed_since.elapsed()
        }
    }

    pub(super) fn fail(&self, reason: &str) {
        let mut state = self.state();
        state.fault = Some(reason.to_owned());
        state.pending.clear();
        state.grant = None;
    }

    pub(super) fn lost(&self) -> LaneError {
        let fault = self.state().fault.clone();
        LaneError::Lost(fault.unwrap_or_else(|| "closed here".to_owned()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, pending: Pending) -> Result<u32, LaneError> {
        if let Some(fault) = &self.fault {
            return Err(LaneError::Lost(fault.clone()));
        }
        if self.pending.len() >= MAX_REQUESTS {
            return Err(LaneError::Failed(crate::wire::Failure::Busy));
        }
        self.owe();
        self.last = self.last.wrapping_add(1);
        self.pending.insert(self.last, pending);
        Ok(self.last)
    }

    fn owe(&mut self) {
        if self.pending.is_empty() && self.grant.is_none() {
            self.owed_since = Instant::now();
        }
    }
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests").field("pending", &self.state().pending.len()).finish_non_exhaustive()
    }
}
