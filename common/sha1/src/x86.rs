//! The compression function by the SHA instructions of x86-64, several messages abreast. Which instruction does what, and
//! in which order four rounds at a time need them: Intel's "SHA Extensions" (Gulley et al., 2013).
#![allow(unsafe_code, reason = "the CPU's SHA instructions")]

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_extract_epi32, _mm_loadu_si128, _mm_set_epi32, _mm_set_epi64x,
    _mm_sha1msg1_epu32, _mm_sha1msg2_epu32, _mm_sha1nexte_epu32, _mm_sha1rnds4_epu32, _mm_shuffle_epi8,
    _mm_shuffle_epi32, _mm_storeu_si128, _mm_xor_si128,
};

use crate::{BLOCK, State};

/// Takes whole blocks, as many for each state; false, and nothing is done, if the CPU has no SHA instructions.
pub(crate) fn compress<const N: usize>(states: &mut [&mut State; N], data: [&[u8]; N]) -> bool {
    let able = is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1");
    if !able {
        return false;
    }
    // SAFETY: the CPU has the features that the functions are compiled for.
    unsafe {
        match (&mut states[..], &data[..]) {
            ([a, b, c, d], &[e, f, g, h]) => four(a, b, c, d, e, f, g, h),
            ([a, b, c], &[e, f, g]) => three(a, b, c, e, f, g),
            ([a, b], &[e, f]) => two(a, b, e, f),
            (states, data) => {
                for (state, data) in states.iter_mut().zip(data) {
                    one(state, data);
                }
            }
        }
    }
    true
}

/// Rounds `4 * $group` to `4 * $group + 3` of all lanes; the constant picks the function and constant of each 20 rounds.
macro_rules! rounds {
    ($constant:literal, $($group:literal),*; $lanes:tt) => {
        $(rounds!(@ $constant, $group, $lanes);)*
    };
    (@ $constant:literal, $group:literal, ($($lane:ident)*)) => {
        $($lane.rounds::<$constant, $group>();)*
    };
}

/// A function that takes as many messages as it has names, each lane in registers of its own: in an array, the compiler
/// keeps them in memory, and nothing is gained.
macro_rules! abreast {
    ($name:ident, $lanes:tt, $($lane:ident $state:ident $data:ident),*) => {
        #[target_feature(enable = "sha,ssse3,sse4.1")]
        #[allow(clippy::too_many_arguments, reason = "two for each lane")]
        fn $name($($state: &mut State,)* $($data: &[u8]),*) {
            $(let mut $lane = Lane::load($state);)*
            let mut blocks = usize::MAX;
            $(blocks = blocks.min($data.len() / BLOCK);)*
            for at in (0..blocks).map(|block| block * BLOCK) {
                $($lane.begin(&$data[at..at + BLOCK]);)*
                rounds!(0, 0, 1, 2, 3, 4; $lanes);
                rounds!(1, 5, 6, 7, 8, 9; $lanes);
                rounds!(2, 10, 11, 12, 13, 14; $lanes);
                rounds!(3, 15, 16, 17, 18, 19; $lanes);
                $($lane.end();)*
            }
            $($lane.store($state);)*
        }
    };
}

abreast!(one, (p), p a e);
abreast!(two, (p q), p a e, q b f);
abreast!(three, (p q r), p a e, q b f, r c g);
abreast!(four, (p q r s), p a e, q b f, r c g, s d h);

/// One message within a block.
#[derive(Clone, Copy)]
struct Lane {
    /// The block's state, and the running one.
    initial: (__m128i, __m128i),
    abcd: __m128i,
    /// `abcd` of four rounds ago, from which `e` comes.
    before: __m128i,
    /// Sixteen words of the message schedule.
    words: [__m128i; 4],
}

impl Lane {
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn load(state: &State) -> Self {
        let initial = load_state(state);
        Self { initial, abcd: initial.0, before: initial.0, words: [initial.0; 4] }
    }

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn begin(&mut self, block: &[u8]) {
        self.words =
            [load_words(block, 0), load_words(block, 16), load_words(block, 32), load_words(block, 48)];
        self.abcd = self.initial.0;
        self.before = self.initial.0;
    }

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn end(&mut self) {
        let (abcd, e) = self.initial;
        self.initial = (_mm_add_epi32(abcd, self.abcd), _mm_sha1nexte_epu32(self.before, e));
    }

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn store(&self, state: &mut State) {
        store_state(state, self.initial);
    }

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn rounds<const CONSTANT: i32, const GROUP: usize>(&mut self) {
        let at = |ahead: usize| (GROUP + ahead) % 4;
        if GROUP >= 4 {
            let words = &mut self.words;
            let sum = _mm_xor_si128(_mm_sha1msg1_epu32(words[at(0)], words[at(1)]), words[at(2)]);
            words[at(0)] = _mm_sha1msg2_epu32(sum, words[at(3)]);
        }
        let word = self.words[at(0)];
        let e = if GROUP == 0 {
            _mm_add_epi32(self.initial.1, word)
        } else {
            _mm_sha1nexte_epu32(self.before, word)
        };
        self.before = self.abcd;
        self.abcd = _mm_sha1rnds4_epu32::<CONSTANT>(self.abcd, e);
    }
}

/// `abcd` with `a` highest, and `e` highest in a vector of its own.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn load_state(state: &State) -> (__m128i, __m128i) {
    let [a, b, c, d, e] = state.map(u32::cast_signed);
    (_mm_set_epi32(a, b, c, d), _mm_set_epi32(e, 0, 0, 0))
}

#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn store_state(state: &mut State, (abcd, e): (__m128i, __m128i)) {
    let mut words = [0_u32; 4];
    // SAFETY: the store needs no alignment, and an array of four words has its sixteen bytes.
    unsafe { _mm_storeu_si128(words.as_mut_ptr().cast(), _mm_shuffle_epi32::<0x1b>(abcd)) };
    state[..4].copy_from_slice(&words);
    state[4] = _mm_extract_epi32::<3>(e).cast_unsigned();
}

#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn load_words(block: &[u8], offset: usize) -> __m128i {
    // Words are big-endian, and the first stands highest.
    let order = _mm_set_epi64x(0x0001_0203_0405_0607, 0x0809_0a0b_0c0d_0e0f);
    let bytes: &[u8] = &block[offset..offset + 16];
    // SAFETY: the load needs no alignment, and the slice has its sixteen bytes.
    let words = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    _mm_shuffle_epi8(words, order)
}
