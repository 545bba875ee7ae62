//! Which of two rows under one key stays: a total order, so that trackers agree whatever order rows arrive in.

use std::cmp::Ordering;

use crate::row::{Row, Rule};

/// Whether `new` takes the place of `held`, which has the same kind and key. Never for equal rows, and for two different
/// ones exactly one wins.
pub fn wins(new: &Row, held: &Row) -> bool {
    match new.kind.rule() {
        Rule::LastWins => by_time(new, held) == Ordering::Greater,
        Rule::FirstStays => by_time_then_value(new, held) == Ordering::Less,
    }
}

fn by_time(a: &Row, b: &Row) -> Ordering {
    a.stamp.cmp(&b.stamp).then_with(|| by_number(a, b))
}

/// Two votes with one stamp: the lower uid stays, which is the value.
fn by_time_then_value(a: &Row, b: &Row) -> Ordering {
    a.stamp.cmp(&b.stamp).then_with(|| a.value.cmp(&b.value)).then_with(|| by_number(a, b))
}

/// Rows with one number are one row unless a tracker broke the rules; even then all agree.
fn by_number(a: &Row, b: &Row) -> Ordering {
    (a.origin, a.seq).cmp(&(b.origin, b.seq)).then_with(|| a.digest().cmp(&b.digest()))
}
