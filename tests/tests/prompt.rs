//! The prompt on a real (pseudo) terminal, as a person meets it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::path::Path;
use std::process::Command;

use shoal_tests::{
    Client, Terminal, Trackers, binary, client_command, free_port, random_file, run_script, same_content,
    tracker_command, until,
};

const PASSWORD: &str = "open-sesame-4711";
const CTRL_D: &str = "\u{4}";
const UP: &str = "\u{1b}[A";

/// Everything below a folder that holds these bytes.
fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_with(&entry.path(), text));
        } else if let Ok(bytes) = std::fs::read(entry.path())
            && bytes.windows(text.len()).any(|window| window == text.as_bytes())
        {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

fn start(dir: &Path, name: &str, trackers: &Trackers, port: u16) -> Terminal {
    Terminal::start(&client_command(dir, name, &trackers.info(), port))
}

#[test]
fn two_lines_say_who_and_where_it_is_and_what_to_type_first() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let port = free_port();
    let mut terminal = start(dir.path(), "ann", &trackers, port);
    terminal.expect_prompt();
    let text = terminal.text();
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    // At its very first start it also says whose key it pinned.
    let (pinned, greeting): (Vec<&str>, Vec<&str>) =
        lines.partition(|line| line.contains("is now known by its key"));
    assert_eq!(pinned.len(), 1, "{text}");
    assert!(greeting.len() == 3, "two lines and the prompt:\n{text}");
    assert!(greeting[..2].concat().contains(&port.to_string()), "where it is:\n{text}");
    assert!(
        greeting[..2].concat().contains("create_user") || greeting[..2].concat().contains("help"),
        "{text}"
    );
    terminal.press(CTRL_D);
    assert_eq!(terminal.wait(), 0, "Ctrl-D leaves");
}

#[test]
fn passwords_are_asked_for_unseen_and_kept_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut terminal = start(dir.path(), "ann", &trackers, free_port());
    terminal.expect_prompt();
    terminal.line("create_user ann");
    for question in ["assword", "again"] {
        terminal.expect(question);
        terminal.expect(": ");
        terminal.line(PASSWORD);
    }
    terminal.expect("Log in as ann now? [Y/n] ");
    terminal.press("n");
    terminal.expect_prompt();
    terminal.line("login ann");
    terminal.expect("assword: ");
    terminal.line(PASSWORD);
    terminal.expect_prompt();
    assert!(terminal.run("whoami").contains("ann"));
    terminal.run("logout");
    // With the command it stands on the screen, where the user put it, but nowhere else.
    assert!(!terminal.text().contains(PASSWORD), "the password was echoed:\n{}", terminal.text());
    assert!(terminal.run(&format!("login ann {PASSWORD}")).contains("ann"));
    assert!(terminal.run(&format!("  LOGIN ann \"{PASSWORD}\"")).contains("logged in as ann"));
    terminal.run(&format!("change_password {PASSWORD} {PASSWORD}-2"));
    terminal.run("list_groups");
    terminal.line("quit");
    assert_eq!(terminal.wait(), 0);
    assert_eq!(files_with(&dir.path().join("ann"), PASSWORD), Vec::<String>::new());
    assert_eq!(files_with(&trackers.data(1), PASSWORD), Vec::<String>::new());
    assert!(!trackers.log(1).contains(PASSWORD));
    // The history is there, without the lines that held one; and the log is in the folder, not on the terminal.
    assert!(!files_with(&dir.path().join("ann"), "list_groups").is_empty(), "history is kept");
    assert!(!terminal.text().contains(" INFO "), "{}", terminal.text());
    let logs = std::fs::read_dir(dir.path().join("ann")).unwrap().map(Result::unwrap);
    let mut logs = logs.filter(|entry| entry.file_name().to_string_lossy().ends_with(".log"));
    assert!(logs.any(|log| log.metadata().unwrap().len() > 0), "the log is a file in the data directory");

    let mut again = start(dir.path(), "ann", &trackers, free_port());
    again.expect_prompt();
    again.press(UP);
    again.expect("quit");
    again.press(UP);
    again.expect("list_groups");
}

#[test]
fn ctrl_c_cancels_the_line_and_uploads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let path = dir.path().join("a.bin");
    random_file(&path, 4 << 20, 1);
    let mut ann = start(dir.path(), "ann", &trackers, free_port());
    ann.expect_prompt();
    for line in ["create_user ann secret", "login ann secret", "create_group g"] {
        ann.run(line);
    }
    let mut bob = Client::enter(dir.path(), "bob", &trackers.info());
    bob.ok("join_group g");
    assert!(ann.run("list_requests g").contains("bob"));
    for line in ["accept_request g bob", "limit up 1M", &format!("upload_file {} g", path.display())] {
        ann.run(line);
    }
    until("it is shared", || bob.run("list_files g").answer["files"][0]["sharers"] == 1);
    let copy = dir.path().join("copy.bin");
    bob.ok(&format!("download_file g a.bin {}", copy.display()));
    bob.until_percent("a.bin", 10.0);
    for _ in 0..3 {
        ann.press("quit");
        ann.expect("quit");
        ann.cancel();
    }
    ann.cancel();
    assert!(ann.runs());
    bob.until_download("a.bin", "C");
    assert!(same_content(&path, &copy));
    assert!(ann.runs(), "Ctrl-C cancels the line only");
    assert!(ann.run("whoami").contains("ann"));
    assert!(ann.run("nonsense").contains("help"), "it says what to do");
    ann.press(CTRL_D);
    assert_eq!(ann.wait(), 0);
}

#[test]
fn tab_completes_commands_groups_files_and_paths() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let path = dir.path().join("unmistakable.bin");
    random_file(&path, 1_000, 1);
    let mut ann = start(dir.path(), "ann", &trackers, free_port());
    ann.expect_prompt();
    for line in ["create_user ann secret", "login ann secret", "create_group longgroupname"] {
        ann.run(line);
    }
    let unfinished = format!("{}/unmis", dir.path().display());
    for (typed, completed) in
        [("upload_f", "upload_file "), (&unfinished, "unmistakable.bin"), (" longgr", "longgroupname")]
    {
        ann.press(typed);
        ann.press("\t");
        ann.expect(completed);
    }
    ann.press("\r");
    ann.expect_prompt();
    assert!(ann.run("list_files longgroupname").contains("unmistakable.bin"), "{}", ann.text());
    // Names are learnt by listing them, or while the user types: at the second try at the latest.
    assert!(ann.run("list_groups").contains("longgroupname"));
    for (typed, completed) in
        [("show_pe", "show_peers "), ("longgr", "longgroupname "), ("unmis", "unmistakable.bin")]
    {
        ann.press(typed);
        ann.expect(typed);
        until("it is completed", || {
            ann.press("\t");
            ann.shows(completed)
        });
    }
    ann.cancel();
    ann.press("LIST_GR\t");
    ann.expect("list_groups");
    ann.press("\r");
    ann.expect("longgroupname");
}

#[test]
fn watching_downloads_ends_with_ctrl_c_or_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    ann.ok("create_group g");
    ann.ok("limit up 100K");
    let (path, _) = ann.share("g", "a.bin", 4 << 20);
    let mut bob = start(dir.path(), "bob", &trackers, free_port());
    bob.expect_prompt();
    for line in ["create_user bob secret", "login bob secret", "join_group g"] {
        bob.run(line);
    }
    until("the request is there", || ann.run("accept_request g bob").answer["ok"] == true);
    let copy = dir.path().join("copy.bin");
    until("it runs", || {
        bob.run(&format!("download_file g a.bin {}", copy.display()));
        bob.run("show_downloads").contains("\n[D] [g] a.bin\n")
    });
    bob.line("show_downloads --watch");
    bob.expect("%");
    bob.cancel();
    assert!(!copy.exists(), "it ended before the download did");
    assert!(bob.run("whoami").contains("bob"));
    // Without Ctrl-C it ends with the last download.
    bob.line("show_downloads --watch");
    ann.ok("limit up 0");
    until("it is complete", || same_content(&path, &copy));
    bob.expect_prompt();
    assert!(bob.run("show_downloads").contains("\n[C] [g] a.bin\n"));
    bob.press(CTRL_D);
    assert_eq!(bob.wait(), 0);
}

#[test]
fn the_trackers_prompt_tells_how_things_are() {
    let dir = tempfile::tempdir().unwrap();
    let info = dir.path().join("tracker_info.txt");
    let ports = [free_port(), free_port()];
    std::fs::write(&info, format!("127.0.0.1 {}\n127.0.0.1 {}\n", ports[0], ports[1])).unwrap();
    let command = |number: usize| tracker_command(&info, number, &dir.path().join(number.to_string()));
    let mut one = Terminal::start(&command(1));
    one.expect_prompt();
    assert!(one.run("status").contains("not connected"));
    let mut two = Terminal::start(&command(2));
    two.expect_prompt();
    until("they are in sync", || one.run("STATUS").contains("in sync"));
    let mut member = shoal_tests::Member::connect(ports[0]);
    member.enter("ann");
    until("the counts are there", || {
        two.run("status").contains("users 1, groups 0, files 0, peers online 1")
    });
    let help = one.run("help");
    assert!(help.contains("status") && help.contains("quit"), "{help}");
    one.cancel();
    let problem = one.run("nonsense");
    assert!(problem.contains("unknown command"), "{problem}");
    assert!(problem.lines().all(|line| line.chars().count() <= 120), "broken between words: {problem}");
    assert!(one.runs());
    one.line("quit");
    assert_eq!(one.wait(), 0);
    two.press(CTRL_D);
    assert_eq!(two.wait(), 0, "Ctrl-D closes it cleanly too");
    let missing = Command::new(shoal_tests::binary("tracker")).arg("--no-such-option").output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn lines_that_were_pasted_or_typed_ahead_are_all_carried_out() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut terminal = start(dir.path(), "ann", &trackers, free_port());
    terminal.expect_prompt();
    terminal.press("create_user ann pw\rlogin ann pw\rcreate_group typed\r");
    terminal.expect("group typed created");
    // As a terminal marks what is pasted (bracketed paste).
    terminal.press("\u{1b}[200~create_group pasted\nlist_groups\n\u{1b}[201~\r");
    terminal.expect("OWNER");
    terminal.expect("typed");
    terminal.press(CTRL_D);
    assert_eq!(terminal.wait(), 0);
}

#[test]
fn every_program_can_be_typed_to_on_any_terminal_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let (info, file) = (trackers.info(), dir.path().join("film"));
    random_file(&file, 1_000, 1);
    for term in [Some("dumb"), Some("emacs"), Some("cons25"), Some(""), None] {
        let name = format!("at-{}", term.map_or("none", |term| term));
        let on = |mut command: Command| {
            match term {
                Some(term) => command.env("TERM", term),
                None => command.env_remove("TERM"),
            };
            Terminal::start(&command)
        };
        let port = free_port().to_string();
        let mut server = Command::new(binary("server"));
        server.arg("-f").arg(&file).args(["-p", &port, "--address", "127.0.0.1"]);
        let mut node = Command::new(binary("dfs-server"));
        node.args([&free_port().to_string(), "--bind", "127.0.0.1", "--trackers"]).arg(&info);
        node.arg("--data-dir").arg(dir.path().join(format!("node-{name}")));
        for (mut terminal, line, answer) in [
            (on(server), "status", &port[..]),
            (on(node), "status", "chunks"),
            (on(client_command(dir.path(), &name, &info, free_port())), "help", "download_file"),
        ] {
            terminal.expect_prompt();
            terminal.line(line);
            terminal.expect(answer);
            terminal.line("quit");
            assert_eq!(terminal.wait(), 0, "{term:?}: {}", terminal.text());
        }
    }
}

#[test]
fn lists_are_tables_that_fit_the_terminal_and_plain_lines_off_it() {
    let dir = tempfile::tempdir().unwrap();
    let trackers = Trackers::start(dir.path(), 1);
    let mut ann = Client::enter(dir.path(), "ann", &trackers.info());
    ann.ok("create_group g");
    let long = "a film with a name that is too long for the terminal.mkv";
    let (_, sha1) = ann.share("g", long, 2_000_000);
    ann.share("g", "b.bin", 1_000);
    drop(ann.quit());
    let command = client_command(dir.path(), "ann", &trackers.info(), free_port());
    for columns in [60, 100] {
        let mut terminal = Terminal::start_wide(&command, columns);
        terminal.expect_prompt();
        terminal.run("login ann secret");
        let mut shown = String::new();
        for line in ["list_files g", "list_groups", "show_peers g b.bin"] {
            shown += &terminal.run(line);
        }
        for title in ["NAME", "SHARERS", "GROUP", "OWNER", "HOLDS", "PEER ID"] {
            assert!(shown.contains(title), "{shown}");
        }
        assert!(shown.contains(&sha1[..8]) && !shown.contains(&sha1), "{shown}");
        let widest = shown.lines().map(|line| line.trim_end().chars().count()).max();
        assert!(widest <= Some(columns.into()), "{columns}:\n{shown}");
        if columns == 100 {
            assert!(terminal.run("list_files -v g").contains(&sha1), "{shown}");
        }
        terminal.line("quit");
        assert_eq!(terminal.wait(), 0);
    }
    let lines = run_script(
        dir.path(),
        "ann",
        &trackers.info(),
        &["--exec", "login ann secret", "--exec", "list_files g"],
        "",
    );
    let line = format!("{long}  1.9 MiB  SHA-1 {sha1}  1 sharer");
    assert!(lines.stdout.lines().any(|shown| shown == line), "{}", lines.stdout);
}
