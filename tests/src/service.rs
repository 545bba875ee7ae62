//! A client without a prompt, asked through its socket as programs ask it: by HTTP, and by `shoal`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::{Finished, PATIENCE, binary, client_command, finish, free_port, until};

/// What came back for a request.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// The body as it came.
    pub body: String,
}

impl Answered {
    /// Reads what came back; status 0 if that is no answer.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let all = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = all.split_once("\r\n\r\n").unwrap_or((&all, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// A running client without a prompt.
pub struct Service {
    dir: PathBuf,
    name: String,
    child: Child,
}

impl Service {
    /// Starts `client --headless` with its state in `dir/name`, its log in `dir/name.log`, and a runtime folder of its own.
    #[must_use]
    pub fn start(dir: &Path, name: &str, info: &Path, options: &[&str]) -> Self {
        Self::start_at(dir, name, info, free_port(), options)
    }

    /// As [`start`](Self::start), at that port.
    #[must_use]
    pub fn start_at(dir: &Path, name: &str, info: &Path, port: u16, options: &[&str]) -> Self {
        let mut command = client_command(dir, name, info, port);
        command.arg("--headless").args(options);
        Self::launch(dir, name, command)
    }

    /// Starts that command, which makes a socket for this user, in the surroundings of the others.
    #[must_use]
    pub fn launch(dir: &Path, name: &str, command: Command) -> Self {
        let log = File::options().create(true).append(true).open(dir.join(format!("{name}.log"))).unwrap();
        let out = log.try_clone().unwrap();
        Self::launch_writing_to(dir, name, command, [out.into(), log.into()])
    }

    /// The same, with its output and its errors going there.
    #[must_use]
    pub fn launch_writing_to(dir: &Path, name: &str, mut command: Command, [out, err]: [Stdio; 2]) -> Self {
        let runtime = runtime(dir, name);
        std::fs::create_dir_all(&runtime).unwrap();
        command.env("XDG_RUNTIME_DIR", &runtime).env_remove("SHOAL_PASSWORD").env_remove("RUST_LOG");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
        let mut service = Self { dir: dir.to_owned(), name: name.to_owned(), child };
        until(&format!("{name} takes commands"), || {
            if let Some(status) = service.child.try_wait().unwrap() {
                panic!("{name} ended with {status}: {}", service.log());
            }
            service.sockets().iter().any(|socket| UnixStream::connect(socket).is_ok())
        });
        service
    }

    fn sockets(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(runtime(&self.dir, &self.name).join("shoal"));
        entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.sockets().into_iter().next().unwrap()
    }

    /// What it wrote, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join(format!("{}.log", self.name))).unwrap_or_default()
    }

    /// The number of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its process.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a command by HTTP.
    #[must_use]
    pub fn ask(&self, body: &Value) -> Answered {
        let body = body.to_string();
        let request = format!(
            "POST /api/1/command HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        ask_raw(&self.socket(), request.as_bytes())
    }

    /// Sends a line by HTTP that must be done.
    pub fn ok(&self, line: &str) -> Value {
        let answered = self.ask(&json!({ "line": line }));
        assert_eq!(answered.status, 200, "{line}: {answered:?}");
        answered.json()
    }

    /// Makes an account with the password `secret`, and logs in.
    pub fn enter(&self, user: &str) {
        for line in ["create_user", "login"] {
            let body = json!({ "line": format!("{line} {user}"), "passwords": ["secret"] });
            let answered = self.ask(&body);
            assert_eq!(answered.status, 200, "{line}: {answered:?}");
        }
    }

    /// `shoal` with these arguments, as this user runs it.
    #[must_use]
    pub fn shoal(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("shoal"));
        command.args(arguments).env("XDG_RUNTIME_DIR", runtime(&self.dir, &self.name));
        command
            .env("XDG_DATA_HOME", self.dir.join("no-data"))
            .env_remove("SHOAL_PASSWORD")
            .env_remove("SHOAL_SOCKET");
        command
    }

    /// Runs `shoal` with these arguments and that input.
    pub fn run(&self, arguments: &[&str], input: &str) -> Finished {
        finish(&mut self.shoal(arguments), input)
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops the process, as Ctrl-Z does, until it gets CONT.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        // The thread that takes the signal may have to wait for a processor, and the others run meanwhile.
        until("it is stopped", || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
            let stat = |task: PathBuf| std::fs::read_to_string(task.join("stat")).unwrap_or_default();
            tasks
                .flatten()
                .all(|task| stat(task.path()).rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
        });
    }

    /// Kills it with -9; the socket stays.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it by SIGTERM; gives its exit code and how long that took.
    pub fn stop(&mut self) -> (Option<i32>, Duration) {
        let begun = Instant::now();
        self.signal(Signal::TERM);
        until("it ends", || self.child.try_wait().unwrap().is_some());
        (self.child.wait().unwrap().code(), begun.elapsed())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}:\n{}", self.name, self.log());
        }
    }
}

fn runtime(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("run-{name}"))
}

/// Sends bytes to a socket, and reads what comes back to its end.
#[must_use]
pub fn ask_raw(socket: &Path, request: &[u8]) -> Answered {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // One that refuses may have closed already.
    let _ = stream.write_all(request);
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    Answered::parse(&all)
}
