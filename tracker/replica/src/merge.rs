//! Which of two rows under one key stays. This is a total order, so trackers agree whatever the order of
//! arrival.

use std::cmp::Ordering;

use crate::row::{Row, Rule};

/// Whether `new` replaces `held`, which has the same kind and key. Of two different rows exactly one wins;
/// equal rows never do.
pub fn wins(new: &Row, held: &Row) -> bool {
    match new.kind.rule() {
        Rule::LastWins => by_time(new, held) == Ordering::Greater,
        Rule::FirstStays => by_time_then_value(new, held) == Ordering::Less,
    }
}

fn by_time(a: &Row, b: &Row) -> Ordering {
    a.stamp.cmp(&b.stamp).then_with(|| by_number(a, b))
}

/// Of two votes with one stamp the one for the lower uid stays. The uid is the value.
fn by_time_then_value(a: &Row, b: &Row) -> Ordering {
    a.stamp.cmp(&b.stamp).then_with(|| a.value.cmp(&b.value)).then_with(|| by_number(a, b))
}

/// Rows with one number are the same row unless a tracker broke the rules; even then all trackers agree.
fn by_number(a: &Row, b: &Row) -> Ordering {
    (a.writer, a.seq).cmp(&(b.writer, b.seq)).then_with(|| a.digest().cmp(&b.digest()))
}
