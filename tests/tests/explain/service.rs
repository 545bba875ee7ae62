//! The same through the socket: for a program, and for someone who types in a shell.

use shoal_tests::{Service, Trackers, ask_raw, finish, random_file};

#[test]
fn the_socket_and_a_shell_are_told_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let ann = Service::start(dir.path(), "ann", &trackers.info(), &[]);
    let shoal = |arguments: &[&str]| finish(ann.shoal(arguments).current_dir(dir.path()), "");
    let get = |path: &str| {
        ask_raw(&ann.socket(), format!("GET /api/1/explain{path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
    };
    let logged_out = shoal(&["explain"]).stdout;
    assert!(logged_out.starts_with("client: Nobody is logged in"), "{logged_out}");
    assert!(logged_out.trim_end().ends_with("type: shoal login USER"), "{logged_out}");

    ann.enter("ann");
    assert_eq!(shoal(&["explain"]).stdout.trim_end(), "all is well");
    ann.ok("create_group 'my films'");
    random_file(&dir.path().join("it's.bin"), 1_000, 1);
    let path = dir.path().join("it's.bin");
    ann.ok(&format!("upload_file \"{}\" 'my films'", path.display()));
    let told = shoal(&["explain", "my films", "it's.bin"]).stdout;
    let expected = r"type: shoal show_peers 'my films' 'it'\''s.bin'";
    assert!(told.trim_end().ends_with(expected), "{told}");
    assert!(told.starts_with("share [my films] it's.bin: No other client"), "{told}");

    let all = get("");
    assert_eq!((all.status, &all.json()["explanations"][0]["cause"]), (200, &"sole_sharer".into()));
    let one = get("/my%20films/it%27s.bin");
    assert_eq!((one.status, &one.json()["explanations"][0]["level"]), (200, &"unsafe".into()));
    let none = get("/my%20films/none");
    assert_eq!((none.status, &none.json()["code"]), (422, &"nothing_of".into()));
    assert_eq!(get("/my%20films/%FF").status, 400);
}
