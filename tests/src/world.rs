//! A group whose members share files: one tracker, and what they are made of.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shoal_common::tracker_api::{Answer, Call};

use crate::{Client, Crowd, Manners, Member, Seeder, Target, Trackers, same_content};

/// A cluster of one tracker and a group `g` that ann owns.
pub struct World {
    /// Who owns the group.
    pub ann: Client,
    /// The tracker.
    pub trackers: Trackers,
    dir: tempfile::TempDir,
}

impl World {
    /// Starts the tracker and ann.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it starts processes")]
    pub fn new() -> Self {
        Self::with(|dir, info| Client::start(dir, "ann", info))
    }

    /// As [`new`](Self::new), with limits of the system for ann, which a shell sets: `ulimit -n 64`.
    #[must_use]
    pub fn limited(limits: &str) -> Self {
        Self::with(|dir, info| Client::start_limited(dir, "ann", info, limits))
    }

    fn with(start: impl FnOnce(&Path, &Path) -> Client) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trackers = Trackers::start(dir.path(), 1);
        let mut ann = start(dir.path(), &trackers.info()).entered();
        ann.ok("create_group g");
        Self { ann, trackers, dir }
    }

    /// A client in the group.
    pub fn member(&mut self, name: &str) -> Client {
        let mut member = Client::enter(self.dir.path(), name, &self.trackers.info());
        self.ann.let_in("g", &mut [&mut member]);
        member
    }

    /// A client made by hand that is in the group.
    pub fn by_hand(&mut self, name: &str) -> Member {
        let mut member = Member::connect(self.trackers.port(1));
        member.enter(name);
        member.join("g");
        self.ann.ok(&format!("accept_request g {name}"));
        member
    }

    /// A seeder made by hand.
    pub fn seeder(
        &mut self,
        name: &str,
        file: &str,
        content: &Path,
        manners: Manners,
        allowed: usize,
    ) -> Seeder {
        let member = self.by_hand(name);
        Seeder::start(member, ("g", file), content, manners, allowed)
    }

    /// As many seeders made by hand, all of one user.
    pub fn crowd(&mut self, count: usize, file: &str, content: &Path, manners: Manners) -> Crowd {
        drop(self.by_hand("crowd"));
        Crowd::start(self.trackers.port(1), ("crowd", count), ("g", file), content, manners)
    }

    /// A file of ann's to attack her with, as a member sees it.
    pub fn target(&self, member: &mut Member, file: &str) -> Target {
        let (group, file, _) = member.find("g", file);
        let Answer::Holders { holders, .. } = member.done(Call::Holders { group, file }) else {
            panic!("no holders")
        };
        let address = ([127, 0, 0, 1], self.ann.port()).into();
        Target { address, peer: holders[0].peer, file: (group, file) }
    }

    /// What a download of 8 MiB may take under an attack: a floor, or, on a busy machine, twenty times what it takes without.
    pub fn under_attack(&mut self, member: &mut Client, floor: Duration) -> Duration {
        let (path, copy) = (self.ann.share("g", "calm.bin", 8 << 20).0, self.path("calm.copy"));
        let started = Instant::now();
        download(member, "calm.bin", &copy);
        member.until_download("calm.bin", "C");
        let took = started.elapsed();
        assert!(same_content(&path, &copy));
        floor.max(took * 20)
    }

    /// A path in the test's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Begins to download a file of the group `g`.
pub fn download(client: &mut Client, file: &str, to: &Path) {
    client.ok(&format!("download_file g {file} '{}'", to.display()));
}
