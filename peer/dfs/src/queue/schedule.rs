//! Which job of a queue is tried next. Pure: the time is a parameter.
//!
//! Jobs are tried in their order. One that lacked something rests, so that it holds up no other, and is tried again after
//! those that rest for longer. Every other try is for a job that was not tried yet, if there is one.

use std::time::{Duration, Instant};

use super::{Job, Queue};

/// Between two tries of a job that lacks something, at least; as long as a try took, if that is longer, so that one that
/// reads much before it fails leaves time to others.
const SHORTEST_REST: Duration = Duration::from_secs(2);
/// The longest time between two tries.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// Jobs that may lack something before tries are no more frequent than [`SHORTEST_REST`]: what so many lack is likely lacking
/// to all.
const MANY: usize = 4;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    /// Jobs that lacked something, the one that was tried longest ago first, and until when each rests.
    resting: Vec<(u64, Instant)>,
    /// Nothing is tried before this.
    not_before: Option<Instant>,
    /// Whether the next try is for a job that was not tried yet.
    fresh: bool,
}

impl Schedule {
    /// Starts the next job, if one is to be tried now.
    pub fn next(&mut self, queue: &mut Queue, now: Instant) -> Option<Job> {
        self.resting.retain(|(number, _)| queue.jobs().iter().any(|job| job.number == *number));
        if self.not_before.is_some_and(|then| now < then) {
            return None;
        }
        self.fresh = !self.fresh;
        let untried =
            |queue: &mut Queue| queue.start(|job| self.resting.iter().all(|(tried, _)| *tried != job));
        let mut rested = self.resting.iter().filter(|(_, until)| *until <= now).map(|(number, _)| *number);
        let mut again = |queue: &mut Queue| rested.find_map(|number| queue.start(|job| job == number));
        if self.fresh {
            untried(queue).or_else(|| again(queue))
        } else {
            again(queue).or_else(|| untried(queue))
        }
    }

    /// A job that was tried lacks something; the try took that long.
    pub fn lacks(&mut self, number: u64, took: Duration, now: Instant) {
        self.resting.retain(|(other, _)| *other != number);
        self.resting.push((number, now + took.clamp(SHORTEST_REST, LONGEST_REST)));
        self.not_before = (self.resting.len() >= MANY).then(|| now + SHORTEST_REST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Work;

    fn queue(jobs: usize) -> Queue {
        let work = Work::Get { name: "film".to_owned(), to: "/tmp".into(), force: false };
        let mut queue = Queue::default();
        queue.add(vec![work; jobs]).unwrap();
        queue
    }

    /// Works the queue off for that long; gives when each job was tried. The first `stuck` of them lack something each time.
    fn tried(mut queue: Queue, stuck: u64, took: Duration, time: Duration) -> Vec<(u64, Duration)> {
        let (mut schedule, mut tried) = (Schedule::default(), Vec::new());
        let start = Instant::now();
        let mut now = start;
        while now < start + time {
            match schedule.next(&mut queue, now) {
                None => now += Duration::from_millis(500),
                Some(job) => {
                    tried.push((job.number, now - start));
                    now += took;
                    if job.number <= stuck {
                        queue.put_back(job.number, false, "servers");
                        schedule.lacks(job.number, took, now);
                    } else {
                        queue.finish(job.number);
                    }
                }
            }
        }
        tried
    }

    #[test]
    fn without_a_lack_jobs_are_tried_in_their_order() {
        let numbers: Vec<u64> = tried(queue(5), 0, Duration::ZERO, Duration::from_secs(1))
            .iter()
            .map(|(number, _)| *number)
            .collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn jobs_that_lack_something_hold_up_no_other_and_are_tried_again() {
        for stuck in [1, 3, 10, 50] {
            let took = Duration::from_secs(12);
            let all = tried(queue(60), stuck, took, Duration::from_secs(12_000));
            for number in 1..=60 {
                let tries = all.iter().filter(|(tried, _)| *tried == number).count();
                assert!(if number > stuck { tries == 1 } else { tries > 1 }, "{number} of {stuck}: {tries}");
            }
        }
    }

    #[test]
    fn a_lack_of_everything_is_tried_no_more_often_than_every_two_seconds() {
        let all = tried(queue(1_000), 1_000, Duration::ZERO, Duration::from_secs(600));
        assert!((250..=310).contains(&all.len()), "{}", all.len());
        // Half of the tries are for those that were tried before, in turn.
        let again = all.iter().filter(|(number, _)| *number <= 10).count();
        assert!(again > 30, "{again}");
    }

    #[test]
    fn what_is_taken_out_of_the_queue_is_forgotten() {
        let (mut queue, mut schedule, now) = (queue(1), Schedule::default(), Instant::now());
        schedule.next(&mut queue, now).unwrap();
        queue.put_back(1, false, "servers");
        schedule.lacks(1, Duration::ZERO, now);
        queue.cancel(1);
        assert!(schedule.next(&mut queue, now).is_none());
        assert!(schedule.resting.is_empty());
    }
}
