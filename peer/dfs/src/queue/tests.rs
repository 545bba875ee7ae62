use proptest::prelude::*;

use super::*;

fn work(name: u8) -> Work {
    Work::Get { name: name.to_string(), to: "/tmp".into(), force: false }
}

#[derive(Debug, Clone)]
enum Event {
    Add(usize),
    Start,
    Finish,
    Fail,
    PutBack,
    GoOn,
    Rested,
    Pause(u64),
    Resume(u64),
    Cancel(u64),
    Crash,
}

fn event() -> impl Strategy<Value = Event> {
    let number = 0..30_u64;
    prop_oneof![
        (1..4_usize).prop_map(Event::Add),
        Just(Event::Start),
        Just(Event::Finish),
        Just(Event::Fail),
        Just(Event::PutBack),
        Just(Event::GoOn),
        Just(Event::Rested),
        number.clone().prop_map(Event::Pause),
        number.clone().prop_map(Event::Resume),
        number.prop_map(Event::Cancel),
        Just(Event::Crash),
    ]
}

proptest! {
    #[test]
    fn order_is_kept_nothing_is_lost_and_no_job_is_done_twice(events in prop::collection::vec(event(), 0..80)) {
        let mut queue = Queue::default();
        let (mut left, mut done, mut at_work) = (Vec::new(), Vec::new(), None::<u64>);
        let mut resting = Vec::new();
        for event in events {
            match event {
                Event::Add(count) => left.extend(queue.add(vec![work(1); count]).unwrap()),
                Event::Start if at_work.is_none_or(|number| !queue.is_running(number)) => {
                    let ready = |job: &&Job| job.state == State::Waiting && !resting.contains(&job.number);
                    let first = queue.jobs().iter().find(ready).map(|job| job.number);
                    at_work = queue.start(|job| !resting.contains(&job)).map(|job| job.number);
                    prop_assert_eq!(at_work, first);
                    prop_assert!(at_work.is_none_or(|number| !done.contains(&number)));
                }
                Event::Start => {}
                Event::Finish => if let Some(number) = at_work.take() {
                    queue.finish(number);
                    done.push(number);
                    left.retain(|&other| other != number);
                },
                Event::Fail => if let Some(number) = at_work.take() {
                    queue.fail(number, "it is gone");
                },
                Event::PutBack => if let Some(number) = at_work.take() {
                    queue.put_back(number, true, "servers");
                    resting.push(number);
                },
                Event::GoOn => if let Some(number) = at_work {
                    queue.goes_on(number);
                },
                Event::Rested => resting.clear(),
                Event::Pause(number) => { queue.pause((number > 0).then_some(number)); }
                Event::Resume(number) => { queue.resume((number > 0).then_some(number)); }
                Event::Cancel(number) => if queue.cancel(number) {
                    left.retain(|&other| other != number);
                },
                Event::Crash => {
                    queue = minicbor::decode(&minicbor::to_vec(&queue).unwrap()).unwrap();
                    queue.recover();
                    at_work = None;
                    prop_assert!(queue.jobs().iter().all(|job| job.state != State::Running));
                }
            }
            prop_assert!(queue.is_sound());
            let numbers: Vec<u64> = queue.jobs().iter().map(|job| job.number).collect();
            prop_assert_eq!(&numbers, &left);
            prop_assert!(queue.jobs().iter().filter(|job| job.state == State::Running).count() <= 1);
        }
    }
}

#[test]
fn too_many_jobs_and_too_long_paths_are_refused_whole() {
    let mut queue = Queue::default();
    queue.add(vec![work(1); MAX_JOBS - 1]).unwrap();
    assert_eq!(queue.add(vec![work(2); 2]), Err(NotAdded::Full { have: MAX_JOBS - 1 }));
    assert_eq!(queue.jobs().len(), MAX_JOBS - 1);
    let to = "x".repeat(MAX_PATH + 1).into();
    let long = Work::Get { name: "a".to_owned(), to, force: false };
    assert_eq!(queue.add(vec![long]), Err(NotAdded::TooLong));
}
