//! No hang at 99 %: a download among faults that come together, at random. Whatever happens it moves, says what it waits for,
//! or fails with a reason; and when the faults are over, it ends, right.
//!
//! `SHOAL_SEED=n cargo test -p shoal-tests --test chaos` replays a seed, `SHOAL_SEEDS=m` tries so many from there on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::PathBuf;
use std::time::Duration;

use fastrand::Rng;
use rustix::process::Signal;
use shoal_tests::{Client, Manners, Seeder, Stopped, World, download, same_content, until};

const MIB: usize = 1 << 20;
/// Faults in a row in one world.
const FAULTS: usize = 24;

/// A client that may be stopped or dead.
enum Sharer {
    Runs(Client),
    Sleeps(Client),
    Dead(Stopped),
}

impl Sharer {
    /// Whatever it is, it runs again, and shares.
    fn healed(self) -> Client {
        match self {
            Self::Runs(client) => client,
            Self::Sleeps(client) => {
                client.signal(Signal::CONT);
                client
            }
            Self::Dead(stopped) => {
                let mut client = stopped.restart();
                let name = client.name().to_owned();
                // The trackers may be away: then the client goes on by itself once they are back.
                until("it is logged in", || client.run(&format!("login {name} secret")).answer["ok"] == true);
                client
            }
        }
    }
}

/// One download, and all that can go wrong with it.
struct Chaos {
    rng: Rng,
    world: World,
    sharers: Vec<Option<Sharer>>,
    /// Made by hand: a miser who sends as many pieces as it is allowed to, and some of those who are of no use.
    by_hand: Vec<Seeder>,
    /// Who downloads beside bob, and offers what came.
    erin: Client,
    bob: Option<Client>,
    tracker_runs: bool,
    path: PathBuf,
    copy: PathBuf,
    /// What was done.
    story: Vec<String>,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut world = World::new();
        let size = rng.usize(8 * MIB..16 * MIB);
        let (path, _) = world.ann.share("g", "a.bin", size);
        let mut sharers = Vec::new();
        for name in ["carol", "dave"] {
            let mut sharer = world.member(name);
            let copy = world.path(&format!("{name}.bin"));
            download(&mut sharer, "a.bin", &copy);
            sharer.until_download("a.bin", "C");
            sharer.ok("limit up 300K");
            sharers.push(Some(Sharer::Runs(sharer)));
        }
        let lie = rng.u32(..u32::try_from(size / (64 * 1024)).unwrap());
        let nuisances = [
            ("liar", Manners::LiesIn(lie)),
            ("crawler", Manners::Crawls(2_000)),
            ("half", Manners::StopsHalfway),
            ("never", Manners::NeverNow),
        ];
        let mut by_hand = vec![world.seeder("miser", "a.bin", &path, Manners::Honest, rng.usize(..8))];
        for (name, manners) in nuisances {
            if rng.bool() {
                by_hand.push(world.seeder(name, "a.bin", &path, manners, usize::MAX));
            }
        }
        let (mut erin, mut bob) = (world.member("erin"), world.member("bob"));
        world.ann.ok("logout");
        let copy = world.path("copy.bin");
        for (downloader, to) in [(&mut erin, &world.path("erin.bin")), (&mut bob, &copy)] {
            downloader.ok("limit down 1M");
            download(downloader, "a.bin", to);
        }
        Self {
            rng,
            world,
            sharers,
            by_hand,
            erin,
            bob: Some(bob),
            tracker_runs: true,
            path,
            copy,
            story: Vec::new(),
        }
    }

    fn note(&mut self, what: impl Into<String>) {
        self.story.push(what.into());
    }

    fn bob(&mut self) -> &mut Client {
        self.bob.as_mut().unwrap()
    }

    /// Something goes wrong, or is mended.
    fn fault(&mut self) {
        match self.rng.u32(..14) {
            0..4 => self.trouble_a_sharer(),
            4 => self.trouble_the_tracker(),
            5 => {
                let bob = self.bob.take().unwrap().kill().restart();
                self.bob = Some(bob);
                self.note("bob is killed");
                self.log_bob_in();
            }
            6 => {
                let rate = ["0", "50K", "1M", "300K"][self.rng.usize(..4)];
                self.note(format!("limit down {rate}"));
                self.bob().ok(&format!("limit down {rate}"));
            }
            7 => {
                self.note("paused and resumed");
                let pause = self.rng.u64(..300);
                // Over, it can be neither.
                self.bob().run("pause_download g a.bin");
                if self.bob().download("a.bin")["state"] == "P" {
                    std::thread::sleep(Duration::from_millis(pause));
                    self.bob().ok("resume_download g a.bin");
                }
            }
            9 if self.tracker_runs => {
                let share = ["logout", "login erin secret", "stop_share g a.bin"][self.rng.usize(..3)];
                self.note(format!("erin: {share}"));
                // Logged in or out already, it is an error.
                self.erin.run(share);
            }
            8 => {
                let more = self.by_hand[0].sent() + self.rng.usize(..10);
                self.note(format!("the miser sends up to {more}"));
                self.by_hand[0].allow(more);
            }
            _ => {
                let pause = self.rng.u64(..1_500);
                self.note(format!("{pause} ms of peace"));
                std::thread::sleep(Duration::from_millis(pause));
            }
        }
        self.look();
    }

    fn trouble_a_sharer(&mut self) {
        let which = self.rng.usize(..self.sharers.len());
        let sharer = self.sharers[which].take().unwrap();
        let kind = self.rng.u32(..4);
        let (what, sharer) = match sharer {
            Sharer::Runs(client) if kind == 0 => ("is killed", Sharer::Dead(client.kill())),
            Sharer::Runs(client) if kind == 1 => {
                client.signal(Signal::STOP);
                ("is stopped", Sharer::Sleeps(client))
            }
            Sharer::Runs(mut client) if self.tracker_runs => {
                let rate = ["20K", "300K", "2M"][self.rng.usize(..3)];
                client.ok(&format!("limit up {rate}"));
                ("has another rate", Sharer::Runs(client))
            }
            Sharer::Dead(stopped) if !self.tracker_runs => ("stays dead", Sharer::Dead(stopped)),
            other => ("is mended", Sharer::Runs(other.healed())),
        };
        self.sharers[which] = Some(sharer);
        self.note(format!("sharer {which} {what}"));
    }

    fn trouble_the_tracker(&mut self) {
        if self.tracker_runs {
            self.world.trackers.kill(1);
            self.note("the tracker is killed");
        } else {
            self.world.trackers.restart(1);
            self.note("the tracker is back");
        }
        self.tracker_runs = !self.tracker_runs;
    }

    fn log_bob_in(&mut self) {
        if !self.tracker_runs {
            self.trouble_the_tracker();
        }
        let bob = self.bob();
        until("bob is logged in", || bob.run("login bob secret").answer["ok"] == true);
    }

    /// The download is in a state that tells its user something.
    fn look(&mut self) {
        let bob = self.bob();
        until("it says what it does", || {
            let now = bob.download("a.bin");
            // None of this is a reason to fail.
            assert_ne!(now["state"], "F", "{now}");
            now["state"] != "D" || !bob.activity("a.bin").is_empty()
        });
    }

    /// All faults are over: now it must end.
    fn end(&mut self) {
        let percent = self.bob().download("a.bin")["percent"].clone();
        self.note(format!("all is mended, at {percent} %"));
        if !self.tracker_runs {
            self.trouble_the_tracker();
        }
        self.sharers = self.sharers.drain(..).map(|s| Some(Sharer::Runs(s.unwrap().healed()))).collect();
        self.bob().ok("limit down 0");
        if self.bob().download("a.bin")["state"] == "P" {
            self.bob().ok("resume_download g a.bin");
        }
        for sharer in self.sharers.iter_mut().flatten() {
            if let Sharer::Runs(client) = sharer {
                client.ok("limit up 0");
            }
        }
        self.bob().until_download("a.bin", "C");
        assert!(same_content(&self.path, &self.copy));
    }
}

/// Says how to replay what failed.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay: SHOAL_SEED={} cargo test -p shoal-tests --test chaos", self.0);
        }
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what happened: {:#?}", self.story);
        }
    }
}

#[test]
fn faults_that_come_together_never_make_a_download_hang() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let first = number("SHOAL_SEED").unwrap_or(1);
    let seeds = number("SHOAL_SEEDS").unwrap_or(1);
    for seed in first..first + seeds {
        let _replay = Replay(seed);
        let mut chaos = Chaos::new(seed);
        for _ in 0..FAULTS {
            chaos.fault();
        }
        chaos.end();
        eprintln!("seed {seed}: {:?}", chaos.story);
    }
}
