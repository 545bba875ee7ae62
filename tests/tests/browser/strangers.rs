//! A page from elsewhere, in the same browser: it gets nothing.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use shoal_tests::{Browser, Service, Trackers, ask_port, chromium_or_skip, free_port, until};

use crate::desk::Desk;

/// Everything that changes something.
const CHANGES: &[(&str, &str)] = &[
    ("POST", "/api/1/command"),
    ("POST", "/api/1/token"),
    ("POST", "/api/1/proof"),
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
    // Even one that had read a token from somewhere.
    let token = Value::from(Browser::open(&ann.client, ann.port()).token());
    ann.browser.open(&format!("http://127.0.0.1:{}/", other_page()));
    let kept = "const done = arguments[0]; indexedDB.databases().then((all) => done(all.length))";
    assert_eq!(ann.browser.run_later(kept, vec![]), 0, "storage is per port");
    let changes: Vec<Value> = CHANGES.iter().map(|(method, path)| json!([method, path])).collect();
    let got =
        ann.browser.run_later(ATTACK, vec![format!("http://{}", ann.address).into(), changes.into(), token]);
    assert_eq!(got, json!([]));
    let groups = ann.client.ok("list_groups");
    assert_eq!(groups["groups"].as_array().unwrap().len(), 1, "{groups}");
    assert_eq!(ann.client.ok("whoami")["user"], "ann");
    assert_eq!(ann.client.ok("limit")["up"], 0);
}

/// What another user's program does that took the port: it keeps what it is sent, and answers what a client might.
fn impostor(port: u16) -> Arc<Mutex<Vec<String>>> {
    let mut listener = None;
    until("the port is free", || {
        listener = TcpListener::bind(("127.0.0.1", port)).ok();
        listener.is_some()
    });
    let (kept, listener) = (Arc::new(Mutex::new(Vec::new())), listener.unwrap());
    let taken = kept.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let mut all = Vec::new();
            let _ = (&stream).take(64 << 10).read_to_end(&mut all);
            let text = String::from_utf8_lossy(&all).into_owned();
            let ends = text.contains("the port is given back");
            taken.lock().unwrap().push(text);
            if ends {
                return;
            }
            let proof = "00".repeat(32);
            let body = format!(
                r#"{{"ok":true,"run":"{proof}","proof":"{proof}","user":null,"groups":[],"downloads":[]}}"#
            );
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nshoal-proof: {proof}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    kept
}

#[test]
fn who_takes_the_port_while_the_client_is_down_gets_nothing_from_an_open_page() {
    if !chromium_or_skip("who_takes_the_port_while_the_client_is_down_gets_nothing_from_an_open_page") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Desk::new(dir.path(), "ann", &trackers);
    ann.visit();
    ann.browser.until("main", "Sign in");
    ann.browser.type_into("[name=user]", "ann");
    ann.browser.type_into("[name=password]", "wonderful secret");
    // What the page sends is seen by a program of its own user as by any other: the pass of the run that ends now.
    let pass = "const done = arguments[0]; import('/assets/key.js').then((key) => key.passFor()).then(({ token }) => done(token))";
    let pass = ann.browser.run_later(pass, vec![]).as_str().unwrap().to_owned();
    let get = |port: u16, token: &str| {
        let head = format!(
            "GET /api/1/groups HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        ask_port(port, head.as_bytes()).status
    };
    assert_ne!(get(ann.port(), &pass), 401, "it is good while that client runs");
    ann.kill();
    let kept = impostor(ann.port());
    // Whoever clicks now sends no password.
    ann.browser.run("document.querySelector('form button[type=submit]').click()", vec![]);
    ann.browser.until(".problem", "is not your client; nothing was sent to it");
    until("the stream is asked for again", || kept.lock().unwrap().len() > 2);
    let _ = ask_port(ann.port(), b"the port is given back");
    let kept = kept.lock().unwrap().clone();
    for request in &kept[..kept.len() - 1] {
        assert!(request.starts_with("POST /api/1/proof "), "{request}");
        assert!(
            !request.to_lowercase().contains("authorization") && !request.contains("secret"),
            "{request}"
        );
    }
    // The client is back: the page goes on by itself, and what it sent before opens nothing.
    ann.restart();
    assert_eq!(get(ann.port(), &pass), 401);
    ann.browser
        .until_true("document.querySelector('form [type=submit]')?.getAttribute('aria-busy') !== 'true'");
    ann.client.enter("ann");
    ann.browser.until(".who", "ann");
    // No script of this origin reads the key, either.
    let exported = "const done = arguments[0]; const opening = indexedDB.open('shoal', 1); opening.onsuccess = () => { \
         const asked = opening.result.transaction('keys').objectStore('keys').get('key'); \
         asked.onsuccess = () => crypto.subtle.exportKey('raw', asked.result.secret).then(() => done('read'), (error) => done(error.name)) }";
    assert_eq!(ann.browser.run_later(exported, vec![]), "InvalidAccessError");
}

/// What a sentence shows: its text, and of each name in it the text, its isolation, its weight, and the quotation mark before it.
const SENTENCE: &str = r"
    const sentence = document.querySelector(arguments[0]);
    const names = [...sentence.querySelectorAll('.named')].map((name) => {
        const style = getComputedStyle(name);
        return [name.textContent, style.unicodeBidi, style.fontWeight, getComputedStyle(name, '::before').content];
    });
    return [sentence.textContent, names];";

#[test]
fn a_files_name_is_not_read_as_a_sentence_of_shoals() {
    if !chromium_or_skip("a_files_name_is_not_read_as_a_sentence_of_shoals") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Desk::new(dir.path(), "ann", &trackers);
    ann.enter();
    let to = dir.path().join("to");
    std::fs::create_dir(&to).unwrap();
    ann.client.ok(&format!("set download_folder '{}'", to.display()));
    ann.client.ok("create_group films");
    let bob = Service::start(dir.path(), "bob", &trackers.info(), &[]);
    bob.enter("bob");
    bob.ok("join_group films");
    ann.client.ok("accept_request films bob");
    // A sentence, one that closes quotation marks, one from right to left, and one that is a common word.
    for name in ["x was deleted, press OK", "x” was deleted. Press “OK", "ملف عربي", "is"] {
        std::fs::write(dir.path().join(name), name).unwrap();
        let upload = json!({ "argv": ["upload_file", dir.path().join(name).to_str().unwrap(), "films"] });
        assert_eq!(bob.ask(&upload).status, 200);
        ann.browser.run("document.getElementById('toasts').replaceChildren()", vec![]);
        let download = json!({ "argv": ["download_file", "films", name] });
        assert_eq!(ann.client.ask(&download).status, 200);
        ann.browser.until("#toasts", "is complete.");
        let own = json!([name, "isolate", "600", "\"“\""]);
        assert_eq!(
            ann.browser.run(SENTENCE, vec!["#toasts p".into()]),
            json!([format!("{name} is complete."), [own]])
        );
        // What is only spoken has quotation marks that the name does not close, and isolates it by characters.
        let spoken = ann.browser.text_of("#polite");
        let inner = name.replace(['“', '”'], "\"");
        assert_eq!(spoken, format!("\u{2068}“{inner}”\u{2069} is complete."));
        // In a dialog.
        ann.go("downloads");
        ann.browser.until("h1", "Downloads");
        ann.go("groups/films/files");
        ann.browser.until(".rows", name);
        let named = "[...document.querySelectorAll('.row')].find((row) => row.firstChild.textContent === arguments[0])";
        ann.browser.run(&format!("{named}.click()"), vec![name.into()]);
        ann.browser.until(".panel h2", name);
        ann.browser.click("Download to…");
        ann.browser.until("dialog h2", name);
        let title = ann.browser.run(SENTENCE, vec!["dialog h2".into()]);
        assert_eq!(title, json!([format!("Download {name}"), [own]]));
        ann.browser.click("Cancel");
        // In the client's own words: it is shared no more, and so cannot be taken back again.
        let refused = "const [name, done] = arguments; (async () => { \
             const { path, remove } = await import('/assets/api.js'); const { failed } = await import('/assets/notices.js'); \
             const where = path('groups', 'films', 'files', name); await remove(where); await remove(where).catch(failed); done(true) })();";
        assert_eq!(ann.browser.run_later(refused, vec![name.into()]), true);
        let refused = ann.browser.run(SENTENCE, vec!["#toasts .bad p".into()]);
        assert!(refused[1].as_array().unwrap().contains(&own), "{refused}");
    }
    assert_eq!(ann.complaints(), Vec::<String>::new());
}
