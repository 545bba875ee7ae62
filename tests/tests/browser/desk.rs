//! A client with its page, and a browser that looks at it.

use std::path::{Path, PathBuf};

use shoal_tests::{Chromium, Service, Trackers, free_port, until};

/// A person at a machine: a client in the background and a browser.
pub(crate) struct Desk {
    /// The client.
    pub(crate) client: Service,
    /// The browser.
    pub(crate) browser: Chromium,
    /// Where the page is.
    pub(crate) address: String,
    dir: PathBuf,
    name: String,
    info: PathBuf,
    ports: (u16, u16),
}

impl Desk {
    /// Starts both; the browser has not been to the page yet.
    pub(crate) fn new(dir: &Path, name: &str, trackers: &Trackers) -> Self {
        let (own, web) = (free_port(), free_port());
        let address = format!("127.0.0.1:{web}");
        let info = trackers.info();
        let client = Service::start_at(dir, name, &info, own, &["--web", &address]);
        let browser = Chromium::start(1280, 800);
        Self { client, browser, address, dir: dir.to_owned(), name: name.to_owned(), info, ports: (own, web) }
    }

    /// A link as `shoal web` shows it.
    pub(crate) fn link(&self) -> String {
        let shown = self.client.run(&["web"], "");
        assert_eq!(shown.code, Some(0), "{shown:?}");
        shown.stdout.trim().to_owned()
    }

    /// Follows such a link.
    pub(crate) fn visit(&self) {
        self.browser.open(&self.link());
    }

    /// Makes an account and logs in by the socket, then follows a link.
    pub(crate) fn enter(&self) {
        self.client.enter(&self.name);
        self.visit();
        self.browser.until(".who", &self.name);
    }

    /// Goes to a view.
    pub(crate) fn go(&self, view: &str) {
        self.browser.run("location.hash = arguments[0]", vec![format!("#/{view}").into()]);
    }

    /// Kills the client; the page stays open.
    pub(crate) fn kill(&mut self) {
        self.client.kill();
    }

    /// Starts it again at the same ports.
    pub(crate) fn restart(&mut self) {
        let web = format!("127.0.0.1:{}", self.ports.1);
        self.client = Service::start_at(&self.dir, &self.name, &self.info, self.ports.0, &["--web", &web]);
        until("it serves the page again", || std::net::TcpStream::connect(&web).is_ok());
    }

    /// What a script or the page's policy complained of, but for requests that failed while the client was away.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.browser.log();
        log.into_iter()
            .filter(|line| !line.contains("net::ERR_") && !line.contains("Failed to load resource"))
            .collect()
    }
}
