//! A store of real processes: trackers, storage nodes, and `dfs` run one command at a time.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{Finished, Trackers, binary, finish, free_port, until};

/// Trackers and nodes on loopback; nodes are numbered from 1.
pub struct Store {
    /// The trackers.
    pub trackers: Trackers,
    dir: PathBuf,
    ports: Vec<u16>,
    nodes: Vec<Option<Child>>,
    /// The program of each node.
    programs: Vec<PathBuf>,
    /// The program of users.
    client: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Store {
    /// Starts trackers and nodes, and makes the account `ann` with the password `secret`.
    #[must_use]
    pub fn start(dir: &Path, trackers: usize, nodes: usize) -> Self {
        Self::start_with(dir, (trackers, nodes), &[], &[], &[])
    }

    /// As [`start`](Self::start), with more arguments for each tracker and node, and more environment for the nodes.
    #[must_use]
    pub fn start_with(
        dir: &Path,
        (trackers, nodes): (usize, usize),
        for_trackers: &[&str],
        for_nodes: &[&str],
        environment: &[(&str, String)],
    ) -> Self {
        let secret = node_secret(dir);
        let for_trackers = [for_trackers, &["--node-secret", secret.to_str().unwrap()]].concat();
        let trackers = Trackers::start_with(dir, trackers, &for_trackers);
        let store = Self::begin(dir, trackers, nodes, for_nodes, environment);
        store.enter();
        store
    }

    /// Starts nodes at these trackers, which run already; nobody has an account yet. `dfs` goes by a file of its own,
    /// `clients_info.txt`, if there is one.
    #[must_use]
    pub fn begin(
        dir: &Path,
        trackers: Trackers,
        nodes: usize,
        for_nodes: &[&str],
        environment: &[(&str, String)],
    ) -> Self {
        let ports: Vec<u16> = (0..nodes).map(|_| free_port()).collect();
        let mut conf: String = ports
            .iter()
            .zip(1..)
            .map(|(port, number)| format!("Server DFS{number} 127.0.0.1:{port}\n"))
            .collect();
        let own = dir.join("clients_info.txt").is_file();
        conf += if own { "Trackers clients_info.txt\n" } else { "Trackers tracker_info.txt\n" };
        std::fs::write(dir.join("dfs.conf"), conf).unwrap();
        let mut store = Self {
            trackers,
            dir: dir.to_owned(),
            nodes: ports.iter().map(|_| None).collect(),
            programs: ports.iter().map(|_| binary("dfs-server")).collect(),
            client: binary("dfs"),
            ports,
            arguments: for_nodes.iter().map(|&argument| argument.to_owned()).collect(),
            environment: environment.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
        };
        for number in 1..=nodes {
            store.restart(number);
        }
        store
    }

    /// Makes the account `ann` with the password `secret`, and waits until all nodes are up.
    pub fn enter(&self) {
        assert_eq!(self.run("ann", &["create_user"])["ok"], true);
        self.until_up(self.ports.len());
    }

    /// What nodes are started with from their next start on, besides what all are.
    pub fn set_arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    }

    /// Which program a node is from its next start on.
    pub fn set_program(&mut self, number: usize, program: PathBuf) {
        self.programs[number - 1] = program;
    }

    /// Which program users run from now on.
    pub fn set_client(&mut self, program: PathBuf) {
        self.client = program;
    }

    /// The key that a node says it has.
    #[must_use]
    pub fn key(&self, number: usize) -> String {
        let log = self.log(number);
        let line = log.lines().find(|line| line.contains(" serves on ")).unwrap_or_default();
        let key = line.split(" as ").nth(1).and_then(|rest| rest.split(';').next());
        key.unwrap_or_default().to_owned()
    }

    /// Starts a node that does not run.
    pub fn restart(&mut self, number: usize) {
        let log = File::options().create(true).append(true).open(self.dir.join(format!("node-{number}.log")));
        let mut command = Command::new(&self.programs[number - 1]);
        command
            .arg(self.ports[number - 1].to_string())
            .arg("--trackers")
            .arg(self.trackers.info())
            .arg("--data-dir")
            .arg(self.data(number))
            .arg("--join-secret")
            .arg(node_secret(&self.dir))
            .args(["--bind", "127.0.0.1", "--name"])
            .arg(format!("DFS{number}"))
            .args(self.arguments.iter().map(|argument| argument.replace("{n}", &number.to_string())))
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .env("RUST_LOG", "info");
        let child = command
            .stdin(Stdio::null())
            .stdout(log.as_ref().unwrap().try_clone().unwrap())
            .stderr(log.unwrap())
            .spawn();
        self.nodes[number - 1] = Some(child.unwrap());
    }

    /// Kills a node with -9.
    pub fn kill(&mut self, number: usize) {
        let mut child = self.nodes[number - 1].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The process id of a node, if it runs.
    #[must_use]
    pub fn pid(&self, number: usize) -> Option<u32> {
        self.nodes[number - 1].as_ref().map(Child::id)
    }

    /// Where a node listens.
    #[must_use]
    pub fn port(&self, number: usize) -> u16 {
        self.ports[number - 1]
    }

    /// Stops a node as `kill -STOP` does, or lets it go on.
    pub fn freeze(&self, number: usize, frozen: bool) {
        let pid = Pid::from_child(self.nodes[number - 1].as_ref().unwrap());
        kill_process(pid, if frozen { Signal::STOP } else { Signal::CONT }).unwrap();
    }

    /// Where a node keeps its key and chunks.
    #[must_use]
    pub fn data(&self, number: usize) -> PathBuf {
        self.dir.join(format!("node-{number}"))
    }

    /// What a node said and logged, over all its starts.
    #[must_use]
    pub fn log(&self, number: usize) -> String {
        std::fs::read_to_string(self.dir.join(format!("node-{number}.log"))).unwrap_or_default()
    }

    /// The chunk files of a node.
    #[must_use]
    pub fn chunks(&self, number: usize) -> Vec<PathBuf> {
        let is_chunk = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.len() == 64 && path.is_file()
        };
        files_below(&self.data(number).join("chunks")).into_iter().filter(is_chunk).collect()
    }

    /// `dfs` for that user, with its state in this store's folder.
    #[must_use]
    pub fn dfs(&self, user: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        command.arg(self.dir.join("dfs.conf")).arg("--data-dir").arg(self.dir.join("dfs-state"));
        command.args(["--user", user]).args(arguments).current_dir(&self.dir);
        command.env("SHOAL_PASSWORD", "secret").env_remove("RUST_LOG");
        command
    }

    /// Runs a command to its end; its JSON object.
    #[must_use]
    pub fn run(&self, user: &str, arguments: &[&str]) -> Value {
        self.run_whole(user, arguments).0
    }

    /// As [`run`](Self::run), with everything that was written.
    #[must_use]
    pub fn run_whole(&self, user: &str, arguments: &[&str]) -> (Value, Finished) {
        let finished = finish(&mut self.dfs(user, &[&["--json"], arguments].concat()), "");
        let last = finished.stdout.lines().last().unwrap_or_default();
        let value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{arguments:?}: {finished:?}"));
        (value, finished)
    }

    /// As [`run`](Self::run); it must succeed.
    pub fn ok(&self, arguments: &[&str]) -> Value {
        let value = self.run("ann", arguments);
        assert_eq!(value["ok"], true, "{arguments:?}: {value}");
        value
    }

    /// As [`run`](Self::run); it must fail, and say so.
    #[must_use]
    pub fn refused(&self, arguments: &[&str]) -> String {
        let value = self.run("ann", arguments);
        assert_eq!(value["ok"], false, "{arguments:?}: {value}");
        value["error"].as_str().unwrap().to_owned()
    }

    /// Waits until that many servers are reached and known as up.
    pub fn until_up(&self, count: usize) {
        until("the nodes are up", || {
            let status = self.run("ann", &["status"]);
            let servers = status["servers"].as_array().cloned().unwrap_or_default();
            let up = |server: &&Value| server["reached"] == true && server["up"] == true;
            servers.iter().filter(up).count() == count
        });
    }

    /// Waits until every chunk of every file has the copies that it is to have.
    pub fn until_repaired(&self) {
        until("all copies are in place", || {
            let status = self.ok(&["status"]);
            let listed = self.ok(&["list"]);
            let whole = |file: &Value| file["copies"] == file["wanted"] && file["missing"] == 0;
            status["missing_copies"] == 0 && listed["files"].as_array().unwrap().iter().all(whole)
        });
    }
}

/// A file with the secret by which nodes are admitted, made if it is not there.
#[must_use]
pub fn node_secret(dir: &Path) -> PathBuf {
    let path = dir.join("node.secret");
    if !path.is_file() {
        // Some file systems of tests cannot change permissions.
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
        file.unwrap().write_all(b"0123456789abcdef0123456789abcdef\n").unwrap();
    }
    path
}

/// All files below a folder.
#[must_use]
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found
}

impl Drop for Store {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().flatten() {
            // It may have died already, or be stopped.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for number in 1..=self.ports.len() {
                eprintln!("--- log of node {number}\n{}", self.log(number));
            }
        }
    }
}
