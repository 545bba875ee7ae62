//! `server` as other programs see it, and `fetch` with servers that are not Shoal's.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{
    PATIENCE, Process, Server, assert_content, fetch, free_port, installed_or_skip, names_in, random, run,
    until,
};
use shoal_common::Sha1;

/// One request on a connection of its own; the whole answer, head and body apart.
fn ask(port: u16, request: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (line, headers) = request.split_once('\n').unwrap_or((request, ""));
    let headers: String = headers.lines().map(|header| format!("{}\r\n", header.trim())).collect();
    write!(stream, "{line} HTTP/1.1\r\nHost: example:{port}\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = Vec::new();
    // A server that cuts the connection has said what it says.
    let _ = stream.read_to_end(&mut answer);
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("{request}: no head"));
    (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end + 4..].to_vec())
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let found = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("no {name} in {head}"))
}

#[test]
fn ranges_conditions_and_digests_are_what_the_rfcs_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a b.bin");
    let bytes = random(300_000, 1);
    std::fs::write(&path, &*bytes).unwrap();
    let server = Server::of_file(&path, 1);
    let ask = |request: &str| ask(server.ports[0], request);
    let (head, body) = ask("GET /a%20b.bin");
    assert!(head.starts_with("HTTP/1.1 200") && body == *bytes, "{head}");
    assert!(header(&head, "repr-digest").contains("sha-256=:"));
    let (etag, date) = (header(&head, "etag").to_owned(), header(&head, "last-modified").to_owned());
    let (head, body) = ask("HEAD /a%20b.bin");
    assert!(head.starts_with("HTTP/1.1 200") && body.is_empty());
    assert_eq!(header(&head, "content-length"), "300000");
    for (range, expected) in
        [("0-0", 0..1), ("100-199", 100..200), ("299990-", 299_990..300_000), ("-5", 299_995..300_000)]
    {
        let (head, body) = ask(&format!("GET /a%20b.bin\nRange: bytes={range}"));
        assert!(head.starts_with("HTTP/1.1 206"), "{head}");
        let said = format!("bytes {}-{}/300000", expected.start, expected.end - 1);
        assert_eq!(header(&head, "content-range"), said);
        assert!(body == bytes[expected]);
    }
    let (head, body) = ask("GET /a%20b.bin\nRange: bytes=0-9,200-209");
    assert!(header(&head, "content-type").starts_with("multipart/byteranges"), "{head}");
    assert_eq!(header(&head, "content-length"), body.len().to_string());
    for part in [&bytes[0..10], &bytes[200..210]] {
        assert!(body.windows(10).any(|window| window == part));
    }
    for (request, status) in [
        ("GET /a%20b.bin\nRange: bytes=300000-".to_owned(), "416"),
        (format!("GET /a%20b.bin\nIf-None-Match: {etag}"), "304"),
        (format!("GET /a%20b.bin\nIf-Modified-Since: {date}"), "304"),
        ("GET /a%20b.bin\nIf-Match: \"other\"".into(), "412"),
        (format!("GET /a%20b.bin\nRange: bytes=0-9\nIf-Range: {etag}"), "206"),
        ("GET /a%20b.bin\nRange: bytes=0-9\nIf-Range: \"other\"".into(), "200"),
        ("POST /a%20b.bin".into(), "405"),
        ("GET /other".into(), "404"),
        ("GET /..%2fa%20b.bin".into(), "404"),
        ("GET /../../../../etc/passwd".into(), "404"),
        ("GET /a%00".into(), "404"),
    ] {
        let (head, _) = ask(&request);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {head}");
    }
    let (head, page) = ask("GET /\nAccept: text/html");
    assert!(head.contains("text/html") && String::from_utf8(page).unwrap().contains("a%20b.bin"));
    let (_, metalink) = ask("GET /\nAccept: application/metalink4+xml");
    let metalink = String::from_utf8(metalink).unwrap();
    assert!(metalink.contains(&Sha1::of(&bytes).to_string()), "{metalink}");
    assert!(metalink.contains(&format!("http://example:{}/a%20b.bin", server.ports[0])), "{metalink}");
}

#[test]
fn a_folder_is_served_by_name_and_never_left() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "secret").unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    let bytes = random(100_000, 2);
    std::fs::write(root.join("sub/x.bin"), &*bytes).unwrap();
    std::os::unix::fs::symlink(folder.path().join("secret"), root.join("link")).unwrap();
    let server = Server::start(&["--root", root.to_str().unwrap()], 1);
    for path in [
        "/link",
        "/../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/sub/../../secret",
        "//secret",
        "/sub%2fx.bin",
    ] {
        let (head, body) = ask(server.ports[0], &format!("GET {path}"));
        assert!(head.starts_with("HTTP/1.1 404") && body != b"secret", "{path}: {head}");
    }
    assert!(ask(server.ports[0], "GET /sub").0.starts_with("HTTP/1.1 301"));
    assert!(String::from_utf8(ask(server.ports[0], "GET /sub/").1).unwrap().contains("x.bin.meta4"));
    // Digests of small files are there with the first answer, others are computed when they are first asked for.
    let (head, _) = ask(server.ports[0], "HEAD /sub/x.bin");
    assert!(header(&head, "repr-digest").contains("sha-256=:"), "{head}");
    std::fs::write(root.join("sub/y.bin"), &*random(50_000, 7)).unwrap();
    let (head, metalink) = ask(server.ports[0], "GET /sub/y.bin.meta4");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(String::from_utf8(metalink).unwrap().contains(&Sha1::of(&random(50_000, 7)).to_string()));
    let (out, port) = (folder.path().join("out"), server.ports[0].to_string());
    let ended = fetch(&["-p", &port, "--file", "sub/x.bin", "-o", out.to_str().unwrap()]);
    assert!(ended.succeeded().stdout.contains("verified by SHA-256"), "{ended:?}");
    assert_content(&out, &bytes);
    fetch(&["-p", &port, "-o", out.to_str().unwrap()]).failed_saying("serves no file");
    // A folder's page is not taken for a file.
    std::fs::remove_file(&out).unwrap();
    fetch(&["-p", &port, "-f", "sub", "-o", out.to_str().unwrap()])
        .failed_saying("has a folder of that name");
    assert!(header(&ask(server.ports[0], "GET /sub/").0, "shoal-folder") == "1");
    for url in [server.url("sub/"), server.url("")] {
        fetch(&[&url, "-o", out.to_str().unwrap()]).failed_saying("names a folder");
    }
    assert!(!out.exists());
}

#[test]
fn bad_ports_are_left_out_and_missing_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    std::fs::write(&path, "content").unwrap();
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let (taken_port, free) = (taken.local_addr().unwrap().port().to_string(), free_port().to_string());
    let server = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("XDG_CACHE_HOME", folder.path().join("cache"));
        command.spawn().unwrap()
    };
    let file = path.to_str().unwrap();
    let mut child = server(&["-f", file, "-i", "0", "-p", &taken_port, "0", "99999", "x", &free, &free]);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains(&free), "{line}");
    let mut child = Process(child);
    child.0.kill().unwrap();
    let mut said = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    for text in [&format!("port {taken_port}"), "\"0\"", "\"99999\"", "\"x\"", "given twice"] {
        assert!(said.contains(text), "{text}: {said}");
    }
    let ended = |arguments: &[&str]| crate::support::finish(server(arguments));
    ended(&["-f", file, "-p", &taken_port]).failed_saying("no port is left");
    ended(&["-f", "/missing/file", "-p", &free]).failed_saying("/missing/file");
    for folder in [folder.path().to_str().unwrap(), "."] {
        ended(&["-f", folder, "-p", &free]).failed_saying("it is a folder; use --root");
    }
    for usage in
        [&["-p", &free][..], &["-f", file], &["-f", file, "-n", "2", "-p", &free], &["-f", file, "-p"]]
    {
        assert_eq!(ended(usage).code, Some(2), "{usage:?}");
    }
    for flag in ["--help", "--version"] {
        ended(&[flag]).succeeded();
    }
}

#[test]
fn virtual_servers_stop_and_start_and_report() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    std::fs::write(&path, &*random(100_000, 3)).unwrap();
    let ports = [free_port(), free_port()];
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["-f", path.to_str().unwrap(), "-i", "0", "-p"]).args(ports.map(|port| port.to_string()));
    command.env("XDG_CACHE_HOME", folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process(command.spawn().unwrap());
    let mut input = process.0.stdin.take().unwrap();
    let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said =
        |text: &str| lines.find(|line| line.contains(text)).unwrap_or_else(|| panic!("never said {text}"));
    said(&format!(":{}/", ports[1]));
    assert!(ask(ports[1], "GET /f").0.starts_with("HTTP/1.1 200"));
    writeln!(input, "stop 2").unwrap();
    said("server 2 port");
    assert!(TcpStream::connect(("127.0.0.1", ports[1])).is_err());
    assert!(ask(ports[0], "GET /f").0.starts_with("HTTP/1.1 200"));
    writeln!(input, "status").unwrap();
    assert!(said("server 1 port").contains("97.6 KiB served"));
    assert!(said("server 2 port").contains("down"));
    writeln!(input, "START 2\nstop 3\nnonsense").unwrap();
    assert!(said("server 2 port").contains("up"));
    said("there is no server 3");
    said("not understood");
    assert!(ask(ports[1], "GET /f").0.starts_with("HTTP/1.1 200"));
    std::fs::remove_file(&path).unwrap();
    writeln!(input, "status").unwrap();
    said("the file was moved or deleted");
    for path in ["/f", "/f.meta4"] {
        let (head, body) = ask(ports[0], &format!("GET {path}"));
        assert!(
            head.starts_with("HTTP/1.1 404") && body.starts_with(b"the file is not there any more"),
            "{head}"
        );
    }
    assert!(ask(ports[0], "GET /").0.starts_with("HTTP/1.1 200"));
    drop(input);
    until("it ends with its input", || process.0.try_wait().unwrap().is_some());
}

#[test]
fn a_file_that_changes_ends_the_answers_instead_of_mixing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    let size = 32 << 20;
    std::fs::write(&path, vec![b'a'; size]).unwrap();
    let server = Server::of_file(&path, 1);
    let mut stream = TcpStream::connect(("127.0.0.1", server.ports[0])).unwrap();
    write!(stream, "GET /f HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut some = vec![0; 100_000];
    stream.read_exact(&mut some).unwrap();
    // In place: the same inode, other bytes.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    (&file).write_all(&vec![b'b'; size]).unwrap();
    file.set_modified(std::time::SystemTime::now() + Duration::from_secs(5)).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() + some.len() < size, "the whole answer came");
    assert!(!rest.contains(&b'b'), "old and new are mixed");
    let (_, body) = ask(server.ports[0], "GET /f");
    assert!(body.len() == size && body.iter().all(|&byte| byte == b'b'));
    let out = folder.path().join("out");
    fetch(&["-p", &server.ports[0].to_string(), "-o", out.to_str().unwrap()]).succeeded();
    assert_content(&out, &vec![b'b'; size]);
}

#[test]
fn curl_and_aria2_download_from_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.bin");
    let bytes = random(3 << 20, 4);
    std::fs::write(&path, &*bytes).unwrap();
    let server = Server::of_file(&path, 2);
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let into = out.to_str().unwrap();
    if installed_or_skip("curl downloads from server", "curl") {
        let to = out.join("c");
        std::fs::write(&to, &bytes[..1_000_000]).unwrap();
        let to = to.to_str().unwrap();
        let ran = run("curl", &["-sf", "--noproxy", "*", "-C", "-", "-o", to, &server.url("f.bin")]);
        assert!(ran.status.success());
        assert_content(Path::new(to), &bytes);
    }
    if installed_or_skip("aria2 downloads from server", "aria2c") {
        let metalink = folder.path().join("f.meta4");
        let (_, text) = ask(server.ports[0], "GET /f.bin.meta4");
        let text = String::from_utf8(text).unwrap().replace("//example:", "//127.0.0.1:");
        std::fs::write(&metalink, text).unwrap();
        let metalink = metalink.to_str().unwrap();
        let ran = run("aria2c", &["-q", "--no-conf", "-s2", "-k1M", "-d", into, "-M", metalink]);
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
        assert_content(&out.join("f.bin"), &bytes);
        // And fetch follows the same one.
        fetch(&[metalink, "-o", out.join("m").to_str().unwrap()]).succeeded();
        assert_content(&out.join("m"), &bytes);
    }
}

/// A real nginx that serves a folder.
fn nginx(root: &Path) -> (Process, u16) {
    let port = free_port();
    let home = root.parent().unwrap().join(format!("nginx-{port}"));
    std::fs::create_dir_all(&home).unwrap();
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let (at, root) = (home.display(), root.display());
    let config = format!(
        "{user} daemon off; master_process off; error_log {at}/error.log; pid {at}/pid; events {{}}
         http {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;
         uwsgi_temp_path {at}/u; scgi_temp_path {at}/s; server {{ listen 127.0.0.1:{port}; root {root}; }} }}"
    );
    std::fs::write(home.join("conf"), config).unwrap();
    let installed = Path::new("/usr/sbin/nginx");
    let program = if installed.is_file() { installed } else { Path::new("nginx") };
    let mut command = Command::new(program);
    command.arg("-p").arg(&home).arg("-c").arg(home.join("conf")).stderr(Stdio::null());
    let process = Process(command.spawn().unwrap());
    until("nginx listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    (process, port)
}

#[test]
fn fetch_takes_a_file_from_real_nginx_servers() {
    if !installed_or_skip("fetch takes a file from real nginx servers", "nginx") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let bytes = random(40 << 20, 5);
    std::fs::write(root.join("f.bin"), &*bytes).unwrap();
    std::fs::write(root.join("empty"), "").unwrap();
    let mut servers = [nginx(&root), nginx(&root), nginx(&root)];
    let [one, two, three] = servers.each_ref().map(|(_, port)| format!("http://127.0.0.1:{port}/f.bin"));
    let out = folder.path().join("out");
    let to = out.to_str().unwrap();
    let ended = fetch(&[&one, &two, &three, "-o", to]);
    assert!(ended.succeeded().stdout.contains("not verified"), "{ended:?}");
    assert_content(&out, &bytes);
    let sha1 = Sha1::of(&bytes).to_string();
    let arguments = [&one, &two, &three, "-o", to, "--sha1", &sha1, "--limit-rate", "20M"];
    let running = crate::support::fetch_command(&arguments).spawn().unwrap();
    until("it has begun", || out.with_file_name("out.part").exists());
    servers[1].0.kill();
    let ended = crate::support::finish(running);
    assert!(ended.succeeded().stdout.contains("verified by SHA-1"), "{ended:?}");
    assert_content(&out, &bytes);
    fetch(&[&one, "-o", to, "--sha1", &"0".repeat(40)]).failed_saying("sent wrong bytes");
    assert_content(&out, &bytes);
    fetch(&[&format!("http://127.0.0.1:{}/empty", servers[0].1), "-o", to]).succeeded();
    assert_content(&out, b"");
    fetch(&[&format!("http://127.0.0.1:{}/none", servers[0].1), "-o", to]).failed_saying("404");
}

#[test]
fn fetch_takes_a_file_from_pythons_server() {
    if !installed_or_skip("fetch takes a file from Python's server", "python3") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let bytes = random(5 << 20, 6);
    std::fs::write(root.join("f.bin"), &*bytes).unwrap();
    let port = free_port();
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", "--bind", "127.0.0.1", "-d"]).arg(&root).arg(port.to_string());
    let _server = Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    until("it listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let out = folder.path().join("out");
    std::fs::create_dir(&out).unwrap();
    // It ignores ranges.
    fetch(&["-p", &port.to_string(), "--file", "f.bin", "-o", out.to_str().unwrap()]).succeeded();
    assert_content(&out.join("f.bin"), &bytes);
    assert_eq!(names_in(&out), ["f.bin"]);
}

#[test]
fn on_a_terminal_it_says_what_can_be_opened_and_leaves_no_prompt_behind() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("f");
    std::fs::write(&file, b"content").unwrap();
    let port = shoal_tests::free_port();
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(["-i", "0", "-f", file.to_str().unwrap(), "-p", &port.to_string()]);
    command.env("XDG_CACHE_HOME", folder.path());
    let mut terminal = shoal_tests::Terminal::start(&command);
    terminal.expect(&format!("at http://localhost:{port}/"));
    terminal.line("quit");
    terminal.expect("quit");
    assert_eq!(terminal.wait(), 0);
    let shown = terminal.text();
    let (_, after) = shown.rsplit_once("quit").unwrap();
    assert!(!after.contains("server>"), "{shown}");
}
