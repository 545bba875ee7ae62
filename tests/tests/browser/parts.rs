//! Parts of the page that a quick hand, or a client that does not answer, must not turn against their user.

use serde_json::json;
use shoal_tests::{Trackers, chromium_or_skip};

use crate::desk::Desk;

/// Each answers what it saw.
const PARTS: &str = r"
    const done = arguments[arguments.length - 1];
    (async () => {
        const { h, keyed, name } = await import('/assets/dom.js');
        const { list } = await import('/assets/list.js');
        const { ask } = await import('/assets/panel.js');
        const seen = {};
        const parent = h('ul');
        for (const _ of [1, 2, 3]) keyed(parent, ['a', 'a', 'b'], (one) => one, (one) => h('li', null, one));
        seen.kept = parent.textContent;
        seen.name = name('a\u202egpj.exe').textContent;
        const column = { title: 'File', key: 'file', fill: (cell, item) => cell.replaceChildren(item) };
        const table = list({ label: 'Some', columns: [column], keyOf: (item) => item });
        document.body.append(table.element);
        table.set(['a', 'b', 'c']);
        table.focus();
        const focused = document.activeElement;
        table.set(['c', 'b', 'a']);
        seen.focused = [focused === document.activeElement, focused.textContent, focused.getAttribute('aria-rowindex')];
        table.set(['c', 'b']);
        seen.gone = [focused.isConnected, document.activeElement.className];
        table.element.remove();
        let fail;
        const dialog = ask('Sure?', 'Or not.', 'Yes', () => new Promise((_, refused) => (fail = refused)));
        dialog.querySelector('form').requestSubmit();
        location.hash = '#/groups';
        await new Promise((gone) => dialog.addEventListener('close', gone));
        fail(new Error('It was not done.'));
        done(seen);
    })().catch((error) => done(String(error)));";

#[test]
fn lists_names_and_dialogs_keep_to_what_they_are_about() {
    if !chromium_or_skip("lists_names_and_dialogs_keep_to_what_they_are_about") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Desk::new(dir.path(), "ann", &trackers);
    ann.enter();
    let seen = ann.browser.run_later(PARTS, vec![]);
    let expected = json!({
        "kept": "aab",
        "name": "a\\u{202e}gpj.exe",
        "focused": [true, "a", "4"],
        "gone": [false, "row"],
    });
    assert_eq!(seen, expected);
    ann.browser.until("#toasts", "It was not done.");

    // Settings that could not be loaded are not saved over.
    ann.client.ok("limit up 700000");
    let refuse = "const real = window.fetch; window.fetch = (where, ...rest) => String(where).endsWith('/limits') \
                  ? Promise.reject(new TypeError('no')) : real(where, ...rest); window.real = real";
    ann.browser.run(refuse, vec![]);
    ann.go("settings");
    ann.browser.until_true(
        "[...document.querySelectorAll('fieldset')].map((one) => one.disabled).join() === 'true,false'",
    );
    // They are, once they are loaded.
    ann.browser.run("window.fetch = window.real", vec![]);
    ann.browser.run("document.dispatchEvent(new Event('visibilitychange'))", vec![]);
    ann.browser.until_true("!document.querySelector('fieldset').disabled");
    assert_eq!(ann.client.ok("limit")["up"], 700_000);
}

#[test]
fn who_leaves_a_group_sees_no_error() {
    if !chromium_or_skip("who_leaves_a_group_sees_no_error") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Desk::new(dir.path(), "ann", &trackers);
    ann.enter();
    ann.client.ok("create_group films");
    ann.go("groups/films/members");
    ann.browser.until("[aria-label=Members]", "ann");
    ann.browser.click("Leave group");
    ann.browser.click("Leave");
    ann.browser.until("h1", "Groups");
    ann.browser.until_true("!document.querySelector('.own a')");
    assert_eq!(ann.browser.run("return document.querySelectorAll('.toast.bad').length", vec![]), 0);
}
