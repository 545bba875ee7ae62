//! What a program changes through typed resources, on the socket and on loopback alike (B8).

use serde_json::{Value, json};
use shoal_tests::{Answered, Browser, Service, Trackers, ask_raw, free_port, random_file, until};

/// As a program on the socket asks: without any header but the length.
fn send(service: &Service, method: &str, path: &str, body: &Value) -> Answered {
    let body = body.to_string();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    ask_raw(&service.socket(), (head + &body).as_bytes())
}

fn ok(service: &Service, method: &str, path: &str, body: &Value) -> Value {
    let answered = send(service, method, path, body);
    assert_eq!(
        (answered.status, &answered.json()["ok"]),
        (200, &true.into()),
        "{method} {path}: {answered:?}"
    );
    answered.json()
}

fn is_complete(browser: &Browser, file: &str) -> bool {
    let found = browser.get("/api/1/downloads").json();
    let rows = found["downloads"].as_array().unwrap();
    rows.iter().any(|row| row["file"] == file && row["state"] == "C")
}

#[test]
fn a_page_and_a_program_do_what_the_commands_do() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let port = free_port();
    let web = format!("127.0.0.1:{port}");
    let films = dir.path().join("films");
    std::fs::create_dir(&films).unwrap();
    // Ann sits at a page, and Bob's program at a socket.
    let ann = Service::start(
        dir.path(),
        "ann",
        &trackers.info(),
        &["--web", &web, "--web-root", films.to_str().unwrap()],
    );
    let bob = Service::start(dir.path(), "bob", &trackers.info(), &[]);
    let page = Browser::open(&ann, port);
    let login = json!({ "user": "ann", "password": "secret", "create": true, "keep": true });
    let begun = page.ok("POST", "/api/1/session", &login);
    assert_eq!((&begun["ok"], &begun["user"], &begun["kept"]), (&true.into(), &"ann".into(), &true.into()));
    ok(&bob, "POST", "/api/1/session", &json!({ "user": "bob", "password": "secret", "create": true }));
    page.ok("POST", "/api/1/groups", &json!({ "group": "my films" }));
    ok(&bob, "POST", "/api/1/groups/my%20films/join", &Value::Null);
    until("she sees it", || {
        page.get("/api/1/groups/my%20films/requests").json()["requests"] == json!(["bob"])
    });
    page.ok("POST", "/api/1/groups/my%20films/requests/bob", &json!({ "accept": true }));
    page.ok("PUT", "/api/1/settings", &json!({ "download_folder": films }));
    assert_eq!(page.get("/api/1/settings").json()["download_folder"], json!(films));
    let shared = dir.path().join("a.bin");
    random_file(&shared, 3 << 20, 4);
    let answer = ok(&bob, "POST", "/api/1/groups/my%20films/files", &json!({ "path": shared }));
    assert_eq!((&answer["file"], &answer["size"]), (&"a.bin".into(), &(3 << 20).into()));
    let limits = page.ok("PUT", "/api/1/limits", &json!({ "down": 65_536 }));
    assert_eq!((&limits["up"], &limits["down"]), (&0.into(), &65_536.into()));
    page.ok("POST", "/api/1/downloads", &json!({ "group": "my films", "file": "a.bin" }));
    page.ok("POST", "/api/1/downloads/my%20films/a.bin/pause", &json!({}));
    let again = page.send("POST", "/api/1/downloads/my%20films/a.bin/pause", &json!({}));
    assert_eq!((again.status, &again.json()["code"]), (422, &"transfer".into()), "{again:?}");
    page.ok("PUT", "/api/1/limits", &json!({ "down": 0 }));
    page.ok("POST", "/api/1/downloads/my%20films/a.bin/resume", &json!({}));
    until("it is there", || is_complete(&page, "a.bin"));
    assert_eq!(std::fs::read(films.join("a.bin")).unwrap(), std::fs::read(&shared).unwrap());
    let cancelled = page.ok("POST", "/api/1/downloads/my%20films/a.bin/cancel", &json!({}));
    assert_eq!(cancelled["complete"], true);
    page.ok("DELETE", "/api/1/groups/my%20films/files/a.bin", &json!({}));
    let none = page.send("DELETE", "/api/1/groups/my%20films/files/a.bin", &json!({}));
    assert_eq!((none.status, &none.json()["code"]), (422, &"share".into()), "{none:?}");
    let changed = page.ok("POST", "/api/1/session/password", &json!({ "old": "secret", "new": "another" }));
    assert_eq!(changed["was_kept"], true);
    assert_eq!(page.get("/api/1/sessions").json()["sessions"][0]["self"], true);
    ok(&bob, "POST", "/api/1/groups/my%20films/leave", &Value::Null);
    page.ok("DELETE", "/api/1/session", &json!({}));
    assert_eq!(page.get("/api/1/session").json()["user"], Value::Null);
    assert!(!ann.log().contains("secret") && !ann.log().contains("another"), "{}", ann.log());
}

#[test]
fn what_is_no_such_request_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    ann.enter("ann");
    let long = format!("/api/1/groups/{}/join", "x".repeat(300));
    for (method, path, body, status, said) in [
        ("POST", "/api/1/groups", json!({ "group": "a\nb" }), 400, "must not contain"),
        ("POST", "/api/1/groups", json!({ "name": "g" }), 400, "no JSON object of that kind"),
        ("POST", "/api/1/groups", json!([]), 400, "no JSON object of that kind"),
        ("POST", "/api/1/groups/%ff/join", json!({}), 400, "UTF-8"),
        ("POST", &long, json!({}), 400, "too long"),
        ("POST", "/api/1/groups/none/join", json!({}), 422, "none"),
        ("POST", "/api/1/session", json!({ "user": "ann", "password": "" }), 400, "password is empty"),
        ("POST", "/api/1/session", json!({ "user": "ann", "password": "wrong" }), 422, "password"),
        ("POST", "/api/1/groups/g/files", json!({ "path": "a.bin" }), 400, "whole path"),
        ("PUT", "/api/1/settings", json!({ "download_folder": "here" }), 400, "whole path"),
        ("PUT", "/api/1/limits", json!({ "up": -1 }), 400, "no JSON object of that kind"),
        ("POST", "/api/1/downloads", json!({ "group": "g", "file": "a/b" }), 400, "the character '/'"),
        ("POST", "/api/1/downloads/g/f/pause", json!({}), 422, "f"),
        ("PUT", "/api/1/groups", json!({}), 405, "another method"),
    ] {
        let answered = send(&ann, method, path, &body);
        assert_eq!(answered.status, status, "{method} {path} {body}: {answered:?}");
        let error = answered.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(said) && !error.contains('\n'), "{method} {path} {body}: {error}");
    }
}
