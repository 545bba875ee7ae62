//! The ids that records refer to, so that a name can change its owner without anything else doing so.
//!
//! The ids of users and groups are not chosen: they are hashes of a nonce and of what the user or group began with. Anyone who
//! has the nonce can check an id, and no one can make another record under it.

use std::fmt;

use minicbor::{Decode, Encode};

use crate::digest::Blake3;
use crate::peer_id::PeerId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(
    /// A user: see [`Uid::derive`].
    Uid
);
id!(
    /// A group: see [`Gid::derive`].
    Gid
);
id!(
    /// Makes ids differ that are derived from the same things. A repeated request carries the same nonce.
    Nonce
);
id!(
    /// A file of a group: derived from group, name and content. Members who share the same content under the same name share
    /// the same file.
    Fid
);
id!(
    /// A request that writes: repeated at another tracker it takes effect once.
    RequestId
);

/// What an account's id and the signature on a change of its password are bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AccountDigest {
    /// Public half of the login key.
    #[n(0)]
    pub login_key: PeerId,
    /// BLAKE3 of the salt and the sealed account key, 16 and 72 bytes.
    #[n(1)]
    pub secrets: Blake3,
}

macro_rules! random {
    ($($name:ident),*) => {$(
        impl $name {
            /// A fresh one from the system's secure randomness.
            ///
            /// # Panics
            /// When the system has no randomness, where no key could be made either.
            #[must_use]
            pub fn random() -> Self {
                let mut bytes = [0; 16];
                getrandom::fill(&mut bytes).expect("the system provides randomness");
                Self(bytes)
            }
        }
    )*};
}

random!(Uid, Gid, Nonce, RequestId);

impl Uid {
    /// The id of the user whose account was created as `account` under `name`: the first 16 bytes of a BLAKE3 over these
    /// and a nonce. The name is part of it, so that no second name can be claimed under one id.
    #[must_use]
    pub fn derive(nonce: Nonce, account: &AccountDigest, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("shoal 2026 user id");
        hasher.update(&nonce.0).update(&account.login_key.0).update(&account.secrets.0);
        Self(first_16(hasher.update(name.as_bytes())))
    }
}

impl Fid {
    /// Under which id the holders of this folder serve its listing.
    #[must_use]
    pub fn of_listing(self) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("shoal 2026 listing id");
        Self(first_16(hasher.update(&self.0)))
    }
}

impl Gid {
    /// The id of the group that `founder` founded under `name`.
    #[must_use]
    pub fn derive(nonce: Nonce, founder: Uid, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("shoal 2026 group id");
        hasher.update(&nonce.0).update(&founder.0);
        Self(first_16(hasher.update(name.as_bytes())))
    }
}

/// All before the name has a fixed length, so that no two inputs give the same bytes to hash.
fn first_16(hasher: &blake3::Hasher) -> [u8; 16] {
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_bound_to_everything_that_made_it() {
        let account = AccountDigest { login_key: PeerId([1; 32]), secrets: Blake3([2; 32]) };
        let nonce = Nonce([3; 16]);
        let user = Uid::derive(nonce, &account, "ann");
        // The result of 2026-11-27: another one would refuse every account there is.
        assert_eq!(user.to_string(), "162278055a2d003ccd0e52a2767e56fb");
        let other_key = AccountDigest { login_key: PeerId([9; 32]), ..account };
        let other_secrets = AccountDigest { secrets: Blake3([9; 32]), ..account };
        for other in [
            Uid::derive(Nonce([9; 16]), &account, "ann"),
            Uid::derive(nonce, &other_key, "ann"),
            Uid::derive(nonce, &other_secrets, "ann"),
            Uid::derive(nonce, &account, "anna"),
        ] {
            assert_ne!(other, user);
        }
        let group = Gid::derive(nonce, user, "ann");
        assert_eq!(group.to_string(), "5293d7c05b8e6951da895f7a060aea5c");
        for other in [
            Gid::derive(Nonce([9; 16]), user, "ann"),
            Gid::derive(nonce, Uid([9; 16]), "ann"),
            Gid::derive(nonce, user, "anna"),
        ] {
            assert_ne!(other, group);
        }
    }
}
