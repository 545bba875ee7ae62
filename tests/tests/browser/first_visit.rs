//! The first visit: a link, and what there is.

use shoal_tests::{Trackers, chromium_or_skip};

use crate::desk::Desk;

#[test]
fn a_link_opens_the_page_and_it_survives_the_daemon() {
    if !chromium_or_skip("a_link_opens_the_page_and_it_survives_the_daemon") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Desk::new(dir.path(), "ann", &trackers);
    ann.browser.open(&format!("http://{}/", ann.address));
    ann.browser.until("main", "shoal web");
    ann.client.enter("ann");
    ann.client.ok("create_group films");
    std::fs::write(dir.path().join("night.txt"), "a film").unwrap();
    ann.client.ok(&format!("upload_file '{}' films", dir.path().join("night.txt").display()));
    ann.visit();
    ann.browser.until(".who", "ann");
    ann.browser.until("nav .own", "films");
    ann.browser.click("films");
    ann.browser.until(".rows", "night.txt");
    ann.browser.until(".total", "1 file, 6 B");
    ann.kill();
    ann.browser.until(".banner", "The client does not answer; trying again.");
    ann.restart();
    // Without a kept session nobody is logged in after that.
    ann.browser.until("main", "Sign in");
    assert_eq!(ann.complaints(), Vec::<String>::new());
}
