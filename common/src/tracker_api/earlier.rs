//! What programs of earlier revisions cannot read, looked for before it is sent to them.

use minicbor::data::Type;
use minicbor::decode::{Decoder, Error};

use crate::names;

/// The revision from which on programs read every name of [`names::is_later`].
pub const LATER_NAMES: u32 = 3;

/// Whether a message of ours, encoded, holds a name that programs before revision [`LATER_NAMES`] cannot read. URLs are texts
/// too, and may be longer than names; unlike names they hold slashes.
#[must_use]
pub fn has_later_name(message: &[u8]) -> bool {
    let mut decoder = Decoder::new(message);
    while decoder.position() < message.len() {
        match next_text(&mut decoder) {
            Ok(Some(text)) if !text.contains('/') && names::is_later(text) => return true,
            Ok(_) => {}
            // None of ours: it holds what no message of ours does.
            Err(_) => return false,
        }
    }
    false
}

/// Steps over one item, or into it where it has items; gives it if it is a text.
fn next_text<'b>(decoder: &mut Decoder<'b>) -> Result<Option<&'b str>, Error> {
    match decoder.datatype()? {
        Type::String => decoder.str().map(Some),
        Type::Array => decoder.array().map(|_| None),
        Type::Map => decoder.map().map(|_| None),
        _ => decoder.skip().map(|()| None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker_api::{Call, ToTracker};
    use crate::{FileName, GroupName, RequestId};

    #[test]
    fn every_name_of_a_message_is_looked_at() {
        let encoded = |body| minicbor::to_vec(ToTracker { call: 1, body }).unwrap();
        let group = |name: &str| GroupName::refer(name).unwrap();
        let find = |name: &str, file: &str| {
            encoded(Call::Find { group: group(name), file: FileName::refer(file).unwrap() })
        };
        assert!(!has_later_name(&find("films", "a.bin")));
        assert!(has_later_name(&find("films", &"a".repeat(241))));
        assert!(has_later_name(&find("\u{645}\u{200c}", "a.bin")));
        let join = Call::JoinGroup { request: RequestId([9; 16]), group: group("a\u{200d}b") };
        assert!(has_later_name(&encoded(join)));
        // An address is no name.
        let listen = format!("http://h/{}", "x".repeat(300));
        assert!(!has_later_name(&encoded(Call::Hello { listen, revision: None })));
        assert!(!has_later_name(&[0xff, 0x61]) && !has_later_name(&[0x7f, 0x61]) && !has_later_name(&[]));
    }
}
