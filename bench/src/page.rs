//! `scripts/bench page`: what a person waits for at the page, in a real browser, and what an open page costs.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shoal_common::tracker_api::Call;
use shoal_common::{GroupName, RequestId, UserName};
use shoal_tests::{
    Chromium, Member, Service, Trackers, chromium_or_skip, free_port, random_file, share_many, until,
};

use crate::noise::Noise;
use crate::running::cpu_seconds;
use crate::{Plan, absent};

/// Rows of the list that is scrolled.
const FILES: usize = 10_000;
/// How often each wait is measured in a round.
const TIMES: usize = 10;
/// How long the list is scrolled, and how long an idle page is watched.
const SCROLLED: Duration = Duration::from_secs(5);
const WATCHED: Duration = Duration::from_secs(30);

/// Scrolls by a fifth of a page per frame and counts frames; gives frames per second, and the longest one in milliseconds.
const SCROLL: &str = r"
    const [seconds, done] = arguments;
    const scroller = document.querySelector('.scroller');
    const began = performance.now();
    let frames = 0, last = began, longest = 0;
    const step = (now) => {
        longest = Math.max(longest, now - last);
        last = now;
        frames += 1;
        scroller.scrollTop += 150;
        if (now - began < seconds * 1000) requestAnimationFrame(step);
        else done([frames / ((now - began) / 1000), longest]);
    };
    requestAnimationFrame(step);";
/// Remembers when a notice with these words came, and when the event did, to another reader of the same stream.
const NOTE: &str = r"
    window.seen = window.came = null;
    (async () => {
        const { ask } = await import('/assets/api.js');
        const reader = (await ask('/api/1/events', {})).body.getReader();
        const decoder = new TextDecoder();
        let text = '';
        while (!text.includes(arguments[0])) text += decoder.decode((await reader.read()).value, { stream: true });
        window.came = Date.now();
        reader.cancel();
    })();
    new MutationObserver((changes, observer) => {
        if (!document.getElementById('toasts').textContent.includes(arguments[0])) return;
        window.seen = Date.now();
        observer.disconnect();
    }).observe(document.getElementById('toasts'), { childList: true, subtree: true });";
/// When the list had its first row, after the navigation began, in milliseconds.
const USABLE: &str = r"
    const done = arguments[0];
    const look = () => document.querySelector('.row') ? done(performance.now()) : requestAnimationFrame(look);
    look();";

pub(crate) fn run(plan: &Plan, noise: &mut Noise) {
    if !chromium_or_skip("scripts/bench page") {
        absent("the page", "chromium and chromium-driver are not installed");
        return;
    }
    let dir = plan.in_memory();
    let trackers = Trackers::start(dir.path(), 1);
    let web = free_port();
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &["--web", &format!("127.0.0.1:{web}")]);
    let mut carl = Member::connect(trackers.port(1));
    carl.enter("carl");
    carl.create_group("films");
    share_many(&mut carl, "films", FILES, 4 << 20);
    ann.enter("ann");
    ann.ok("join_group films");
    carl.done(Call::Decide {
        request: RequestId::random(),
        group: GroupName::refer("films").unwrap(),
        user: UserName::refer("ann").unwrap(),
        accept: true,
    });
    drop(carl);
    ann.ok("create_group own");
    let bob = Service::start(dir.path(), "bob", &trackers.info(), &[]);
    bob.enter("bob");
    bob.ok("join_group own");
    ann.ok("accept_request own bob");
    let bytes = usize::try_from(plan.bytes).unwrap_or(usize::MAX);
    random_file(&dir.path().join(LARGE), bytes, 1);
    bob.ok(&format!("upload_file '{}' own", dir.path().join(LARGE).display()));
    let visit = || {
        let browser = Chromium::start(1280, 800);
        browser.open(ann.run(&["web"], "").stdout.trim());
        browser.until(".who", "ann");
        browser
    };
    let (browser, others) = (visit(), [visit(), visit()]);
    leave(&others);
    println!(
        "\nOne client with its tracker on this machine. Medians (lowest–highest).\n\n| what | measured |\n|---|---|"
    );
    let mut rows = Rows::default();
    for _ in 0..plan.runs {
        noise.probe();
        for _ in 0..TIMES {
            rows.add(WHOAMI, whoami(&ann));
            rows.add(PAGE, usable(&browser, web));
            rows.add(EVENT, event(&ann, &browser, dir.path()));
        }
        rows.add(SCROLLING, scroll(&browser));
        let idle = idle(&browser);
        rows.add(IDLE, idle);
        let [alone, watched] = download(&ann, &browser, &others, web, dir.path());
        rows.add(ALONE, alone);
        rows.add(WATCHED_BY_THREE, watched);
        rows.add(GROWTH, 100.0 * (watched - alone) / alone);
    }
    rows.print();
    size(plan);
}

const WHOAMI: &str = "`shoal whoami`, ms";
const PAGE: &str = "the page has its list, ms";
const EVENT: &str = "an event that came is on screen, ms";
const SCROLLING: &str = "10,000 rows scroll, frames/s";
/// The file that is downloaded while pages watch, and how often.
const LARGE: &str = "large.bin";
const FETCHED: usize = 3;
const ALONE: &str = "the client's CPU for three downloads that nobody watches, s";
const WATCHED_BY_THREE: &str = "the same while three pages watch, s";
const GROWTH: &str = "that is more by, %";
const IDLE: &str = "an idle page, % of a core (all processes of the browser)";

/// Values by what they measure.
#[derive(Default)]
struct Rows(Vec<(&'static str, Vec<f64>)>);

impl Rows {
    fn add(&mut self, name: &'static str, value: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => self.0.push((name, vec![value])),
        }
    }

    fn print(&mut self) {
        for (name, values) in &mut self.0 {
            values.sort_by(f64::total_cmp);
            let (low, middle, high) = (values[0], values[values.len() / 2], values[values.len() - 1]);
            println!("| {name} | {middle:.1} ({low:.1}–{high:.1}) |");
        }
    }
}

fn whoami(ann: &Service) -> f64 {
    let began = Instant::now();
    let said = ann.run(&["whoami"], "");
    assert_eq!(said.code, Some(0), "{said:?}");
    milliseconds(began.elapsed())
}

/// From the navigation to the list of groups.
fn usable(browser: &Chromium, web: u16) -> f64 {
    browser.open("about:blank");
    browser.open(&format!("http://127.0.0.1:{web}/#/groups"));
    browser.run_later(USABLE, vec![]).as_f64().unwrap()
}

/// From an event's arrival to its notice: a shared file goes from the disk, which the client says after two seconds.
fn event(ann: &Service, browser: &Chromium, dir: &Path) -> f64 {
    let path = dir.join("alone.txt");
    std::fs::write(&path, "alone").unwrap();
    ann.ok(&format!("upload_file '{}' own", path.display()));
    browser.run("document.getElementById('toasts').replaceChildren()", vec![]);
    browser.run(NOTE, vec!["alone.txt".into()]);
    std::fs::remove_file(&path).unwrap();
    until("it is said", || browser.run("return window.seen && window.came", vec![]) != Value::Null);
    ann.ok("stop_share own alone.txt");
    browser.run("return Math.max(0, window.seen - window.came)", vec![]).as_f64().unwrap()
}

fn scroll(browser: &Chromium) -> f64 {
    browser.run("location.hash = '#/groups/films/files'", vec![]);
    browser.until(".total", "10,000 files");
    let seconds = json!(SCROLLED.as_secs());
    let measured = browser.run_later(SCROLL, vec![seconds]);
    eprintln!("  the longest frame took {:.0} ms", measured[1].as_f64().unwrap());
    measured[0].as_f64().unwrap()
}

/// What all of the browser takes while nothing happens.
fn idle(browser: &Chromium) -> f64 {
    let processes = browser.processes();
    let used = || processes.iter().map(|&pid| cpu_seconds(pid)).sum::<f64>();
    let (before, began) = (used(), Instant::now());
    std::thread::sleep(WATCHED);
    100.0 * (used() - before) / began.elapsed().as_secs_f64()
}

/// The client's CPU seconds for a download that nobody watches, and for one whose details three pages show. Each is measured [`FETCHED`]
/// times in turn.
fn download(ann: &Service, browser: &Chromium, others: &[Chromium; 2], web: u16, dir: &Path) -> [f64; 2] {
    let mut used = [0.0, 0.0];
    for _ in 0..FETCHED {
        browser.open("about:blank");
        leave(others);
        used[0] += fetch(ann, dir, || {});
        used[1] += fetch(ann, dir, || {
            for page in [browser, &others[0], &others[1]] {
                page.open(&format!("http://127.0.0.1:{web}/#/downloads"));
                page.until(".rows", LARGE);
                page.run("document.querySelector('.row').click()", vec![]);
                page.until(".panel h2", LARGE);
            }
        });
    }
    leave(others);
    used
}

fn leave(pages: &[Chromium]) {
    for page in pages {
        page.open("about:blank");
    }
}

/// Downloads the large file once; the client's CPU seconds from when it goes on after the pages are `there`.
fn fetch(ann: &Service, dir: &Path, there: impl Fn()) -> f64 {
    let got = dir.join("got.bin");
    ann.ok(&format!("download_file own {LARGE} '{}'", got.display()));
    ann.ok(&format!("pause_download own {LARGE}"));
    there();
    let pid = ann.pid();
    let before = cpu_seconds(pid);
    ann.ok(&format!("resume_download own {LARGE}"));
    ann.ok("wait 50");
    let used = cpu_seconds(pid) - before;
    ann.ok(&format!("cancel_download own {LARGE}"));
    ann.ok(&format!("stop_share own {LARGE}"));
    std::fs::remove_file(&got).unwrap();
    used
}

/// The client's size, beside another build's.
fn size(plan: &Plan) {
    let bytes =
        |build: &crate::Build| std::fs::metadata(build.program("client")).map_or(0, |file| file.len());
    for build in plan.builds() {
        println!("- {}client: {:.1} MiB", build.label, bytes(&build) as f64 / f64::from(1 << 20));
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
