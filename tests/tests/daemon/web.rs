//! `--web`: what a browser on this machine may look at and change, and who may not (B8).

use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};
use shoal_tests::{Answered, Service, Trackers, ask_port, free_port, until};

fn ask(port: u16, request: &str) -> Answered {
    ask_port(port, request.as_bytes())
}

fn get(port: u16, path: &str, headers: &str) -> Answered {
    ask(port, &format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{headers}\r\n"))
}

fn trade(port: u16, code: &str) -> Answered {
    let body = json!({ "code": code }).to_string();
    let kind = "content-type: application/json";
    let length = body.len();
    ask(
        port,
        &format!(
            "POST /api/1/token HTTP/1.1\r\nhost: localhost:{port}\r\n{kind}\r\ncontent-length: {length}\r\n\r\n{body}"
        ),
    )
}

/// The code of the link that `shoal web` shows.
fn code(service: &Service, port: u16) -> String {
    let shown = service.run(&["web"], "");
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let code = shown.stdout.trim().strip_prefix(&format!("http://127.0.0.1:{port}/#")).unwrap().to_owned();
    assert_eq!(code.len(), 32, "{code}");
    code
}

#[test]
fn a_link_opens_it_once_and_its_token_outlives_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let port = free_port();
    let web = format!("127.0.0.1:{port}");
    let mut ann = Service::start(dir.path(), "ann", &trackers.info(), &["--web", &web]);
    until("it says where", || ann.log().contains(&format!("http://{web}")));
    ann.enter("ann");
    ann.ok("create_group g");
    assert_eq!(get(port, "/api/1/groups", "").status, 401);
    let first = code(&ann, port);
    let traded = trade(port, &first);
    assert_eq!(traded.status, 200, "{traded:?}");
    let token = traded.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(trade(port, &first).status, 403, "once");
    let bearer = format!("authorization: Bearer {token}\r\n");
    let groups = get(port, "/api/1/groups", &bearer);
    assert_eq!((groups.status, &groups.json()["groups"][0]["group"]), (200, &Value::from("g")), "{groups:?}");
    for header in ["content-security-policy: default-src 'none'", "nosniff", "no-store", "no-referrer"] {
        assert!(groups.head.contains(header), "{header}: {groups:?}");
    }
    ann.kill();
    drop(ann);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &["--web", &web]);
    until("it listens again", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    until("it answers again", || get(port, "/api/1/session", &bearer).status == 200);
    assert!(!ann.log().contains(&token) && !ann.log().contains(&first));
}

#[test]
fn strangers_pages_and_other_hosts_get_nothing_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let port = free_port();
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &["--web", &format!("127.0.0.1:{port}")]);
    let token = trade(port, &code(&ann, port)).json()["token"].as_str().unwrap().to_owned();
    let bearer = format!("authorization: Bearer {token}\r\n");
    let here = format!("host: 127.0.0.1:{port}\r\n");
    let json = "content-type: application/json\r\n";
    for (request, status) in [
        // A rebound name, no name, two names, a proxy's request.
        (format!("GET /api/1/session HTTP/1.1\r\nhost: evil.example:{port}\r\n{bearer}\r\n"), 403),
        (format!("GET /api/1/session HTTP/1.1\r\n{bearer}\r\n"), 403),
        (format!("GET /api/1/session HTTP/1.1\r\n{here}host: evil.example\r\n{bearer}\r\n"), 403),
        (format!("GET http://evil.example/api/1/session HTTP/1.1\r\n{here}{bearer}\r\n"), 403),
        // Pages of another origin, also on another port.
        (format!("GET /api/1/session HTTP/1.1\r\n{here}origin: http://evil.example\r\n{bearer}\r\n"), 403),
        (format!("GET /api/1/session HTTP/1.1\r\n{here}origin: http://127.0.0.1:1\r\n{bearer}\r\n"), 403),
        (format!("GET /api/1/session HTTP/1.1\r\n{here}origin: null\r\n{bearer}\r\n"), 403),
        (
            format!("GET /api/1/session HTTP/1.1\r\n{here}origin: http://127.0.0.1:{port}\r\n{bearer}\r\n"),
            200,
        ),
        // No token, a wrong one, one in another place.
        (format!("GET /api/1/session HTTP/1.1\r\n{here}\r\n"), 401),
        (
            format!("GET /api/1/session HTTP/1.1\r\n{here}authorization: Bearer {}\r\n\r\n", "0".repeat(32)),
            401,
        ),
        (format!("GET /api/1/session?token={token} HTTP/1.1\r\n{here}cookie: token={token}\r\n\r\n"), 401),
        (format!("GET /api/1/session HTTP/1.1\r\n{here}{bearer}{bearer}\r\n"), 401),
        // Commands and codes are the socket's.
        (
            format!(
                "POST /api/1/command HTTP/1.1\r\n{here}{bearer}content-length: 17\r\n\r\n{{\"line\":\"whoami\"}}"
            ),
            405,
        ),
        (format!("POST /api/1/link HTTP/1.1\r\n{here}{bearer}content-length: 0\r\n\r\n"), 405),
        (format!("OPTIONS /api/1/session HTTP/1.1\r\n{here}origin: http://127.0.0.1:{port}\r\n\r\n"), 405),
        // Changes, by the same rules; by a form of a page none.
        (
            format!(
                "POST /api/1/groups HTTP/1.1\r\n{here}{json}{bearer}content-length: 13\r\n\r\n{{\"group\":\"g\"}}"
            ),
            422,
        ),
        (
            format!(
                "POST /api/1/groups HTTP/1.1\r\n{here}{json}content-length: 13\r\n\r\n{{\"group\":\"g\"}}"
            ),
            401,
        ),
        (
            format!(
                "POST /api/1/groups HTTP/1.1\r\n{here}{bearer}content-length: 13\r\n\r\n{{\"group\":\"g\"}}"
            ),
            415,
        ),
        (
            format!(
                "POST /api/1/groups HTTP/1.1\r\n{here}{bearer}content-type: text/plain\r\ncontent-length: 2\r\n\r\n{{}}"
            ),
            415,
        ),
        (
            format!(
                "POST /api/1/groups HTTP/1.1\r\n{here}{json}{bearer}origin: http://evil.example\r\ncontent-length: 2\r\n\r\n{{}}"
            ),
            403,
        ),
        (format!("DELETE /api/1/session HTTP/1.1\r\nhost: evil.example\r\n{bearer}\r\n"), 403),
        (format!("DELETE /api/1/session HTTP/1.1\r\n{here}\r\n"), 401),
        (format!("PUT /api/1/groups/g/files/f HTTP/1.1\r\n{here}content-length: 1\r\n\r\nx"), 401),
        (format!("PATCH /api/1/downloads/g/f HTTP/1.1\r\n{here}{json}content-length: 2\r\n\r\n{{}}"), 401),
        (format!("GET /etc/passwd HTTP/1.1\r\n{here}{bearer}\r\n"), 404),
    ] {
        let answered = ask(port, &request);
        assert_eq!(answered.status, status, "{request}: {answered:?}");
        assert!(!answered.head.contains("access-control-"), "{answered:?}");
    }
}

/// The page holds no data, so it needs no token; a rebound name does not get even that. A code is not taken from a form.
#[test]
fn the_page_is_served_to_its_own_name_alone() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let port = free_port();
    let _ann = Service::start(dir.path(), "ann", &trackers.info(), &["--web", &format!("127.0.0.1:{port}")]);
    let here = format!("host: 127.0.0.1:{port}\r\n");
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\n{here}\r\n"), 200),
        (format!("GET / HTTP/1.1\r\nhost: evil.example:{port}\r\n\r\n"), 403),
        (format!("GET /assets/app.js HTTP/1.1\r\n{here}origin: http://127.0.0.1:1\r\n\r\n"), 403),
        (format!("GET /assets/none.js HTTP/1.1\r\n{here}\r\n"), 404),
        // A form of a page.
        (
            format!(
                "POST /api/1/token HTTP/1.1\r\n{here}content-type: text/plain\r\ncontent-length: 2\r\n\r\n{{}}"
            ),
            415,
        ),
        (
            format!(
                "POST /api/1/token HTTP/1.1\r\n{here}content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
            ),
            400,
        ),
    ] {
        assert_eq!(ask(port, &request).status, status, "{request}");
    }
}

#[test]
fn it_listens_on_loopback_alone_and_a_taken_port_or_none_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut open = shoal_tests::client_command(dir.path(), "open", &trackers.info(), free_port());
    let refused = shoal_tests::finish(open.args(["--headless", "--web", "0.0.0.0:8384"]), "");
    assert!(
        refused.code == Some(2) && refused.stderr.contains("only this machine can be let in"),
        "{refused:?}"
    );
    let taken = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &["--web", &at]);
    until("it says so", || ann.log().contains(&format!("cannot serve at http://{at}")));
    let none = ann.run(&["web"], "");
    assert!(none.code == Some(1) && none.stderr.contains("start it with --web 127.0.0.1:8384"), "{none:?}");
    ann.ok("whoami");
}
