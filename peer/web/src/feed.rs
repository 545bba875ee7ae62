//! What happens, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde_json::{Value, json};
use shoal_client::Client;
use tokio_util::sync::CancellationToken;

use crate::events::{Next, Recent};
use crate::resources::row;

/// A comment goes to a reader of events that often, so that the end of either is noticed.
const STILL_THERE: Duration = Duration::from_secs(15);
/// How often the progress of downloads is looked at for readers of events.
const PROGRESS: Duration = Duration::from_secs(1);

/// What a reader reads from.
#[derive(Clone)]
struct Parts {
    client: Client,
    recent: Arc<Recent>,
    closing: CancellationToken,
}

pub(crate) fn router(client: Client, recent: Arc<Recent>, closing: CancellationToken) -> Router {
    Router::new().route("/api/1/events", get(events)).with_state(Parts { client, recent, closing })
}

/// Events from the one behind `Last-Event-ID`, or from now on, as server-sent events; the progress of downloads between them.
async fn events(State(parts): State<Parts>, request: Request) -> Response {
    let last = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()?.trim().parse().ok());
    let at = last.unwrap_or_else(|| *parts.recent.watch().borrow());
    let reader = Reader { numbers: parts.recent.watch(), parts, at, shown: Value::Null, begun: false };
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    let lines = futures::stream::unfold(reader, |mut reader| async move {
        let text = reader.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(text)), reader))
    });
    (StatusCode::OK, kind, Body::from_stream(lines)).into_response()
}

/// A reader of events.
struct Reader {
    parts: Parts,
    numbers: tokio::sync::watch::Receiver<u64>,
    /// The number of the last event that it has.
    at: u64,
    /// The progress that it was last told.
    shown: Value,
    begun: bool,
}

impl Reader {
    /// What goes to it next; nothing when the daemon ends.
    async fn next(&mut self) -> Option<String> {
        if !std::mem::replace(&mut self.begun, true) {
            return Some(": shoal\n\n".to_owned());
        }
        let mut quiet = Duration::ZERO;
        loop {
            self.numbers.mark_unchanged();
            match self.parts.recent.after(self.at) {
                Next::Resync(number) => {
                    self.at = number;
                    return Some(format!("id: {number}\nevent: resync\ndata: {{\"event\":\"resync\"}}\n\n"));
                }
                Next::Events(events) if !events.is_empty() => {
                    self.at = events.last().map_or(self.at, |(number, _)| *number);
                    let text = |(number, event): &(u64, Value)| {
                        let name = event["event"].as_str().unwrap_or_default();
                        format!("id: {number}\nevent: {name}\ndata: {event}\n\n")
                    };
                    return Some(events.iter().map(text).collect());
                }
                Next::Events(_) => {}
            }
            let hashing = self.parts.client.hashing().borrow().clone();
            let hashing = hashing
                .map(|it| json!({ "path": it.path.to_string_lossy(), "done": it.done, "total": it.total }));
            let rows: Vec<Value> = self.parts.client.downloads().iter().map(row).collect();
            let event = json!({ "event": "progress", "downloads": rows, "hashing": hashing });
            if event != self.shown {
                let text = format!("event: progress\ndata: {event}\n\n");
                self.shown = event;
                return Some(text);
            }
            if quiet >= STILL_THERE {
                return Some(": still there\n\n".to_owned());
            }
            tokio::select! {
                () = self.parts.closing.cancelled() => return None,
                _ = self.numbers.changed() => {}
                () = tokio::time::sleep(PROGRESS) => quiet += PROGRESS,
            }
        }
    }
}
