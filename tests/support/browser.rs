//! A real browser without a window, driven by its driver's HTTP protocol (WebDriver).
//!
//! Invariant: driver and browser are ended here by the driver's own id, with a profile that lies in a temporary folder;
//! a wait asks for what can be seen on the page, with a deadline. Caller: `tests/dashboard.rs`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

use super::support::until;

/// Nothing that talks to anybody but the page.
const ARGUMENTS: &[&str] = &[
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
];

/// Where browsers and their drivers lie.
const BROWSERS: &[&str] = &["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const DRIVERS: &[&str] = &["/usr/bin/chromedriver", "/usr/lib/chromium-browser/chromedriver"];

/// Looks at every text in sight: its colour over the colours behind it. A canvas knows what every way to write a colour is.
const FAINT: &str = r#"
    const canvas = document.createElement('canvas'); canvas.width = canvas.height = 1;
    const pen = canvas.getContext('2d', { willReadFrequently: true });
    const known = new Map();
    const rgba = (color) => {
      if (!known.has(color)) {
        pen.clearRect(0, 0, 1, 1); pen.fillStyle = color; pen.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data; known.set(color, [r, g, b, a / 255]);
      }
      return known.get(color);
    };
    const over = (top, ground) => [0, 1, 2].map((at) => top[at] * top[3] + ground[at] * (1 - top[3]));
    const light = (color) => color.slice(0, 3).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
      .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
    const behind = (one) => {
      if (!one) return [255, 255, 255];
      const own = rgba(getComputedStyle(one).backgroundColor);
      return own[3] >= 1 ? own : over(own, behind(one.parentElement));
    };
    const found = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const one = texts.currentNode.parentElement;
      const words = texts.currentNode.textContent.trim();
      if (!words || one.closest('svg, option, noscript, .toast, :disabled') || !one.checkVisibility({ opacityProperty: true })) continue;
      const style = getComputedStyle(one);
      let faded = 1;
      for (let up = one; up; up = up.parentElement) faded *= Number(getComputedStyle(up).opacity);
      const ground = behind(one); const ink = rgba(style.color);
      const [a, b] = [light(over([...ink.slice(0, 3), ink[3] * faded], ground)), light(ground)];
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      if (ratio < (large ? 3 : 4.5)) found.push(`${words.slice(0, 40)}: ${ratio.toFixed(2)}`);
    }
    return found.slice(0, 5);
"#;

pub(crate) struct Browser {
    agent: Agent,
    session: String,
    driver: Child,
    _profile: TempDir,
}

fn first(paths: &[&'static str]) -> Option<&'static str> {
    paths.iter().find(|path| Path::new(path).exists()).copied()
}

impl Browser {
    /// None where there is no browser or no driver.
    pub(crate) fn start() -> Option<Browser> {
        let (browser, driver) = (first(BROWSERS)?, first(DRIVERS)?);
        let mut driver =
            Command::new(driver).arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let said = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = said.map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.expect("the driver says its port");
        let config = Agent::config_builder().http_status_as_error(false).proxy(None);
        let agent: Agent = config.timeout_global(Some(Duration::from_secs(60))).build().into();
        let profile = TempDir::new().unwrap();
        let mut arguments: Vec<String> = ARGUMENTS.iter().map(|argument| (*argument).to_owned()).collect();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "binary": browser, "args": arguments },
        } } });
        let base = format!("http://127.0.0.1:{port}/session");
        let mut one = Browser { agent, session: base.clone(), driver, _profile: profile };
        let made = one.ask("", Some(&wanted)).unwrap();
        one.session = format!("{base}/{}", made["sessionId"].as_str().expect("a session has an id"));
        Some(one)
    }

    fn ask(&self, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let url = format!("{}{path}", self.session);
        let answer = match body {
            Some(body) => self.agent.post(url).send_json(body),
            None => self.agent.get(url).call(),
        };
        let mut answer = answer.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body: Value =
            answer.body_mut().with_config().limit(64 << 20).read_json().map_err(|error| error.to_string())?;
        if status.is_success() { Ok(body["value"].clone()) } else { Err(body["value"]["message"].to_string()) }
    }

    #[track_caller]
    fn done(&self, path: &str, body: &Value) -> Value {
        self.ask(path, Some(body)).unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    #[track_caller]
    pub(crate) fn go(&self, url: &str) {
        self.done("/url", &json!({ "url": url }));
    }

    /// Runs a function body in the page.
    #[track_caller]
    pub(crate) fn script(&self, text: &str, arguments: &[Value]) -> Value {
        self.done("/execute/sync", &json!({ "script": text, "args": arguments }))
    }

    /// Imports one of the page's modules and gives what an expression on it (`m`) and the arguments (`a`) is.
    #[track_caller]
    pub(crate) fn module(&self, path: &str, expression: &str, arguments: &[Value]) -> Value {
        let script = format!(
            "const [a, done] = [arguments[0], arguments[arguments.length - 1]]; \
             import('{path}').then(async (m) => done({expression})).catch((error) => done('failed: ' + error));"
        );
        self.done("/execute/async", &json!({ "script": script, "args": [arguments] }))
    }

    fn command(&self, name: &str, parameters: &Value) -> Value {
        self.done("/goog/cdp/execute", &json!({ "cmd": name, "params": parameters }))
    }

    fn element(&self, selector: &str) -> Result<String, String> {
        let found = self.ask("/element", Some(&json!({ "using": "css selector", "value": selector })))?;
        let id = found.as_object().and_then(|one| one.values().next()).and_then(Value::as_str);
        id.map(str::to_owned).ok_or_else(|| format!("no {selector}"))
    }

    /// Waits for what a selector names and clicks it, as a person would: it has to be in sight.
    #[track_caller]
    pub(crate) fn click(&self, selector: &str) {
        until(&format!("a click on {selector}"), 20, || {
            let element = self.element(selector)?;
            self.ask(&format!("/element/{element}/click"), Some(&json!({}))).map(drop)
        });
    }

    /// Types into what a selector names.
    #[track_caller]
    pub(crate) fn type_into(&self, selector: &str, text: &str) {
        until(&format!("typing into {selector}"), 20, || {
            let element = self.element(selector)?;
            self.ask(&format!("/element/{element}/clear"), Some(&json!({})))?;
            self.ask(&format!("/element/{element}/value"), Some(&json!({ "text": text }))).map(drop)
        });
    }

    /// Gives a field for files one.
    #[track_caller]
    pub(crate) fn attach(&self, selector: &str, file: &Path) {
        let element = self.element(selector).unwrap();
        self.done(&format!("/element/{element}/value"), &json!({ "text": file.to_str().unwrap() }));
    }

    /// Chooses an entry of a list by its words, as soon as it is there.
    #[track_caller]
    pub(crate) fn choose(&self, selector: &str, words: &str) {
        let script = "const list = document.querySelector(arguments[0]); \
                      const found = [...(list?.options ?? [])].find((one) => one.textContent === arguments[1]); \
                      if (!found) return false; list.value = found.value; \
                      list.dispatchEvent(new Event('change', { bubbles: true })); return true";
        until(&format!("{selector} offers {words:?}"), 20, || {
            if self.script(script, &[json!(selector), json!(words)]) == true {
                Ok(())
            } else {
                Err("not yet".to_owned())
            }
        });
    }

    /// Whether what a selector names can be seen.
    pub(crate) fn is_in_sight(&self, selector: &str) -> bool {
        let script = "return document.querySelector(arguments[0])?.checkVisibility() ?? false";
        self.script(script, &[json!(selector)]) == true
    }

    /// Files that the page hands over are kept here.
    pub(crate) fn downloads_to(&self, folder: &Path) {
        self.command("Browser.setDownloadBehavior", &json!({ "behavior": "allow", "downloadPath": folder }));
    }

    /// What the browser's owner prefers.
    pub(crate) fn prefer(&self, feature: &str, value: &str) {
        self.command("Emulation.setEmulatedMedia", &json!({ "features": [{ "name": feature, "value": value }] }));
    }

    /// Words that stand out too little from what is behind them (WCAG AA: 4.5, large ones 3), with their contrast.
    pub(crate) fn faint(&self) -> Vec<String> {
        let found = self.script(FAINT, &[]);
        found.as_array().cloned().unwrap_or_default().iter().map(Value::to_string).collect()
    }

    /// Presses keys wherever the keyboard is.
    pub(crate) fn press(&self, key: &str) {
        let actions = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.done("/actions", &json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] }));
    }

    /// The words that can be seen in what a selector names; empty when it is not there.
    pub(crate) fn text(&self, selector: &str) -> String {
        let words = "const found = document.querySelector(arguments[0]); return found ? found.innerText : ''";
        self.script(words, &[json!(selector)]).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until what a selector names shows these words.
    #[track_caller]
    pub(crate) fn shows(&self, selector: &str, words: &str) {
        until(&format!("{selector} shows {words:?}"), 20, || {
            let text = self.text(selector);
            if text.contains(words) { Ok(()) } else { Err(format!("it shows {text:?}")) }
        });
    }

    /// How many elements a selector names.
    pub(crate) fn count(&self, selector: &str) -> u64 {
        let script = "return document.querySelectorAll(arguments[0]).length";
        self.script(script, &[json!(selector)]).as_u64().unwrap_or_default()
    }

    /// What the page's scripts complained about since the last call: errors, refused loads, broken policies. A node at
    /// work may say "ask again" (503, 504): the page does.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.done("/se/log", &json!({ "type": "browser" }));
        let lines = log.as_array().cloned().unwrap_or_default();
        let bad = |line: &&Value| line["level"] == "SEVERE" || line["level"] == "WARNING";
        let again = |line: &String| line.contains("status of 503") || line.contains("status of 504");
        lines.iter().filter(bad).map(|line| line["message"].to_string()).filter(|line| !again(line)).collect()
    }

    /// Role and name of everything that a screen reader is told of.
    pub(crate) fn spoken(&self) -> Vec<(String, String)> {
        let tree = self.command("Accessibility.getFullAXTree", &json!({}));
        let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
        let text = |node: &Value, part: &str| node[part]["value"].as_str().unwrap_or_default().to_owned();
        nodes
            .iter()
            .filter(|node| node["ignored"] != true)
            .map(|node| (text(node, "role"), text(node, "name")))
            .collect()
    }

    /// The width of the window, and whether its owner likes it dark.
    pub(crate) fn dress(&self, width: u32, height: u32, dark: bool) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.command("Emulation.setDeviceMetricsOverride", &size);
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.command("Emulation.setEmulatedMedia", &media);
    }

    /// A picture of the whole page at its present width.
    pub(crate) fn picture(&self, width: u32, dark: bool, file: &Path) {
        self.dress(width, 700, dark);
        let height = self.script("return document.documentElement.scrollHeight", &[]).as_u64().unwrap_or(700);
        self.dress(width, (height as u32).clamp(700, 6000), dark);
        // Two frames: what follows the width has followed it.
        let frames = "const done = arguments[arguments.length - 1]; \
                      requestAnimationFrame(() => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))";
        self.done("/execute/async", &json!({ "script": frames, "args": [] }));
        let taken = self.command("Page.captureScreenshot", &json!({ "format": "png" }));
        let bytes = data_encoding::BASE64.decode(taken["data"].as_str().unwrap_or_default().as_bytes()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends its browser with the session.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
