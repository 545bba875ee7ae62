//! Garage and Tahoe-LAFS, set up as their users set them up, on the same disk: three nodes with three copies in S3's
//! manner, and four nodes of which two restore a file, encrypted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use shoal_tests::{free_port, until};

use crate::Plan;
use crate::running::{Running, installed};

/// How long a command that sets something up may take.
const SETUP: Duration = Duration::from_secs(60);

/// A store beside ours. One file is put, then the same is fetched.
pub(crate) trait Rival {
    /// What it is called.
    fn name(&self) -> &'static str;
    /// Size of its file, out of ours: a slow one gets a smaller.
    fn bytes(&self, ours: u64) -> u64;
    /// The processes that serve.
    fn pids(&self) -> Vec<u32>;
    /// Stores this file.
    fn put(&mut self, file: &Path) -> Command;
    /// Fetches what was stored last.
    fn get(&mut self, to: &Path) -> Command;
}

/// A rival's name, and why it is not there.
pub(crate) type Absent = (&'static str, String);

/// Garage, if it and boto3 are installed.
pub(crate) fn garage(plan: &Plan, disk: &Path) -> Result<Box<dyn Rival>, Absent> {
    let name = "Garage";
    let (program, python) = (plan.rivals.join("cargo/bin/garage"), plan.rivals.join("venv-s3/bin/python"));
    for needed in [&program, &python] {
        if !needed.is_file() {
            return Err((name, format!("{} is not installed", needed.display())));
        }
    }
    match Garage::start(program, python, &disk.join("garage")) {
        Ok(garage) => Ok(Box::new(garage)),
        Err(error) => Err((name, error)),
    }
}

/// Tahoe-LAFS, if it and curl are installed.
pub(crate) fn tahoe(plan: &Plan, disk: &Path) -> Result<Box<dyn Rival>, Absent> {
    let name = "Tahoe-LAFS";
    let program = plan.rivals.join("venv-tahoe/bin/tahoe");
    if !(program.is_file() && installed("curl")) {
        return Err((name, format!("{} or curl is not installed", program.display())));
    }
    match Tahoe::start(&program, &disk.join("tahoe")) {
        Ok(tahoe) => Ok(Box::new(tahoe)),
        Err(error) => Err((name, error)),
    }
}

struct Garage {
    python: PathBuf,
    nodes: Vec<Running>,
    url: String,
    key: String,
    secret: String,
    puts: u32,
}

impl Garage {
    const NODES: usize = 3;

    fn start(program: PathBuf, python: PathBuf, dir: &Path) -> Result<Self, String> {
        let mut nodes = Vec::new();
        let mut url = String::new();
        for number in 0..Self::NODES {
            let folder = dir.join(number.to_string());
            std::fs::create_dir_all(folder.join("data")).unwrap();
            let (rpc, api, here) = (free_port(), free_port(), folder.display());
            url = format!("http://127.0.0.1:{api}");
            let conf = format!(
                "metadata_dir = \"{here}/meta\"\ndata_dir = \"{here}/data\"\ndb_engine = \"lmdb\"\n\
                 replication_factor = 3\ncompression_level = \"none\"\nrpc_bind_addr = \"127.0.0.1:{rpc}\"\n\
                 rpc_public_addr = \"127.0.0.1:{rpc}\"\nrpc_secret = \"{}\"\n[s3_api]\ns3_region = \"garage\"\n\
                 api_bind_addr = \"127.0.0.1:{api}\"\nroot_domain = \".s3.local\"\n",
                "ab".repeat(32)
            );
            std::fs::write(folder.join("garage.toml"), conf).unwrap();
            let mut command = Command::new(&program);
            command.arg("-c").arg(folder.join("garage.toml")).arg("server").env("RUST_LOG", "garage=warn");
            nodes.push(Running::listening(&mut command, &folder.join("log"), rpc)?);
        }
        let say = |node: usize, words: &[&str]| {
            let mut command = Command::new(&program);
            said(command.arg("-c").arg(dir.join(format!("{node}/garage.toml"))).args(words))
        };
        let mut ids = Vec::new();
        for node in 0..Self::NODES {
            ids.push(say(node, &["node", "id", "-q"])?.trim().to_owned());
        }
        for (id, zone) in ids.iter().zip(["z0", "z1", "z2"]) {
            if id != &ids[0] {
                say(0, &["node", "connect", id])?;
            }
            say(0, &["layout", "assign", "-z", zone, "-c", "100G", id.split('@').next().unwrap_or(id)])?;
        }
        say(0, &["layout", "apply", "--version", "1"])?;
        until("the nodes know the layout", || say(0, &["bucket", "create", "bench"]).is_ok());
        let made = say(0, &["key", "create", "k"])?;
        let word =
            |begins: &str| made.split_whitespace().find(|word| word.starts_with(begins)).map(str::to_owned);
        let key = word("GK").ok_or("no key was made")?;
        let secret = made.split("Secret key:").nth(1).and_then(|rest| rest.split_whitespace().next());
        let secret = secret.ok_or("no secret was made")?.to_owned();
        say(0, &["bucket", "allow", "bench", "--read", "--write", "--owner", "--key", &key])?;
        Ok(Self { python, nodes, url, key, secret, puts: 0 })
    }

    fn object(&self, verb: &str, path: &Path) -> Command {
        let mut command = Command::new(&self.python);
        command.args(["scripts/lib/s3-object.py", verb, &self.url, &self.key, &self.secret]).arg(path);
        command.arg(format!("object-{}", self.puts));
        command
    }
}

impl Rival for Garage {
    fn name(&self) -> &'static str {
        "Garage"
    }

    fn bytes(&self, ours: u64) -> u64 {
        ours
    }

    fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(Running::pid).collect()
    }

    fn put(&mut self, file: &Path) -> Command {
        self.puts += 1;
        self.object("put", file)
    }

    fn get(&mut self, to: &Path) -> Command {
        self.object("get", to)
    }
}

struct Tahoe {
    processes: Vec<Running>,
    gate: String,
    cap: PathBuf,
}

impl Tahoe {
    const NODES: usize = 4;

    fn start(program: &Path, dir: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(dir).unwrap();
        let listen = |port: u16| {
            [
                "--listen=tcp".into(),
                format!("--port=tcp:{port}:interface=127.0.0.1"),
                format!("--location=tcp:127.0.0.1:{port}"),
            ]
        };
        let run = |name: &str, port: u16| {
            let mut command = Command::new(program);
            command.args(["run", "--allow-stdin-close"]).arg(dir.join(name));
            Running::listening(&mut command, &dir.join(format!("{name}.log")), port)
        };
        let port = free_port();
        said(Command::new(program).arg("create-introducer").args(listen(port)).arg(dir.join("intro")))?;
        let mut processes = vec![run("intro", port)?];
        let furl = dir.join("intro/private/introducer.furl");
        until("the introducer has its address", || furl.is_file());
        let furl = std::fs::read_to_string(&furl).unwrap();
        let shares = ["--shares-needed=2", "--shares-happy=2", "--shares-total=4"];
        let create = |what: &str| {
            let mut command = Command::new(program);
            command.args([what, "-i", furl.trim()]).args(shares);
            command
        };
        for number in 0..Self::NODES {
            let (name, port) = (format!("node{number}"), free_port());
            said(create("create-node").args(listen(port)).arg("--webport=none").arg(dir.join(&name)))?;
            processes.push(run(&name, port)?);
        }
        let port = free_port();
        let web = format!("--webport=tcp:{port}:interface=127.0.0.1");
        said(create("create-client").arg(web).arg(dir.join("gate")))?;
        processes.push(run("gate", port)?);
        let gate = format!("http://127.0.0.1:{port}");
        until("all nodes are connected", || {
            let welcome = said(Command::new("curl").args(["-s", &format!("{gate}/?t=json")]));
            welcome.is_ok_and(|text| text.matches("\"connected\"").count() == Self::NODES)
        });
        Ok(Self { processes, gate, cap: dir.join("cap") })
    }
}

impl Rival for Tahoe {
    fn name(&self) -> &'static str {
        "Tahoe-LAFS"
    }

    fn bytes(&self, ours: u64) -> u64 {
        ours / 8
    }

    fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Running::pid).collect()
    }

    fn put(&mut self, file: &Path) -> Command {
        let mut command = Command::new("curl");
        command
            .args(["-sS", "-f", "-T"])
            .arg(file)
            .arg("-o")
            .arg(&self.cap)
            .arg(format!("{}/uri", self.gate));
        command
    }

    fn get(&mut self, to: &Path) -> Command {
        let cap = std::fs::read_to_string(&self.cap).unwrap_or_default();
        let mut command = Command::new("curl");
        command.args(["-sS", "-f", "-o"]).arg(to).arg(format!("{}/uri/{}", self.gate, cap.trim()));
        command
    }
}

/// Runs a command that sets something up; gives what it printed.
fn said(command: &mut Command) -> Result<String, String> {
    let log = tempfile::NamedTempFile::new().unwrap();
    let run = Running::start(command, log.path()).and_then(|mut running| running.finish(SETUP));
    let text = std::fs::read_to_string(log.path()).unwrap_or_default();
    run.map(|_| text)
}
