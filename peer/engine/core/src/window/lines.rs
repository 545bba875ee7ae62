//! The window over simulated lines: with delay, and with packets that come a round trip late and hold up all behind them, as
//! TCP hands them on.

use std::collections::VecDeque;

use super::*;

const PIECE: u64 = 64 * 1024;

/// A line and the source at its end, which sends as fast as the line takes it and never slows down for a loss.
struct Line {
    /// Bytes per millisecond.
    rate: u64,
    /// Milliseconds there and back; even.
    round_trip: u64,
    /// Of a thousand milliseconds, how many lose what is sent in them the first time.
    lost: u32,
}

/// What a line did in a quarter of a minute, of which the first third does not count.
#[derive(Debug)]
struct Use {
    percent: u64,
    most_in_flight: u64,
}

struct Asked {
    issued: u64,
    before: u64,
    answered: bool,
}

fn run(line: &Line, complete: bool) -> Use {
    const END: u64 = 15_000;
    let begin = Instant::now();
    let at = |ms: u64| begin + Duration::from_millis(ms);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut window = RequestWindow::new(Limits {
        max_in_flight: 1_024,
        min_in_flight: 1,
        max_in_flight_bytes: u64::MAX,
        run: Run::Single,
    });
    let demand = Demand { complete, shared: false, limit: None };
    // By when they come: bytes asked for, at the source, and bytes on their way here, in order.
    let mut asked: VecDeque<(u64, u64)> = VecDeque::new();
    let mut on_the_way: VecDeque<(u64, u64)> = VecDeque::new();
    let mut requests: VecDeque<Asked> = VecDeque::new();
    let (mut piece, mut unsampled) = (0, 0);
    let mut used = Use { percent: 0, most_in_flight: 0 };
    let mut counted = 0;
    for now in 0..END {
        while window.may_ask(requests.len(), PIECE, demand) {
            requests.push_back(Asked { issued: now, before: window.total(), answered: false });
            window.asked(PIECE);
            asked.push_back((now + line.round_trip / 2, PIECE));
        }
        let mut room = line.rate;
        while room > 0 && asked.front().is_some_and(|&(at, _)| at <= now) {
            let rest = &mut asked[0].1;
            let part = room.min(*rest);
            *rest -= part;
            room -= part;
            if *rest == 0 {
                asked.pop_front();
            }
            let again = if rng.u32(0..1_000) < line.lost { line.round_trip } else { 0 };
            let after_others = on_the_way.back().map_or(0, |&(at, _)| at);
            on_the_way.push_back(((now + line.round_trip / 2 + again).max(after_others), part));
        }
        while on_the_way.front().is_some_and(|&(at, _)| at <= now) {
            let Some((_, mut bytes)) = on_the_way.pop_front() else { break };
            if now > END / 3 {
                counted += bytes;
            }
            while bytes > 0 {
                let first = &mut requests[0];
                if !std::mem::replace(&mut first.answered, true) {
                    window.answered(at(now) - at(first.issued));
                }
                let part = bytes.min(PIECE - piece);
                (piece, bytes, unsampled) = (piece + part, bytes - part, unsampled + part);
                if piece == PIECE {
                    piece = 0;
                    window.delivered(std::mem::take(&mut unsampled), at(now));
                    window.measured(first.before, at(now) - at(first.issued));
                    requests.pop_front();
                }
            }
        }
        if now % 25 == 0 {
            window.delivered(std::mem::take(&mut unsampled), at(now));
        }
        if now > END / 3 {
            used.most_in_flight = used.most_in_flight.max(window.in_flight);
        }
    }
    used.percent = counted * 100 / (line.rate * (END - END / 3 - 1));
    used
}

#[test]
fn long_lines_are_used_whether_they_lose_packets_or_not() {
    // 8.6 packets a millisecond: 42 in a thousand milliseconds lose one at 0.5 %.
    for (rate, round_trip, lost, least) in [
        (12_500, 20, 0, 97),
        (12_500, 100, 0, 97),
        (12_500, 300, 0, 97),
        (62_500, 100, 0, 97),
        (12_500, 20, 42, 85),
        (12_500, 100, 5, 85),
        (12_500, 100, 42, 80),
        (12_500, 300, 42, 75),
        (1_250, 100, 5, 90),
    ] {
        let used = run(&Line { rate, round_trip, lost }, true);
        assert!(used.percent >= least, "{rate} bytes/ms, {round_trip} ms, {lost} lost: {used:?}");
    }
}

#[test]
fn a_slow_uploader_far_away_has_no_more_to_send_than_one_piece_beyond_its_answering_time() {
    // 2 Mbit/s and what TLS, TCP and IP take of it.
    for complete in [true, false] {
        let line = Line { rate: 237, round_trip: 300, lost: 0 };
        let used = run(&line, complete);
        let answering = line.rate * (line.round_trip + 30);
        assert!(used.most_in_flight <= answering + PIECE && used.percent >= 95, "{used:?}");
    }
}
