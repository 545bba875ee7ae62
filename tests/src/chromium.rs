//! A real browser without a window, driven as a person drives it: Debian's chromium, by WebDriver.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{ClientBuilder, Locator};
use hyper::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use rustix::process::{Pid, Signal};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use url::Url;

use crate::{skip, until};

/// How long a browser may take to leave when it is asked to.
const LEAVE: Duration = Duration::from_secs(5);
/// What it is started with: nothing that speaks to others, nothing that asks.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// Whether there is a browser to test with; else the test is skipped, and noted.
#[must_use]
pub fn chromium_or_skip(test: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = |program: &str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let there = installed("chromium") && installed("chromedriver");
    if !there {
        skip(test, "needs a browser: apt-get install chromium chromium-driver");
    }
    there
}

/// A browser with a fresh profile. It ends with the value.
pub struct Chromium {
    runtime: Runtime,
    client: Option<fantoccini::Client>,
    driver: Child,
    _profile: tempfile::TempDir,
}

/// A command that WebDriver's standard does not have, below `session/ID/`.
#[derive(Debug)]
struct Extension {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Extension {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

impl Chromium {
    /// Starts one whose page is that large.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(width: u32, height: u32) -> Self {
        // A runtime of its own: tests are plain functions.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let profile = tempfile::tempdir().unwrap();
        let (driver, port) = start_driver(profile.path());
        let mut arguments: Vec<String> = FLAGS.map(str::to_owned).into();
        arguments.push(format!("--user-data-dir={}", profile.path().join("profile").display()));
        arguments.push(format!("--window-size={width},{height}"));
        let mut capabilities = Map::new();
        capabilities.insert("goog:chromeOptions".to_owned(), json!({ "args": arguments }));
        capabilities.insert("goog:loggingPrefs".to_owned(), json!({ "browser": "ALL" }));
        let connected = runtime.block_on(
            ClientBuilder::new(HttpConnector::new())
                .capabilities(capabilities)
                .connect(&format!("http://127.0.0.1:{port}")),
        );
        let browser = Self { runtime, client: Some(connected.unwrap()), driver, _profile: profile };
        browser.resize(width, height);
        browser
    }

    fn client(&self) -> &fantoccini::Client {
        self.client.as_ref().unwrap()
    }

    /// Makes its page that large; a window cannot be as narrow as a telephone.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.tools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Lets its user prefer a colour scheme and, perhaps, no motion.
    pub fn prefer(&self, scheme: &str, motion: &str) {
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": motion },
        ]);
        self.tools("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// A command of the developer tools' protocol.
    pub fn tools(&self, command: &str, parameters: &Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.extension("goog/cdp/execute", body)
    }

    fn extension(&self, path: &'static str, body: Value) -> Value {
        self.runtime.block_on(self.client().issue_cmd(Extension { path, body })).unwrap()
    }

    /// Goes to an address.
    pub fn open(&self, url: &str) {
        self.runtime.block_on(self.client().goto(url)).unwrap();
    }

    /// Runs a script, the body of a function; gives what it returns.
    pub fn run(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.runtime
            .block_on(self.client().execute(script, arguments))
            .unwrap_or_else(|error| panic!("{error}: {script}"))
    }

    /// Runs a script that hands its result to a function, its last argument.
    pub fn run_later(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.runtime
            .block_on(self.client().execute_async(script, arguments))
            .unwrap_or_else(|error| panic!("{error}: {script}"))
    }

    /// The text of the page, as it is seen.
    #[must_use]
    pub fn text(&self) -> String {
        self.text_of("body")
    }

    /// The text of the first element that a selector finds, as it is seen; nothing if there is none.
    #[must_use]
    pub fn text_of(&self, css: &str) -> String {
        let found =
            self.run("return document.querySelector(arguments[0])?.innerText ?? ''", vec![css.into()]);
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an element has those words.
    ///
    /// # Panics
    /// When they do not come.
    pub fn until(&self, css: &str, words: &str) {
        let mut seen = String::new();
        let found = crate::eventually(|| {
            seen = self.text_of(css);
            seen.contains(words).then_some(())
        });
        assert!(found.is_some(), "no {words:?} in {css}: {seen}\nlog: {:?}", self.log());
    }

    /// Waits until a script's expression is true.
    pub fn until_true(&self, expression: &str) {
        until(expression, || self.run(&format!("return !!({expression})"), vec![]) == true);
    }

    /// Clicks on the first button or link with that name.
    ///
    /// # Panics
    /// When there is none that can be clicked.
    pub fn click(&self, name: &str) {
        let path = format!(
            "//button[normalize-space()={0} or @aria-label={0}] | //a[normalize-space()={0} or @aria-label={0}]",
            quoted(name)
        );
        self.click_at(Locator::XPath(&path), name);
    }

    /// Clicks on the first element that a selector finds.
    ///
    /// # Panics
    /// When there is none that can be clicked.
    pub fn click_on(&self, css: &str) {
        self.click_at(Locator::Css(css), css);
    }

    fn click_at(&self, locator: Locator<'_>, name: &str) {
        let mut last = String::new();
        let clicked = crate::eventually(|| {
            let click = async { self.client().find(locator).await?.click().await };
            self.runtime.block_on(click).map_err(|error| last = error.to_string()).ok()
        });
        assert!(clicked.is_some(), "cannot click {name:?}: {last}\n{}", self.text());
    }

    /// Types into the first element that a selector finds.
    ///
    /// # Panics
    /// When there is none that takes it.
    pub fn type_into(&self, css: &str, text: &str) {
        let mut last = String::new();
        let typed = crate::eventually(|| {
            let typing = async {
                let element = self.client().find(Locator::Css(css)).await?;
                element.send_keys(text).await
            };
            self.runtime.block_on(typing).map_err(|error| last = error.to_string()).ok()
        });
        assert!(typed.is_some(), "cannot type into {css}: {last}\n{}", self.text());
    }

    /// Presses keys, wherever the focus is. Special ones are WebDriver's characters.
    ///
    /// # Panics
    /// When nothing has the focus.
    pub fn press(&self, keys: &str) {
        let typing = async { self.client().active_element().await?.send_keys(keys).await };
        self.runtime.block_on(typing).unwrap();
    }

    /// Takes a picture of what is seen.
    pub fn picture(&self, path: &Path) {
        let png = self.runtime.block_on(self.client().screenshot()).unwrap();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, png).unwrap();
    }

    /// What the page complained of since the last call: errors of scripts, and what its policy forbade.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        let entries = self.extension("se/log", json!({ "type": "browser" }));
        let text = |entry: &Value| format!("{} {}", entry["level"], entry["message"]);
        entries.as_array().into_iter().flatten().map(text).collect()
    }

    /// The processes of the browser and its driver.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        family(self.driver.id())
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let processes = self.processes();
        if let Some(client) = self.client.take() {
            // Asked kindly first, so that it writes no half a profile.
            let _ = self.runtime.block_on(async { tokio::time::timeout(LEAVE, client.close()).await });
        }
        if let Some(group) = Pid::from_raw(self.driver.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        let _ = self.driver.wait();
        for pid in processes.into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Starts a driver at a port that it chooses, which dies with this thread.
fn start_driver(home: &Path) -> (Child, u16) {
    let mut driver = Command::new("setpriv");
    driver.args(["--pdeathsig", "KILL", "chromedriver", "--port=0"]).process_group(0);
    // Nothing of the tester's own settings, and nothing left in their home.
    driver.env("HOME", home).env("XDG_CONFIG_HOME", home).env("XDG_CACHE_HOME", home);
    for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        driver.env_remove(proxy);
    }
    let mut child = driver.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let port = lines.find_map(|line| {
        line.split_once("started successfully on port ")?.1.trim_end_matches('.').parse().ok()
    });
    // What it says later is read and dropped, so that it does not wait for a reader.
    std::thread::spawn(move || lines.for_each(drop));
    (child, port.unwrap_or_else(|| panic!("chromedriver does not say its port")))
}

/// A process and all that it started, as far as they run.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(parent) = all.get(at) {
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        all.extend(
            children.unwrap_or_default().split_whitespace().filter_map(|child| child.parse::<u32>().ok()),
        );
        at += 1;
    }
    all
}

/// A text as XPath writes it.
fn quoted(text: &str) -> String {
    if text.contains('\'') { format!("\"{text}\"") } else { format!("'{text}'") }
}
