//! Sizes and rates as they are typed.

/// Reads a rate in bytes a second: a whole number, perhaps with K, M or G (powers of 1,024) behind it; `None` for anything
/// else.
#[must_use]
pub fn rate(typed: &str) -> Option<u64> {
    // A terabyte a second is a mistake.
    if typed.ends_with(['T', 't']) { None } else { size(typed) }
}

/// Reads a number of bytes: a whole number, perhaps with K, M, G or T (powers of 1,024) behind it; `None` for anything else.
#[must_use]
pub fn size(typed: &str) -> Option<u64> {
    let (digits, factor) = match typed.chars().last()?.to_ascii_uppercase() {
        'K' => (&typed[..typed.len() - 1], 1 << 10),
        'M' => (&typed[..typed.len() - 1], 1 << 20),
        'G' => (&typed[..typed.len() - 1], 1 << 30),
        'T' => (&typed[..typed.len() - 1], 1 << 40),
        _ => (typed, 1u64),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units() {
        for (text, bytes) in [("0", 0), ("500", 500), ("2K", 2048), ("3m", 3 << 20), ("1G", 1 << 30)] {
            assert_eq!((rate(text), size(text)), (Some(bytes), Some(bytes)));
        }
        for text in ["", "K", "-1", "+1", "1P", "99999999999G", "1.5M", "1é"] {
            assert_eq!((rate(text), size(text)), (None, None), "{text}");
        }
        assert_eq!((rate("1T"), size("1t")), (None, Some(1 << 40)));
    }
}
