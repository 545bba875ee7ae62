//! Every view at three widths, light and dark: nothing runs over the side, every control has a name, and no script complains. With
//! `SHOAL_SCREENSHOTS` set, pictures of them go to `target/screenshots`, for people to look at.

use std::path::Path;

use serde_json::{Value, json};
use shoal_tests::{Service, Trackers, binary, chromium_or_skip, random_file, until};

use crate::desk::{Desk, ESCAPE};

/// Widths and heights: a telephone, a laptop, and a large screen.
const SIZES: [(u32, u32); 3] = [(360, 740), (1280, 800), (2560, 1440)];
/// Names that others may give their files.
const NAMES: [&str; 6] = [
    "Night on Earth (1991) – restored, with a commentary track that nobody ever listened to until its very end.mkv",
    "<img src=x onerror=alert(1)>.png",
    "ملف عربي من اليمين إلى اليسار.pdf",
    "film 2.mkv",
    "film 10.mkv",
    "holiday pictures.tar",
];

/// Ann at her desk; bob shares files in `films`, and carl asks to join. Some of the files are on their way to ann.
pub(crate) fn crowded(dir: &Path) -> (Desk, Service, Service, Trackers) {
    let trackers = Trackers::start(dir, 1);
    let ann = Desk::new(dir, "ann", &trackers);
    ann.enter();
    for group in ["films", "books and papers", "family"] {
        ann.client.ok(&format!("create_group '{group}'"));
    }
    let bob = Service::start(dir, "bob", &trackers.info(), &[]);
    bob.enter("bob");
    bob.ok("join_group films");
    ann.client.ok("accept_request films bob");
    let carl = Service::start(dir, "carl", &trackers.info(), &[]);
    carl.enter("carl");
    carl.ok("join_group films");
    for (at, name) in NAMES.iter().enumerate() {
        let path = dir.join(name);
        random_file(&path, (at + 1) * 400_000, at as u64);
        let shared = bob.ask(&json!({ "argv": ["upload_file", path.to_str().unwrap(), "films"] }));
        assert_eq!(shared.status, 200, "{shared:?}");
    }
    let own = dir.join("recipes.txt");
    random_file(&own, 30_000, 9);
    ann.client.ok(&format!("upload_file '{}' films", own.display()));
    let to = dir.join("ann-files");
    std::fs::create_dir(&to).unwrap();
    let fetch = |name: &str| {
        let argv = ["download_file", "films", name, to.to_str().unwrap()];
        let begun = ann.client.ask(&json!({ "argv": argv }));
        assert_eq!(begun.status, 200, "{begun:?}");
    };
    fetch("film 2.mkv");
    until("it is there", || ann.client.ok("show_downloads")["downloads"][0]["state"] == "C");
    ann.client.ok("limit down 40000");
    fetch(NAMES[0]);
    fetch("holiday pictures.tar");
    fetch("film 10.mkv");
    ann.client.ok("pause_download films 'film 10.mkv'");
    (ann, bob, carl, trackers)
}

/// Where pictures go, if they are wanted.
fn folder() -> Option<std::path::PathBuf> {
    std::env::var_os("SHOAL_SCREENSHOTS")?;
    Some(binary("client").parent()?.parent()?.join("screenshots"))
}

/// What is wrong with what is seen: what runs over the side, and controls without a name.
const FAULTS: &str = r#"
    const faults = [];
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > width) faults.push(`the page is ${document.documentElement.scrollWidth} wide`);
    for (const element of document.querySelectorAll('button, a, input, select, [role=grid], [role=row], dialog, canvas, progress')) {
        const box = element.getBoundingClientRect();
        if (!box.width || element.closest('[hidden], .skip')) continue;
        const own = element.getAttribute('aria-label') || element.labels?.[0]?.textContent || element.textContent || element.title;
        if (!own?.trim() && element.tagName !== 'CANVAS') faults.push(`no name: ${element.outerHTML.slice(0, 120)}`);
        if (!element.closest('.rows, .skip') && (box.right > width + 1 || box.left < -1)) faults.push(`over the side: ${element.outerHTML.slice(0, 120)}`);
    }
    return faults;
"#;

fn looked_at(desk: &Desk, view: &str) {
    for (width, height) in SIZES {
        desk.browser.resize(width, height);
        for scheme in ["light", "dark"] {
            desk.browser.prefer(scheme, "reduce");
            // Two frames: the list measures its rows in the first.
            desk.browser.run_later(
                "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 30)))",
                vec![],
            );
            if let Some(folder) = folder() {
                desk.browser.picture(&folder.join(format!("{view}-{width}-{scheme}.png")));
            }
        }
        let faults = desk.browser.run(FAULTS, vec![]);
        assert_eq!(faults, Value::Array(vec![]), "{view} at {width}");
    }
    desk.browser.resize(1280, 800);
}

/// A name is text, whatever it holds, and does not turn what stands around it.
fn names_are_text(desk: &Desk) {
    desk.browser.until(".rows", NAMES[1]);
    assert_eq!(desk.browser.run("return document.querySelectorAll('main img').length", vec![]), 0);
    let isolated = "return [...document.querySelectorAll('.rows .wide > *')].every((name) => getComputedStyle(name).unicodeBidi === 'isolate')";
    assert_eq!(desk.browser.run(isolated, vec![]), true);
    // No string becomes markup, even by a script that runs in the page.
    let markup =
        "try { document.body.innerHTML = '<p>'; return 'taken' } catch (error) { return error.name }";
    assert_eq!(desk.browser.run(markup, vec![]), "TypeError");
    // That the policy forbade it is in the log now.
    assert!(desk.browser.log().iter().any(|line| line.contains("TrustedHTML")));
}

/// Shows one view after the other.
pub(crate) fn every_view(ann: &Desk, mut look: impl FnMut(&Desk, &str)) {
    ann.go("downloads");
    ann.browser.until(".rows", "film 10.mkv");
    ann.browser.until(".rows", "Downloading");
    look(ann, "downloads");
    ann.browser.run("document.querySelector('.row').click()", vec![]);
    ann.browser.until(".panel", "Pieces");
    look(ann, "download");
    ann.browser.press(ESCAPE);
    ann.go("groups");
    ann.browser.until(".rows", "family");
    look(ann, "groups");
    ann.go("groups/films/files");
    ann.browser.until(".rows", "recipes.txt");
    look(ann, "files");
    ann.browser.run("document.querySelector('.row').click()", vec![]);
    ann.browser.until(".peers", "bob");
    look(ann, "file");
    ann.browser.press(ESCAPE);
    ann.browser.click("Share files");
    ann.browser.until("dialog", "Copied into");
    look(ann, "share");
    ann.browser.press(ESCAPE);
    ann.go("groups/films/members");
    ann.browser.until(".people", "carl");
    look(ann, "members");
    ann.go("shares");
    ann.browser.until(".rows", "recipes.txt");
    look(ann, "shares");
    ann.go("settings");
    ann.browser.until("main", "Account");
    look(ann, "settings");
    ann.client.ok("logout");
    ann.browser.run("document.dispatchEvent(new Event('visibilitychange'))", vec![]);
    ann.browser.until("main", "Sign in");
    look(ann, "signin");
    ann.browser.run("indexedDB.deleteDatabase('shoal').onsuccess = () => location.reload()", vec![]);
    ann.browser.until("main", "shoal web");
    look(ann, "locked");
}

#[test]
fn every_view_fits_and_its_controls_have_names() {
    if !chromium_or_skip("every_view_fits_and_its_controls_have_names") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (ann, bob, _carl, _trackers) = crowded(dir.path());
    every_view(&ann, |desk, view| {
        if view == "files" {
            names_are_text(desk);
        }
        looked_at(desk, view);
    });
    assert_eq!(ann.complaints(), Vec::<String>::new());
    drop(bob);
}
