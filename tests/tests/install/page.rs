//! `shoal up` serves its page and opens a browser there; the code for the page is in no command line.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use shoal_tests::{PATIENCE, Service, until, up_command};

use crate::{fails, ok, pair, succeeds};

/// A desktop whose `xdg-open` writes down what it was called with, and ends with that code.
fn desktop(dir: &Path, command: &mut Command, code: u8) -> PathBuf {
    let (bin, calls) = (dir.join(format!("bin-{code}")), dir.join("calls"));
    fs::create_dir_all(&bin).unwrap();
    let script = format!("#!/bin/sh\nprintf '%s\\n' \"$#:$*\" >> '{}'\nexit {code}\n", calls.display());
    fs::write(bin.join("xdg-open"), script).unwrap();
    fs::set_permissions(bin.join("xdg-open"), PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    command.env("DISPLAY", ":9").env("PATH", path);
    for name in ["WAYLAND_DISPLAY", "SSH_CONNECTION", "SSH_TTY", "INVOCATION_ID", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    calls
}

fn calls(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Trades the code of a file for a token; the status.
fn trade(link: &str) -> u16 {
    let (page, code) = link.split_once("/#").unwrap();
    let at = page.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let body = json!({ "code": code }).to_string();
    write!(
        stream,
        "POST /api/1/token HTTP/1.1\r\nhost: {at}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// The link that a file leads to.
fn link_in(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    assert!(!text.contains("<script"), "{text}");
    text.split("url=").nth(1).unwrap().split('"').next().unwrap().to_owned()
}

fn page_of(dir: &Path, name: &str) -> Value {
    let choice = fs::read_to_string(dir.join(name).join("up.json")).unwrap();
    serde_json::from_str::<Value>(&choice).unwrap()["web"].clone()
}

#[test]
fn it_opens_a_browser_on_its_page_and_the_code_is_in_no_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = up_command(dir.path(), "ann", &["--listen", &pair()]);
    let recorded = desktop(dir.path(), &mut command, 0);
    let mut ann = Service::launch(dir.path(), "ann", command);
    until("a browser was opened", || calls(&recorded).len() == 1);
    let call = calls(&recorded).remove(0);
    let file = PathBuf::from(call.strip_prefix("1:").expect("one argument"));
    assert!(file.starts_with(dir.path().join("run-ann/shoal")), "{call}");
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    let link = link_in(&file);
    assert!(!call.contains(link.split_once('#').unwrap().1));
    let page = page_of(dir.path(), "ann").as_str().unwrap().to_owned();
    assert!(link.starts_with(&format!("http://{page}/#")), "{link}");
    assert!(ann.log().contains(&format!("Its page is http://{page}/")), "{}", ann.log());
    assert_eq!(trade(&link), 200);
    assert!(!file.exists(), "it goes when it was used");
    assert_eq!(trade(&link), 403, "once");

    // From another terminal.
    let mut command = ann.shoal(&["web", "--open"]);
    desktop(dir.path(), &mut command, 0);
    let said = shoal_tests::finish(&mut command, "");
    assert_eq!(succeeds(&said).trim(), format!("opened http://{page}/"));
    let other = PathBuf::from(calls(&recorded)[1].strip_prefix("1:").unwrap());
    assert!(other != file && other.exists());
    let mut command = ann.shoal(&["web", "--open"]);
    desktop(dir.path(), &mut command, 3);
    fails(&shoal_tests::finish(&mut command, ""), &["found no browser", "see: shoal web"]);
    let mut command = ann.shoal(&["web", "--open"]);
    command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
    fails(&shoal_tests::finish(&mut command, ""), &["there is no desktop here", "the link of shoal web"]);
    ann.stop();
    assert!(!other.exists(), "none is left at the end");

    // The same page at the next start, which a service manager's is: that opens nothing.
    let mut command = up_command(dir.path(), "ann", &[]);
    desktop(dir.path(), &mut command, 0);
    command.env("INVOCATION_ID", "1");
    let before = calls(&recorded).len();
    let ann = Service::launch(dir.path(), "ann", command);
    assert_eq!(page_of(dir.path(), "ann"), json!(page));
    ok(&ann, &["web"], "");
    assert_eq!(calls(&recorded).len(), before);
}

#[test]
fn no_page_no_browser_and_a_taken_port_are_as_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = up_command(dir.path(), "ann", &["--listen", &pair(), "--no-web"]);
    let recorded = desktop(dir.path(), &mut command, 0);
    let mut ann = Service::launch(dir.path(), "ann", command);
    fails(&ann.run(&["web"], ""), &["serves no browser"]);
    assert!(!ann.log().contains("Its page"), "{}", ann.log());
    ann.stop();
    drop(ann);
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let at = taken.local_addr().unwrap().to_string();
    let mut command = up_command(dir.path(), "ann", &["--web", &at]);
    desktop(dir.path(), &mut command, 0);
    let mut ann = Service::launch(dir.path(), "ann", command);
    until("it is said", || ann.log().contains("everything else goes on"));
    ok(&ann, &["whoami"], "");
    ann.stop();
    drop((ann, taken));
    let mut command = up_command(dir.path(), "ann", &["--no-browser"]);
    desktop(dir.path(), &mut command, 0);
    let mut ann = Service::launch(dir.path(), "ann", command);
    assert!(ok(&ann, &["web"], "").contains(&at), "what was given once stays");
    ann.stop();
    drop(ann);
    assert_eq!(calls(&recorded), [""; 0]);
    // A desktop without a browser.
    let mut command = up_command(dir.path(), "ann", &[]);
    desktop(dir.path(), &mut command, 4);
    let ann = Service::launch(dir.path(), "ann", command);
    until("it is said", || {
        ann.log().contains("no browser was opened") && ann.log().contains("see: shoal web")
    });
}
