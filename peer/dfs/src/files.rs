//! Small files and folders that both programs use, and sizes as they are typed.

use std::path::PathBuf;

use anyhow::Context;
use etcetera::BaseStrategy;

/// Shoal's folder under the XDG data home.
///
/// # Errors
/// When there is no home folder.
pub fn data_home() -> anyhow::Result<PathBuf> {
    let base = etcetera::choose_base_strategy().context("there is no home folder to keep data in")?;
    Ok(base.data_dir().join("shoal"))
}

/// Reads a size: bytes, or a number with K, M, G or T (powers of 1,024; `KiB` and `KB` are taken for the same).
///
/// # Errors
/// A text for the user.
pub fn parse_size(typed: &str) -> Result<u64, String> {
    let refused = || format!("{typed:?} is no size; write a number of bytes, or one such as 500M or 100GiB");
    let lower = typed.trim().to_ascii_lowercase();
    let number = lower.trim_end_matches("ib").trim_end_matches('b');
    let (digits, shift) = match number.char_indices().last() {
        Some((at, 'k')) => (&number[..at], 10),
        Some((at, 'm')) => (&number[..at], 20),
        Some((at, 'g')) => (&number[..at], 30),
        Some((at, 't')) => (&number[..at], 40),
        _ => (number, 0),
    };
    let count: u64 = digits.trim().parse().map_err(|_| refused())?;
    count.checked_mul(1 << shift).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (typed, bytes) in
            [("0", 0), ("10", 10), ("10MiB", 10 << 20), ("1g", 1 << 30), ("2 KB", 2_048), ("1T", 1 << 40)]
        {
            assert_eq!(parse_size(typed), Ok(bytes), "{typed}");
        }
        for typed in ["", "x", "-1", "1.5G", "99999999999T", "é", "MiB"] {
            assert!(parse_size(typed).is_err(), "{typed}");
        }
    }
}
