//! Tells the queue for how long nothing has come of a download. A slow disk counts as no reason to lose a place; a drive that
//! does nothing at all, such as one behind a network that is gone, must not keep others waiting for ever.

use std::convert::Infallible;
use std::time::Duration;

use shoal_engine::{Bottleneck, Phase, Progress};
use tokio::sync::watch;
use tokio::time::Instant;

use super::places::Place;
use crate::hashing::Hashing;

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A disk that gets nothing done for this long counts as one that hangs: longer than a busy one needs to write its caches.
const DISK_HANGS: Duration = Duration::from_secs(30);

/// What a download does, as far as its place in the queue is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// It fetches, or waits for a source.
    Fetching,
    /// The user's limit holds it up, or it is over.
    HeldUp,
    /// It waits for the disk; with `Completing`, after all that is to be fetched.
    OnDisk,
    Completing,
}

/// What is to be told to the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Moves,
    Idles(Duration),
    Nothing,
}

/// Pure: what is seen and the time go in.
struct Idleness {
    /// Bytes that were fetched, and that the disk got done.
    seen: (u64, u64),
    doing: Doing,
    since: Instant,
}

impl Idleness {
    fn new(now: Instant) -> Self {
        Self { seen: (0, 0), doing: Doing::HeldUp, since: now }
    }

    fn look(&mut self, doing: Doing, seen: (u64, u64), now: Instant) -> Verdict {
        let before = std::mem::replace(&mut self.seen, seen);
        let other = std::mem::replace(&mut self.doing, doing) != doing;
        let comes = seen.0 > before.0;
        let on_disk = matches!(doing, Doing::OnDisk | Doing::Completing);
        if comes || other || doing == Doing::HeldUp || (on_disk && seen.1 != before.1) {
            self.since = now;
        }
        let idle = now.saturating_duration_since(self.since);
        match doing {
            _ if comes => Verdict::Moves,
            Doing::HeldUp => Verdict::Nothing,
            Doing::OnDisk | Doing::Completing if idle >= DISK_HANGS => Verdict::Idles(idle),
            Doing::Completing => Verdict::Moves,
            Doing::OnDisk => Verdict::Nothing,
            Doing::Fetching => Verdict::Idles(idle),
        }
    }
}

/// What a running download does, and the bytes of [`Idleness`].
fn of(progress: &Progress) -> (Doing, (u64, u64)) {
    let doing = match (progress.phase, progress.limit) {
        (Phase::Ended, _) => Doing::HeldUp,
        (Phase::Checking | Phase::Finishing, _) => Doing::Completing,
        (Phase::Opening, _) | (_, Bottleneck::Disk) => Doing::OnDisk,
        (_, Bottleneck::RateLimit) => Doing::HeldUp,
        _ => Doing::Fetching,
    };
    (doing, (progress.fetched_bytes, progress.verified_bytes + progress.digested_bytes))
}

fn tell(place: &Place, verdict: Verdict) {
    match verdict {
        Verdict::Moves => place.moves(),
        Verdict::Idles(idle) => place.idles(idle),
        Verdict::Nothing => {}
    }
}

/// Tells the queue whether anything comes of a running download. Never completes.
pub(super) async fn of_run(place: &Place, mut progress: watch::Receiver<Progress>) -> Infallible {
    let mut idleness = Idleness::new(Instant::now());
    loop {
        let now = progress.borrow_and_update().clone();
        let (doing, seen) = of(&now);
        tell(place, idleness.look(doing, seen, Instant::now()));
        let changed =
            progress.wait_for(|then| then.phase != now.phase || then.fetched_bytes != now.fetched_bytes);
        if matches!(tokio::time::timeout(LOOK_EVERY, changed).await, Ok(Err(_))) {
            // The engine has ended.
            std::future::pending::<()>().await;
        }
    }
}

/// Tells the queue whether a download's place is looked at, or hangs. Never completes.
pub(super) async fn of_look(place: &Place, hashing: watch::Receiver<Option<Hashing>>) -> Infallible {
    let mut idleness = Idleness::new(Instant::now());
    loop {
        let done = hashing.borrow().as_ref().map_or(0, |hashing| hashing.done);
        tell(place, idleness.look(Doing::OnDisk, (0, done), Instant::now()));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::places::Places;
    use super::*;
    use crate::priority::Rank;

    /// What is told after so many seconds.
    fn told(looks: &[(u64, Doing, (u64, u64))]) -> Vec<Verdict> {
        let begin = Instant::now();
        let mut idleness = Idleness::new(begin);
        looks
            .iter()
            .map(|&(at, doing, seen)| idleness.look(doing, seen, begin + Duration::from_secs(at)))
            .collect()
    }

    #[test]
    fn a_slow_disk_is_no_reason_and_one_that_hangs_is() {
        use Doing::{Completing, Fetching, HeldUp, OnDisk};
        use Verdict::{Idles, Moves, Nothing};
        let seconds = Duration::from_secs;
        for doing in [OnDisk, Completing] {
            let fine = if doing == OnDisk { Nothing } else { Moves };
            let slow = told(&[(0, doing, (0, 0)), (29, doing, (0, 1)), (58, doing, (0, 2))]);
            assert_eq!(slow, [fine; 3]);
            let hangs =
                told(&[(0, doing, (0, 1)), (29, doing, (0, 1)), (30, doing, (0, 1)), (31, doing, (0, 2))]);
            assert_eq!(hangs, [fine, fine, Idles(seconds(30)), fine]);
        }
        let limited = told(&[(0, HeldUp, (0, 0)), (90, Fetching, (0, 0)), (95, Fetching, (0, 0))]);
        assert_eq!(limited, [Nothing, Idles(seconds(0)), Idles(seconds(5))]);
        let fetches = told(&[(0, Fetching, (0, 0)), (9, Fetching, (7, 0)), (12, Fetching, (7, 3))]);
        assert_eq!(fetches, [Idles(seconds(0)), Moves, Idles(seconds(3))]);
    }

    #[test]
    fn time_on_the_disk_is_no_time_without_a_source() {
        let looks = [(0, Doing::OnDisk, (0, 0)), (29, Doing::OnDisk, (0, 0)), (29, Doing::Fetching, (0, 0))];
        assert_eq!(told(&looks)[2], Verdict::Idles(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_at_a_drive_that_hangs_lets_the_next_download_run() {
        let places = Places::new(8);
        places.set_bound(Some(1));
        let rank = |position| Rank { position, ..Rank::default() };
        let (hangs, next) = (places.enter_one(1, rank(1)), places.enter_one(2, rank(2)));
        assert!(hangs.is_granted() && !next.is_granted());
        let begin = Instant::now();
        let (_progress, hashing) = watch::channel(None);
        tokio::select! {
            never = of_look(&hangs, hashing) => match never {},
            _ = next.granted() => {}
        }
        assert!(begin.elapsed() >= DISK_HANGS && next.is_granted(), "{:?}", begin.elapsed());
    }
}
