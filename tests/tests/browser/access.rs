//! What keeps people from using the page who see little, hear it, or use no mouse: in every view, light and dark. The names and roles
//! that are judged are those that the browser itself tells a screen reader. `scripts/test --long` judges the views by axe-core, too.

use std::collections::HashSet;

use serde_json::{Value, json};
use shoal_tests::{Trackers, chromium_or_skip, long_or_skip, skip};

use crate::desk::Desk;
use crate::pictures::{crowded, every_view};

/// Gives the faults that a script sees.
const FAULTS: &str = include_str!("access.js");
/// Roles that mean nothing to who hears no name.
const NAMED: [&str; 18] = [
    "button",
    "link",
    "textbox",
    "searchbox",
    "checkbox",
    "radio",
    "combobox",
    "listbox",
    "spinbutton",
    "slider",
    "switch",
    "grid",
    "row",
    "columnheader",
    "progressbar",
    "image",
    "dialog",
    "navigation",
];
/// Most presses of Tab that lead once through a view.
const MOST_TABS: usize = 60;
/// What has the focus now, marked with a number the first time: the number, whether the focus can be seen, and whether it stands behind what
/// had it before.
const FOCUSED: &str = r"
    const element = document.activeElement;
    if (element === document.body) return [0, true, true];
    const before = window.focusedBefore;
    window.focusedBefore = element;
    window.focusedCount = window.focusedCount ?? 0;
    element.focusedAs ??= (window.focusedCount += 1);
    const style = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    const seen = box.width > 0 && (style.outlineStyle !== 'none' || style.boxShadow !== 'none');
    const behind = !before?.isConnected || !!(before.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING);
    return [element.focusedAs, seen, behind, element.outerHTML.slice(0, 110)];";

/// Everything that is wrong with what is shown.
fn faults(desk: &Desk) -> Vec<String> {
    let texts = |found: &Value| -> Vec<String> {
        found.as_array().unwrap().iter().map(|one| one.as_str().unwrap_or_default().to_owned()).collect()
    };
    let mut all = Vec::new();
    for scheme in ["light", "dark"] {
        desk.browser.prefer(scheme, "reduce");
        all.extend(
            texts(&desk.browser.run(FAULTS, vec![])).into_iter().map(|fault| format!("{scheme}: {fault}")),
        );
    }
    all.extend(nameless(desk));
    all
}

/// What the browser would read to somebody without a name.
fn nameless(desk: &Desk) -> Vec<String> {
    desk.browser.tools("Accessibility.enable", &json!({}));
    let tree = desk.browser.tools("Accessibility.getFullAXTree", &json!({}));
    let nodes = tree["nodes"].as_array().unwrap();
    assert!(nodes.len() > 5, "{tree}");
    let wanted = |node: &&Value| {
        let role = node["role"]["value"].as_str().unwrap_or_default();
        node["ignored"] == false && NAMED.contains(&role)
    };
    let name = |node: &Value| node["name"]["value"].as_str().unwrap_or_default().trim().to_owned();
    let lacking = nodes.iter().filter(wanted).filter(|node| name(node).is_empty());
    lacking.map(|node| format!("no name: {} {}", node["role"]["value"], node["properties"])).collect()
}

/// Goes through the view by Tab: everything is reached once in the order in which it stands, its focus is seen, and it ends.
fn walk(desk: &Desk) -> Vec<String> {
    let mut faults = Vec::new();
    let mut reached = HashSet::new();
    desk.browser.run("document.activeElement.blur(); window.focusedBefore = null", vec![]);
    for _ in 0..MOST_TABS {
        // Not by WebDriver: to a field for files its keys are the names of some.
        for kind in ["keyDown", "keyUp"] {
            let key = json!({ "type": kind, "key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9 });
            desk.browser.tools("Input.dispatchKeyEvent", &key);
        }
        let focused = desk.browser.run(FOCUSED, vec![]);
        let number = focused[0].as_u64().unwrap();
        // Behind the last one the browser begins anew.
        if number == 0 || !reached.insert(number) && focused[2] == false {
            return faults;
        }
        if focused[1] == false {
            faults.push(format!("its focus is not seen: {}", focused[3]));
        }
        if focused[2] == false {
            faults.push(format!("out of order: {}", focused[3]));
        }
    }
    faults.push(format!("Tab does not come to an end within {MOST_TABS}"));
    faults
}

#[test]
fn every_view_can_be_heard_seen_and_reached() {
    if !chromium_or_skip("every_view_can_be_heard_seen_and_reached") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (ann, _bob, _carl, _trackers) = crowded(dir.path());
    let mut walked = Vec::new();
    every_view(&ann, |desk, view| {
        assert_eq!(faults(desk), Vec::<String>::new(), "{view}");
        assert_eq!(walk(desk), Vec::<String>::new(), "{view}");
        walked.push(view.to_owned());
    });
    assert_eq!(walked.len(), 11, "{walked:?}");
}

/// Each breaks something on the page, and what is found then.
const BROKEN: [(&str, &str); 12] = [
    ("document.documentElement.removeAttribute('lang')", "no lang"),
    ("document.querySelector('h1').remove()", "not one h1"),
    (
        "document.querySelector('main').append(Object.assign(document.createElement('h4'), { textContent: 'x' }))",
        "a level is left out",
    ),
    ("document.querySelector('nav a').tabIndex = 2", "a tabindex of its own"),
    ("document.querySelector('.total').style.color = 'rgb(150 160 170)'", "contrast"),
    ("document.querySelector('.total').style.opacity = '.5'", "contrast"),
    ("document.querySelector('[type=search]').removeAttribute('aria-label')", "no label"),
    ("document.querySelector('nav a span').remove()", "no name"),
    ("document.querySelector('[role=grid]').setAttribute('role', 'table2')", "an unknown role"),
    ("document.querySelector('.rows').setAttribute('aria-hidden', 'true')", "hidden, and takes the focus"),
    ("document.querySelector('.who').id = document.querySelector('.link').id = 'same'", "two have the id"),
    ("document.querySelector('.title').style.cssText = 'min-height: 0; height: 12px'", "only "),
];

#[test]
fn each_fault_that_is_made_is_found() {
    if !chromium_or_skip("each_fault_that_is_made_is_found") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Desk::new(dir.path(), "ann", &trackers);
    ann.enter();
    ann.client.ok("create_group films");
    std::fs::write(dir.path().join("night.txt"), "a film").unwrap();
    ann.client.ok(&format!("upload_file '{}' films", dir.path().join("night.txt").display()));
    for (break_it, found) in BROKEN {
        ann.browser.open(&format!("http://{}/#/shares", ann.address));
        ann.browser.run("location.reload()", vec![]);
        ann.browser.until(".rows", "night.txt");
        ann.browser.run(break_it, vec![]);
        let faults = faults(&ann);
        assert!(faults.iter().any(|fault| fault.contains(found)), "{break_it}: {faults:?}");
    }
    // And one that no script sees: an order that is not that of the page.
    ann.browser.run("document.querySelector('.rows').removeAttribute('aria-hidden'); document.querySelector('[type=search]').tabIndex = 1", vec![]);
    assert!(walk(&ann).iter().any(|fault| fault.contains("out of order")));
}

/// Runs axe-core, whose script stands before it; gives what it finds by its weight.
const AXE: &str = r"
    ;const done = arguments[0];
    axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => done(violations.map(({ id, impact, nodes }) =>
        `${impact}: ${id}: ${nodes.slice(0, 3).map(({ html }) => html.slice(0, 140)).join(' | ')}`)), (error) => done([`serious: ${error}`]));";

#[test]
fn axe_finds_no_serious_fault() {
    let test = "axe_finds_no_serious_fault";
    if !long_or_skip(test) || !chromium_or_skip(test) {
        return;
    }
    let Some(axe) = std::env::var_os("SHOAL_AXE").and_then(|path| std::fs::read_to_string(path).ok()) else {
        skip(test, "needs axe-core, which scripts/test --long fetches where npm is installed");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (ann, _bob, _carl, _trackers) = crowded(dir.path());
    let judge = |desk: &Desk| -> Vec<String> {
        let found = desk.browser.run_later(&format!("{axe}{AXE}"), vec![]);
        let texts = found.as_array().unwrap().iter().map(|one| one.as_str().unwrap_or_default().to_owned());
        texts.collect()
    };
    let is_serious = |fault: &String| ["serious", "critical"].iter().any(|weight| fault.starts_with(weight));
    every_view(&ann, |desk, view| {
        for scheme in ["light", "dark"] {
            desk.browser.prefer(scheme, "reduce");
            let found = judge(desk);
            eprintln!("{view}, {scheme}: {found:?}");
            let serious: Vec<String> = found.into_iter().filter(is_serious).collect();
            assert_eq!(serious, Vec::<String>::new(), "{view}, {scheme}");
        }
    });
    // It can fail.
    ann.browser.run("document.documentElement.removeAttribute('lang')", vec![]);
    assert!(judge(&ann).iter().any(is_serious));
}
