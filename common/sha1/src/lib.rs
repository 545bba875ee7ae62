//! SHA-1 (FIPS 180-4) of several messages at once on one core.
//!
//! One message leaves a core idle most of the time: each step waits for the one before it. Steps of *other* messages fill
//! these gaps, so [`update_all`] takes up to [`LANES`] messages at once. Shoal hashes each byte twice, in its piece and in
//! the whole file, and many pieces. Two messages at once cost a seventh more than one; four cost less than two one after the
//! other (docs/figures.md has the measurement).
//!
//! Uses the SHA instructions of x86-64 where the CPU has them, else the `sha1` crate, message after message. The tests
//! compare the two. With `shoal-wipe` this is the workspace's only crate with `unsafe` code.

#[cfg(target_arch = "x86_64")]
mod x86;

use std::fmt;

/// Messages that are worth hashing at once.
pub const LANES: usize = 4;
/// Bytes of a block.
const BLOCK: usize = 64;
/// FIPS 180-4, section 5.3.1.
const INITIAL: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

type State = [u32; 5];

/// The SHA-1 of a message that comes in parts.
#[derive(Clone)]
pub struct Hasher {
    state: State,
    /// Bytes of the message so far.
    length: u64,
    /// The last `length % 64` of them.
    rest: [u8; BLOCK],
}

impl Default for Hasher {
    fn default() -> Self {
        Self { state: INITIAL, length: 0, rest: [0; BLOCK] }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({} bytes)", self.length)
    }
}

impl Hasher {
    /// Takes the next bytes of the message.
    pub fn update(&mut self, bytes: &[u8]) {
        update_all(&mut [(self, bytes)]);
    }

    /// The digest of all bytes taken.
    #[must_use]
    pub fn finish(mut self) -> [u8; 20] {
        let bits = self.length.wrapping_mul(8);
        let filled = self.rest_length();
        // A one, zeros, and the length in bits end the message at the end of a block (section 5.1.1).
        let mut padding = [0; 2 * BLOCK];
        padding[0] = 0x80;
        let zeros = (2 * BLOCK - 8 - 1 - filled) % BLOCK;
        padding[1 + zeros..1 + zeros + 8].copy_from_slice(&bits.to_be_bytes());
        self.update(&padding[..1 + zeros + 8]);
        let mut digest = [0; 20];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        digest
    }

    /// Bytes that wait for their block to fill.
    fn rest_length(&self) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "less than 64")]
        let length = (self.length % BLOCK as u64) as usize;
        length
    }

    /// Completes the block that was begun, as far as `bytes` go; gives those behind it.
    fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let filled = self.rest_length();
        if filled == 0 {
            return bytes;
        }
        let (now, behind) = bytes.split_at(bytes.len().min(BLOCK - filled));
        self.rest[filled..filled + now.len()].copy_from_slice(now);
        self.length += now.len() as u64;
        if self.rest_length() == 0 && !now.is_empty() {
            compress(&mut [&mut self.state], [&self.rest]);
        }
        behind
    }
}

/// The digest of one message.
#[must_use]
pub fn digest(bytes: &[u8]) -> [u8; 20] {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish()
}

/// Each message takes its next bytes, up to [`LANES`] of them abreast. The result is that of updating one after the other.
pub fn update_all(messages: &mut [(&mut Hasher, &[u8])]) {
    let mut waiting = messages.iter_mut();
    let mut lanes: Vec<(&mut Hasher, &[u8])> = Vec::with_capacity(LANES);
    loop {
        while lanes.len() < LANES
            && let Some((hasher, bytes)) = waiting.next()
        {
            let bytes = hasher.fill(bytes);
            lanes.push((hasher, bytes));
        }
        lanes.retain_mut(|(hasher, bytes)| {
            let lasts = bytes.len() >= BLOCK;
            if !lasts {
                hasher.rest[..bytes.len()].copy_from_slice(bytes);
                hasher.length += bytes.len() as u64;
            }
            lasts
        });
        if lanes.len() == LANES || waiting.len() == 0 {
            if lanes.is_empty() {
                return;
            }
            advance(&mut lanes);
        }
    }
}

/// Takes as many blocks from each lane as the shortest has.
fn advance(lanes: &mut [(&mut Hasher, &[u8])]) {
    let shortest = lanes.iter().map(|(_, bytes)| bytes.len()).min().unwrap_or(0);
    let length = shortest - shortest % BLOCK;
    match lanes {
        [a] => advance_together([a], length),
        [a, b] => advance_together([a, b], length),
        [a, b, c] => advance_together([a, b, c], length),
        [a, b, c, d, ..] => advance_together([a, b, c, d], length),
        [] => {}
    }
}

fn advance_together<const N: usize>(lanes: [&mut (&mut Hasher, &[u8]); N], length: usize) {
    let mut data = [&[][..]; N];
    let mut at = 0;
    let mut states = lanes.map(|(hasher, bytes)| {
        let (now, behind) = bytes.split_at(length);
        data[at] = now;
        at += 1;
        *bytes = behind;
        hasher.length += length as u64;
        &mut hasher.state
    });
    compress(&mut states, data.map(|data| data));
}

/// Takes whole blocks, as many for each state.
fn compress<const N: usize>(states: &mut [&mut State; N], data: [&[u8]; N]) {
    #[cfg(target_arch = "x86_64")]
    if x86::compress(states, data) {
        return;
    }
    one_by_one(states, data);
}

/// What every CPU can do.
fn one_by_one<const N: usize>(states: &mut [&mut State; N], data: [&[u8]; N]) {
    for (state, data) in states.iter_mut().zip(data) {
        sha1::block_api::compress(state, data.as_chunks().0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha1::Digest as _;

    fn reference(bytes: &[u8]) -> [u8; 20] {
        sha1::Sha1::digest(bytes).into()
    }

    fn hex(digest: [u8; 20]) -> String {
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_published_examples() {
        // FIPS 180-4's own and RFC 3174's.
        assert_eq!(hex(digest(b"abc")), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(hex(digest(b"")), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!(hex(digest(&[b'a'; 1_000_000])), "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    }

    #[test]
    fn every_length_around_the_blocks() {
        let bytes: Vec<u8> = (0..=250).cycle().take(300).collect();
        for length in 0..bytes.len() {
            assert_eq!(digest(&bytes[..length]), reference(&bytes[..length]), "{length}");
        }
    }

    #[test]
    fn with_and_without_the_instructions_it_is_the_same() {
        let data: Vec<Vec<u8>> = (0..4_u8).map(|lane| vec![lane ^ 0x5a; 640]).collect();
        let slices = [&data[0][..], &data[1][..], &data[2][..], &data[3][..]];
        let (mut fast, mut slow) = ([INITIAL; 4], [INITIAL; 4]);
        compress(&mut fast.each_mut(), slices);
        one_by_one(&mut slow.each_mut(), slices);
        assert_eq!(fast, slow);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn abreast_is_one_after_the_other(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1_000), 0..11),
            cuts in prop::collection::vec(0_usize..1_000, 11),
        ) {
            let mut hashers = vec![Hasher::default(); messages.len()];
            let cut = |index: usize| cuts[index].min(messages[index].len());
            for first in [true, false] {
                let part = |index: usize| {
                    let (one, two) = messages[index].split_at(cut(index));
                    if first { one } else { two }
                };
                let mut parts: Vec<_> =
                    hashers.iter_mut().enumerate().map(|(index, hasher)| (hasher, part(index))).collect();
                update_all(&mut parts);
            }
            for (hasher, message) in hashers.into_iter().zip(&messages) {
                prop_assert_eq!(hasher.finish(), reference(message));
            }
        }
    }
}
