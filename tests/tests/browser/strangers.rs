//! A page from elsewhere, in the same browser: it gets nothing.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};
use shoal_tests::{Trackers, chromium_or_skip, free_port};

use crate::desk::Desk;

/// Everything that changes something.
const CHANGES: &[(&str, &str)] = &[
    ("POST", "/api/1/command"),
    ("POST", "/api/1/token"),
    ("POST", "/api/1/link"),
    ("POST", "/api/1/session"),
    ("DELETE", "/api/1/session"),
    ("POST", "/api/1/session/password"),
    ("POST", "/api/1/groups"),
    ("POST", "/api/1/groups/films/join"),
    ("POST", "/api/1/groups/films/leave"),
    ("POST", "/api/1/groups/films/requests/bob"),
    ("POST", "/api/1/groups/films/files"),
    ("PUT", "/api/1/groups/films/files/x"),
    ("DELETE", "/api/1/groups/films/files/x"),
    ("POST", "/api/1/downloads"),
    ("POST", "/api/1/downloads/films/x/pause"),
    ("PATCH", "/api/1/downloads/films/x"),
    ("PUT", "/api/1/limits"),
    ("PUT", "/api/1/settings"),
];

/// Tries each way that a page has: `fetch` with and without CORS, a form, a script, a frame, and a picture.
const ATTACK: &str = r"
    const [target, changes, token, done] = arguments;
    const got = [];
    (async () => {
        for (const [method, path] of changes) {
            for (const mode of ['cors', 'no-cors']) {
                for (const headers of [{}, { authorization: `Bearer ${token}`, 'content-type': 'application/json' }]) {
                    try {
                        const answer = await fetch(target + path, { method, mode, headers, body: method === 'DELETE' ? undefined : '{}' });
                        if (answer.type !== 'opaque') got.push(`${method} ${path} ${mode}: ${answer.status}`);
                    } catch {}
                }
            }
        }
        for (const path of ['/api/1/session', '/api/1/events', '/', '/assets/app.js']) {
            try {
                const answer = await fetch(target + path, { headers: { authorization: `Bearer ${token}` } });
                got.push(`${path}: ${answer.status}`);
            } catch {}
        }
        const frame = document.createElement('iframe');
        frame.src = target;
        frame.onload = () => {
            let inside = null;
            try { inside = frame.contentDocument?.body?.textContent ?? null; } catch {}
            if (inside) got.push(`frame: ${inside}`);
            done(got);
        };
        document.body.append(frame);
    })();";

/// Serves one empty page at a port until the listener goes.
fn other_page() -> u16 {
    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream);
        }
    });
    port
}

fn answer(mut stream: TcpStream) {
    let mut head = [0; 4096];
    let _ = stream.read(&mut head);
    let page = "<!doctype html><title>elsewhere</title><body>";
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}",
        page.len()
    );
}

#[test]
fn a_page_on_another_port_gets_nothing_and_changes_nothing() {
    if !chromium_or_skip("a_page_on_another_port_gets_nothing_and_changes_nothing") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Desk::new(dir.path(), "ann", &trackers);
    ann.enter();
    ann.client.ok("create_group films");
    // Even one that had read the token from somewhere.
    let token = ann.browser.run("return localStorage.getItem('shoal-token')", vec![]);
    ann.browser.open(&format!("http://127.0.0.1:{}/", other_page()));
    assert_eq!(ann.browser.run("return localStorage.length", vec![]), 0, "storage is per port");
    let changes: Vec<Value> = CHANGES.iter().map(|(method, path)| json!([method, path])).collect();
    let got =
        ann.browser.run_later(ATTACK, vec![format!("http://{}", ann.address).into(), changes.into(), token]);
    assert_eq!(got, json!([]));
    let groups = ann.client.ok("list_groups");
    assert_eq!(groups["groups"].as_array().unwrap().len(), 1, "{groups}");
    assert_eq!(ann.client.ok("whoami")["user"], "ann");
    assert_eq!(ann.client.ok("limit")["up"], 0);
}
