//! Reads a `Range` header (RFC 9110, section 14). Pure.

/// Ranges in one request at most; more are a sign of abuse (RFC 9110, section 14.2), and the whole file is sent.
const MAX_RANGES: usize = 32;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ranges {
    /// The whole file: no range was asked for, or in a way that is to be ignored.
    Whole,
    /// These parts in the order asked for: first and last byte, both included.
    Parts(Vec<(u64, u64)>),
    /// Nothing that the file has.
    Unsatisfiable,
}

/// Reads the header's value for a file of `size` bytes.
pub(super) fn parse(value: &str, size: u64) -> Ranges {
    let Some((unit, specs)) = value.split_once('=') else { return Ranges::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Ranges::Whole;
    }
    let specs: Vec<&str> = specs.split(',').map(str::trim).filter(|spec| !spec.is_empty()).collect();
    if specs.is_empty() || specs.len() > MAX_RANGES {
        return Ranges::Whole;
    }
    let mut parts = Vec::new();
    for spec in specs {
        match part(spec, size) {
            Err(()) => return Ranges::Whole,
            Ok(found) => parts.extend(found),
        }
    }
    let asked = parts.iter().fold(0u64, |sum, &(first, last)| sum.saturating_add(last - first + 1));
    match parts.len() {
        0 => Ranges::Unsatisfiable,
        // Overlapping parts that come to more than the file.
        2.. if asked > size => Ranges::Whole,
        _ => Ranges::Parts(parts),
    }
}

/// One part; `None` if the file does not have it, an error if it makes no sense.
fn part(spec: &str, size: u64) -> Result<Option<(u64, u64)>, ()> {
    let (first, last) = spec.split_once('-').ok_or(())?;
    let number = |text: &str| -> Result<u64, ()> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // Beyond what a number holds is beyond any file.
        if digits { Ok(text.parse().unwrap_or(u64::MAX)) } else { Err(()) }
    };
    if first.is_empty() {
        let suffix = number(last)?.min(size);
        return Ok((suffix > 0).then(|| (size - suffix, size - 1)));
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return Err(());
    }
    Ok((first < size).then(|| (first, last.min(size - 1))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_rfcs_examples_and_edges() {
        let parts = |parts: &[(u64, u64)]| Ranges::Parts(parts.to_vec());
        for (value, expected) in [
            ("bytes=0-499", parts(&[(0, 499)])),
            ("bytes=9500-", parts(&[(9500, 9999)])),
            ("bytes=-500", parts(&[(9500, 9999)])),
            ("bytes=-99999", parts(&[(0, 9999)])),
            ("bytes=0-0,-1", parts(&[(0, 0), (9999, 9999)])),
            ("BYTES= 0-0 , 5-6,", parts(&[(0, 0), (5, 6)])),
            ("bytes=0-99999999999999999999", parts(&[(0, 9999)])),
            ("bytes=10000-", Ranges::Unsatisfiable),
            ("bytes=-0", Ranges::Unsatisfiable),
            ("bytes=20000-,0-0", parts(&[(0, 0)])),
            ("bytes=5-4", Ranges::Whole),
            ("bytes=a-b", Ranges::Whole),
            ("bytes=", Ranges::Whole),
            ("bytes=-", Ranges::Whole),
            ("pieces=0-1", Ranges::Whole),
            ("bytes=0-,0-", Ranges::Whole),
        ] {
            assert_eq!(parse(value, 10_000), expected, "{value}");
        }
        assert_eq!(parse(&format!("bytes={}", "0-0,".repeat(33)), 10_000), Ranges::Whole);
        assert_eq!(parse("bytes=0-0", 0), Ranges::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn parts_are_within_the_file(value in "bytes=[0-9,-]{0,40}", size in 0u64..1000) {
            if let Ranges::Parts(parts) = parse(&value, size) {
                prop_assert!(parts.iter().all(|&(first, last)| first <= last && last < size));
            }
        }
    }
}
