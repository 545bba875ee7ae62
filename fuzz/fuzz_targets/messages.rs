//! Messages between client and tracker and between peers, manifests, bitfields and signed tokens: what decodes encodes
//! again to something that decodes to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minicbor::{Decode, Encode};
use shoal_common::peer_wire::{DataHead, ToRequester, ToServer};
use shoal_common::tokens::{self, SessionToken, Ticket};
use shoal_common::tracker_api::{FromTracker, ToTracker};
use shoal_common::{Bitfield, Layout, Manifest};

fn round_trip<T>(bytes: &[u8])
where
    T: for<'b> Decode<'b, ()> + Encode<()> + PartialEq + std::fmt::Debug,
{
    if let Ok(value) = minicbor::decode::<T>(bytes) {
        let again = minicbor::to_vec(&value).expect("a vector takes every write");
        assert_eq!(minicbor::decode::<T>(&again).expect("own encoding"), value);
    }
}

fuzz_target!(|bytes: &[u8]| {
    round_trip::<ToTracker>(bytes);
    round_trip::<FromTracker>(bytes);
    round_trip::<ToServer>(bytes);
    round_trip::<ToRequester>(bytes);
    round_trip::<Manifest>(bytes);
    let _ = tokens::open::<Ticket>(bytes, |_| true);
    let _ = tokens::open::<SessionToken>(bytes, |_| true);
    if let Some(head) = bytes.first_chunk() {
        assert_eq!(&DataHead::from_bytes(head).to_bytes(), head);
    }
    if let Some((size, bits)) = bytes.split_first_chunk::<4>() {
        let layout = Layout::for_size(u64::from(u32::from_le_bytes(*size))).expect("4 GiB are not too long");
        if let Ok(bitfield) = Bitfield::from_bytes(&layout, bits) {
            assert_eq!(bitfield.to_bytes(), bits);
        }
    }
});
