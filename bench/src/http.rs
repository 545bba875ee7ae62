//! HTTP servers that are downloaded from: nginx, one process each, and our `server`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use shoal_tests::{binary, free_port};

use crate::running::Running;

/// How long our server may take to know the digests of the file.
const HASHING: Duration = Duration::from_secs(120);

/// A server of one file.
pub(crate) struct Server {
    pub(crate) running: Running,
    pub(crate) port: u16,
    name: String,
}

impl Server {
    /// One nginx, on that core only if one is named; `limit` in MB/s for each connection.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn nginx(
        dir: &Path,
        file: &Path,
        limit: Option<u32>,
        core: Option<usize>,
    ) -> Result<Self, String> {
        let port = free_port();
        let folder = dir.join(format!("nginx-{port}"));
        std::fs::create_dir_all(&folder).unwrap();
        let (here, root) = (folder.display(), file.parent().unwrap().display());
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let places: String = kinds.map(|kind| format!("{kind}_temp_path {here}/{kind};\n")).concat();
        let limit = limit.map_or(String::new(), |rate| format!("limit_rate {rate}m;"));
        let conf = format!(
            "daemon off;\nmaster_process off;\nuser root;\npid {here}/pid;\nerror_log {here}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{\naccess_log off;\nsendfile on;\ntcp_nopush on;\n{places}\
             server {{ listen 127.0.0.1:{port}; root {root}; {limit} }}\n}}\n"
        );
        let conf_path = folder.join("nginx.conf");
        std::fs::write(&conf_path, conf).unwrap();
        let mut command = pinned("nginx".into(), core);
        command.arg("-p").arg(&folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(conf_path);
        let running = Running::listening(&mut command, &folder.join("log"), port)?;
        Ok(Self { running, port, name: name_of(file) })
    }

    /// Our server, once it knows the digests of the file.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn ours(dir: &Path, file: &Path, core: Option<usize>) -> Result<Self, String> {
        let port = free_port();
        let mut command = pinned(binary("server"), core);
        command.arg("-f").arg(file).args(["-i", "0", "-a", "127.0.0.1", "-p", &port.to_string()]);
        command.env("XDG_CACHE_HOME", dir.join("cache"));
        let log = dir.join(format!("server-{port}.log"));
        let mut server =
            Self { running: Running::listening(&mut command, &log, port)?, port, name: name_of(file) };
        let (name, port) = (server.name.clone(), server.port);
        server.running.until(HASHING, |_| knows_digests(port, &name))?;
        Ok(server)
    }

    /// Where the file is.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/{}", self.port, self.name)
    }
}

/// A command that runs on one core only, if one is named.
pub(crate) fn pinned(program: PathBuf, core: Option<usize>) -> Command {
    let Some(core) = core else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

fn name_of(file: &Path) -> String {
    file.file_name().unwrap().to_str().unwrap().to_owned()
}

fn knows_digests(port: u16, name: &str) -> bool {
    let asked = TcpStream::connect(("127.0.0.1", port)).and_then(|mut socket| {
        let request = format!("HEAD /{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        socket.write_all(request.as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    });
    asked.is_ok_and(|answer| answer.to_lowercase().contains("\nrepr-digest:"))
}
