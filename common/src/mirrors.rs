//! Which URLs a member may name as mirrors, and which mirrors of a file a tracker passes on if several members named some.

use crate::limits::{MAX_MIRROR_BYTES, MAX_MIRRORS};

/// Why a URL cannot be a mirror, whatever is behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MirrorError {
    /// Too many.
    #[error("a file has at most {MAX_MIRRORS} mirrors; name fewer with --mirror")]
    TooMany,
    /// Too long.
    #[error("mirrors must be http:// or https:// URLs, and this one is longer than {MAX_MIRROR_BYTES} bytes")]
    TooLong,
    /// Another scheme, no host, or characters that no URL has.
    #[error("mirrors must be http:// or https:// URLs of a file, without spaces")]
    NoUrl,
    /// It contains a user or a password, which all members would learn.
    #[error(
        "mirrors must be URLs without user and password: every member of the group would learn them; give a URL that \
         needs none"
    )]
    Credentials,
}

/// Checks mirrors that a member wants to name.
///
/// # Errors
/// [`MirrorError`] for the first that cannot be one.
pub fn check(mirrors: &[String]) -> Result<(), MirrorError> {
    if mirrors.len() > MAX_MIRRORS {
        return Err(MirrorError::TooMany);
    }
    mirrors.iter().try_for_each(|url| check_one(url))
}

/// Checks one of them.
///
/// # Errors
/// [`MirrorError`] says why it cannot be a mirror.
pub fn check_one(url: &str) -> Result<(), MirrorError> {
    if url.len() > MAX_MIRROR_BYTES {
        return Err(MirrorError::TooLong);
    }
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(MirrorError::NoUrl);
    }
    let rest = url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"));
    let (_, rest) = rest.ok_or(MirrorError::NoUrl)?;
    // A backslash ends the host for browsers, and more slashes before it are skipped.
    let rest = rest.trim_start_matches(['/', '\\']);
    let host = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    match host {
        "" => Err(MirrorError::NoUrl),
        _ if host.contains('@') => Err(MirrorError::Credentials),
        _ => Ok(()),
    }
}

/// As many mirrors as a file may have, of those that each sharer named, each URL once. They are taken in turn, so that no
/// sharer's mirrors displace another's.
#[must_use]
pub fn by_turns(sharers: Vec<Vec<String>>) -> Vec<String> {
    let mut chosen: Vec<String> = Vec::new();
    let mut turns: Vec<_> = sharers.into_iter().map(Vec::into_iter).collect();
    while chosen.len() < MAX_MIRRORS && !turns.is_empty() {
        turns.retain_mut(|turn| match turn.find(|url| !chosen.contains(url)) {
            Some(url) => {
                if chosen.len() < MAX_MIRRORS {
                    chosen.push(url);
                }
                true
            }
            None => false,
        });
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_would_tell_a_password_or_is_no_url_is_refused() {
        for url in ["https://x/y", "http://x", "http://[::1]:80/a@b", "http://x/?u=a@b", "https://h:1/#@"] {
            assert_eq!(check_one(url), Ok(()), "{url}");
        }
        for url in ["http://ann:secret@x/", "https://ann@x/", "http://@x/", "http:///ann@x/", "http://a@b@c/"]
        {
            assert_eq!(check_one(url), Err(MirrorError::Credentials), "{url}");
        }
        for url in
            ["", "ftp://x/", "http://", "http:///", "http://x/ y", "file:///etc/passwd", "http://x\n", "x"]
        {
            assert_eq!(check_one(url), Err(MirrorError::NoUrl), "{url}");
        }
        assert_eq!(check_one(&format!("http://x/{}", "y".repeat(3_000))), Err(MirrorError::TooLong));
        assert_eq!(check(&vec!["http://x/".to_owned(); 17]), Err(MirrorError::TooMany));
    }

    #[test]
    fn no_sharers_mirrors_displace_anothers() {
        let of =
            |who: &str, count: usize| (0..count).map(|n| format!("http://{who}/{n}")).collect::<Vec<_>>();
        let chosen = by_turns(vec![of("owner", 2), of("crowd", 40), of("third", 1)]);
        assert_eq!(chosen.len(), MAX_MIRRORS);
        assert_eq!(chosen[..4], ["http://owner/0", "http://crowd/0", "http://third/0", "http://owner/1"]);
        // The first sharer is served, however many came later.
        let many = std::iter::once(of("owner", 1)).chain((0..100).map(|n| of(&format!("u{n}"), 16)));
        assert_eq!(by_turns(many.collect())[0], "http://owner/0");
        assert_eq!(by_turns(vec![of("a", 2), of("a", 2)]), of("a", 2));
    }

    proptest! {
        #[test]
        fn turns_end_and_stay_within_the_bound(counts in proptest::collection::vec(0usize..20, 0..40)) {
            let sharers = counts.iter().enumerate().map(|(who, &count)| {
                (0..count).map(|n| format!("http://{}/{n}", who % 7)).collect()
            });
            let chosen = by_turns(sharers.collect());
            prop_assert!(chosen.len() <= MAX_MIRRORS);
            let once: std::collections::BTreeSet<_> = chosen.iter().collect();
            prop_assert_eq!(once.len(), chosen.len());
        }
    }
}
