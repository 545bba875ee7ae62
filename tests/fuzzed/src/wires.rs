//! Messages of the wires: what decodes encodes again to something that decodes to the same.

use minicbor::{Decode, Encode};
use shoal_common::folder::check_path;
use shoal_common::peer_wire::{self, ToRequester, ToServer};
use shoal_common::storage::StoreManifest;
use shoal_common::tokens::{self, CopyOrder, SessionToken, Statement, StorageTicket, Ticket};
use shoal_common::tracker_api::{FromTracker, ToTracker, has_later_name};
use shoal_common::vouching::TrackerList;
use shoal_common::{Bitfield, Layout, Listing, Manifest};
use shoal_dfs::wire::{ChunkHead, DataHead, ToClient, ToNode};
use shoal_replica::Frame;

fn round_trip<T>(bytes: &[u8])
where
    T: for<'b> Decode<'b, ()> + Encode<()> + PartialEq + std::fmt::Debug,
{
    if let Ok(value) = minicbor::decode::<T>(bytes) {
        let again = minicbor::to_vec(&value).unwrap();
        assert_eq!(minicbor::decode::<T>(&again).unwrap(), value);
    }
}

/// Messages between client and tracker and between peers, manifests, and bitfields.
pub fn messages(bytes: &[u8]) {
    round_trip::<ToTracker>(bytes);
    round_trip::<FromTracker>(bytes);
    round_trip::<ToServer>(bytes);
    round_trip::<ToRequester>(bytes);
    round_trip::<Manifest>(bytes);
    let _ = has_later_name(bytes);
    if let Some(head) = bytes.first_chunk() {
        assert_eq!(&peer_wire::DataHead::from_bytes(head).to_bytes(), head);
    }
    if let Some((size, bits)) = bytes.split_first_chunk::<4>() {
        let layout = Layout::for_size(u64::from(u32::from_le_bytes(*size))).unwrap();
        if let Ok(bitfield) = Bitfield::from_bytes(&layout, bits) {
            assert_eq!(bitfield.to_bytes(), bits);
        }
    }
}

/// Frames between trackers.
pub fn frames(bytes: &[u8]) {
    if let Ok(frame) = Frame::decode(bytes) {
        assert_eq!(Frame::decode(&frame.encode()).unwrap(), frame);
    }
}

/// Tickets, session tokens and whatever else trackers sign: the signed form, and what is in it.
pub fn tokens(bytes: &[u8]) {
    fn both<S: Statement + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        round_trip::<S>(bytes);
        let _ = tokens::open::<S>(bytes, |_| true);
        assert!(tokens::open::<S>(bytes, |_| false).is_err());
    }
    both::<Ticket>(bytes);
    both::<SessionToken>(bytes);
    both::<StorageTicket>(bytes);
    both::<CopyOrder>(bytes);
    both::<TrackerList>(bytes);
}

/// Listings of folders: there is one way to write each, and no path in one leads out of the folder.
pub fn listing(bytes: &[u8]) {
    let Ok(listing) = Listing::decode(bytes) else { return };
    assert_eq!(listing.encode(), bytes);
    for entry in listing.entries() {
        assert_eq!(check_path(&entry.path), Ok(()));
        assert!(entry.path.split('/').all(|name| !matches!(name, "" | "." | "..")));
    }
    let _ = listing.colliding();
    if let Ok(layout) = listing.usual_layout() {
        assert_eq!(layout.files(), listing.files().count());
        let _ = listing.check_pieces(&layout, &[]);
    }
}

/// Messages between users, storage nodes and each other, and the public part of a stored file.
pub fn storage(bytes: &[u8]) {
    round_trip::<ToNode>(bytes);
    round_trip::<ToClient>(bytes);
    if let Some(head) = bytes.first_chunk() {
        assert_eq!(&ChunkHead::from_bytes(head).to_bytes(), head);
    }
    if let Some(head) = bytes.first_chunk() {
        assert_eq!(&DataHead::from_bytes(*head).to_bytes(), head);
    }
    if let Ok(manifest) = StoreManifest::read(bytes) {
        assert_eq!(StoreManifest::read(&manifest.encode()).as_ref(), Ok(&manifest));
        let servers = manifest.servers.len();
        for chunk in 0..4 {
            let placed: Vec<usize> = manifest.placement(chunk).collect();
            assert!(placed.len() == servers && placed.iter().all(|&server| server < servers));
        }
    }
}
