//! Small files and folders that both programs use, and sizes as they are typed.

use std::path::PathBuf;

use anyhow::Context;
use etcetera::BaseStrategy;

/// The name under which the trackers' file is looked for.
const TRACKERS_FILE: &str = "tracker_info.txt";

/// Shoal's folder under the XDG data home.
///
/// # Errors
/// When there is no home folder.
pub fn data_home() -> anyhow::Result<PathBuf> {
    let base = etcetera::choose_base_strategy().context("there is no home folder to keep data in")?;
    Ok(base.data_dir().join("shoal"))
}

/// The file that names the trackers where none is given: the one in the current folder, then the one in the configuration folder.
///
/// # Errors
/// When neither is there.
pub fn default_trackers() -> anyhow::Result<PathBuf> {
    let here = PathBuf::from(TRACKERS_FILE);
    if here.is_file() {
        return Ok(PathBuf::from(".").join(here));
    }
    let base = etcetera::choose_base_strategy().context("there is no home folder")?;
    let configured = base.config_dir().join("shoal").join(TRACKERS_FILE);
    if configured.is_file() {
        return Ok(configured);
    }
    anyhow::bail!(
        "no file names the trackers: there is neither ./{TRACKERS_FILE} nor {}; write one, or name one with --trackers \
         (dfs-server) or a line such as Trackers {TRACKERS_FILE} (dfs.conf)",
        configured.display()
    )
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
