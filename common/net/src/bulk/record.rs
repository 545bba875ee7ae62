//! TLS 1.3's record protection (RFC 8446, section 5) in place: what one end says is sealed where it lies in the buffer
//! that goes to the socket, and opened where it lies in the one that came from it.
//!
//! rustls makes the handshake, the keys and their updates, ring the AEAD; only the framing between the two is here,
//! because with rustls's own record layer a connection takes nearly twice the CPU (docs/figures.md). Pure: no socket.

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;

/// Bytes before a record's ciphertext: type, legacy version, length.
pub(super) const HEADER: usize = 5;
/// Longest plaintext of a record (section 5.1).
pub(super) const MAX_PLAIN: usize = 1 << 14;
/// The real type behind the plaintext, and the AEAD's tag.
pub(super) const TRAILER: usize = 1 + 16;
/// Longest ciphertext that is taken (section 5.2).
const MAX_CIPHER: usize = MAX_PLAIN + 256;
/// Longest record.
pub(super) const MAX_RECORD: usize = HEADER + MAX_CIPHER;

/// What a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Content {
    Alert = 21,
    Handshake = 22,
    Data = 23,
}

/// Why a record cannot be opened or sealed. The connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("not a TLS 1.3 record")]
    NotARecord,
    #[error("a record that is too long")]
    TooLong,
    #[error("a record that was altered on the way, or is not from the peer")]
    Forged,
    #[error("more records than one key may protect")]
    Exhausted,
    #[error("keys of an unknown kind")]
    UnknownKeys,
}

/// The keys of one direction and the number of the next record.
struct Keys {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Keys {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(RecordError::UnknownKeys),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| RecordError::UnknownKeys)?;
        let iv = iv.as_ref().try_into().map_err(|_| RecordError::UnknownKeys)?;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence })
    }

    /// The next record's nonce (section 5.3): never twice the same, for the number only grows.
    fn next_nonce(&mut self) -> Result<Nonce, RecordError> {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        self.sequence = self.sequence.checked_add(1).ok_or(RecordError::Exhausted)?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// Seals what this end says.
pub(super) struct Sealer(Keys);

impl Sealer {
    pub(super) fn new(secrets: (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        Keys::new(secrets).map(Self)
    }

    /// Records sealed with these keys so far, those of the handshake included.
    pub(super) fn sealed(&self) -> u64 {
        self.0.sequence
    }

    /// Makes a record of `buffer[start..]`, which is [`HEADER`] bytes of room and then at most [`MAX_PLAIN`] of plaintext.
    pub(super) fn seal(
        &mut self,
        buffer: &mut Vec<u8>,
        start: usize,
        content: Content,
    ) -> Result<(), RecordError> {
        buffer.push(content as u8);
        let length = buffer.len() - start - HEADER + TRAILER - 1;
        let length = u16::try_from(length).ok().filter(|_| length <= MAX_PLAIN + TRAILER);
        let [high, low] = length.ok_or(RecordError::TooLong)?.to_be_bytes();
        // The outer type always says data, the version always TLS 1.2.
        let header = [Content::Data as u8, 3, 3, high, low];
        buffer[start..start + HEADER].copy_from_slice(&header);
        let nonce = self.0.next_nonce()?;
        let sealed =
            self.0.key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut buffer[start + HEADER..]);
        let tag = sealed.map_err(|_| RecordError::TooLong)?;
        buffer.extend_from_slice(tag.as_ref());
        Ok(())
    }
}

/// Opens what the other end says.
pub(super) struct Opener(Keys);

/// An opened record: what it is, and the length of its plaintext, which begins [`HEADER`] bytes into the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) content: Content,
    pub(super) length: usize,
}

/// The length of the record that `bytes` begin with, header included; `None` while the header is not whole.
pub(super) fn record_length(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(&[kind, _, _, high, low]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    if kind != Content::Data as u8 {
        return Err(RecordError::NotARecord);
    }
    match usize::from(u16::from_be_bytes([high, low])) {
        length if length > MAX_CIPHER => Err(RecordError::TooLong),
        length => Ok(Some(HEADER + length)),
    }
}

impl Opener {
    pub(super) fn new(secrets: (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        Keys::new(secrets).map(Self)
    }

    /// Opens a whole record, as long as [`record_length`] says, where it lies.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<Opened, RecordError> {
        let (header, cipher) = record.split_first_chunk_mut::<HEADER>().ok_or(RecordError::NotARecord)?;
        let nonce = self.0.next_nonce()?;
        let plain =
            self.0.key.open_in_place(nonce, Aad::from(*header), cipher).map_err(|_| RecordError::Forged)?;
        // Padding is zeros behind the type.
        let last = plain.iter().rposition(|&byte| byte != 0).ok_or(RecordError::NotARecord)?;
        if last > MAX_PLAIN {
            return Err(RecordError::TooLong);
        }
        let content = match plain[last] {
            21 => Content::Alert,
            22 => Content::Handshake,
            23 => Content::Data,
            _ => return Err(RecordError::NotARecord),
        };
        Ok(Opened { content, length: last })
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer({})", self.0.sequence)
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opener({})", self.0.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustls::crypto::cipher::{AeadKey, Iv};

    fn secrets(sequence: u64) -> (u64, ConnectionTrafficSecrets) {
        let (key, iv) = (AeadKey::from([7; 32]), Iv::new([9; 12]));
        (sequence, ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv })
    }

    fn sealed(sequence: u64, plain: &[u8], content: Content) -> Vec<u8> {
        let mut record = [&[0; HEADER], plain].concat();
        Sealer::new(secrets(sequence)).unwrap().seal(&mut record, 0, content).unwrap();
        record
    }

    fn open(sequence: u64, record: &mut [u8]) -> Result<Opened, RecordError> {
        Opener::new(secrets(sequence)).unwrap().open(record)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_sealed_opens_and_what_is_altered_does_not(
            plain in prop::collection::vec(any::<u8>(), 0..=MAX_PLAIN),
            sequence in any::<u32>(),
            position in any::<prop::sample::Index>(),
            bit in 0..8_u32,
        ) {
            let sequence = u64::from(sequence);
            let mut record = sealed(sequence, &plain, Content::Data);
            prop_assert_eq!(record_length(&record), Ok(Some(record.len())));
            let mut altered = record.clone();
            altered[position.index(record.len())] ^= 1 << bit;
            prop_assert_eq!(open(sequence, &mut altered), Err(RecordError::Forged));
            prop_assert_eq!(open(sequence + 1, &mut record.clone()), Err(RecordError::Forged));
            let opened = open(sequence, &mut record).unwrap();
            prop_assert_eq!(opened, Opened { content: Content::Data, length: plain.len() });
            prop_assert_eq!(&record[HEADER..HEADER + plain.len()], &plain[..]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = record_length(&bytes);
            prop_assert!(open(0, &mut bytes).is_err());
        }
    }

    #[test]
    fn padding_is_taken_off_and_only_padding_is_no_record() {
        let mut keys = Keys::new(secrets(0)).unwrap();
        let mut seal = |inner: &[u8]| {
            let length = u16::try_from(inner.len() + 16).unwrap().to_be_bytes();
            let header = [23, 3, 3, length[0], length[1]];
            let mut body = inner.to_vec();
            let nonce = keys.next_nonce().unwrap();
            let tag = keys.key.seal_in_place_separate_tag(nonce, Aad::from(header), &mut body).unwrap();
            [&header[..], &body, tag.as_ref()].concat()
        };
        let (mut padded, mut empty, mut unknown) = (seal(b"ab\x17\0\0\0"), seal(&[0; 9]), seal(b"ab\x63"));
        let mut opener = Opener::new(secrets(0)).unwrap();
        assert_eq!(opener.open(&mut padded), Ok(Opened { content: Content::Data, length: 2 }));
        assert_eq!(opener.open(&mut empty), Err(RecordError::NotARecord));
        assert_eq!(opener.open(&mut unknown), Err(RecordError::NotARecord));
    }

    #[test]
    fn lengths_are_bounded_before_anything_is_read() {
        let long = u16::try_from(MAX_CIPHER).unwrap();
        let header = |kind, length: u16| [kind, 3, 3, length.to_be_bytes()[0], length.to_be_bytes()[1]];
        assert_eq!(record_length(&header(23, long)), Ok(Some(MAX_RECORD)));
        assert_eq!(record_length(&header(23, long + 1)), Err(RecordError::TooLong));
        assert_eq!(record_length(&header(22, 10)), Err(RecordError::NotARecord));
        assert_eq!(record_length(&[23, 3, 3, 0]), Ok(None));
        let mut plain = vec![0; HEADER + MAX_PLAIN + 1];
        let sealed = Sealer::new(secrets(0)).unwrap().seal(&mut plain, 0, Content::Data);
        assert_eq!(sealed, Err(RecordError::TooLong));
    }
}
