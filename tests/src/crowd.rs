//! Many clients of one account, made by hand: for what two hundred processes would be needed otherwise.

use std::path::Path;
use std::sync::Arc;

use shoal_common::credentials::{SALT_BYTES, Secrets};

use crate::{Manners, Member, Seeder, TrackerAddress};

/// A crowd that serves one file.
pub struct Crowd(Vec<Seeder>);

impl Crowd {
    /// Logs `count` clients in as a user of that name, who is a member of what they will need, with the password `secret`.
    #[must_use]
    pub fn members(tracker: impl Into<TrackerAddress>, user: &str, count: usize) -> Vec<Member> {
        let tracker = tracker.into();
        // To derive it takes a while, on purpose; it is the same for all.
        let mut derived = None;
        let mut derive = |salt: &[u8; SALT_BYTES]| {
            derived.get_or_insert_with(|| Arc::new(Secrets::derive("secret", salt).unwrap())).clone()
        };
        (0..count)
            .map(|_| {
                let mut member = Member::connect(tracker);
                member.login_by(user, &mut derive).unwrap();
                member
            })
            .collect()
    }

    /// Makes `count` clients of that user share a file of one of the user's groups; each sends all it is asked for.
    #[must_use]
    pub fn start(
        tracker: impl Into<TrackerAddress>,
        (user, count): (&str, usize),
        file: (&str, &str),
        content: &Path,
        manners: Manners,
    ) -> Self {
        let members = Self::members(tracker, user, count);
        Self(members.into_iter().map(|m| Seeder::start(m, file, content, manners, usize::MAX)).collect())
    }

    /// How many pieces were asked of them and begun.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.0.iter().map(Seeder::sent).sum()
    }

    /// How many of them were asked for something.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.0.iter().filter(|seeder| seeder.sent() > 0).count()
    }
}
