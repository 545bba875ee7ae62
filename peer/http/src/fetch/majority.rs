//! Whom to believe. A digest counts if more than half of the servers that publish one publish it, and if more than half of
//! all that answered can have that file: they publish that digest, or none and the same size. Pure.

use std::fmt;

use shoal_common::Digests;

use crate::metalink::Pieces;

/// What is claimed of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Claim {
    /// Size in bytes; `None` where only a user or a Metalink claims something.
    pub(super) size: Option<u64>,
    pub(super) digests: Digests,
    pub(super) pieces: Option<Pieces>,
}

/// What was agreed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Agreement {
    pub(super) claim: Claim,
    /// Whose claims are part of it, by their place.
    pub(super) members: Vec<usize>,
}

impl Claim {
    /// Whether both can be of one file.
    pub(super) fn allows(&self, other: &Self) -> bool {
        fn same<T: PartialEq>(one: &Option<T>, other: &Option<T>) -> bool {
            one.is_none() || other.is_none() || one == other
        }
        let pieces = match (&self.pieces, &other.pieces) {
            (Some(one), Some(other)) => one.length != other.length || one == other,
            _ => true,
        };
        pieces && same(&self.size, &other.size) && self.digests.allows(&other.digests)
    }

    /// Takes over what was not claimed.
    pub(super) fn learn(&mut self, other: &Self) {
        self.size = self.size.or(other.size);
        self.digests = self.digests.or(&other.digests);
        if self.pieces.is_none() {
            self.pieces.clone_from(&other.pieces);
        }
    }

    fn is_published(&self) -> bool {
        !self.digests.is_empty() || self.pieces.is_some()
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.size {
            Some(size) => write!(f, "{size} bytes")?,
            None => f.write_str("unknown size")?,
        }
        write!(f, ", {}", self.digests)?;
        if let (Some(sha1), Some(_)) = (self.digests.sha1, self.digests.sha256) {
            write!(f, ", SHA-1 {sha1}")?;
        }
        Ok(())
    }
}

/// Finds what is to be believed, `demanded` first; `None` if there is no majority.
pub(super) fn agree(claims: &[Claim], demanded: &Claim) -> Option<Agreement> {
    let possible: Vec<usize> = (0..claims.len()).filter(|&index| demanded.allows(&claims[index])).collect();
    // What was demanded is believed whatever the others say; without it, who contradicts has a vote.
    let voters = if demanded.is_published() { possible.len() } else { claims.len() };
    let publishers = possible.iter().filter(|&&index| claims[index].is_published()).count();
    let mut best: Option<(usize, Agreement)> = None;
    for &first in &possible {
        // Where digests are published, an agreement is about one.
        if publishers > 0 && !claims[first].is_published() {
            continue;
        }
        let mut claim = demanded.clone();
        claim.learn(&claims[first]);
        let (mut members, mut publishing) = (Vec::new(), 0);
        for &index in &possible {
            if claim.allows(&claims[index]) {
                claim.learn(&claims[index]);
                members.push(index);
                publishing += usize::from(claims[index].is_published());
            }
        }
        let known = demanded.is_published() || publishing * 2 > publishers || publishers == 0;
        let better = best.as_ref().is_none_or(|(most, _)| members.len() > *most);
        if known && members.len() * 2 > voters && better {
            best = Some((members.len(), Agreement { claim, members }));
        }
    }
    best.map(|(_, agreement)| agreement)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shoal_common::{Sha1, Sha256};

    fn claim(size: u64, sha1: Option<u8>) -> Claim {
        let digests = Digests { sha1: sha1.map(|byte| Sha1([byte; 20])), ..Digests::default() };
        Claim { size: Some(size), digests, pieces: None }
    }

    fn members(claims: &[Claim], demanded: &Claim) -> Option<Vec<usize>> {
        agree(claims, demanded).map(|agreement| agreement.members)
    }

    #[test]
    fn more_than_half_is_a_majority_and_half_is_not() {
        let none = Claim::default();
        let (a, b) = (claim(10, Some(1)), claim(10, Some(2)));
        assert_eq!(members(std::slice::from_ref(&a), &none), Some(vec![0]));
        assert_eq!(members(&[a.clone(), b.clone(), a.clone()], &none), Some(vec![0, 2]));
        assert_eq!(members(&[a.clone(), b.clone()], &none), None);
        assert_eq!(members(&[b.clone(), a.clone(), b.clone(), a.clone()], &none), None);
        // A majority of liars wins, and the minority is left out.
        assert_eq!(members(&[b.clone(), a.clone(), b.clone()], &none), Some(vec![0, 2]));
        // Two of three that publish, and two of five that answered.
        let c = claim(11, None);
        assert_eq!(members(&[a.clone(), a.clone(), b, c.clone(), c], &none), None);
    }

    #[test]
    fn servers_without_digests_go_by_size() {
        let none = Claim::default();
        let (plain, a) = (claim(10, None), claim(10, Some(1)));
        assert_eq!(members(&[plain.clone(), plain.clone(), claim(11, None)], &none), Some(vec![0, 1]));
        let agreement = agree(&[plain.clone(), a, plain], &none).unwrap();
        assert_eq!((agreement.members, agreement.claim.digests.sha1), (vec![0, 1, 2], Some(Sha1([1; 20]))));
        assert_eq!(members(&[claim(1, None), claim(2, None)], &none), None);
        assert_eq!(members(&[], &none), None);
    }

    #[test]
    fn what_the_user_demands_stands_above_the_majority() {
        let demanded = Claim { size: None, ..claim(0, Some(1)) };
        let claims = [claim(10, Some(2)), claim(10, Some(2)), claim(10, Some(1)), claim(10, None)];
        assert_eq!(members(&claims, &demanded), Some(vec![2, 3]));
        assert_eq!(members(&claims[..2], &demanded), None);
    }

    #[test]
    fn digests_of_several_kinds_complete_each_other() {
        let mut sha256 = claim(10, None);
        sha256.digests.sha256 = Some(Sha256([5; 32]));
        let mut both = claim(10, Some(1));
        both.digests.sha256 = Some(Sha256([5; 32]));
        let agreement = agree(&[sha256, both, claim(10, Some(1))], &Claim::default()).unwrap();
        assert_eq!(agreement.members, [0, 1, 2]);
        assert!(agreement.claim.digests.sha1.is_some() && agreement.claim.digests.sha256.is_some());
    }

    proptest! {
        #[test]
        fn members_never_contradict(kinds in proptest::collection::vec((0u64..2, proptest::option::of(0u8..3)), 0..8)) {
            let claims: Vec<Claim> = kinds.iter().map(|&(size, sha1)| claim(size, sha1)).collect();
            if let Some(agreement) = agree(&claims, &Claim::default()) {
                prop_assert!(agreement.members.len() * 2 > claims.len());
                for &one in &agreement.members {
                    for &other in &agreement.members {
                        prop_assert!(claims[one].allows(&claims[other]));
                    }
                }
            }
        }
    }
}
