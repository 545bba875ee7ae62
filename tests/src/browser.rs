//! What a page in a browser does, without a browser: it trades the code of `shoal web` for a token and asks with it.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::{Answered, PATIENCE, Service, until};

/// A client's port for browsers, and a token for it.
#[derive(Debug)]
pub struct Browser {
    port: u16,
    token: String,
}

impl Browser {
    /// Opens the client's link, as a person does.
    #[must_use]
    pub fn open(service: &Service, port: u16) -> Self {
        until("it listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        let shown = service.run(&["web"], "");
        let (_, code) = shown.stdout.trim().split_once("/#").unwrap_or_else(|| panic!("{shown:?}"));
        let body = json!({ "code": code }).to_string();
        let traded = ask_port(port, &request(port, "POST", "/api/1/token", "", &body));
        let token = traded.json()["token"].as_str().unwrap_or_else(|| panic!("{traded:?}")).to_owned();
        Self { port, token }
    }

    /// The token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The header that shows it.
    #[must_use]
    pub fn bearer(&self) -> String {
        format!("authorization: Bearer {}\r\n", self.token)
    }

    /// Looks at something.
    #[must_use]
    pub fn get(&self, path: &str) -> Answered {
        let port = self.port;
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{}\r\n", self.bearer());
        ask_port(port, request.as_bytes())
    }

    /// Asks for a change.
    #[must_use]
    pub fn send(&self, method: &str, path: &str, body: &Value) -> Answered {
        ask_port(self.port, &request(self.port, method, path, &self.bearer(), &body.to_string()))
    }

    /// Asks for a change that must be made.
    pub fn ok(&self, method: &str, path: &str, body: &Value) -> Value {
        let answered = self.send(method, path, body);
        assert_eq!(answered.status, 200, "{method} {path} {body}: {answered:?}");
        answered.json()
    }
}

fn request(port: u16, method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{headers}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Sends bytes to a port of this machine, and reads what comes back to its end.
#[must_use]
pub fn ask_port(port: u16, request: &[u8]) -> Answered {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // One that refuses may have closed already.
    let _ = stream.write_all(request);
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    Answered::parse(&all)
}
