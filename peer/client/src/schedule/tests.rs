use jiff::SignedDuration;
use jiff::civil::datetime;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;

/// Central European time, without a database of time zones.
fn berlin() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
}

fn windows(texts: &[&str]) -> Vec<Window> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

const USUAL: Limits = Limits { up: Some(100), down: None };

#[test]
fn windows_are_read_and_written() {
    for (text, written) in [
        ("mon-fri 08:00-18:00 up 500K down 2M", "mon-fri 08:00-18:00 up 512000 down 2097152"),
        ("DAILY 00:00-24:00 down 0", "daily 00:00-24:00 down 0"),
        ("sat,sun 9:30-01:00 up 1", "sat,sun 09:30-01:00 up 1"),
        ("sat-mon 10:00-11:00 down 3 up 4", "mon,sat,sun 10:00-11:00 up 4 down 3"),
        ("mon-sun 10:00-11:00 up 1", "daily 10:00-11:00 up 1"),
        ("wed,tue,thu 23:59-24:00 up 1", "tue-thu 23:59-24:00 up 1"),
    ] {
        let window: Window = text.parse().unwrap();
        assert_eq!(window.to_string(), written);
        assert_eq!(written.parse(), Ok(window));
    }
    for (text, part) in [
        ("", "not understood"),
        ("mon", "not understood"),
        ("someday 08:00-18:00 up 1", "names no days"),
        ("mon- 08:00-18:00 up 1", "names no days"),
        ("mon 08:00 up 1", "no time of day"),
        ("mon 8-18 up 1", "no time of day"),
        ("mon 24:00-08:00 up 1", "no time of day"),
        ("mon 08:60-18:00 up 1", "no time of day"),
        ("mon 08:00-24:01 up 1", "no time of day"),
        ("mon +8:00-18:00 up 1", "no time of day"),
        ("mon 08:00-08:00 up 1", "00:00-24:00"),
        ("mon 08:00-18:00", "limits something"),
        ("mon 08:00-18:00 up", "not understood"),
        ("mon 08:00-18:00 sideways 1", "not understood"),
        ("mon 08:00-18:00 up 1 up 2", "twice"),
        ("mon 08:00-18:00 up fast", "not a rate"),
    ] {
        let error = text.parse::<Window>().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn the_lowest_window_holds_and_outside_of_them_the_usual_limits() {
    let schedule = windows(&[
        "mon-fri 08:00-18:00 up 50 down 500",
        "wed 12:00-13:00 up 20",
        "fri 22:00-06:00 up 0 down 7",
        "sat 05:00-07:00 down 0",
    ]);
    // 2026-11-25 is a Wednesday.
    for (at, up, down) in [
        (datetime(2026, 11, 25, 7, 59, 59, 0), Some(100), None),
        (datetime(2026, 11, 25, 8, 0, 0, 0), Some(50), Some(500)),
        (datetime(2026, 11, 25, 12, 30, 0, 0), Some(20), Some(500)),
        (datetime(2026, 11, 25, 13, 0, 0, 0), Some(50), Some(500)),
        (datetime(2026, 11, 25, 18, 0, 0, 0), Some(100), None),
        // Over midnight, from Friday into Saturday, without a limit of uploads.
        (datetime(2026, 11, 27, 23, 0, 0, 0), None, Some(7)),
        (datetime(2026, 11, 28, 5, 30, 0, 0), None, Some(7)),
        (datetime(2026, 11, 28, 6, 30, 0, 0), Some(100), None),
        (datetime(2026, 11, 27, 5, 30, 0, 0), Some(100), None),
    ] {
        assert_eq!(limits_at(&schedule, USUAL, at), Limits { up, down }, "{at}");
    }
    assert_eq!(limits_at(&[], USUAL, datetime(2026, 11, 25, 9, 0, 0, 0)), USUAL);
}

#[test]
fn the_next_change_is_known_also_where_the_clock_is_put_forward_or_back() {
    let schedule = windows(&["daily 02:15-02:45 up 1"]);
    let next = |year, month, day, hour, minute| {
        let now = datetime(year, month, day, hour, minute, 0, 0).to_zoned(berlin()).unwrap();
        let at = next_change(&schedule, &now).unwrap().to_zoned(berlin());
        (at.date().day(), at.time().to_string(), at.offset().seconds() / 3600)
    };
    assert_eq!(next(2026, 11, 25, 1, 0), (25, "02:15:00".into(), 1));
    assert_eq!(next(2026, 11, 25, 2, 15), (25, "02:45:00".into(), 1));
    assert_eq!(next(2026, 11, 25, 3, 0), (26, "02:15:00".into(), 1));
    // Put forward at 02:00 on 29 March: the window is left out.
    assert_eq!(next(2026, 3, 29, 1, 59), (29, "03:00:00".into(), 2));
    // Put back at 03:00 on 25 October: the window comes twice.
    assert_eq!(next(2026, 10, 25, 2, 15), (25, "02:45:00".into(), 2));
    assert_eq!(next(2026, 10, 25, 2, 45), (25, "02:00:00".into(), 1));
    assert_eq!(next_change(&[], &Zoned::now()), None);
}

fn window() -> impl Strategy<Value = Window> {
    let rate = || prop_oneof![Just(None), (0u64..5).prop_map(Some)];
    (any::<[bool; 7]>(), 0..MINUTES_OF_DAY, 0..=MINUTES_OF_DAY, rate(), rate())
        .prop_filter("no window", |(_, from, to, up, down)| from != to && (up.is_some() || down.is_some()))
        .prop_map(|(days, from, to, up, down)| Window { days, from, to, up, down })
        .prop_filter("no days", |window| window.days != [false; 7])
}

proptest! {
    #[test]
    fn nothing_changes_between_the_changes(
        schedule in proptest::collection::vec(window(), 1..5),
        // A year with both changes of the clock.
        second in 1_767_225_600i64..1_798_761_600,
    ) {
        let now = Timestamp::from_second(second).unwrap().to_zoned(berlin());
        let next = next_change(&schedule, &now).unwrap();
        let holds = limits_at(&schedule, USUAL, now.datetime());
        let until = next.duration_since(now.timestamp());
        prop_assert!(until > SignedDuration::ZERO);
        for part in 0..200i64 {
            let at = now.timestamp() + SignedDuration::from_millis_i128(until.as_millis() * i128::from(part) / 200);
            let at = at.to_zoned(berlin()).datetime();
            prop_assert_eq!(limits_at(&schedule, USUAL, at), holds, "{} of {}", at, next);
        }
    }

    #[test]
    fn whatever_is_written_is_read_again(window in window()) {
        prop_assert_eq!(window.to_string().parse::<Window>(), Ok(window));
    }

    #[test]
    fn no_text_is_too_much(text in "\\PC{0,40}") {
        let _ = text.parse::<Window>();
    }
}
