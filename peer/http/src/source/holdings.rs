//! Which pieces a server holds, as far as is known: what it says itself, without what it turned out to lack. A server that
//! says nothing is taken to hold everything until it refuses a range. `fetch` asks again from time to time: a server that
//! is still downloading gains pieces.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode, Url};
use shoal_common::{Bitfield, Layout, PieceIndex};
use shoal_engine::Have;
use tokio::sync::watch;

use crate::held::{Held, MAX_HELD_BYTES};
use crate::source::lock;

/// First and longest pause before a server is asked again what it holds; doubled each time that it gained nothing. It
/// learns of new pieces at each checkpoint of its own download.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const ASK_AGAIN_AT_LEAST: Duration = Duration::from_secs(8);
/// Longest time for such an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a refused range counts as lacking, and how often it is tried again after that.
const REFUSED_FOR: Duration = Duration::from_secs(15);
const TRIES_AGAIN: u32 = 8;
/// Refusals in a row, with nothing delivered in between, after which a server is taken to lack all the rest. If it never
/// delivered anything, it is given up.
const MOST_REFUSALS: u32 = 8;
/// Refused ranges that the server said it had, after which it counts as a liar. A download that was started again there may
/// explain a few.
const MOST_LIES: u32 = 3;

/// See the module.
#[derive(Debug)]
pub(crate) struct Holdings {
    have: watch::Sender<Have>,
    /// Where the server says what it holds.
    url: Option<Url>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    layout: Option<Layout>,
    /// What the server says; `None`: nothing, or that it holds all.
    claimed: Option<Bitfield>,
    /// What it refused, and when last.
    refused: Option<(Bitfield, Instant)>,
    tried_again: u32,
    refusals: u32,
    /// A piece came.
    delivered: bool,
    lies: u32,
}

/// What a refusal comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It lacks these pieces; it may have others.
    Lacking,
    /// It has refused too often.
    TooOften,
    /// It says that it has what it refuses, again and again.
    Lie,
}

impl Holdings {
    /// Of a server that says nothing of it.
    pub(super) fn unknown() -> Self {
        Self { have: watch::Sender::new(Have::All), url: None, known: Mutex::default() }
    }

    /// Of a server that said `held` at `url`.
    pub(super) fn claimed(url: Url, layout: Layout, held: &Held) -> Self {
        let holdings = Self { url: Some(url), ..Self::unknown() };
        holdings.claims(layout, held);
        holdings
    }

    pub(super) fn watch(&self) -> watch::Receiver<Have> {
        self.have.subscribe()
    }

    /// The server says what it holds; whether that is more or less than before.
    fn claims(&self, layout: Layout, held: &Held) -> bool {
        let mut known = lock(&self.known);
        let claimed = Some(held.bits(&layout)).filter(|bits| !bits.is_all());
        let changed = claimed.as_ref().map(Bitfield::words) != known.claimed.as_ref().map(Bitfield::words);
        known.layout = Some(layout);
        known.claimed = claimed;
        self.publish(&known);
        changed
    }

    /// The server refused `first`. If it says nothing itself, as many behind it are taken to be missing as are likely: twice as
    /// many each time in a row.
    pub(super) fn refused(&self, layout: Layout, first: PieceIndex) -> Refusal {
        let mut known = lock(&self.known);
        let known = &mut *known;
        known.layout = Some(layout.clone());
        known.refusals += 1;
        let said = self.url.is_some() && known.claimed.as_ref().is_none_or(|claimed| claimed.has(first));
        known.lies += u32::from(said);
        let (refused, at) = known.refused.get_or_insert_with(|| (Bitfield::none(&layout), Instant::now()));
        *at = Instant::now();
        let often = known.refusals >= MOST_REFUSALS;
        let (first, count) = match self.url {
            Some(_) => (first.get(), 1),
            None if often => (0, layout.pieces()),
            None => (first.get(), 1 << (known.refusals - 1)),
        };
        for piece in (0..count).filter_map(|ahead| layout.piece(first.checked_add(ahead)?)) {
            refused.insert(piece);
        }
        self.publish(known);
        match () {
            () if known.lies >= MOST_LIES => Refusal::Lie,
            () if often && self.url.is_none() && !known.delivered => Refusal::TooOften,
            () => Refusal::Lacking,
        }
    }

    /// The server delivered a piece.
    pub(super) fn delivered(&self) {
        let mut known = lock(&self.known);
        (known.refusals, known.delivered) = (0, true);
    }

    /// Tries again what was refused long enough ago.
    fn forgive(&self) {
        let mut known = lock(&self.known);
        let due = known.refused.as_ref().is_some_and(|(_, at)| at.elapsed() >= REFUSED_FOR);
        if due && known.tried_again < TRIES_AGAIN {
            known.tried_again += 1;
            known.refused = None;
            self.publish(&known);
        }
    }

    fn publish(&self, known: &Known) {
        let Some(layout) = known.layout.clone() else { return };
        let mut bits = known.claimed.clone().unwrap_or_else(|| Bitfield::all(&layout));
        if let Some((refused, _)) = &known.refused {
            for piece in refused.iter(&layout) {
                bits.remove(piece);
            }
        }
        let have = if bits.is_all() { Have::All } else { Have::Bits(Arc::new(bits)) };
        self.have.send_replace(have);
    }

    /// Keeps it true, until the future is dropped.
    pub(crate) async fn keep_current(self: Arc<Self>, client: Client) {
        let mut pause = ASK_AGAIN;
        loop {
            tokio::time::sleep(pause).await;
            self.forgive();
            pause = (pause * 2).min(ASK_AGAIN_AT_LEAST);
            let claimed = {
                let known = lock(&self.known);
                known.layout.clone().filter(|_| known.claimed.is_some())
            };
            if let (Some(url), Some(layout)) = (&self.url, claimed)
                && let Ok(held) = ask_held(&client, url, ANSWER).await
                && held.size() == layout.size()
                && self.claims(layout, &held)
            {
                pause = ASK_AGAIN;
            }
        }
    }
}

/// Asks what a server holds; the error says in a few words why that is not known.
pub(crate) async fn ask_held(client: &Client, url: &Url, within: Duration) -> Result<Held, String> {
    let asked = async {
        let mut response = client.get(url.clone()).send().await.map_err(crate::client::reason)?;
        if response.status() != StatusCode::OK {
            return Err(format!("answers {}", response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(crate::client::reason)? {
            if bytes.len() + chunk.len() > MAX_HELD_BYTES {
                return Err("it is too long".into());
            }
            bytes.extend_from_slice(&chunk);
        }
        let text = String::from_utf8(bytes).unwrap_or_default();
        Held::parse(&text).ok_or_else(|| "it makes no sense".into())
    };
    let asked = tokio::time::timeout(within, asked).await;
    let held = asked.unwrap_or_else(|_| Err(format!("no answer within {} s", within.as_secs())));
    held.map_err(|reason| format!("has a part of the file and does not say which: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new(4 * 65_536, 65_536).unwrap()
    }

    fn pieces(holdings: &Holdings) -> Vec<u32> {
        match &*holdings.watch().borrow() {
            Have::All => (0..4).collect(),
            Have::Bits(bits) => bits.iter(&layout()).map(PieceIndex::get).collect(),
        }
    }

    fn refuse(holdings: &Holdings, first: u32) -> Refusal {
        holdings.refused(layout(), layout().piece(first).unwrap())
    }

    #[test]
    fn a_server_that_says_nothing_is_learnt_by_its_refusals() {
        let holdings = Holdings::unknown();
        assert_eq!(pieces(&holdings), [0, 1, 2, 3]);
        assert_eq!(refuse(&holdings, 0), Refusal::Lacking);
        assert_eq!(pieces(&holdings), [1, 2, 3]);
        assert_eq!(refuse(&holdings, 1), Refusal::Lacking);
        assert_eq!(pieces(&holdings), [3]);
        for _ in 3..MOST_REFUSALS {
            assert_eq!(refuse(&holdings, 1), Refusal::Lacking);
        }
        assert_eq!(refuse(&holdings, 1), Refusal::TooOften);
        // One that delivered may have more later.
        let holdings = Holdings::unknown();
        holdings.delivered();
        for _ in 0..MOST_REFUSALS {
            assert_eq!(refuse(&holdings, 3), Refusal::Lacking);
        }
        assert!(pieces(&holdings).is_empty());
    }

    #[test]
    fn a_server_gains_pieces_and_is_caught_lying() {
        let url = Url::parse("http://h/f.have").unwrap();
        let held = |text| Held::parse(text).unwrap();
        let holdings = Holdings::claimed(url, layout(), &held("bytes 0-65535/262144"));
        assert_eq!(pieces(&holdings), [0]);
        assert!(holdings.claims(layout(), &held("bytes 0-131071/262144")));
        assert!(!holdings.claims(layout(), &held("bytes 0-131071/262144")));
        assert_eq!(pieces(&holdings), [0, 1]);
        assert!(holdings.claims(layout(), &held("bytes 0-262143/262144")));
        assert_eq!(pieces(&holdings), [0, 1, 2, 3]);
        assert_eq!(refuse(&holdings, 2), Refusal::Lacking);
        assert_eq!(pieces(&holdings), [0, 1, 3]);
        assert_eq!(refuse(&holdings, 1), Refusal::Lacking);
        assert_eq!(refuse(&holdings, 0), Refusal::Lie);
    }
}
