//! What a person does on the first evening: an account, a group, a friend, files there and back.

use std::path::Path;

use serde_json::{Value, json};
use shoal_tests::{Service, Trackers, chromium_or_skip, random_file, same_content, until};

use crate::desk::Desk;

/// The name of a file that would be markup.
const MARKUP: &str = "<img src=x onerror=window.hurt=1>.png";
/// One that would turn the text around it.
const TURNED: &str = "\u{202e}gpj.exe";

/// Drops files on the page, as from a folder of the desktop.
fn drop_on(desk: &Desk, name: &str, content: &str) {
    let script = r"
        const [name, content] = arguments;
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([content], name));
        for (const kind of ['dragover', 'drop']) {
            document.querySelector('main').dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
        }";
    desk.browser.run(script, vec![name.into(), content.into()]);
}

fn argv(service: &Service, words: &[&str]) -> Value {
    let answered = service.ask(&json!({ "argv": words }));
    assert_eq!(answered.status, 200, "{words:?}: {answered:?}");
    answered.json()
}

/// A friend with a client of her own.
fn friend(dir: &Path, name: &str, trackers: &Trackers) -> Service {
    let friend = Service::start(dir, name, &trackers.info(), &[]);
    friend.enter(name);
    friend
}

#[test]
fn an_account_a_group_a_friend_and_files_there_and_back() {
    if !chromium_or_skip("an_account_a_group_a_friend_and_files_there_and_back") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Desk::new(dir.path(), "ann", &trackers);
    let home = dir.path().join("ann-downloads");
    std::fs::create_dir(&home).unwrap();
    argv(&ann.client, &["set", "download_folder", home.to_str().unwrap()]);
    ann.visit();
    create_account(&ann);
    let bob = friend(dir.path(), "bob", &trackers);
    let_in(&ann, &bob);

    // A file goes from the browser to the friend.
    drop_on(&ann, "letter.txt", "dear bob");
    ann.browser.until(".rows", "letter.txt");
    assert_eq!(std::fs::read_to_string(home.join("letter.txt")).unwrap(), "dear bob");
    let there = dir.path().join("bob-letter.txt");
    argv(&bob, &["download_file", "films", "letter.txt", there.to_str().unwrap()]);
    until("bob has it", || std::fs::read_to_string(&there).is_ok_and(|text| text == "dear bob"));

    // One goes back, slowly enough to be watched.
    let film = dir.path().join("film.mkv");
    random_file(&film, 3 << 20, 1);
    argv(&bob, &["upload_file", film.to_str().unwrap(), "films"]);
    argv(&ann.client, &["limit", "down", "400000"]);
    ann.go("groups/films/members");
    ann.go("groups/films/files");
    ann.browser.until(".rows", "film.mkv");
    ann.browser.click("Download film.mkv");
    ann.go("downloads");
    pause_and_resume(&ann);
    survive(&mut ann, &home.join("film.mkv"));
    until("it is whole", || same_content(&film, &home.join("film.mkv")));
    ann.browser.until(".rows", "Complete");

    limits_by_the_time_of_day(&ann);
    names_are_text(&ann, &bob, dir.path());
    explain_a_stuck_one(&ann, bob);
    assert_eq!(ann.complaints(), Vec::<String>::new());
}

fn create_account(ann: &Desk) {
    ann.browser.until("main", "Sign in");
    ann.browser.click("Create an account");
    ann.browser.type_into("[name=user]", "ann");
    ann.browser.type_into("[name=password]", "secret");
    ann.browser.click_on("#keep");
    ann.browser.click("Create account");
    ann.browser.until(".who", "ann");
}

fn let_in(ann: &Desk, bob: &Service) {
    ann.go("groups");
    ann.browser.type_into("[aria-label='Name of the new group']", "films\n");
    ann.browser.until("h1", "films");
    bob.ok("join_group films");
    ann.browser.until("#toasts", "bob asks to join films.");
    ann.browser.click("bob asks to join films.");
    ann.browser.click("Accept bob");
    ann.browser.until("[aria-label=Members]", "bob");
    ann.browser.click("Files");
}

fn pause_and_resume(ann: &Desk) {
    ann.browser.until(".rows", "Downloading");
    ann.browser.click("Pause film.mkv");
    ann.browser.until(".rows", "Paused");
    assert_eq!(ann.client.ok("show_downloads")["downloads"][0]["state"], "P");
    // The focus stays on the button that was pressed: it resumes now.
    ann.browser.until_true("document.activeElement.getAttribute('aria-label') === 'Resume film.mkv'");
    ann.browser.click("Resume film.mkv");
    ann.browser.until(".rows", "Downloading");
    ann.browser.run("document.querySelector('.row').click()", vec![]);
    ann.browser.until(".panel", "Sources");
    ann.browser.until(".panel .peers", "bob");
    ann.browser.until_true(
        "/ of [\\d,]+ pieces? there/.test(document.querySelector('.map').getAttribute('aria-label'))",
    );
}

/// The client is killed under the open page, which says so, and goes on when the client does.
fn survive(ann: &mut Desk, _copy: &Path) {
    ann.kill();
    ann.browser.until(".banner", "The client does not answer; trying again.");
    ann.restart();
    ann.browser.until_true("document.querySelector('.banner')?.hidden");
    argv(&ann.client, &["limit", "down", "0"]);
}

/// Windows of the week are set on the page, shown again as they are, and not changed by being saved again.
fn limits_by_the_time_of_day(ann: &Desk) {
    let windows = || ann.client.ok("schedule list")["schedule"].clone();
    let expected =
        json!([{ "days": "mon-fri", "from": "08:00", "to": "18:00", "up": null, "down": 500_000 }]);
    ann.go("settings");
    ann.browser.until_true("document.querySelector('fieldset')?.disabled === false");
    ann.browser.click("Add a time of day");
    ann.browser.type_into("[aria-label='Download limit then']", "500000");
    ann.browser.click("Save");
    until("the window is set", || windows() == expected);
    argv(&ann.client, &["schedule", "add", "sat", "22:00-06:00", "up", "1M"]);
    ann.go("downloads");
    ann.go("settings");
    ann.browser.until_true("document.querySelectorAll('.windows > li').length === 2");
    let days = "return [...document.querySelectorAll('.windows > li')].map((row) => [...row.querySelectorAll('.day input')].filter((day) => day.checked).length)";
    assert_eq!(ann.browser.run(days, vec![]), json!([5, 1]));
    let before = windows();
    argv(&ann.client, &["limit", "up", "700000"]);
    ann.browser.type_into("[aria-label='Upload limit then']", "2M");
    ann.browser.click("Save");
    until("the limit is set", || windows()[0]["up"] == 2 << 20);
    assert_eq!((&windows()[0]["down"], &windows()[1]), (&before[0]["down"], &before[1]));
    // What is not edited here stays as it is set elsewhere meanwhile.
    assert_eq!(ann.client.ok("limit")["up"], 700_000);
    argv(&ann.client, &["limit", "up", "0"]);
    argv(&ann.client, &["schedule", "remove", "2"]);
    argv(&ann.client, &["schedule", "remove", "1"]);
}

/// A download whose only sharer went away says so, and what to do.
fn explain_a_stuck_one(ann: &Desk, bob: Service) {
    drop(bob);
    ann.browser.click(&format!("Download {MARKUP}"));
    ann.go("downloads");
    ann.browser.until(".rows", MARKUP);
    let row = "[...document.querySelectorAll('.row')].find((row) => row.textContent.includes('onerror'))";
    ann.browser.run(&format!("{row}.click()"), vec![]);
    ann.browser.until(".why", "Next:");
    let explained = ann.client.ok("explain")["explanations"].clone();
    let cause = explained.as_array().unwrap().iter().find(|one| one["kind"] == "download").cloned().unwrap();
    assert_eq!((&cause["file"], &cause["level"]), (&MARKUP.into(), &"stuck".into()), "{cause}");
}

/// A name is text, whatever it holds, and does not turn the page around it.
fn names_are_text(ann: &Desk, bob: &Service, dir: &Path) {
    for name in [MARKUP, TURNED] {
        let path = dir.join(name);
        std::fs::write(&path, name).unwrap();
        let shared = bob.ask(&json!({ "argv": ["upload_file", path.to_str().unwrap(), "films"] }));
        // Names that turn text are refused already; if they were not, the page would still stand.
        assert!(shared.status == 200 || name == TURNED, "{shared:?}");
    }
    ann.go("groups/films/members");
    ann.go("groups/films/files");
    ann.browser.until(".rows", MARKUP);
    assert_eq!(
        ann.browser.run("return [window.hurt ?? null, document.querySelectorAll('main img').length]", vec![]),
        json!([null, 0])
    );
    let isolated = ann.browser.run("return [...document.querySelectorAll('.rows .wide > *')].every((name) => getComputedStyle(name).unicodeBidi === 'isolate')", vec![]);
    assert_eq!(isolated, true);
    // No string becomes markup, even for a script that runs in the page.
    let refused = ann.browser.run(
        "try { document.body.innerHTML = '<p>'; return 'taken' } catch (error) { return error.name }",
        vec![],
    );
    assert_eq!(refused, "TypeError");
    // That attempt is in the log now.
    let _ = ann.browser.log();
}
