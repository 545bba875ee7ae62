//! A client with its page, and a browser that looks at it.

use std::path::{Path, PathBuf};

use shoal_tests::{Chromium, Service, Trackers, free_port, until};

/// Keys as WebDriver writes them.
pub(crate) const TAB: &str = "\u{e004}";
pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const ESCAPE: &str = "\u{e00c}";

/// What has the focus: its name for a screen reader, and whether its focus can be seen.
const FOCUS: &str = r"
    const element = document.activeElement;
    const style = getComputedStyle(element);
    return [element.getAttribute('aria-label') ?? element.labels?.[0]?.textContent ?? element.innerText.split('\n')[0],
        element === document.body || style.outlineStyle !== 'none'];";

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

    /// The page's port.
    pub(crate) fn port(&self) -> u16 {
        self.ports.1
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

    /// Presses Tab until something of that name has the focus, which must be seen on the way.
    pub(crate) fn tab_to(&self, name: &str) {
        let mut passed = Vec::new();
        for _ in 0..40 {
            self.browser.press(TAB);
            let focus = self.browser.run(FOCUS, vec![]);
            assert_eq!(focus[1], true, "the focus on {focus} cannot be seen");
            if focus[0] == name {
                return;
            }
            passed.push(focus[0].clone());
        }
        panic!("no {name} behind {passed:?}");
    }

    /// What a script or the page's policy complained of, but for requests that failed while the client was away.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.browser.log();
        log.into_iter()
            .filter(|line| !line.contains("net::ERR_") && !line.contains("Failed to load resource"))
            .collect()
    }
}
