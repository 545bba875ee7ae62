//! A client process, driven by lines on standard input and JSON on standard output (P16).

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::{Network, PATIENCE, binary, client_command, eventually, free_port, random_file, until};

/// Bytes per second at which a file is read and hashed on the slowest machine.
const READ_A_SECOND: u64 = 50 << 20;

/// What a command gave: its object, and the events that came before it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The object with `command` and `ok`.
    pub answer: Value,
    /// Objects with `event`.
    pub events: Vec<Value>,
}

/// How a client is started.
#[derive(Clone, Default)]
struct How {
    /// On which machine of a network.
    machine: Option<(Arc<Network>, u8)>,
    /// Under which limits of the system.
    limits: Option<String>,
    /// With which further options.
    options: Vec<String>,
    /// With which variables in its environment.
    variables: Vec<(String, String)>,
    /// At which ip others are told to reach it, if not 127.0.0.1.
    given_out: Option<String>,
    /// From which program, if not this version's.
    program: Option<PathBuf>,
}

/// A running client.
pub struct Client {
    name: String,
    dir: PathBuf,
    port: u16,
    info: PathBuf,
    how: How,
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<Value>,
    /// All events so far.
    events: Vec<Value>,
}

impl Client {
    /// Starts a client with its state in `dir/name`, using the trackers of `info`.
    #[must_use]
    pub fn start(dir: &Path, name: &str, info: &Path) -> Self {
        Self::start_at(dir, name, info, free_port(), How::default())
    }

    /// Starts a client under limits of the system, which a shell sets: `ulimit -Sn 64`.
    #[must_use]
    pub fn start_limited(dir: &Path, name: &str, info: &Path, limits: &str) -> Self {
        let how = How { limits: Some(limits.to_owned()), ..How::default() };
        Self::start_at(dir, name, info, free_port(), how)
    }

    /// Starts a client with more options on its command line.
    #[must_use]
    pub fn start_with(dir: &Path, name: &str, info: &Path, options: &[&str]) -> Self {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Self::start_at(dir, name, info, free_port(), How { options, ..How::default() })
    }

    /// Starts a client with variables in its environment.
    #[must_use]
    pub fn start_in(dir: &Path, name: &str, info: &Path, variables: &[(&str, &str)]) -> Self {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let variables = variables.iter().map(owned).collect();
        Self::start_at(dir, name, info, free_port(), How { variables, ..How::default() })
    }

    /// Starts a client that gives out another machine's ip, as behind a router.
    #[must_use]
    pub fn start_behind(dir: &Path, name: &str, info: &Path, ip: &str) -> Self {
        let given_out = Some(ip.to_owned());
        Self::start_at(dir, name, info, free_port(), How { given_out, ..How::default() })
    }

    /// Starts a client from that program.
    #[must_use]
    pub fn start_program(dir: &Path, name: &str, info: &Path, program: PathBuf) -> Self {
        Self::start_at(dir, name, info, free_port(), How { program: Some(program), ..How::default() })
    }

    /// Starts a client on a machine of a network.
    #[must_use]
    pub fn start_on(network: &Arc<Network>, machine: u8, dir: &Path, name: &str, info: &Path) -> Self {
        let how = How { machine: Some((network.clone(), machine)), ..How::default() };
        Self::start_at(dir, name, info, free_port(), how)
    }

    /// Starts a client that is bound by the permissions of files though it is root's. Needs root and `setpriv`.
    #[must_use]
    pub fn start_bound(dir: &Path, name: &str, info: &Path) -> Self {
        let port = free_port();
        let client = client_command(dir, name, info, port);
        let mut command = Command::new("setpriv");
        command.arg("--bounding-set=-dac_override,-dac_read_search").arg(binary("client"));
        command.args(client.get_args()).env_remove("SHOAL_PASSWORD").env_remove("RUST_LOG");
        Self::launch(command, dir, name, info, port, How::default())
    }

    fn start_at(dir: &Path, name: &str, info: &Path, port: u16, how: How) -> Self {
        let mut command = client_command(dir, name, info, port);
        command.args(&how.options);
        if let Some(program) = &how.program {
            let mut other = Command::new(program);
            other.args(command.get_args()).env_remove("SHOAL_PASSWORD").env_remove("RUST_LOG");
            command = other;
        }
        if let Some(ip) = &how.given_out {
            let mut behind = Command::new(binary("client"));
            behind.arg(format!("{ip}:{port}")).args(command.get_args().skip(1));
            behind.env_remove("SHOAL_PASSWORD").env_remove("RUST_LOG");
            command = behind;
        }
        if let Some((network, number)) = &how.machine {
            let mut there = network.on(*number, binary("client").to_str().unwrap());
            there.arg(format!("{}:{port}", network.address(*number))).args(command.get_args().skip(1));
            there.env_remove("SHOAL_PASSWORD").env_remove("RUST_LOG");
            command = there;
        }
        if let Some(limits) = &how.limits {
            let mut limited = Command::new("sh");
            limited.arg("-c").arg(format!("{limits} && exec \"$0\" \"$@\"")).arg(binary("client"));
            limited.args(command.get_args()).env_remove("SHOAL_PASSWORD").env_remove("RUST_LOG");
            command = limited;
        }
        command.envs(how.variables.iter().cloned());
        Self::launch(command, dir, name, info, port, how)
    }

    fn launch(mut command: Command, dir: &Path, name: &str, info: &Path, port: u16, how: How) -> Self {
        let log = File::options().create(true).append(true).open(dir.join(format!("{name}.log"))).unwrap();
        let mut child =
            command.arg("--json").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let object = serde_json::from_str(&line).unwrap_or_else(|_| Value::String(line.clone()));
                if sender.send(object).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        Self {
            name: name.into(),
            dir: dir.into(),
            port,
            info: info.into(),
            how,
            child,
            input,
            output,
            events: Vec::new(),
        }
    }

    /// Starts a client, makes an account of the same name, and logs in.
    #[must_use]
    pub fn enter(dir: &Path, name: &str, info: &Path) -> Self {
        Self::start(dir, name, info).entered()
    }

    /// Makes an account of the same name, and logs in.
    #[must_use]
    pub fn entered(mut self) -> Self {
        self.ok(&format!("create_user {} secret", self.name));
        self.ok(&format!("login {} secret", self.name));
        self
    }

    /// Two clients in the group `g`: ann, who owns it, and bob.
    #[must_use]
    pub fn pair(dir: &Path, info: &Path) -> (Self, Self) {
        let (mut ann, mut bob) = (Self::enter(dir, "ann", info), Self::enter(dir, "bob", info));
        ann.ok("create_group g");
        ann.let_in("g", &mut [&mut bob]);
        (ann, bob)
    }

    /// What it is called, its user too.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets others into a group of this client's: they ask, and it accepts.
    pub fn let_in(&mut self, group: &str, others: &mut [&mut Self]) {
        for other in others {
            other.ok(&format!("join_group {group}"));
            let name = other.name.clone();
            self.ok(&format!("accept_request {group} {name}"));
        }
    }

    /// Shares a file of that many random bytes with a group; gives its path and SHA-1.
    pub fn share(&mut self, group: &str, file: &str, size: usize) -> (PathBuf, String) {
        let path = self.dir.join(format!("{}-{file}", self.name)).join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        random_file(&path, size, 7);
        let reading = Duration::from_secs(size as u64 / READ_A_SECOND);
        let answer = self.ok_within(&format!("upload_file '{}' {group}", path.display()), PATIENCE + reading);
        (path, answer["sha1"].as_str().unwrap_or_default().to_owned())
    }

    /// Where its bulk listener is.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process's id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs a command and waits for its object.
    pub fn run(&mut self, command: &str) -> Outcome {
        self.run_within(command, PATIENCE)
    }

    fn run_within(&mut self, command: &str, limit: Duration) -> Outcome {
        let outcome = self.send(command, limit);
        let word = command.split_whitespace().next().unwrap().to_lowercase();
        assert_eq!(outcome.answer["command"], word.as_str(), "{}", outcome.answer);
        outcome
    }

    /// Runs a line that may be no command at all.
    pub fn run_any(&mut self, line: &str) -> Value {
        self.send(line, PATIENCE).answer
    }

    fn send(&mut self, command: &str, limit: Duration) -> Outcome {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
        let (mut events, deadline) = (Vec::new(), Instant::now() + limit);
        loop {
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(object) if object.get("event").is_some() => {
                    self.events.push(object.clone());
                    events.push(object);
                }
                Ok(answer) => return Outcome { answer, events },
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{}: {command}: no answer within {limit:?}", self.name)
                }
                Err(RecvTimeoutError::Disconnected) => panic!("{}: {command}: the client is gone", self.name),
            }
        }
    }

    /// Runs a command that must be done.
    pub fn ok(&mut self, command: &str) -> Value {
        self.ok_within(command, PATIENCE)
    }

    /// As [`ok`](Self::ok), for one that may take that long.
    pub fn ok_within(&mut self, command: &str, limit: Duration) -> Value {
        let answer = self.run_within(command, limit).answer;
        assert_eq!(answer["ok"], true, "{}: {command}: {answer}", self.name);
        answer
    }

    /// Runs a command that must fail, and gives the error.
    pub fn fails(&mut self, command: &str) -> String {
        let answer = self.run(command).answer;
        assert_eq!(answer["ok"], false, "{}: {command}: {answer}", self.name);
        let error = answer["error"].as_str().unwrap().to_owned();
        assert!(!error.is_empty() && !error.contains('\n'), "one clear line: {error:?}");
        error
    }

    /// How many clients share the file now, as `list_files` has it; 0 too for a file that is not listed.
    pub fn sharers(&mut self, group: &str, file: &str) -> u64 {
        let answer = self.ok(&format!("list_files {group}"));
        let files = answer["files"].as_array().unwrap();
        let file = files.iter().find(|entry| entry["name"] == file);
        file.map_or(0, |entry| entry["sharers"].as_u64().unwrap())
    }

    /// The download of that file, as `show_downloads` has it.
    pub fn download(&mut self, file: &str) -> Value {
        let answer = self.ok("show_downloads");
        let downloads = answer["downloads"].as_array().unwrap();
        downloads.iter().find(|download| download["file"] == file).cloned().unwrap_or(Value::Null)
    }

    /// What the download of that file waits for or is limited by; empty while it is not running.
    pub fn activity(&mut self, file: &str) -> String {
        let answer = self.ok("show_downloads -v");
        let mut downloads = answer["downloads"].as_array().unwrap().iter();
        let download = downloads.find(|download| download["file"] == file);
        download.and_then(|download| download["activity"].as_str()).unwrap_or_default().to_owned()
    }

    /// Waits until the download of that file is in that state (D, C, F or P).
    pub fn until_download(&mut self, file: &str, state: &str) -> Value {
        let mut last = Value::Null;
        until(&format!("{}: {file} is {state}", self.name), || {
            last = self.download(file);
            last["state"] == state
        });
        last
    }

    /// Waits until the download of that file has at least that many percent.
    pub fn until_percent(&mut self, file: &str, percent: f64) {
        until(&format!("{}: {file} has {percent} %", self.name), || {
            self.download(file)["percent"].as_f64().is_some_and(|now| now >= percent)
        });
    }

    /// Waits until an event of that name has come since the client started, or comes, and gives it.
    pub fn until_event(&mut self, name: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(event) = self.events.iter().find(|event| event["event"] == name) {
                return event.clone();
            }
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(object) => {
                    assert!(object.get("event").is_some(), "{}: not asked for: {object}", self.name);
                    self.events.push(object);
                }
                Err(error) => panic!("{}: no event {name}: {error}; there were {:?}", self.name, self.events),
            }
        }
    }

    /// All events that were read so far.
    #[must_use]
    pub fn events(&self) -> &[Value] {
        &self.events
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it logged, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join(format!("{}.log", self.name))).unwrap_or_default()
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// Kills the client with -9.
    pub fn kill(mut self) -> Stopped {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.stopped()
    }

    /// Kills the client with -9 in the middle of a command, as soon as something is the case.
    pub fn kill_when(mut self, command: &str, condition: impl FnMut() -> bool) -> Stopped {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
        until(&format!("{command} came so far"), condition);
        self.kill()
    }

    /// Ends the client's input and waits for it to leave; says whether it exited with 0.
    pub fn quit(mut self) -> (Stopped, bool) {
        self.input = None;
        let left = eventually(|| self.child.try_wait().unwrap());
        let Some(status) = left else { panic!("{} does not leave within {PATIENCE:?}", self.name) };
        (self.stopped(), status.success())
    }

    fn stopped(&self) -> Stopped {
        Stopped {
            dir: self.dir.clone(),
            name: self.name.clone(),
            info: self.info.clone(),
            port: self.port,
            how: self.how.clone(),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may have left already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.name, self.log());
        }
    }
}

/// A client that does not run; its folder is still there.
pub struct Stopped {
    dir: PathBuf,
    name: String,
    info: PathBuf,
    port: u16,
    how: How,
}

impl Stopped {
    /// Starts it again with the same folder, at another port.
    #[must_use]
    pub fn restart_elsewhere(self) -> Client {
        Self { port: free_port(), ..self }.restart()
    }

    /// Starts it again from that program; `None` is this version's.
    #[must_use]
    pub fn restart_as(self, program: Option<PathBuf>) -> Client {
        let how = How { program, ..self.how.clone() };
        Self { how, ..self }.restart()
    }

    /// Starts it again, at the same address and with the same folder.
    #[must_use]
    pub fn restart(self) -> Client {
        Client::start_at(&self.dir, &self.name, &self.info, self.port, self.how)
    }
}
