//! Which keys are the trackers': decided from `tracker_info.txt`, from the keys that were pinned at the first contact, and from
//! the lists that trackers sign to vouch for each other.
//!
//! - A peer id in the file always decides.
//! - Otherwise a key is pinned at the first contact, as ssh does it. From then on only the other trackers change it: more than
//!   half of all that are listed, without the one in question.
//! - A key that was never known is taken from more than half of those others whose keys are known. Trackers, which others
//!   follow, take it from more than half of all.
//! - A key that was vouched for and never met counts as long as one of its vouchers is a tracker.
//!
//! Pure: keeping the pins on disk and receiving the lists is done elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use minicbor::{Decode, Encode};

use crate::peer_id::PeerId;
use crate::tokens::{self, Statement};
use crate::tracker_info::{MAX_TRACKERS, TrackerLine};

/// Longest signed list: every tracker with the longest host name.
const MAX_LIST_BYTES: usize = MAX_TRACKERS * 320;
/// Pins kept at most: the trackers of several clusters.
const MAX_PINS: usize = 256;
/// Trackers for which the time of the newest list is kept.
const MAX_SIGNERS: usize = 2 * MAX_TRACKERS;
/// Longest file of pins: each with the longest name and every tracker that vouched for it.
pub const MAX_PINS_BYTES: u64 = 1024 * 1024;

/// Begins the line with the time of a signer's newest list.
const LIST: &str = "list-of";
/// Stands in place of a key that no longer counts.
const REMOVED: &str = "removed";
/// Precedes the keys of those that vouched.
const VOUCHED: &str = "vouched-by";

/// What the file of pins begins with.
const HEAD: &str = "\
# The trackers' keys as this program got to know them: address, peer id, and, where it was not met itself, who vouched for it.
# To have a tracker's key learned again, remove its line.
";

/// "These are the trackers now."
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TrackerList {
    /// Milliseconds since 1970 by the signer's clock; grows with every list that it signs.
    #[n(0)]
    pub made_ms: u64,
    /// Every listed tracker, the signer included.
    #[n(1)]
    pub trackers: Vec<ListedTracker>,
}

/// A tracker as another one knows it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ListedTracker {
    /// Its number.
    #[n(0)]
    pub number: u8,
    /// `host:port` as in the signer's file.
    #[n(1)]
    pub address: String,
    /// Its key, once the signer knows it.
    #[n(2)]
    pub key: Option<PeerId>,
}

impl Statement for TrackerList {
    const DOMAIN: &'static [u8] = b"shoal tracker list 1\0";
    const MAX_BYTES: usize = MAX_LIST_BYTES;
}

/// A sealed [`TrackerList`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct SignedList(#[cbor(n(0), with = "minicbor::bytes")] pub Vec<u8>);

/// A tracker's number and line.
pub type Numbered = (u8, TrackerLine);

/// What is known of the tracker at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pin {
    /// Its key, and who vouched for it if it was never met.
    Key(PeerId, BTreeSet<PeerId>),
    /// It is no longer a tracker, as these said.
    Removed(BTreeSet<PeerId>),
}

/// The pinned keys, by address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins {
    pins: BTreeMap<String, Pin>,
    /// Time of the newest list of each signer: an older one is a replay.
    newest: BTreeMap<PeerId, u64>,
}

/// A line of the pins' file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not \"address peer-id\"")]
pub struct PinsError {
    /// The line's number, from 1.
    pub line: usize,
}

/// The key that a dial to a tracker must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// This key, which the file names.
    Named(PeerId),
    /// This key, which is pinned.
    Pinned(PeerId),
    /// Any key: it is the first contact.
    Anyone,
    /// None: the other trackers say that it was removed.
    Nobody,
}

/// The result of a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// The key was known.
    Known,
    /// The key is known from now on.
    First,
    /// Another key is pinned; nothing changed.
    Other(PeerId),
}

/// Which pins a list may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All: a client or storage node believes the trackers.
    All,
    /// Only those of trackers that were never known, if more than half of all others agree, the asking tracker counted with
    /// them. At a tracker only its operator changes another tracker's known key.
    New,
}

/// What lists changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The tracker's address.
    pub address: String,
    /// Its key before.
    pub before: Option<PeerId>,
    /// Its key now; `None` for a tracker that was removed.
    pub now: Option<PeerId>,
}

/// What one list says of one tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Key(PeerId),
    Gone,
}

impl Pins {
    /// Reads the file's text.
    ///
    /// # Errors
    /// [`PinsError`] with the number of the offending line.
    pub fn parse(text: &str) -> Result<Self, PinsError> {
        let mut pins = Self::default();
        for (number, raw) in text.lines().enumerate() {
            let content = raw.split('#').next().unwrap_or_default();
            let mut words = content.split_whitespace();
            let Some(first) = words.next() else { continue };
            let rest: Vec<&str> = words.collect();
            pins.parse_line(first, &rest).ok_or(PinsError { line: number + 1 })?;
        }
        Ok(pins)
    }

    fn parse_line(&mut self, first: &str, rest: &[&str]) -> Option<()> {
        let keys = |words: &[&str]| words.iter().map(|word| word.parse().ok()).collect::<Option<_>>();
        match (first, rest) {
            (LIST, [signer, time]) => {
                self.newest.insert(signer.parse().ok()?, time.parse().ok()?);
            }
            (LIST, _) => return None,
            (address, [REMOVED, by @ ..]) => {
                self.pins.insert(address.to_lowercase(), Pin::Removed(keys(by)?));
            }
            (address, [key]) => {
                self.pins.insert(address.to_lowercase(), Pin::Key(key.parse().ok()?, BTreeSet::new()));
            }
            (address, [key, VOUCHED, by @ ..]) => {
                self.pins.insert(address.to_lowercase(), Pin::Key(key.parse().ok()?, keys(by)?));
            }
            _ => return None,
        }
        Some(())
    }

    /// The key that a dial to that tracker must find.
    #[must_use]
    pub fn expected(&self, line: &TrackerLine) -> Expected {
        if let Some(named) = line.peer_id {
            return Expected::Named(named);
        }
        match self.pins.get(&address(line)) {
            Some(Pin::Key(key, _)) => Expected::Pinned(*key),
            Some(Pin::Removed(_)) => Expected::Nobody,
            None => Expected::Anyone,
        }
    }

    /// That tracker's key, if it is known.
    #[must_use]
    pub fn key(&self, line: &TrackerLine) -> Option<PeerId> {
        match self.expected(line) {
            Expected::Named(key) | Expected::Pinned(key) => Some(key),
            Expected::Anyone | Expected::Nobody => None,
        }
    }

    /// `key` was proven at that tracker's address. Pins it unless another one is pinned.
    pub fn meet(&mut self, line: &TrackerLine, key: PeerId, lines: &[Numbered]) -> Met {
        match (self.pins.get(&address(line)), line.peer_id) {
            (Some(Pin::Key(pinned, by)), _) if *pinned == key && by.is_empty() => return Met::Known,
            (Some(Pin::Key(pinned, _)), None) if *pinned != key => return Met::Other(*pinned),
            _ => {}
        }
        let known = self.key(line).is_some();
        self.accept(line, key, lines);
        if known { Met::Known } else { Met::First }
    }

    /// Pins `key` for that tracker, whatever was pinned before.
    pub fn accept(&mut self, line: &TrackerLine, key: PeerId, lines: &[Numbered]) {
        self.insert(address(line), Pin::Key(key, BTreeSet::new()), lines);
    }

    /// Forgets keys whose vouchers are no longer trackers. To be called after the file was read.
    pub fn forget_unfounded(&mut self, lines: &[Numbered]) {
        let mut founded: BTreeSet<PeerId> = BTreeSet::new();
        let stands = |pin: &Pin, founded: &BTreeSet<PeerId>| match pin {
            Pin::Key(_, by) if by.is_empty() => true,
            Pin::Key(_, by) | Pin::Removed(by) => by.iter().any(|key| founded.contains(key)),
        };
        loop {
            let before = founded.len();
            for (_, line) in lines {
                match (line.peer_id, self.pins.get(&address(line))) {
                    (Some(named), _) => drop(founded.insert(named)),
                    (None, Some(pin @ Pin::Key(key, _))) if stands(pin, &founded) => {
                        founded.insert(*key);
                    }
                    _ => {}
                }
            }
            if founded.len() == before {
                break;
            }
        }
        let listed: BTreeSet<String> = lines.iter().map(|(_, line)| address(line)).collect();
        self.pins.retain(|at, pin| !listed.contains(at) || stands(pin, &founded));
    }

    /// Applies lists. Only signatures of known trackers count, whoever sent the lists. They are added to `heard`, the newest
    /// lists so far by signer.
    pub fn learn(
        &mut self,
        lines: &[Numbered],
        lists: &[SignedList],
        heard: &mut BTreeMap<PeerId, TrackerList>,
        scope: Scope,
    ) -> Vec<News> {
        self.open_lists(lines, lists, heard);
        let before = self.clone();
        let mut news = Vec::new();
        for (number, line) in lines.iter().filter(|(_, line)| line.peer_id.is_none()) {
            let at = address(line);
            if scope == Scope::New && before.pins.contains_key(&at) {
                continue;
            }
            let known = before.key(line);
            let others = lines.iter().filter(|(_, other)| address(other) != at);
            let voters: BTreeSet<PeerId> = others
                .clone()
                .filter_map(|(_, other)| before.key(other))
                .filter(|key| Some(*key) != known)
                .collect();
            // It is chance whose keys are known first, so a few known ones are not enough to change a key.
            let all = match scope {
                // The tracker itself counts too, without a list of its own.
                Scope::New => others.count() + 1,
                Scope::All if before.pins.contains_key(&at) => others.count(),
                Scope::All => voters.len(),
            };
            let Some((verdict, by)) = majority((&voters, all), heard, (*number, &at), known) else {
                continue;
            };
            let pin = match verdict {
                Verdict::Key(key) if known == Some(key) => {
                    // A key that was met needs no voucher.
                    if let Some(Pin::Key(_, vouched)) = self.pins.get_mut(&at)
                        && !vouched.is_empty()
                    {
                        *vouched = by;
                    }
                    continue;
                }
                Verdict::Key(key) => Pin::Key(key, by),
                Verdict::Gone => Pin::Removed(by),
            };
            let now = if let Pin::Key(key, _) = &pin { Some(*key) } else { None };
            self.insert(at.clone(), pin, lines);
            news.push(News { address: at, before: known, now });
        }
        news
    }

    /// Adds the lists that known trackers signed and that are no older than their last ones.
    fn open_lists(
        &mut self,
        lines: &[Numbered],
        lists: &[SignedList],
        heard: &mut BTreeMap<PeerId, TrackerList>,
    ) {
        let known: BTreeSet<PeerId> = lines.iter().filter_map(|(_, line)| self.key(line)).collect();
        for SignedList(bytes) in lists.iter().take(2 * MAX_TRACKERS) {
            let mut signer = None;
            let list = tokens::open::<TrackerList>(bytes, |key| {
                signer = Some(*key);
                known.contains(key)
            });
            let (Some(signer), Ok(list)) = (signer, list) else { continue };
            let newest = self.newest.get(&signer).copied().unwrap_or(0);
            if list.made_ms >= newest && list.trackers.len() <= MAX_TRACKERS {
                self.newest.insert(signer, list.made_ms);
                heard.insert(signer, list);
            }
        }
        if self.newest.len() > MAX_SIGNERS {
            self.newest.retain(|signer, _| known.contains(signer));
        }
        heard.retain(|signer, _| known.contains(signer));
    }

    fn insert(&mut self, at: String, pin: Pin, lines: &[Numbered]) {
        if self.pins.len() >= MAX_PINS && !self.pins.contains_key(&at) {
            let listed = |at: &String| lines.iter().any(|(_, line)| address(line) == *at);
            let other = self.pins.keys().find(|at| !listed(at)).cloned();
            other.map(|other| self.pins.remove(&other));
        }
        self.pins.insert(at, pin);
    }
}

impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |keys: &BTreeSet<PeerId>| keys.iter().map(|key| format!(" {key}")).collect::<String>();
        f.write_str(HEAD)?;
        for (address, pin) in &self.pins {
            match pin {
                Pin::Key(key, by) if by.is_empty() => writeln!(f, "{address} {key}")?,
                Pin::Key(key, by) => writeln!(f, "{address} {key} {VOUCHED}{}", words(by))?,
                Pin::Removed(by) => writeln!(f, "{address} {REMOVED}{}", words(by))?,
            }
        }
        self.newest.iter().try_for_each(|(signer, time)| writeln!(f, "{LIST} {signer} {time}"))
    }
}

impl TrackerList {
    /// What it says of a tracker of our file, given by number and address, whose known key is `known`. The address may be written
    /// differently in the list. So if no listed tracker has the known key, the tracker was replaced if its number is listed with
    /// a key that none of the `others` has, and is gone otherwise. Only a list that knows every key can say so.
    fn verdict(
        &self,
        (number, at): (u8, &str),
        known: Option<PeerId>,
        others: &BTreeSet<PeerId>,
    ) -> Option<Verdict> {
        if let Some(entry) = self.trackers.iter().find(|entry| entry.address.to_lowercase() == at) {
            return entry.key.map(Verdict::Key);
        }
        let known = known?;
        if self.trackers.iter().any(|entry| entry.key.is_none_or(|key| key == known)) {
            return None;
        }
        let same = self.trackers.iter().find(|entry| entry.number == number).and_then(|entry| entry.key);
        Some(same.filter(|key| !others.contains(key)).map_or(Verdict::Gone, Verdict::Key))
    }
}

/// What more than half of `all` say, and who they are. The voters are those of them whose keys are known.
fn majority(
    (voters, all): (&BTreeSet<PeerId>, usize),
    lists: &BTreeMap<PeerId, TrackerList>,
    of: (u8, &str),
    known: Option<PeerId>,
) -> Option<(Verdict, BTreeSet<PeerId>)> {
    let mut said: BTreeMap<Verdict, BTreeSet<PeerId>> = BTreeMap::new();
    for voter in voters {
        if let Some(verdict) = lists.get(voter).and_then(|list| list.verdict(of, known, voters)) {
            said.entry(verdict).or_default().insert(*voter);
        }
    }
    said.into_iter().find(|(_, by)| 2 * by.len() > all)
}

fn address(line: &TrackerLine) -> String {
    line.to_string().to_lowercase()
}

#[cfg(test)]
mod tests;
