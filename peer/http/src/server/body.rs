//! Bodies of answers: text, parts of a file, or both in turn. A file is read on blocking threads, one block ahead of what
//! the connection takes.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use crate::server::buffers::{Buffers, Room, with_room};
use crate::server::opened::Opened;
use crate::server::places::Place;

/// What one virtual server has done.
#[derive(Debug)]
pub(super) struct Meter {
    /// Bytes of bodies handed to connections.
    pub(super) bytes: AtomicU64,
    /// Connections open now.
    pub(super) connections: AtomicUsize,
    /// Of all virtual servers.
    pub(super) buffers: Buffers,
}

impl Meter {
    pub(super) fn new(buffers: &Buffers) -> Self {
        Self { bytes: AtomicU64::new(0), connections: AtomicUsize::new(0), buffers: buffers.clone() }
    }
}

/// A part of a body.
#[derive(Debug)]
pub(super) enum Segment {
    Text(Bytes),
    /// First byte of the file and length.
    File(u64, u64),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Body {
    segments: VecDeque<Segment>,
    file: Option<Arc<Opened>>,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
    left: u64,
    meter: Arc<Meter>,
    /// Of the connection that it goes to.
    place: Option<Arc<Place>>,
}

impl Body {
    /// Nothing.
    pub(super) fn empty(meter: &Arc<Meter>) -> Self {
        Self::new(Vec::new(), None, meter)
    }

    /// A text.
    pub(super) fn text(text: impl Into<Bytes>, meter: &Arc<Meter>) -> Self {
        Self::new(vec![Segment::Text(text.into())], None, meter)
    }

    /// These segments; those of a file are read from `file`.
    pub(super) fn new(segments: Vec<Segment>, file: Option<Arc<Opened>>, meter: &Arc<Meter>) -> Self {
        let left = segments.iter().map(Segment::length).sum();
        Self { segments: segments.into(), file, reading: None, left, meter: meter.clone(), place: None }
    }

    /// It goes to the client that has that place.
    pub(super) fn to(self, place: &Arc<Place>) -> Self {
        Self { place: Some(place.clone()), ..self }
    }

    /// Bytes that are still to come.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Bytes of text that are kept in memory until the client takes them.
    pub(super) fn text_length(&self) -> u64 {
        let texts = self.segments.iter().filter(|segment| matches!(segment, Segment::Text(_)));
        texts.map(Segment::length).sum()
    }

    /// The text keeps its room until it was taken.
    pub(super) fn keep(&mut self, room: Room) {
        let mut room = Some(room);
        for segment in self.segments.iter_mut().rev() {
            if let Segment::Text(text) = segment {
                *text = with_room(std::mem::take(text), room.take());
            }
        }
    }

    /// Starts to read the next block, if the next segment is of a file.
    fn read_ahead(&mut self) {
        let (Some(Segment::File(offset, length)), Some(file)) = (self.segments.front_mut(), &self.file)
        else {
            return;
        };
        let works = self.place.as_ref().is_some_and(|place| place.works());
        let (count, room) = self.meter.buffers.block(*length, works);
        let (from, file) = (*offset, file.clone());
        *offset += count;
        *length -= count;
        if *length == 0 {
            self.segments.pop_front();
        }
        self.reading =
            Some(tokio::task::spawn_blocking(move || Ok(with_room(read_block(&file, from, count)?, room))));
    }

    fn handed_over(&mut self, bytes: Bytes) -> Frame<Bytes> {
        self.left -= bytes.len() as u64;
        self.meter.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Frame::data(bytes)
    }
}

impl Segment {
    fn length(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::File(_, length) => *length,
        }
    }
}

/// Exactly `count` bytes.
fn read_block(file: &Opened, offset: u64, count: u64) -> io::Result<Bytes> {
    let most = usize::try_from(count).unwrap_or(usize::MAX);
    let first = file.read(offset, most)?;
    if first.len() == most {
        return Ok(first);
    }
    // A short read: rare enough to be put together.
    let mut bytes = first.to_vec();
    while bytes.len() < most {
        bytes.extend_from_slice(&file.read(offset + bytes.len() as u64, most - bytes.len())?);
    }
    Ok(bytes.into())
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if this.reading.is_none() {
            match this.segments.front() {
                None => return Poll::Ready(None),
                Some(Segment::File(..)) => this.read_ahead(),
                Some(Segment::Text(_)) => {
                    let Some(Segment::Text(text)) = this.segments.pop_front() else {
                        return Poll::Ready(None);
                    };
                    return Poll::Ready(Some(Ok(this.handed_over(text))));
                }
            }
        }
        let Some(reading) = &mut this.reading else { return Poll::Ready(None) };
        let Poll::Ready(done) = Pin::new(reading).poll(context) else { return Poll::Pending };
        this.reading = None;
        let bytes = done.map_err(io::Error::other).and_then(|read| read);
        Poll::Ready(Some(bytes.map(|bytes| {
            this.read_ahead();
            this.handed_over(bytes)
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
