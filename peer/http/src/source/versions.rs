//! Whether the answers of one server are of one version of the file, where no digest of its pieces tells.
//!
//! The nodes behind one address may name different ETags for the same file, because they make them up of inode numbers, or
//! different dates, because each has a copy of its own. One differing validator is accepted only if the other and the size
//! are the same, and two ranges that came before are the same in an answer with that validator, too. Anything else is
//! another version. Where a digest of the whole file is known, the ranges alone decide: the digest has the last word.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, Response, StatusCode, Url, header};
use tokio::sync::Mutex as AsyncMutex;

use crate::source::answer::{Validators, content_range};
use crate::source::trouble::{Trouble, next_chunk};
use crate::source::{SHORTEST_PART, lock};

/// Longest sample, in bytes.
const SAMPLE: usize = 4 * 1024;
/// How often a range is asked for until an answer comes from the node that is looked for. Of two nodes that take turns at
/// random one of eight answers is of either, but once in 256 times.
const TRIES: u32 = 8;
/// Different validators of one file at most.
const MAX_TAGS: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Versions {
    /// A digest of the whole file is known.
    digest_known: bool,
    size: u64,
    /// One answer at a time is compared.
    state: AsyncMutex<VersionState>,
    samples: Mutex<[Option<Sample>; 2]>,
}

/// Validators that were found to be of one version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Joined {
    /// The version's validators, as they came first.
    pub first: Validators,
    /// Others of the same version.
    pub also: BTreeSet<Validators>,
    /// Each answer has a new ETag, so ETags mean nothing here.
    pub meaningless: bool,
}

#[derive(Debug)]
struct VersionState {
    joined: Joined,
    /// Validators that were found to be of another version.
    others: BTreeSet<Validators>,
    /// Whether nothing of the file was received yet, in this run or in an earlier one.
    fresh: bool,
}

/// Some bytes of the file that came.
#[derive(Debug, Clone)]
struct Sample {
    offset: u64,
    bytes: Bytes,
}

/// What came of a comparison.
enum Found {
    Same,
    /// Every answer has another ETag.
    Meaningless,
    Other,
    /// No answer with these validators came any more.
    Unseen,
}

impl Versions {
    pub(super) fn new(size: u64, known: Joined, digest_known: bool, fresh: bool) -> Self {
        let state = VersionState { joined: known, others: BTreeSet::new(), fresh };
        Self { digest_known, size, state: AsyncMutex::new(state), samples: Mutex::default() }
    }

    /// What is known of the version; `None` while it is being found out.
    pub fn joined(&self) -> Option<Joined> {
        self.state.try_lock().ok().map(|state| state.joined.clone())
    }

    /// Bytes of an accepted answer came. Keeps two samples as far from each other as possible.
    pub(super) fn came(&self, offset: u64, bytes: &Bytes) {
        let mut samples = lock(&self.samples);
        let sample = || Some(Sample { offset, bytes: bytes.slice(..bytes.len().min(SAMPLE)) });
        match &mut *samples {
            _ if bytes.is_empty() => {}
            [first @ None, _] => *first = sample(),
            [Some(first), second] => {
                let distance = |other: u64| other.abs_diff(first.offset);
                let farther = second.as_ref().is_none_or(|old| distance(offset) > distance(old.offset));
                if farther && distance(offset) >= SAMPLE as u64 {
                    *second = sample();
                }
            }
        }
    }

    /// Refuses an answer of another version; asks the server for samples where that has to be found out.
    pub(super) async fn check(&self, sampler: &Sampler<'_>, response: &Response) -> Result<(), Trouble> {
        let found = Validators::of(response.headers());
        let mut state = self.state.lock().await;
        if state.accepts(&found) {
            state.joined.first.learn(found);
            state.fresh = false;
            return Ok(());
        }
        let other = || Trouble::Invalid("has another version of the file now".into());
        let alike = self.digest_known || state.joined.first.agrees_in_one(&found);
        if !alike || state.others.contains(&found) || state.joined.also.len() >= MAX_TAGS {
            return Err(other());
        }
        if state.fresh {
            // Nothing came that it could differ from.
            state.joined.first = found;
            state.fresh = false;
            return Ok(());
        }
        match self.compare(sampler, &found, &state.joined).await? {
            Found::Same => {
                state.joined.also.insert(found);
                Ok(())
            }
            Found::Meaningless => {
                state.joined.meaningless = true;
                Ok(())
            }
            Found::Other => {
                state.others.insert(found);
                Err(other())
            }
            Found::Unseen => {
                Err(Trouble::Passing("answers with an ETag or a date that does not come again".into(), None))
            }
        }
    }

    async fn compare(
        &self,
        sampler: &Sampler<'_>,
        found: &Validators,
        joined: &Joined,
    ) -> Result<Found, Trouble> {
        let mut samples = lock(&self.samples).clone();
        let [first, second] = &mut samples;
        // Where not enough came yet, nodes with known validators are asked for it.
        let places = [0, self.size.saturating_sub(SAMPLE as u64)];
        for (sample, offset) in [first, second].into_iter().zip(places) {
            if sample.is_none() {
                *sample = self.known_sample(sampler, joined, offset).await?;
            }
            if sample.is_none() {
                return Ok(self.undecided());
            }
        }
        let (mut unknown, mut all) = (BTreeSet::from([found.clone()]), true);
        for sample in samples.iter().flatten() {
            let mut seen = false;
            for _ in 0..TRIES {
                let Some((validators, bytes)) = sampler.sample(sample.offset, sample.bytes.len()).await?
                else {
                    // It serves no ranges now.
                    return Ok(self.undecided());
                };
                seen = validators == *found;
                if joined.has(&validators) {
                    continue;
                }
                let alike = self.digest_known || joined.first.agrees_in_one(&validators);
                if !sample.bytes.starts_with(&bytes) || !alike {
                    return Ok(Found::Other);
                }
                unknown.insert(validators);
                if seen {
                    break;
                }
            }
            all &= seen;
        }
        Ok(match all {
            true => Found::Same,
            // Each answer with new ones, and each with the right bytes.
            false if unknown.len() > TRIES as usize => Found::Meaningless,
            false => self.undecided(),
        })
    }

    /// Nothing shows that the bytes differ, and nothing that they do not.
    fn undecided(&self) -> Found {
        if self.digest_known { Found::Same } else { Found::Unseen }
    }

    async fn known_sample(
        &self,
        sampler: &Sampler<'_>,
        joined: &Joined,
        offset: u64,
    ) -> Result<Option<Sample>, Trouble> {
        let length = usize::try_from(self.size - offset).unwrap_or(SAMPLE).min(SAMPLE);
        for _ in 0..TRIES {
            match sampler.sample(offset, length).await? {
                Some((validators, bytes)) if joined.has(&validators) => {
                    return Ok(Some(Sample { offset, bytes }));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
        Ok(None)
    }
}

impl VersionState {
    fn accepts(&self, found: &Validators) -> bool {
        let meaningless = Validators { etag: None, ..found.clone() };
        self.joined.first.allow(found)
            || self.joined.also.iter().any(|known| known.allow(found))
            || self.joined.meaningless && self.joined.first.allow(&meaningless)
    }
}

impl Joined {
    fn has(&self, validators: &Validators) -> bool {
        self.first == *validators || self.also.contains(validators)
    }
}

/// Asks a server for some bytes of the file.
pub(crate) struct Sampler<'a> {
    pub(crate) client: &'a Client,
    /// Where to ask; and where else, if that says no.
    pub(crate) urls: &'a [&'a Url],
    pub(crate) size: u64,
    pub(crate) within: Duration,
}

impl Sampler<'_> {
    /// Two ranges far from each other; `None` if the server does not give them.
    ///
    /// # Errors
    /// When no answer came, or none with the file.
    pub(crate) async fn two(&self) -> Result<Option<Samples>, Trouble> {
        let length = usize::try_from(self.size).unwrap_or(SAMPLE).min(SAMPLE);
        let Some(last) = self.size.checked_sub(length as u64).filter(|_| length > 0) else { return Ok(None) };
        // Files of one kind begin alike, and some end alike.
        let (first, second) =
            tokio::try_join!(self.sample(last / 3, length), self.sample(last - last / 7, length))?;
        Ok(first.zip(second).map(|((_, first), (_, second))| Samples([first, second])))
    }

    /// Some bytes and the validators that came with them, fewer than `length` if the server cuts parts shorter; `None` if it
    /// gives no parts.
    async fn sample(&self, offset: u64, length: usize) -> Result<Option<(Validators, Bytes)>, Trouble> {
        let mut refused = Trouble::Passing("gives no sample".into(), None);
        for url in self.urls {
            match self.sample_at(url, offset, length).await {
                Ok(sample) => return Ok(sample),
                Err(trouble) => refused = trouble,
            }
        }
        Err(refused)
    }

    /// Opens a new connection: a kept one leads to the same node again.
    async fn sample_at(
        &self,
        url: &Url,
        offset: u64,
        length: usize,
    ) -> Result<Option<(Validators, Bytes)>, Trouble> {
        let last = offset + length as u64 - 1;
        let request = self.client.get(url.clone()).header(header::CONNECTION, "close");
        let request = request.header(header::RANGE, format!("bytes={offset}-{last}"));
        let answered = tokio::time::timeout(self.within, request.send()).await;
        let answered = answered.map_err(|_| Trouble::silent(self.within))?;
        let mut response = answered.map_err(Trouble::unanswered)?;
        if !response.status().is_success() {
            return Err(Trouble::Passing(format!("answers {}", response.status()), None));
        }
        let fits = content_range(response.headers()).filter(|range| {
            let whole = range.total.is_none_or(|total| total == self.size);
            range.first == offset && range.last <= last && whole
        });
        let Some(range) = fits.filter(|_| response.status() == StatusCode::PARTIAL_CONTENT) else {
            return Ok(None);
        };
        let length = usize::try_from(range.last - range.first + 1).unwrap_or(length);
        let mut bytes = Vec::with_capacity(length);
        while let Some(chunk) = next_chunk(&mut response).await? {
            if bytes.len() + chunk.len() > length {
                return Ok(None);
            }
            bytes.extend_from_slice(&chunk);
        }
        let validators = Validators::of(response.headers());
        let enough = bytes.len() == length && (length as u64 >= SHORTEST_PART || range.last == last);
        Ok(enough.then(|| (validators, Bytes::from(bytes))))
    }
}

/// Two ranges of a file, at places that its size gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Samples([Bytes; 2]);

impl Samples {
    /// Whether both can be of one file, as far as both go.
    pub(crate) fn allow(&self, other: &Self) -> bool {
        let alike = |(one, other): (&Bytes, &Bytes)| one.starts_with(other) || other.starts_with(one);
        self.0.iter().zip(&other.0).all(alike)
    }
}
