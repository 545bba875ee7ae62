//! Log lines of anti-entropy syncs. Each stands in a span with the sync's id, which is the same in the logs of both
//! trackers, so that `grep` finds one sync from its request to its end.

use shoal_replica::{Frame, TrackerNo};
use tracing::Span;

/// Logs a frame of a sync; returns the sync's span, disabled for frames of no sync. Its id is the number of the tracker that
/// pulls and that tracker's id of the sync.
pub(crate) fn sync_span(from: TrackerNo, to: TrackerNo, frame: &Frame) -> Span {
    let Some(sync) = frame.sync_id() else { return Span::none() };
    let puller = if matches!(frame, Frame::Pull(_) | Frame::More { .. }) { from } else { to };
    let span = tracing::debug_span!("sync", id = %format_args!("{puller}-{sync}"));
    span.in_scope(|| match frame {
        Frame::Pull(pull) => {
            let repair = pull.sums.is_some();
            tracing::debug!(%from, %to, full = pull.full, repair, "request");
        }
        Frame::Rows { rows, .. } => tracing::debug!(%from, %to, count = rows.len(), "rows"),
        Frame::More { frames, .. } => tracing::debug!(%from, %to, frames, "credit"),
        Frame::Busy { .. } => tracing::debug!(%from, %to, "cannot be served now"),
        _ => tracing::debug!(%from, %to, "end"),
    });
    span
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use shoal_replica::Pull;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_frames_of_a_sync_are_logged_under_one_id() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let (one, two) = (TrackerNo(1), TrackerNo(2));
        tracing::subscriber::with_default(subscriber.finish(), || {
            let pull = Pull { sync_id: 7, credit: 8, full: false, sums: None };
            sync_span(two, one, &Frame::Pull(pull));
            sync_span(one, two, &Frame::Rows { sync_id: 7, rows: Vec::new() });
            sync_span(two, one, &Frame::More { sync_id: 7, frames: 1 });
            sync_span(one, two, &Frame::End { sync_id: 7 });
            assert!(sync_span(one, two, &Frame::Ping).is_disabled());
        });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().filter(|line| line.contains("sync{id=2-7}")).count(), 4, "{text}");
    }
}
