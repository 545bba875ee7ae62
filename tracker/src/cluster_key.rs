//! The key that a cluster's trackers may share, and the proof that both ends of a stream hold it.
//!
//! The opener of the stream sends a nonce. The acceptor answers with a nonce of its own and a code over both nonces and both
//! peer ids. The opener answers with another code. Neither end learns the key, and no code is good for another stream.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use hmac::{Hmac, KeyInit, Mac};
use minicbor::{Decode, Encode};
use sha2::Sha256;
use shoal_common::PeerId;
use shoal_console::read_key;
use shoal_net::{ChannelReceiver, ChannelSender};
use zeroize::Zeroizing;

/// Shortest key in bytes: 16 random ones are enough.
const SHORTEST: usize = 16;
/// How long the other end may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A nonce, sent in the clear.
pub(crate) type Nonce = [u8; 32];

/// What the accepting end answers to a nonce.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct Answer {
    /// Its nonce and its code; `None` if it has no key.
    #[n(0)]
    proof: Option<Proof>,
}

#[derive(Debug, Clone, Copy, Encode, Decode)]
#[cbor(map)]
struct Proof {
    #[cbor(n(0), with = "minicbor::bytes")]
    nonce: Nonce,
    #[cbor(n(1), with = "minicbor::bytes")]
    code: [u8; 32],
}

/// What the opening end answers to that.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct Confirmation {
    #[cbor(n(0), with = "minicbor::bytes")]
    code: [u8; 32],
}

/// Why the other end did not prove that it holds the key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unproven {
    /// The stream broke, or what came made no sense, or nothing came.
    #[error("it did not answer")]
    Silent,
    /// It has none.
    #[error("it has no cluster key; start it with --cluster-key")]
    NoKey,
    /// It has another one.
    #[error("it has another cluster key")]
    OtherKey,
}

/// The key, as read from its file.
pub struct ClusterKey {
    bytes: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey")
    }
}

/// Whose code it is.
#[derive(Clone, Copy)]
enum End {
    Opener,
    Acceptor,
}

/// One stream: who opened it, who accepted it, and their nonces.
#[derive(Clone, Copy)]
struct Stream {
    opener: PeerId,
    acceptor: PeerId,
    opened: Nonce,
    accepted: Nonce,
}

impl ClusterKey {
    /// Reads a key: whatever the file holds, space at its ends apart.
    ///
    /// # Errors
    /// In words: it cannot be read, others may read it, it is too short or too long.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read_key(path, "the cluster key")?.trim_ascii().to_vec();
        let bytes = Zeroizing::new(bytes);
        if bytes.len() < SHORTEST {
            let shown = path.display();
            bail!(
                "the cluster key {shown} is too short: it has at least {SHORTEST} bytes; make one with: openssl rand -hex 32"
            );
        }
        Ok(Self { bytes })
    }

    fn mac(&self, end: End, stream: &Stream) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.bytes).expect("HMAC takes a key of any length");
        let end: &[u8] = match end {
            End::Opener => b"shoal cluster key 1 opener\0",
            End::Acceptor => b"shoal cluster key 1 acceptor\0",
        };
        for part in [end, &stream.opener.0, &stream.acceptor.0, &stream.opened, &stream.accepted] {
            mac.update(part);
        }
        mac
    }

    fn code(&self, end: End, stream: &Stream) -> [u8; 32] {
        self.mac(end, stream).finalize().into_bytes().into()
    }

    fn proves(&self, end: End, stream: &Stream, code: &[u8; 32]) -> bool {
        // In constant time.
        self.mac(end, stream).verify_slice(code).is_ok()
    }
}

/// A fresh nonce.
pub(crate) fn nonce() -> Nonce {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).expect("the system provides randomness");
    nonce
}

/// The opener's part, after its nonce was sent: checks the acceptor's proof, then sends its own.
pub(crate) async fn open(
    key: &ClusterKey,
    (opener, acceptor): (PeerId, PeerId),
    opened: Nonce,
    sender: &mut ChannelSender,
    receiver: &mut ChannelReceiver,
) -> Result<(), Unproven> {
    let answer: Answer = receive(receiver).await?;
    let proof = answer.proof.ok_or(Unproven::NoKey)?;
    let stream = Stream { opener, acceptor, opened, accepted: proof.nonce };
    if !key.proves(End::Acceptor, &stream, &proof.code) {
        return Err(Unproven::OtherKey);
    }
    send(sender, &Confirmation { code: key.code(End::Opener, &stream) }).await
}

/// The acceptor's part, after the opener's nonce came. Without a key it says so and proves nothing.
pub(crate) async fn accept(
    key: Option<&ClusterKey>,
    (opener, acceptor): (PeerId, PeerId),
    opened: Nonce,
    sender: &mut ChannelSender,
    receiver: &mut ChannelReceiver,
) -> Result<(), Unproven> {
    let Some(key) = key else { return send(sender, &Answer { proof: None }).await };
    let stream = Stream { opener, acceptor, opened, accepted: nonce() };
    let proof = Proof { nonce: stream.accepted, code: key.code(End::Acceptor, &stream) };
    send(sender, &Answer { proof: Some(proof) }).await?;
    let confirmation: Confirmation = receive(receiver).await?;
    if key.proves(End::Opener, &stream, &confirmation.code) { Ok(()) } else { Err(Unproven::OtherKey) }
}

async fn send<T: Encode<()>>(sender: &mut ChannelSender, message: &T) -> Result<(), Unproven> {
    let sent = tokio::time::timeout(PATIENCE, sender.send(&crate::record::encode(message))).await;
    sent.map_err(|_| Unproven::Silent)?.map_err(|_| Unproven::Silent)
}

async fn receive<T: for<'b> Decode<'b, ()>>(receiver: &mut ChannelReceiver) -> Result<T, Unproven> {
    match tokio::time::timeout(PATIENCE, receiver.recv()).await {
        Ok(Ok(Some(message))) => minicbor::decode(&message).map_err(|_| Unproven::Silent),
        _ => Err(Unproven::Silent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_code_is_good_for_one_end_of_one_stream_under_one_key() {
        let key = |byte| ClusterKey { bytes: Zeroizing::new(vec![byte; 32]) };
        let (opener, acceptor) = (PeerId([1; 32]), PeerId([2; 32]));
        let stream = Stream { opener, acceptor, opened: [3; 32], accepted: [4; 32] };
        let code = key(9).code(End::Opener, &stream);
        assert!(key(9).proves(End::Opener, &stream, &code));
        assert!(!key(8).proves(End::Opener, &stream, &code));
        assert!(!key(9).proves(End::Acceptor, &stream, &code));
        let others = [
            Stream { opener: acceptor, acceptor: opener, ..stream },
            Stream { acceptor: PeerId([5; 32]), ..stream },
            Stream { opened: [5; 32], ..stream },
            Stream { accepted: [5; 32], ..stream },
        ];
        assert!(others.iter().all(|other| !key(9).proves(End::Opener, other, &code)));
    }

    #[test]
    fn a_key_file_that_others_read_or_that_is_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let write = |content: &str, mode: u32| {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            ClusterKey::read(&path)
        };
        assert!(write("0123456789abcdef\n", 0o600).is_ok());
        for (content, mode, why) in [
            ("0123456789abcdef", 0o640, "chmod 600"),
            ("short", 0o600, "openssl rand"),
            ("short                ", 0o600, "too short"),
        ] {
            let error = write(content, mode).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let error = ClusterKey::read(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("is a folder; name the file in it"), "{error}");
        std::fs::remove_file(&path).unwrap();
        assert!(format!("{:#}", ClusterKey::read(&path).unwrap_err()).contains("cannot read"));
    }
}
