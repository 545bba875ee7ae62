//! A page sends a file: it is copied into a folder that the page may use, and shared (B9).

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use serde_json::json;
use shoal_tests::{
    Answered, Browser, Mount, PATIENCE, Service, Trackers, ask_port, free_port, root_or_skip, until,
};

struct Site {
    _ann: Service,
    page: Browser,
    port: u16,
}

/// A client with a page that may reach that folder, logged in and with the group `g`.
fn start(dir: &Path, trackers: &Trackers, root: &Path) -> Site {
    let port = free_port();
    let options = ["--web", &format!("127.0.0.1:{port}"), "--web-root", root.to_str().unwrap()];
    let ann = Service::start(dir, "ann", &trackers.info(), &options);
    ann.enter("ann");
    ann.ok("create_group g");
    let page = Browser::open(&ann, port);
    Site { _ann: ann, page, port }
}

impl Site {
    fn head(&self, path: &str, length: &str) -> String {
        let bearer = self.page.bearer();
        format!(
            "PUT /api/1/groups/g/files/{path} HTTP/1.1\r\nhost: localhost:{}\r\n{bearer}{length}\r\n\r\n",
            self.port
        )
    }

    fn put(&self, path: &str, content: &[u8]) -> Answered {
        let head = self.head(path, &format!("content-length: {}", content.len()));
        ask_port(self.port, &[head.as_bytes(), content].concat())
    }

    /// Begins to send a file, and sends no more of it than that.
    fn begin(&self, path: &str, length: &str, part: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(self.head(path, length).as_bytes()).unwrap();
        stream.write_all(part).unwrap();
        stream
    }
}

fn answer(mut stream: TcpStream) -> Answered {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    Answered::parse(&all)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_that_is_dropped_on_the_page_is_copied_and_shared_and_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    let site = start(dir.path(), &trackers, &root);
    let content: Vec<u8> = (0..3 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
    let folder = format!("?folder={}", root.join("new").display());
    let put = site.put(&format!("a%20b.bin{folder}"), &content);
    assert_eq!((put.status, &put.json()["size"]), (200, &content.len().into()), "{put:?}");
    assert_eq!(fs::read(root.join("new/a b.bin")).unwrap(), content);
    let files = site.page.get("/api/1/groups/g/files").json()["files"].clone();
    assert_eq!((&files[0]["name"], &files[0]["shared_here"]), (&"a b.bin".into(), &true.into()));
    let shares = site.page.get("/api/1/shares").json()["shares"].clone();
    assert_eq!(
        (&shares[0]["path"], &shares[0]["state"]),
        (&json!(root.join("new/a b.bin")), &"served".into())
    );
    let again = site.put(&format!("a%20b.bin{folder}"), b"other");
    assert_eq!((again.status, &again.json()["code"]), (422, &"exists".into()), "{again:?}");
    assert_eq!(fs::read(root.join("new/a b.bin")).unwrap(), content);
    // In pieces of a length that is not known before, and of none.
    let chunked = site.begin(
        &format!("c.bin{folder}"),
        "transfer-encoding: chunked",
        b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    );
    let chunked = answer(chunked);
    assert_eq!((chunked.status, &chunked.json()["size"]), (200, &11.into()), "{chunked:?}");
    let empty = site.put(&format!("empty{folder}"), b"");
    assert_eq!((empty.status, &empty.json()["size"]), (200, &0.into()), "{empty:?}");
    for (path, status) in [
        (format!("..%2Fevil{folder}"), 400),
        (format!(".%2e{folder}"), 400),
        (format!("x%00{folder}"), 400),
        (format!("{}{folder}", "x".repeat(256)), 400),
        (format!(".bashrc{folder}"), 422),
        (format!("x?folder={}/../out", root.display()), 422),
        (format!("x?folder={}", dir.path().display()), 422),
        ("x?folder=here".to_owned(), 400),
    ] {
        let refused = site.put(&path, b"x");
        assert_eq!(refused.status, status, "{path}: {refused:?}");
    }
    // A group that is not hers: nothing of it stays.
    let head = site.head(&format!("d.bin{folder}"), "content-length: 1").replace("/g/", "/none/");
    assert_eq!(ask_port(site.port, format!("{head}x").as_bytes()).status, 422);
    assert_eq!(
        (names(&root), names(&root.join("new"))),
        (vec!["new".into()], vec!["a b.bin".into(), "c.bin".into(), "empty".into()])
    );
}

#[test]
fn a_file_that_breaks_off_leaves_nothing_and_many_that_never_come_hold_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    let site = start(dir.path(), &trackers, &root);
    let folder = format!("?folder={}", root.display());
    let mut slow: Vec<TcpStream> = (0..8)
        .map(|n| site.begin(&format!("{n}.bin{folder}"), "content-length: 1000000", b"a beginning"))
        .collect();
    until("all have begun", || names(&root).len() == 8);
    assert!(names(&root).iter().all(|name| name.starts_with(".shoal-")), "{:?}", names(&root));
    let further = site.put(&format!("x.bin{folder}"), b"x");
    assert_eq!((further.status, &further.json()["code"]), (503, &"busy".into()), "{further:?}");
    assert_eq!(site.page.get("/api/1/groups/g/files").status, 200);
    // One is taken away, one says that it is at its end, and one goes on.
    drop(slow.pop());
    let ended = slow.pop().unwrap();
    ended.shutdown(std::net::Shutdown::Write).unwrap();
    until("nothing of them stays", || names(&root).len() == 6);
    let put = site.put(&format!("y.bin{folder}"), b"y");
    assert_eq!(put.status, 200, "{put:?}");
    let mut last = slow.pop().unwrap();
    last.write_all(&vec![b'z'; 1_000_000 - 11]).unwrap();
    assert_eq!(answer(last).status, 200);
    drop(slow);
    until("what is whole stays", || names(&root) == ["5.bin", "y.bin"]);
    let files = site.page.get("/api/1/groups/g/files").json()["files"].clone();
    assert_eq!(files.as_array().unwrap().len(), 2, "{files}");
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_nothing() {
    if !root_or_skip("what_does_not_fit_is_refused_and_leaves_nothing") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let root = dir.path().join("small");
    let _small = Mount::new(&root, "size=4m");
    let site = start(dir.path(), &trackers, &root);
    let folder = format!("?folder={}", root.display());
    let large = answer(site.begin(
        &format!("large.bin{folder}"),
        "content-length: 10000000000\r\nexpect: 100-continue",
        b"",
    ));
    assert_eq!((large.status, &large.json()["code"]), (422, &"full".into()), "{large:?}");
    assert!(large.json()["error"].as_str().unwrap().contains("are lacking"), "{large:?}");
    let mut endless = site.begin(&format!("endless.bin{folder}"), "transfer-encoding: chunked", b"");
    let part = [b"10000\r\n".as_slice(), &[7; 0x10000], b"\r\n"].concat();
    for _ in 0..100 {
        if endless.write_all(&part).is_err() {
            break;
        }
    }
    let _ = endless.write_all(b"0\r\n\r\n");
    let endless = answer(endless);
    assert_eq!((endless.status, &endless.json()["code"]), (422, &"full".into()), "{endless:?}");
    assert_eq!(names(&root), Vec::<String>::new());
    assert_eq!(site.put(&format!("fits.bin{folder}"), &[1; 100_000]).status, 200);
}
