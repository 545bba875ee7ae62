//! Random identities that records refer to, so that a name can change hands without what it owns doing so.

use std::fmt;

use minicbor::{Decode, Encode};

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
    /// A user: the random id of the request that created the account.
    Uid
);
id!(
    /// A group: the random id of the request that created it.
    Gid
);
id!(
    /// A file of a group: derived from group, name and content, so that whoever shares the same content under the same
    /// name shares the same file.
    Fid
);
id!(
    /// A request that writes: carried to another tracker it takes effect once.
    RequestId
);

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

random!(Uid, Gid, RequestId);
