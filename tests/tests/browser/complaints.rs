//! What users of other programs' pages complained of, tried here: names that mean something in an address, a list that forgets its order,
//! a folder that is dropped, a clock that is another one, a browser that is started again.

use serde_json::json;
use shoal_tests::{Service, Trackers, chromium_or_skip, until};

use crate::desk::Desk;

/// Names that addresses, forms and shells read in ways of their own (Transmission, Nextcloud, fman: files with % or # cannot be reached).
const NAMES: [&str; 5] = ["100% sure.txt", "a%2Fb.txt", "Pack #1?.txt", "a&b=c;d+e.txt", "b..%2e.txt"];

/// Drops a file, whose content is its name.
const DROP: &str = r"
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([arguments[1] ?? arguments[0]], arguments[0]));
    for (const kind of ['dragover', 'drop']) {
        document.querySelector('main').dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
    }";

#[test]
fn names_that_mean_something_in_an_address_are_names() {
    if !chromium_or_skip("names_that_mean_something_in_an_address_are_names") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Desk::new(dir.path(), "ann", &trackers);
    ann.enter();
    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    ann.client.ok(&format!("set download_folder '{}'", home.display()));
    let group = "50% & more #1";
    assert_eq!(ann.client.ask(&json!({ "argv": ["create_group", group] })).status, 200);
    let bob = Service::start(dir.path(), "bob", &trackers.info(), &[]);
    bob.enter("bob");
    assert_eq!(bob.ask(&json!({ "argv": ["join_group", group] })).status, 200);
    assert_eq!(ann.client.ask(&json!({ "argv": ["accept_request", group, "bob"] })).status, 200);
    ann.go("groups");
    ann.browser.until(".rows", group);
    ann.browser.click(group);
    ann.browser.until("h1", group);
    for name in NAMES {
        ann.browser.run(DROP, vec![name.into()]);
        ann.browser.until(".rows", name);
        assert_eq!(std::fs::read_to_string(home.join(name)).unwrap(), name);
    }
    // Bob shares one of such a name, which is downloaded, paused, gone on with and taken off the list.
    let (theirs, path) = ("bob's 5%?#;&.bin", dir.path().join("theirs.bin"));
    shoal_tests::random_file(&path, 3 << 20, 5);
    let named = dir.path().join(theirs);
    std::fs::rename(&path, &named).unwrap();
    assert_eq!(bob.ask(&json!({ "argv": ["upload_file", named.to_str().unwrap(), group] })).status, 200);
    ann.client.ok("limit down 300000");
    ann.go("groups");
    ann.browser.until("h1", "Groups");
    ann.browser.click(group);
    ann.browser.until(".rows", theirs);
    ann.browser.click(&format!("Download {theirs}"));
    ann.go("downloads");
    ann.browser.until(".rows", "Downloading");
    ann.browser.click(&format!("Pause {theirs}"));
    ann.browser.until(".rows", "Paused");
    ann.client.ok("limit down 0");
    ann.browser.click(&format!("Resume {theirs}"));
    ann.browser.until(".rows", "Complete");
    ann.browser.run("document.querySelector('.row').click()", vec![]);
    ann.browser.until(".panel h2", theirs);
    ann.browser.click("Take off the list");
    ann.browser.until_true("!document.querySelector('.row')");
    assert_eq!(ann.complaints(), Vec::<String>::new());
}

#[test]
fn a_list_keeps_its_order_over_views_and_visits() {
    if !chromium_or_skip("a_list_keeps_its_order_over_views_and_visits") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Desk::new(dir.path(), "ann", &trackers);
    ann.enter();
    ann.client.ok("create_group films");
    for (name, size) in [("a.txt", 300), ("b.txt", 100), ("c.txt", 200)] {
        std::fs::write(dir.path().join(name), vec![b'x'; size]).unwrap();
        ann.client.ok(&format!("upload_file '{}' films", dir.path().join(name).display()));
    }
    let rows = "[...document.querySelectorAll('.row')].sort((a, b) => a.at - b.at).map((row) => row.firstChild.firstChild.textContent).join()";
    let order = |expected: &str| ann.browser.until_true(&format!("{rows} === '{expected}'"));
    ann.go("groups/films/files");
    order("a.txt,b.txt,c.txt");
    ann.browser.click("Size");
    ann.browser.click("Size");
    order("a.txt,c.txt,b.txt");
    // Another view, and a file that comes.
    ann.go("downloads");
    ann.browser.until("h1", "Downloads");
    ann.go("groups/films/files");
    order("a.txt,c.txt,b.txt");
    ann.browser.until("[aria-sort=descending]", "Size");
    std::fs::write(dir.path().join("d.txt"), vec![b'x'; 250]).unwrap();
    ann.client.ok(&format!("upload_file '{}' films", dir.path().join("d.txt").display()));
    // The next visit; the key of the page is still there, too.
    ann.browser.run("location.reload()", vec![]);
    ann.browser.until("h1", "films");
    order("a.txt,d.txt,c.txt,b.txt");
    // What others wrote there is no order.
    ann.browser.run("localStorage.setItem('shoal-order-files', '{'); location.reload()", vec![]);
    order("a.txt,b.txt,c.txt,d.txt");
    assert_eq!(ann.complaints(), Vec::<String>::new());
}

/// Drops a folder and an empty file, as the browser names them.
const FOLDER: &str = r"
    const files = [new File([], 'films'), new File(['x'], 'film.txt'), new File([], 'empty.txt')];
    const items = files.map((file, at) => ({ webkitGetAsEntry: () => ({ isDirectory: at === 0, name: file.name }) }));
    const event = new Event('drop', { bubbles: true, cancelable: true });
    Object.defineProperty(event, 'dataTransfer', { value: { types: ['Files'], files, items } });
    document.querySelector('main').dispatchEvent(event);";

#[test]
fn a_folder_that_is_dropped_is_said_to_be_one_and_the_files_beside_it_go() {
    if !chromium_or_skip("a_folder_that_is_dropped_is_said_to_be_one_and_the_files_beside_it_go") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Desk::new(dir.path(), "ann", &trackers);
    ann.enter();
    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    ann.client.ok(&format!("set download_folder '{}'", home.display()));
    ann.client.ok("create_group films");
    ann.go("groups/films/files");
    ann.browser.until(".total", "0 files");
    ann.browser.run(FOLDER, vec![]);
    ann.browser.until("#toasts", "films is a folder, and was not sent: open it, and drop the files in it.");
    ann.browser.until(".rows", "film.txt");
    // An empty one is a file, or refused with the reason; the line ends.
    ann.browser.until_true("!document.querySelector('.sent')");
    let names =
        || std::fs::read_dir(&home).unwrap().flatten().map(|entry| entry.file_name()).collect::<Vec<_>>();
    until("it is over", || names().contains(&"film.txt".into()));
    assert!(!names().contains(&"films".into()));
    let empty = ann.browser.text_of("#toasts");
    assert!(empty.contains("empty.txt is shared") || empty.contains("empty.txt is not shared:"), "{empty}");
}

#[test]
fn the_schedule_says_whose_clock_it_goes_by_and_runs_past_midnight() {
    if !chromium_or_skip("the_schedule_says_whose_clock_it_goes_by_and_runs_past_midnight") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Desk::new(dir.path(), "ann", &trackers);
    ann.enter();
    // The browser is elsewhere, as behind ssh.
    ann.browser.tools("Emulation.setTimezoneOverride", &json!({ "timezoneId": "Asia/Tokyo" }));
    // From one minute after a time to that time: it holds now, whenever that is, over midnight on most days.
    ann.client.ok("schedule add daily 12:01-12:00 up 5000");
    ann.client.ok("schedule add daily 12:00-12:01 up 5000");
    ann.go("settings");
    let clock = ann.client.ok("schedule list");
    assert_eq!(clock["schedule"].as_array().unwrap().len(), 2, "{clock}");
    ann.browser.until(
        ".card .total",
        "Now: ↑ 4.9 KiB/s, ↓ no limit. Times are those of the client’s machine, and it is ",
    );
    let said = ann.browser.text_of(".card .total");
    let time = said.split(" it is ").nth(1).and_then(|rest| rest.split(' ').nth(1)).unwrap().to_owned();
    let minutes = |time: &str| {
        let (hour, minute) = time.split_once(':').unwrap();
        hour.parse::<i64>().unwrap() * 60 + minute.parse::<i64>().unwrap()
    };
    let here = std::process::Command::new("date").arg("+%H:%M").output().unwrap();
    let here = String::from_utf8(here.stdout).unwrap();
    let apart = (minutes(here.trim()) - minutes(&time)).rem_euclid(24 * 60);
    assert!(apart <= 2, "{here} and {time}");
}
