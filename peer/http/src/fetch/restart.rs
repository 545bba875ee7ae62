//! What to do when the whole file's digest is wrong and no piece digests say which server sent wrong bytes: once, the file
//! is fetched again from others. Pure.

/// What a server did in a run whose file was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contribution {
    /// Bytes that it delivered.
    pub(super) bytes: u64,
    /// It published the digest that is expected itself.
    pub(super) publishes: bool,
}

/// The servers of the second run, by their place; `None` if nothing else can be tried. `resumed`: a part of the file was
/// there before, and may be what is wrong.
pub(super) fn second_run(servers: &[Contribution], resumed: bool) -> Option<Vec<usize>> {
    let all = || servers.iter().enumerate();
    let unused: Vec<usize> = all().filter(|(_, server)| server.bytes == 0).map(|(index, _)| index).collect();
    match suspects(servers).len() {
        // Those that had no part in it.
        _ if !unused.is_empty() => Some(unused),
        1 if resumed => Some(vec![0]),
        0 | 1 => None,
        // Any of them may be to blame: one alone either has the file or is found out.
        _ => {
            let best = all().min_by_key(|(_, server)| (!server.publishes, server.bytes));
            best.map(|(index, _)| vec![index])
        }
    }
}

/// The servers whose bytes were part of a wrong file, by their place.
pub(super) fn suspects(servers: &[Contribution]) -> Vec<usize> {
    let delivered = servers.iter().enumerate().filter(|(_, server)| server.bytes > 0);
    delivered.map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(of: &[(u64, bool)]) -> Vec<Contribution> {
        of.iter().map(|&(bytes, publishes)| Contribution { bytes, publishes }).collect()
    }

    #[test]
    fn others_come_first_then_one_alone_and_then_nothing() {
        for (of, resumed, expected) in [
            (&[(10, false), (0, false), (0, true)][..], false, Some(vec![1, 2])),
            (&[(10, false), (20, true), (30, true)], false, Some(vec![1])),
            (&[(10, false), (5, false)], true, Some(vec![1])),
            (&[(10, true)], false, None),
            (&[(10, true)], true, Some(vec![0])),
        ] {
            assert_eq!(second_run(&servers(of), resumed), expected, "{of:?}");
        }
        assert_eq!(suspects(&servers(&[(1, true), (0, true), (2, false)])), [0, 2]);
    }
}
