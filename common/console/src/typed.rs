//! Numbers, sizes, rates, times and addresses as they are typed.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Reads whole numbers of that range.
///
/// # Errors
/// The function returned says what to type instead.
pub fn number<T: FromStr + PartialOrd + Display + Clone>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |typed| {
        let number = typed.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("give a whole number from {} to {}", range.start(), range.end()))
    }
}

/// Reads a time with its unit.
///
/// # Errors
/// What to type instead.
pub fn time(typed: &str) -> Result<Duration, String> {
    humantime::parse_duration(typed)
        .map_err(|_| "give a number with its unit, for example 30s, 10m, 1h or 1day".to_owned())
}

/// Reads an address of this machine to listen at.
///
/// # Errors
/// What to type instead.
pub fn address(typed: &str) -> Result<SocketAddr, String> {
    typed.parse().map_err(|_| "give ip:port, for example 127.0.0.1:9090 or [::1]:9090".to_owned())
}

/// Reads the IP address of one of this machine's interfaces.
///
/// # Errors
/// What to type instead.
pub fn ip_address(typed: &str) -> Result<IpAddr, String> {
    let bare = typed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(typed);
    bare.parse().map_err(|_| "give an IP address without a port, such as 127.0.0.1 or ::1".to_owned())
}

/// Reads a rate in bytes per second: a whole number, optionally with K, M or G (powers of 1,024) behind it; `None` for anything
/// else.
#[must_use]
pub fn rate(typed: &str) -> Option<u64> {
    // A terabyte per second is a mistake.
    if typed.ends_with(['T', 't']) { None } else { size(typed) }
}

/// Reads a number of bytes: a whole number, optionally with K, M, G or T (powers of 1,024) behind it; `None` for anything else.
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
    fn what_is_no_number_time_or_address_is_answered_with_what_to_type() {
        for typed in ["x", "", "0", "256", "-1", "1.5"] {
            assert_eq!(number(1..=255u8)(typed).unwrap_err(), "give a whole number from 1 to 255", "{typed}");
        }
        assert_eq!(number(-5..=5i64)("-5"), Ok(-5));
        for typed in ["", "10", "x", "-1s", "9999999999999999y"] {
            assert!(time(typed).unwrap_err().contains("with its unit"), "{typed}");
        }
        assert_eq!(time("1h 5m"), Ok(Duration::from_secs(3_900)));
        for typed in ["", "9090", "localhost:9090", "127.0.0.1", "127.0.0.1:99999"] {
            assert!(address(typed).unwrap_err().contains("give ip:port"), "{typed}");
        }
        assert_eq!(address("127.0.0.1:0").unwrap().port(), 0);
        for typed in ["", "x", "127.0.0.1:80", "127.0.0.1,80"] {
            assert!(ip_address(typed).unwrap_err().contains("without a port"), "{typed}");
        }
        assert_eq!(ip_address("[::1]"), ip_address("::1"));
    }

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
