use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use super::*;

type Tested = Arc<Requests<u32, Vec<u8>, Result<Vec<u8>, &'static str>, &'static str>>;

fn requests(most: usize) -> Tested {
    Arc::new(Requests::new(most, CancellationToken::new()))
}

/// Takes `bytes` as the next part of a request.
fn part(requests: &Tested, key: u32, offset: u64, bytes: &[u8]) -> Result<(), Violation> {
    let length = bytes.len() as u64;
    let buffer = requests.part(key, offset, length)?.map(|mut buffer| {
        buffer.extend_from_slice(bytes);
        Ok(buffer)
    });
    requests.part_came(key, length, buffer, Ok);
    Ok(())
}

#[tokio::test]
async fn answers_in_any_order_reach_their_callers() {
    let requests = requests(4);
    let (first, second) = (requests.number(), requests.number());
    let one = requests.ask(first, None, || {}).unwrap();
    let two = requests.ask(second, None, || {}).unwrap();
    requests.answer(second, Ok(vec![2])).unwrap();
    requests.refuse(first, Err("busy")).unwrap();
    assert_eq!(one.answer().await, Ok(Err("busy")));
    assert_eq!(two.answer().await, Ok(Ok(vec![2])));
    assert_eq!(requests.answer(second, Ok(vec![])), Err(Violation::Unasked), "answered twice");
}

#[tokio::test]
async fn an_answer_in_parts_is_whole_with_the_last_one() {
    let requests = requests(4);
    let asked = requests.ask(7, Some((5, Vec::new())), || {}).unwrap();
    assert_eq!(requests.in_flight(), 5);
    assert_eq!(requests.answer(7, Ok(vec![])), Err(Violation::Unasked), "it does not come whole");
    part(&requests, 7, 0, b"ab").unwrap();
    assert_eq!(part(&requests, 7, 0, b"ab"), Err(Violation::OutOfOrder));
    assert_eq!(part(&requests, 7, 2, b""), Err(Violation::OutOfOrder));
    assert_eq!(part(&requests, 7, 2, b"cdef"), Err(Violation::OutOfOrder));
    part(&requests, 7, 2, b"cde").unwrap();
    assert_eq!(asked.answer().await, Ok(Ok(b"abcde".to_vec())));
    assert_eq!(requests.in_flight(), 0);
    assert_eq!(part(&requests, 7, 5, b"x"), Err(Violation::Unasked));
}

#[tokio::test]
async fn a_dropped_caller_recalls_its_request_once_and_late_parts_are_skipped() {
    let (requests, recalled) = (requests(4), AtomicUsize::new(0));
    let recall = || {
        recalled.fetch_add(1, Ordering::Relaxed);
    };
    drop(requests.ask(1, Some((4, Vec::new())), recall).unwrap());
    assert_eq!(recalled.load(Ordering::Relaxed), 1);
    assert_eq!(requests.ask(1, None, || {}).err(), Some(NotAsked::Twice), "its end has not come");
    assert_eq!(requests.part(1, 0, 3), Ok(None));
    requests.part_came(1, 3, None, Ok);
    requests.refuse(1, Err("recalled")).unwrap();
    let answered = requests.ask(1, None, recall).unwrap();
    requests.answer(1, Ok(vec![])).unwrap();
    drop(answered);
    assert_eq!(recalled.load(Ordering::Relaxed), 1, "what was answered is not recalled");
}

#[tokio::test]
async fn a_request_makes_room_when_it_ends_and_not_when_its_caller_goes() {
    let requests = requests(1);
    drop(requests.ask(1, None, || {}).unwrap());
    assert_eq!(requests.ask(2, None, || {}).err(), Some(NotAsked::Full));
    requests.answer(1, Ok(vec![1])).unwrap();
    let second = requests.ask(2, None, || {}).unwrap();
    requests.answer(2, Ok(vec![2])).unwrap();
    assert_eq!(second.answer().await, Ok(Ok(vec![2])));
}

#[tokio::test]
async fn abandoned_requests_are_answered_here_and_their_bytes_may_still_come() {
    let requests = requests(4);
    let asked = requests.ask(1, Some((4, Vec::new())), || {}).unwrap();
    let kept = requests.ask(2, Some((4, Vec::new())), || {}).unwrap();
    part(&requests, 1, 0, b"a").unwrap();
    requests.abandon(|&key| key == 1, || Err("closed"));
    assert_eq!(asked.answer().await, Ok(Err("closed")));
    part(&requests, 1, 1, b"bcd").unwrap();
    assert_eq!(part(&requests, 1, 4, b"e"), Err(Violation::Unasked), "more than was asked for");
    part(&requests, 2, 0, b"abcd").unwrap();
    assert_eq!(kept.answer().await, Ok(Ok(b"abcd".to_vec())));
}

#[tokio::test]
async fn a_buffer_that_takes_no_more_costs_its_own_request() {
    let requests = requests(4);
    let asked = requests.ask(1, Some((4, Vec::new())), || panic!("it was answered")).unwrap();
    assert!(requests.part(1, 0, 2).unwrap().is_some());
    requests.part_came(1, 2, Some(Err(Err("no space"))), Ok);
    assert_eq!(asked.answer().await, Ok(Err("no space")));
    assert_eq!(requests.part(1, 2, 2), Ok(None), "the rest is skipped");
    requests.part_came(1, 2, None, Ok);
    assert!(requests.ask(1, None, || {}).is_ok());
}

#[tokio::test]
async fn the_end_fails_all_that_is_under_way_with_its_first_reason() {
    let ended = CancellationToken::new();
    let requests: Tested = Arc::new(Requests::new(4, ended.clone()));
    let asked = requests.ask(1, None, || {}).unwrap();
    let parts = requests.ask(2, Some((9, Vec::new())), || {}).unwrap();
    let carried = requests.carry(async { "lost" }, "closed here");
    carried.await;
    requests.end("later");
    assert!(requests.has_ended() && ended.is_cancelled());
    assert_eq!((asked.answer().await, parts.answer().await), (Err("lost"), Err("lost")));
    assert_eq!(requests.ask(3, None, || {}).err(), Some(NotAsked::Ended("lost")));
    assert_eq!(requests.in_flight(), 0);
}

#[tokio::test]
async fn a_connection_that_is_closed_here_says_so() {
    let ended = CancellationToken::new();
    let requests: Tested = Arc::new(Requests::new(4, ended.clone()));
    let asked = requests.ask(1, None, || {}).unwrap();
    ended.cancel();
    requests.carry(std::future::pending(), "closed here").await;
    assert_eq!(asked.answer().await, Err("closed here"));
}

#[tokio::test(start_paused = true)]
async fn only_silence_while_an_answer_is_owed_is_too_long() {
    const LIMIT: Duration = Duration::from_secs(10);
    let requests = requests(4);
    let (mut other, ours) = tokio::io::duplex(64);
    let silence = Silence::default();
    let mut input = Listening::new(BufReader::new(ours), silence.clone());
    let started = Instant::now();
    let reading = async {
        let mut byte = [0];
        while input.read_exact(&mut byte).await.is_ok() {}
    };
    let overdue = async {
        requests.overdue(&silence, LIMIT).await;
        started.elapsed()
    };
    let script = async {
        tokio::time::sleep(LIMIT * 3).await;
        let asked = requests.ask(1, None, || {}).unwrap();
        tokio::time::sleep(LIMIT / 2).await;
        other.write_all(b"x").await.unwrap();
        asked.answer().await
    };
    tokio::select! {
        () = reading => panic!("the other side is there"),
        _ = script => panic!("nobody answers"),
        after = overdue => assert!(after >= LIMIT * 9 / 2 && after < LIMIT * 5, "{after:?}"),
    }
}

proptest! {
    #[test]
    fn whatever_comes_the_bound_and_the_bytes_hold(
        steps in prop::collection::vec((0_u8..7, 0_u32..6, 0_u64..5), 0..200),
    ) {
        const MOST: usize = 3;
        const LENGTH: u64 = 4;
        let requests = requests(MOST);
        let (mut callers, mut under_way, mut in_parts) = (HashMap::new(), HashSet::new(), HashMap::new());
        for (step, key, length) in steps {
            match step {
                0 | 1 => {
                    let asked = requests.ask(key, (step == 1).then(|| (LENGTH, Vec::new())), || {});
                    let room = under_way.len() < MOST && !under_way.contains(&key);
                    prop_assert_eq!(asked.is_ok(), room);
                    if let Ok(asked) = asked {
                        under_way.insert(key);
                        in_parts.insert(key, (step == 1).then_some(0));
                        callers.insert(key, asked);
                    }
                }
                2 => drop(callers.remove(&key)),
                3 => {
                    let whole = under_way.contains(&key) && in_parts[&key].is_none();
                    prop_assert_eq!(requests.answer(key, Ok(vec![])).is_ok(), whole);
                    if whole {
                        under_way.remove(&key);
                    }
                }
                4 => prop_assert_eq!(requests.refuse(key, Err("no")).is_ok(), under_way.remove(&key)),
                5 => {
                    let offset = in_parts.get(&key).copied().flatten().unwrap_or(0);
                    let fits = under_way.contains(&key)
                        && in_parts[&key].is_some()
                        && length > 0
                        && offset + length <= LENGTH;
                    let bytes = vec![0; usize::try_from(length).unwrap()];
                    prop_assert_eq!(part(&requests, key, offset, &bytes).is_ok(), fits);
                    if fits {
                        in_parts.insert(key, Some(offset + length));
                        if offset + length == LENGTH {
                            under_way.remove(&key);
                        }
                    }
                }
                _ => {
                    let unread = under_way.iter().filter(|key| in_parts[*key].is_some()).count() as u64;
                    prop_assert_eq!(requests.in_flight(), unread * LENGTH);
                }
            }
            prop_assert_eq!(requests.table().pending.len(), under_way.len());
        }
        requests.end("over");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for asked in callers.into_values() {
            let answer = runtime.block_on(asked.answer());
            prop_assert!(matches!(answer, Err("over") | Ok(_)));
        }
    }
}
