//! `--web-root`: which folders a page reaches, and that it reaches nothing else (B9).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FileType, Mode};
use serde_json::json;
use shoal_tests::{Browser, Service, Trackers, free_port};

/// A client with a page, logged in and with the group `g`, whose page may reach that folder.
fn start(dir: &Path, trackers: &Trackers, root: Option<&Path>) -> (Service, Browser) {
    let port = free_port();
    let web = format!("127.0.0.1:{port}");
    let mut options = vec!["--web", &web];
    let root = root.map(|root| root.to_str().unwrap().to_owned());
    options.extend(root.as_deref().into_iter().flat_map(|root| ["--web-root", root]));
    let ann = Service::start(dir, "ann", &trackers.info(), &options);
    ann.enter("ann");
    ann.ok("create_group g");
    let page = Browser::open(&ann, port);
    (ann, page)
}

#[test]
fn a_page_reaches_nothing_outside_its_folders_whatever_it_writes() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (root, out) = (dir.path().join("root"), dir.path().join("out"));
    for folder in ["root/sub", "root/.ssh", "out"] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    for file in [root.join("a.bin"), root.join(".ssh/key"), out.join("secret"), dir.path().join("root2")] {
        fs::write(file, "content").unwrap();
    }
    symlink("../out/secret", root.join("leaf")).unwrap();
    symlink("../out", root.join("folder")).unwrap();
    symlink(&out, root.join("absolute")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    symlink(".ssh", root.join("hidden")).unwrap();
    rustix::fs::mknodat(CWD, root.join("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let (ann, page) = start(dir.path(), &trackers, Some(&root));
    let at = |name: &str| format!("{}/{name}", root.display());
    let bad = [
        at("../out/secret"),
        at("sub/../../out/secret"),
        at("leaf"),
        at("folder/secret"),
        at("absolute/secret"),
        at("magic/etc/passwd"),
        at("pipe"),
        at("sub"),
        at(".ssh/key"),
        at("hidden/key"),
        at("none"),
        at("a.bin\0"),
        at("a\nb"),
        at(&"x".repeat(300)),
        at(&"x/".repeat(3_000)),
        format!("{}2", root.display()),
        out.join("secret").display().to_string(),
        dir.path().join("ann/identity.key").display().to_string(),
        "/etc/passwd".to_owned(),
        "/proc/self/environ".to_owned(),
        "/proc/self/fd/0".to_owned(),
        "/dev/zero".to_owned(),
    ];
    for path in &bad {
        let answered = page.send("POST", "/api/1/groups/g/files", &json!({ "path": path }));
        assert_eq!((answered.status, &answered.json()["ok"]), (422, &false.into()), "{path}: {answered:?}");
        assert!(!answered.json()["error"].as_str().unwrap().contains('\n'), "{answered:?}");
    }
    for folder in
        [at("../out"), at("folder"), at("absolute/new"), at(".ssh"), at("a.bin"), out.display().to_string()]
    {
        let settings =
            page.send("PUT", "/api/1/settings", &json!({ "active_downloads": 7, "download_folder": folder }));
        assert_eq!(settings.status, 422, "{folder}: {settings:?}");
        let download = json!({ "group": "g", "file": "f", "folder": folder });
        let code = page.send("POST", "/api/1/downloads", &download).json()["code"].clone();
        assert!(code == "not_allowed" || code == "unusable", "{folder}: {code}");
        let listed = page.get(&format!("/api/1/roots/list?path={folder}"));
        assert_eq!(listed.status, 422, "{folder}: {listed:?}");
    }
    assert!(!out.join("new").exists());
    assert_eq!(
        page.get("/api/1/settings").json()["active_downloads"],
        0,
        "nothing of what is refused is set"
    );
    // What is in the folder is shared; and a program on the socket goes where its user may.
    page.ok("POST", "/api/1/groups/g/files", &json!({ "path": at("a.bin") }));
    ann.ok(&format!("upload_file {} g", out.join("secret").display()));
    assert_eq!(page.get("/api/1/roots").json()["roots"], json!([{ "path": root, "why": "given" }]));
    let listed = page.get(&format!("/api/1/roots/list?path={}", root.display())).json();
    assert_eq!(
        (&listed["folders"], &listed["files"]),
        (&json!(["sub"]), &json!([{ "name": "a.bin", "size": 7 }]))
    );
    let shares = page.get("/api/1/shares").json();
    let names: Vec<_> = shares["shares"].as_array().unwrap().iter().map(|share| &share["file"]).collect();
    assert_eq!(names, ["a.bin", "secret"]);
}

#[test]
fn without_a_folder_given_a_page_reaches_where_downloads_go_and_what_is_shared_lies() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (films, other) = (dir.path().join("films"), dir.path().join("other"));
    for folder in [&films, &other] {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("a.bin"), folder.to_str().unwrap()).unwrap();
    }
    let (ann, page) = start(dir.path(), &trackers, None);
    ann.ok(&format!("set download_folder {}", dir.path().join("new").display()));
    let share = |path: &Path| page.send("POST", "/api/1/groups/g/files", &json!({ "path": path })).status;
    assert_eq!(share(&films.join("a.bin")), 422);
    ann.ok(&format!("upload_file {} g", films.join("a.bin").display()));
    fs::write(films.join("b.bin"), "b").unwrap();
    assert_eq!((share(&films.join("b.bin")), share(&other.join("a.bin"))), (200, 422));
    let roots = page.get("/api/1/roots").json()["roots"].clone();
    let expected = json!([
        { "path": dir.path().join("new"), "why": "download_folder" },
        { "path": films, "why": "shared" },
    ]);
    assert_eq!(roots, expected);
}

#[test]
fn a_link_that_is_swapped_in_meanwhile_shares_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (root, out) = (dir.path().join("root"), dir.path().join("out"));
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::create_dir(&out).unwrap();
    fs::write(root.join("sub/file"), "what may be shared").unwrap();
    fs::write(out.join("file"), "what may not be").unwrap();
    let (_ann, page) = start(dir.path(), &trackers, Some(&root));
    let stop = AtomicBool::new(false);
    let mut shared = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                fs::rename(root.join("sub"), root.join("away")).unwrap();
                symlink("../out", root.join("sub")).unwrap();
                std::thread::yield_now();
                fs::remove_file(root.join("sub")).unwrap();
                fs::rename(root.join("away"), root.join("sub")).unwrap();
            }
        });
        for _ in 0..60 {
            let path = root.join("sub/file");
            let answered = page.send("POST", "/api/1/groups/g/files", &json!({ "path": path }));
            if answered.status == 200 {
                assert_eq!(answered.json()["size"], 18, "{answered:?}");
                shared += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let files = page.get("/api/1/groups/g/files").json();
    assert!(files["files"].as_array().unwrap().iter().all(|file| file["size"] == 18), "{shared}: {files}");
}
