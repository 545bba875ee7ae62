//! What a person does on the page beside the way of files: notifications, a file that is not sent to its end, the queue, the settings.

use std::path::Path;

use serde_json::{Value, json};
use shoal_tests::{Service, Trackers, chromium_or_skip, random_file, until};

use crate::desk::{Desk, ENTER};

/// Ann at her desk, with a download folder and a group; bob shares files in it.
struct Evening {
    ann: Desk,
    bob: Service,
    home: std::path::PathBuf,
    _trackers: Trackers,
}

impl Evening {
    fn begin(dir: &Path) -> Self {
        let trackers = Trackers::start(dir, 1);
        let ann = Desk::new(dir, "ann", &trackers);
        let home = dir.join("ann-downloads");
        std::fs::create_dir(&home).unwrap();
        ann.enter();
        ann.client.ok(&format!("set download_folder '{}'", home.display()));
        ann.client.ok("create_group films");
        let bob = Service::start(dir, "bob", &trackers.info(), &[]);
        bob.enter("bob");
        bob.ok("join_group films");
        ann.client.ok("accept_request films bob");
        Self { ann, bob, home, _trackers: trackers }
    }

    /// Bob shares a file of that size.
    fn share(&self, dir: &Path, name: &str, bytes: usize) {
        let path = dir.join(name);
        random_file(&path, bytes, 7);
        let shared = self.bob.ask(&json!({ "argv": ["upload_file", path.to_str().unwrap(), "films"] }));
        assert_eq!(shared.status, 200, "{shared:?}");
    }

    fn downloads(&self) -> Value {
        self.ann.client.ok("show_downloads")["downloads"].clone()
    }
}

/// Notes what the page asks the browser to show; the page's own code calls the browser's own constructor.
const NOTE: &str = r"
    window.noted = [];
    const Real = window.Notification;
    window.Notification = class extends Real {
        constructor(title, options) {
            super(title, options);
            window.noted.push([title, options.body]);
        }
    };";
/// Lets the page be out of sight, or in sight.
const LOOK: &str = r"
    Object.defineProperty(document, 'hidden', { value: arguments[0], configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));";

#[test]
fn a_download_that_ends_while_nobody_looks_is_notified_by_the_browser() {
    if !chromium_or_skip("a_download_that_ends_while_nobody_looks_is_notified_by_the_browser") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let evening = Evening::begin(dir.path());
    let ann = &evening.ann;
    ann.browser.run(NOTE, vec![]);
    for (name, hidden, setting, expected) in
        [("one.bin", true, "denied", 0), ("two.bin", false, "granted", 0), ("three.bin", true, "granted", 1)]
    {
        let origin = format!("http://{}", ann.address);
        let permission =
            json!({ "permission": { "name": "notifications" }, "setting": setting, "origin": origin });
        ann.browser.tools("Browser.setPermission", &permission);
        ann.go("settings");
        ann.browser.until_true("document.getElementById('told')");
        ann.browser.run("const box = document.getElementById('told'); if (!box.checked) box.click()", vec![]);
        // Where the user says no, the box does not stay ticked.
        ann.browser
            .until_true(&format!("document.getElementById('told').checked === {}", setting == "granted"));
        ann.browser.run(LOOK, vec![hidden.into()]);
        evening.share(dir.path(), name, 50_000);
        ann.client.ok(&format!("download_file films {name}"));
        until("it is there", || evening.home.join(name).exists());
        if setting == "granted" {
            ann.browser.until("#toasts", &format!("{name} is complete."));
        }
        let noted = ann.browser.run("return window.noted", vec![]);
        assert_eq!(noted.as_array().unwrap().len(), expected, "{name}: {noted}");
        ann.browser.run(LOOK, vec![false.into()]);
    }
    // The name is set apart there, too.
    let noted = ann.browser.run("return window.noted", vec![]);
    assert_eq!(noted, json!([["Shoal", "\u{2068}“three.bin”\u{2069} is complete."]]));
    assert_eq!(ann.complaints(), Vec::<String>::new());
}

/// Drops files of that many bytes on the page.
const DROP: &str = r"
    const dataTransfer = new DataTransfer();
    for (const [name, size] of arguments[0]) dataTransfer.items.add(new File([new Uint8Array(size)], name));
    for (const kind of ['dragover', 'drop']) {
        document.querySelector('main').dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
    }";

#[test]
fn a_file_whose_sending_is_cancelled_midway_leaves_nothing_and_the_next_one_goes() {
    if !chromium_or_skip("a_file_whose_sending_is_cancelled_midway_leaves_nothing_and_the_next_one_goes") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let evening = Evening::begin(dir.path());
    let ann = &evening.ann;
    ann.go("groups/films/files");
    ann.browser.until(".total", "0 files");
    ann.browser.tools("Network.enable", &json!({}));
    let slow = |bytes: i64| {
        let conditions =
            json!({ "offline": false, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes });
        ann.browser.tools("Network.emulateNetworkConditions", &conditions);
    };
    slow(300_000);
    ann.browser.run(DROP, vec![json!([["big.bin", 30 << 20], ["waits.bin", 10], ["small.txt", 6]])]);
    ann.browser.until_true("document.querySelector('.sent progress')?.value > 100000");
    let files = || std::fs::read_dir(&evening.home).unwrap().flatten().count();
    until("some of it is on the disk", || files() == 1);
    assert!(!evening.home.join("big.bin").exists(), "it has no name yet");
    // One that waits for its turn is taken out of the line, too.
    ann.browser.click("Cancel waits.bin");
    ann.browser.click("Cancel big.bin");
    slow(-1);
    ann.browser.until("#toasts", "small.txt is shared in films now.");
    ann.browser.until_true("!document.querySelector('.sent')");
    until("nothing is left of it", || files() == 1 && evening.home.join("small.txt").exists());
    ann.browser.until(".total", "1 file");
    let listed = ann.client.ok("list_files films");
    assert_eq!(listed["files"].as_array().unwrap().len(), 1, "{listed}");
    // Who cancels is not told that it failed.
    assert_eq!(ann.browser.run("return document.querySelectorAll('.toast.bad').length", vec![]), 0);
}

#[test]
fn the_queue_is_ordered_by_keys_alone() {
    if !chromium_or_skip("the_queue_is_ordered_by_keys_alone") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let evening = Evening::begin(dir.path());
    let ann = &evening.ann;
    ann.client.ok("limit down 20000");
    ann.client.ok("set active_downloads 1");
    for name in ["a.bin", "b.bin", "c.bin"] {
        evening.share(dir.path(), name, 3 << 20);
        ann.client.ok(&format!("download_file films {name}"));
    }
    let places = || -> Vec<Value> {
        evening.downloads().as_array().unwrap().iter().map(|row| row["queued"].clone()).collect()
    };
    until("two wait", || places() == [Value::Null, json!(1), json!(2)]);
    ann.go("downloads");
    ann.browser.until(".rows", "Queued (2)");
    ann.tab_to("a.bin");
    ann.browser.press("\u{e015}");
    ann.browser.press("\u{e015}");
    ann.browser.press(ENTER);
    ann.browser.until(".panel h2", "c.bin");
    ann.tab_to("First in the queue");
    ann.browser.press(ENTER);
    until("c is next", || places() == [Value::Null, json!(2), json!(1)]);
    ann.browser.until(".panel dd", "Queued (1)");
    // The focus stays where it was.
    ann.browser.until_true("document.activeElement.textContent === 'First in the queue'");
    ann.tab_to("Last in the queue");
    ann.browser.press(ENTER);
    until("c is the last", || places() == [Value::Null, json!(1), json!(2)]);
    ann.browser.until(".panel dd", "Queued (2)");
    assert_eq!(ann.complaints(), Vec::<String>::new());
}

#[test]
fn settings_are_seen_set_and_refused_on_the_page() {
    if !chromium_or_skip("settings_are_seen_set_and_refused_on_the_page") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let evening = Evening::begin(dir.path());
    let (ann, home) = (&evening.ann, &evening.home);
    let below = home.join("films");
    std::fs::create_dir(&below).unwrap();
    ann.client.ok("limit up 700000");
    ann.client.ok("set active_downloads 3");
    ann.client.ok("set on_complete true");
    ann.go("settings");
    let loaded = "[...document.querySelectorAll('fieldset')].every((one) => !one.disabled)";
    ann.browser.until_true(loaded);
    let field = |label: &str| {
        let script = "const label = [...document.querySelectorAll('.card label')].find((one) => one.textContent === arguments[0]); \
                      return document.getElementById(label.htmlFor).value";
        ann.browser.run(script, vec![label.into()])
    };
    let write = |label: &str, text: &str| {
        let script = "const label = [...document.querySelectorAll('.card label')].find((one) => one.textContent === arguments[0]); \
                      const input = document.getElementById(label.htmlFor); input.focus(); input.select()";
        ann.browser.run(script, vec![label.into()]);
        ann.browser.press(if text.is_empty() { "\u{e017}" } else { text });
    };
    let save = |section: usize| {
        let script = format!(
            "document.querySelectorAll('form.card')[{section}].querySelector('[type=submit]').click()"
        );
        ann.browser.run(&script, vec![]);
    };
    assert_eq!(field("Upload limit"), "700000");
    assert_eq!((field("Downloads at a time"), field("Download folder")), (json!("3"), json!(home)));
    ann.browser.until(".page", "Only a terminal sets it");
    ann.browser.until(".page code", "true");
    // A limit that is none is refused, and nothing is changed.
    write("Upload limit", "quick");
    save(0);
    ann.browser.until("#toasts", "is no rate");
    assert_eq!(ann.client.ok("limit")["up"], 700_000);
    write("Upload limit", "2 MiB");
    save(0);
    until("it is set", || ann.client.ok("limit")["up"] == 2 << 20);
    // A folder that the page may not reach is refused with the reason.
    write("Download folder", "/etc");
    save(1);
    ann.browser.until("#toasts", "/etc");
    assert_eq!(ann.client.ok("set")["download_folder"], json!(home));
    write("Download folder", below.to_str().unwrap());
    write("Downloads at a time", "");
    save(1);
    until("they are set", || {
        let set = ann.client.ok("set");
        set["download_folder"] == json!(below) && set["active_downloads"].as_u64().unwrap_or(0) == 0
    });
    account(ann);
    assert_eq!(ann.complaints(), Vec::<String>::new());
}

/// The account's clients, another password, and the end.
fn account(ann: &Desk) {
    ann.browser.until("[aria-label=Clients]", "this client");
    for (old, said) in [("wrong", "password"), ("secret", "The password is another one now.")] {
        ann.browser.click("Change password");
        ann.browser.type_into("dialog [autocomplete=current-password]", old);
        ann.browser.type_into("dialog [autocomplete=new-password]", "another secret");
        ann.browser.click("Change");
        if old == "wrong" {
            ann.browser.until("dialog .problem", said);
            ann.browser.click("Cancel");
        } else {
            ann.browser.until("#toasts", said);
        }
    }
    ann.browser.click("Sign out");
    ann.browser.until("main", "Sign in");
    ann.browser.type_into("[name=user]", "ann");
    ann.browser.type_into("[name=password]", "another secret\n");
    ann.browser.until(".who", "ann");
}
