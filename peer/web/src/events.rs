//! What happened lately, numbered, so that a reader that was away goes on where it was.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use shoal_client::Client;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Events that are kept.
const KEPT: usize = 1_000;

/// The last events, from 1 on in the order in which they came.
pub(crate) struct Recent {
    kept: Mutex<VecDeque<(u64, Value)>>,
    /// The number of the last one.
    last: watch::Sender<u64>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { kept: Mutex::default(), last: watch::Sender::new(0) }
    }
}

/// What a reader gets next.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// The events after the one that it had.
    Events(Vec<(u64, Value)>),
    /// Some of them are gone: it has to look at everything again, and goes on behind that number.
    Resync(u64),
}

impl Recent {
    fn push(&self, event: Value) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *self.last.borrow() + 1;
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((number, event));
        self.last.send_replace(number);
    }

    /// The number of the last event, as it grows.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// What came after the event of that number.
    pub(crate) fn after(&self, number: u64) -> Next {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let last = *self.last.borrow();
        let oldest = kept.front().map_or(1, |(number, _)| *number);
        // A number that was never given is that of a daemon that ran before.
        if number > last || number + 1 < oldest {
            return Next::Resync(last);
        }
        Next::Events(kept.iter().filter(|(at, _)| *at > number).cloned().collect())
    }
}

/// Collects the client's events until `closing`.
pub(crate) async fn collect(client: Client, recent: Arc<Recent>, closing: CancellationToken) {
    let mut events = client.events();
    while let Some(event) = closing.run_until_cancelled(events.recv()).await {
        match event {
            Ok(event) => {
                let mut object = json!(event);
                if let Value::Object(fields) = &mut object {
                    fields.insert("text".to_owned(), event.to_string().into());
                }
                recent.push(object);
            }
            Err(RecvError::Lagged(count)) => {
                let text = format!("{count} messages were lost");
                recent.push(json!({ "event": "missed", "count": count, "text": text }));
            }
            Err(RecvError::Closed) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_goes_on_where_it_was_or_learns_that_it_cannot() {
        let recent = Recent::default();
        assert_eq!(recent.after(0), Next::Events(Vec::new()));
        assert_eq!(recent.after(7), Next::Resync(0), "a number of a daemon before this one");
        for number in 1..=1_500_u64 {
            recent.push(json!(number));
        }
        assert_eq!(recent.after(1_500), Next::Events(Vec::new()));
        assert_eq!(recent.after(1_498), Next::Events(vec![(1_499, json!(1_499)), (1_500, json!(1_500))]));
        let Next::Events(all) = recent.after(500) else { panic!("500 is the last that is gone") };
        assert_eq!((all.len(), all[0].0), (KEPT, 501));
        assert_eq!(recent.after(499), Next::Resync(1_500));
        assert_eq!(recent.after(0), Next::Resync(1_500));
    }
}
