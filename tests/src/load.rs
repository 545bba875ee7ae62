//! Clients that write for as long as trackers die around them, and the checker that remembers what was acknowledged; and one that
//! shares more files than a person has.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use shoal_common::credentials::{Account, Secrets};
use shoal_common::tracker_api::{Answer, Call, RefusalKind};
use shoal_common::{Blake3, FileDigest, FileName, GroupName, Layout, Manifest, RequestId, Sha1, UserName};

use crate::{Member, TrackerAddress, Trackers, until};

/// What was acknowledged: a user name, and the salt of the account that came into being under it.
type Salt = Vec<u8>;

/// Everything that trackers acknowledged.
#[derive(Default)]
struct Acknowledged {
    /// Accounts that were acknowledged, under names that nobody else wanted.
    created: BTreeMap<String, Salt>,
    /// Names that several wanted, and to which account each was given for good.
    definite: BTreeMap<String, Salt>,
    /// A name that two accounts were given for good.
    twice: Option<String>,
}

/// Several clients at work.
pub struct Load {
    acked: Arc<Mutex<Acknowledged>>,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts this many clients, which write through any tracker that they reach.
    #[must_use]
    pub fn start<A: Into<TrackerAddress> + Copy>(trackers: &[A], writers: usize) -> Self {
        let trackers: Vec<TrackerAddress> = trackers.iter().map(|&tracker| tracker.into()).collect();
        let (acked, stop) = (Arc::new(Mutex::new(Acknowledged::default())), Arc::new(AtomicBool::new(false)));
        let writers = (0..writers).map(|writer| {
            let (acked, stop, trackers) = (acked.clone(), stop.clone(), trackers.clone());
            std::thread::spawn(move || write(writer, &trackers, &acked, &stop))
        });
        let writers = writers.collect();
        Self { acked, stop, writers }
    }

    /// How many accounts were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.acked.lock().unwrap().created.len()
    }

    /// Ends the clients.
    ///
    /// # Panics
    /// When one name was given to two accounts for good.
    #[must_use]
    pub fn stop(self) -> Promises {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.join().unwrap();
        }
        let acked = std::mem::take(&mut *self.acked.lock().unwrap());
        assert_eq!(acked.twice, None, "one name was given to two for good");
        Promises(acked)
    }
}

/// What trackers acknowledged, and what must therefore be.
pub struct Promises(Acknowledged);

impl Promises {
    /// How many accounts were acknowledged.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.created.len() + self.0.definite.len()
    }

    /// Checks that a tracker serves everything that was ever acknowledged, waiting for nothing.
    ///
    /// # Panics
    /// When it does not.
    pub fn check(&self, tracker: impl Into<TrackerAddress>) {
        let lost = self.lost(tracker.into());
        assert!(
            lost.is_empty(),
            "{} of {} are lost, {:?} among them",
            lost.len(),
            self.count(),
            lost.first()
        );
    }

    /// Waits until a tracker serves everything that was ever acknowledged.
    ///
    /// # Panics
    /// When it does not come to that.
    pub fn until_served(&self, tracker: impl Into<TrackerAddress>) {
        let tracker = tracker.into();
        until("the tracker serves all that was acknowledged", || self.lost(tracker).is_empty());
    }

    /// Each of these trackers has everything with the others of them away, and logged neither a panic nor an alarm.
    ///
    /// # Panics
    /// When one has not.
    pub fn check_each_alone(&self, trackers: &mut Trackers, numbers: impl IntoIterator<Item = usize>) {
        let numbers: Vec<usize> = numbers.into_iter().collect();
        for &number in &numbers {
            self.until_served(trackers.address(number));
            numbers.iter().filter(|&&other| other != number).for_each(|&other| trackers.kill(other));
            self.check(trackers.address(number));
            numbers.iter().filter(|&&other| other != number).for_each(|&other| trackers.restart(other));
            for word in ["panicked", "alarm="] {
                assert_eq!(trackers.logged(number, word), 0, "{word} in the log of tracker {number}");
            }
        }
    }

    fn lost(&self, tracker: TrackerAddress) -> Vec<String> {
        let all: Vec<_> = self.0.created.iter().chain(&self.0.definite).collect();
        let mut lost = Vec::new();
        for part in all.chunks(200) {
            // So much a stranger may ask for on one connection.
            let mut member = Member::connect(tracker);
            let call = |name: &str| Call::Challenge { name: UserName::refer(name).unwrap(), candidate: 0 };
            let answers = member.calls_at_once(part.iter().map(|(name, _)| call(name)).collect());
            for ((name, salt), answer) in part.iter().zip(answers) {
                match answer.unwrap_or_else(|refusal| panic!("{name}: {}", refusal.text)) {
                    Answer::Challenge { salt: held, .. } if held.as_slice() == salt.as_slice() => {}
                    _ => lost.push((*name).clone()),
                }
            }
        }
        lost
    }
}

/// Creates accounts until it is stopped: most under names of its own, some under names that all writers want.
fn write(writer: usize, trackers: &[TrackerAddress], acked: &Mutex<Acknowledged>, stop: &AtomicBool) {
    // Deriving keys is slow on purpose: one account's keys do for all.
    let (_, _, account) = Secrets::create("secret").unwrap();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut member) = Member::try_connect(trackers[fastrand::usize(..trackers.len())]) else {
            // Its tracker is being killed and started again.
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        for _ in 0..fastrand::u32(1..60) {
            number += 1;
            let wanted = number % 8 == 0;
            let name =
                if wanted { format!("wanted-{}", number / 8) } else { format!("user-{writer}-{number}") };
            if stop.load(Ordering::Relaxed) || !create(&mut member, &name, &account, wanted, acked) {
                break;
            }
        }
    }
}

/// Creates one account; says whether the tracker still answers.
fn create(
    member: &mut Member,
    name: &str,
    account: &Account,
    wanted: bool,
    acked: &Mutex<Acknowledged>,
) -> bool {
    let user = UserName::create(name).unwrap();
    let answer = member.try_call(Call::create_user(user, account.clone()).1);
    let salt = account.salt.to_vec();
    match answer {
        Err(_) => false,
        Ok(Err(refusal)) => refusal.kind != RefusalKind::Unavailable,
        Ok(Ok(Answer::Created { provisional })) => {
            let mut acked = acked.lock().unwrap();
            if !wanted {
                acked.created.insert(name.to_owned(), salt);
            } else if !provisional {
                let first = acked.definite.entry(name.to_owned()).or_insert_with(|| salt.clone());
                if *first != salt {
                    acked.twice = Some(name.to_owned());
                }
            }
            true
        }
        Ok(Ok(other)) => panic!("{other:?}"),
    }
}

/// Lets a member share as many files of that size that do not exist, `file-000000.bin` and so on: a tracker cannot know.
pub fn share_many(member: &mut Member, group: &str, files: usize, size: u64) {
    let group = GroupName::refer(group).unwrap();
    let layout = Layout::for_size(size).unwrap();
    let share = |number: &usize| {
        let mut digest = [0; 20];
        digest[..8].copy_from_slice(&number.to_le_bytes());
        let piece = |piece: u32| {
            let mut piece_digest = digest;
            piece_digest[8..12].copy_from_slice(&piece.to_le_bytes());
            Sha1(piece_digest)
        };
        let pieces: Vec<_> = (0..layout.pieces()).map(piece).collect();
        let file = FileName::create(&format!("file-{number:06}.bin")).unwrap();
        let whole = FileDigest { sha1: Sha1(digest), blake3: Blake3([1; 32]) };
        let (manifest, piece_list) = Manifest::new(file, layout.clone(), &pieces, whole, vec![]);
        Call::Share { request: RequestId::random(), group: group.clone(), manifest, piece_list }
    };
    for batch in (0..files).collect::<Vec<_>>().chunks(64) {
        for answer in member.calls_at_once(batch.iter().map(share).collect()) {
            assert!(matches!(answer, Ok(Answer::Shared { .. })), "{answer:?}");
        }
    }
}
