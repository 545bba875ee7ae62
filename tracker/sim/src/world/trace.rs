//! A readable log of a simulation, for replaying a seed.

use shoal_replica::{Event, Frame, Row};

use super::Input;

/// The input of a transaction in words; `None` if it says nothing.
pub(crate) fn trace_input(input: &Input) -> Option<String> {
    Some(match input {
        Input::Write(writes) => {
            let writes = writes.iter().map(|write| {
                let what = if write.tombstone { "delete" } else { "write" };
                format!("{what} {:?} {}", write.kind, short(&write.key))
            });
            writes.collect::<Vec<_>>().join(", ")
        }
        Input::Event(Event::LinkUp { peer }) => format!("link with {peer} up"),
        Input::Event(Event::LinkDown { peer }) => format!("link with {peer} down"),
        Input::Event(Event::Frame { frame: Frame::Ping | Frame::Digest { .. }, .. } | Event::Tick) => {
            return None;
        }
        Input::Event(Event::Frame { peer, frame }) => match frame {
            Frame::Rows { rows, .. } => format!("from {peer} ROWS {}", trace_rows(rows)),
            Frame::Live(live) => {
                format!("from {peer} LIVE {}..{} {}", live.from, live.to, trace_rows(&live.rows))
            }
            Frame::Chunk(chunk) => format!("from {peer} chunk of {:?}", chunk.hash),
            Frame::Pull(pull) => {
                format!("from {peer} PULL full={} repair={}", pull.full, pull.sums.is_some())
            }
            frame => format!("from {peer} {frame:?}"),
        },
    })
}

/// Rows by kind and key, their numbers, and the beginning of their values.
pub(crate) fn trace_rows(rows: &[Row]) -> String {
    let rows = rows.iter().map(|row| {
        let gone = if row.tombstone { " deleted" } else { "" };
        format!(
            "({} {}{gone} = {:?} {} {})",
            row.kind.0,
            short(&row.key),
            row.writer,
            row.seq,
            short(&row.value)
        )
    });
    rows.collect::<Vec<_>>().join(" ")
}

fn short(bytes: &[u8]) -> String {
    bytes.iter().take(10).map(|byte| format!("{byte:02x}")).collect()
}
