//! Ten thousand files in a list, with the mouse's wheel and with the keyboard alone.

use std::time::Instant;

use serde_json::json;
use shoal_tests::{Member, Trackers, chromium_or_skip, share_many};

use crate::desk::{Desk, ENTER, ESCAPE};

const FILES: usize = 10_000;
/// Keys as WebDriver writes them.
const END: &str = "\u{e010}";
const HOME: &str = "\u{e011}";
const DOWN: &str = "\u{e015}";

#[test]
fn ten_thousand_files_are_walked_through_by_keys_alone() {
    if !chromium_or_skip("ten_thousand_files_are_walked_through_by_keys_alone") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Desk::new(dir.path(), "ann", &trackers);
    let mut carl = Member::connect(trackers.port(1));
    carl.enter("carl");
    carl.create_group("films");
    share_many(&mut carl, "films", FILES, 4 << 20);
    ann.client.enter("ann");
    ann.client.ok("join_group films");
    carl.done(shoal_common::tracker_api::Call::Decide {
        request: shoal_common::RequestId::random(),
        group: shoal_common::GroupName::refer("films").unwrap(),
        user: shoal_common::UserName::refer("ann").unwrap(),
        accept: true,
    });
    ann.visit();
    ann.browser.until("nav .own", "films");
    walk(&ann);
    assert_eq!(ann.complaints(), Vec::<String>::new());
}

fn walk(ann: &Desk) {
    ann.tab_to("films");
    ann.browser.press(ENTER);
    ann.browser.until(".total", "10,000 files");
    let rows = ann.browser.run("return [document.querySelector('[role=grid]').getAttribute('aria-rowcount'), document.querySelectorAll('.row').length < 60]", vec![]);
    assert_eq!(rows, json!(["10001", true]));
    ann.tab_to("Search files");
    ann.tab_to("Share files");
    ann.tab_to("file-000000.bin");
    ann.browser.press(END);
    let at = |index: &str, name: &str| {
        let script = format!(
            "document.activeElement.getAttribute('aria-rowindex') === '{index}' && document.activeElement.innerText.startsWith('{name}')"
        );
        ann.browser.until_true(&script);
    };
    at("10001", "file-009999.bin");
    ann.browser.press(HOME);
    ann.browser.press(DOWN);
    at("3", "file-000001.bin");
    ann.browser.press(ENTER);
    ann.browser.until(".panel", "SHA-1");
    ann.browser.press(ESCAPE);
    at("3", "file-000001.bin");
    // A wheel far away from the row with the focus leaves the focus where it is.
    ann.browser.run("document.querySelector('.scroller').scrollTop = 300000", vec![]);
    ann.browser.until(".rows", "file-0068");
    at("3", "file-000001.bin");
    ann.browser.press("/");
    ann.browser.until_true("document.activeElement.type === 'search'");
    let began = Instant::now();
    ann.browser.press("0099");
    ann.browser.until(".total", "111 files");
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}
