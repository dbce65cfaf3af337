//! Telling people: a webhook, and mail.
//!
//! Both go by clients that share one TLS; what mail is stands in [`super::mail`]. Invariants: nothing here waits longer than
//! [`WITHIN`]; names and messages cannot add headers, lines of protocol or members of JSON; what could not be told is kept
//! (the newest [`WAITING_MAX`]) and tried again, ever more rarely. Callers: daemon, http.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::alerts::Notice;
use super::mail::Mail;
use super::store::moment;

/// How long a server may take for anything.
pub(super) const WITHIN: Duration = Duration::from_secs(10);

/// Notices that wait for a server to come back, per channel.
const WAITING_MAX: usize = 50;

/// Pause after a failure: first and longest.
const PAUSE_MS: (u64, u64) = (30_000, 600_000);

/// Where notices go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Channels {
    /// URL that gets a POST.
    pub webhook: Option<String>,
    /// Mail.
    pub mail: Option<Mail>,
    /// Name of this server, for people.
    pub node: String,
}

/// A notice as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// `raised`, `recovered` or `test`.
    pub state: &'static str,
    /// `warning` or `critical`.
    pub severity: &'static str,
    /// The same for the same trouble.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub next: String,
    /// When, UTC.
    pub time: String,
}

/// What became of a test.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// `webhook` or `mail`.
    pub channel: String,
    /// Whether it was taken.
    pub ok: bool,
    /// Why not; empty when it was.
    pub detail: String,
}

impl Letter {
    /// A notice in words.
    pub fn of(notice: &Notice) -> Letter {
        Letter {
            state: if notice.recovered { "recovered" } else { "raised" },
            severity: notice.condition.severity.word(),
            key: notice.condition.key.clone(),
            message: notice.condition.message.clone(),
            next: notice.condition.next.clone(),
            time: moment(notice.at_ms),
        }
    }

    /// A letter that only shows that letters arrive.
    pub fn test(now_ms: u64) -> Letter {
        Letter {
            state: "test",
            severity: "warning",
            key: "test".into(),
            message: "this is a test: alerts of this server arrive here".into(),
            next: "nothing is to be done".into(),
            time: moment(now_ms),
        }
    }

    pub(super) fn headline(&self, node: &str) -> String {
        match self.state {
            "recovered" => format!("[litemesh {node}] over: {}", self.message),
            "test" => format!("[litemesh {node}] test"),
            _ => format!("[litemesh {node}] {}: {}", self.severity, self.message),
        }
    }
}

impl Channels {
    /// Their names.
    pub fn names(&self) -> Vec<&'static str> {
        let both = [self.webhook.as_ref().map(|_| "webhook"), self.mail.as_ref().map(|_| "mail")];
        both.into_iter().flatten().collect()
    }

    /// Tells one letter by one channel. The words say what went wrong; a retry may help.
    pub fn tell(&self, channel: &str, letter: &Letter) -> Result<(), String> {
        match (channel, &self.webhook, &self.mail) {
            ("webhook", Some(url), _) => post(url, &self.node, letter),
            ("mail", _, Some(mail)) => mail.send(&self.node, letter),
            _ => Ok(()),
        }
    }

    /// Tells a test by every channel.
    pub fn test(&self, now_ms: u64) -> Vec<Delivery> {
        let letter = Letter::test(now_ms);
        let told = |channel: &str| {
            let told = self.tell(channel, &letter);
            Delivery { channel: channel.into(), ok: told.is_ok(), detail: told.err().unwrap_or_default() }
        };
        self.names().into_iter().map(told).collect()
    }
}

/// Members that chat services show (`text`, `content`) beside those for programs.
fn document(node: &str, letter: &Letter) -> Value {
    let text = format!("{}\n{}", letter.headline(node), letter.next);
    json!({
        "node": node,
        "state": letter.state,
        "severity": letter.severity,
        "key": letter.key,
        "message": letter.message,
        "next_step": letter.next,
        "time": letter.time,
        "text": text,
        "content": text,
    })
}

fn post(url: &str, node: &str, letter: &Letter) -> Result<(), String> {
    let config = ureq::Agent::config_builder().timeout_global(Some(WITHIN)).max_redirects(0).build();
    let sent = ureq::Agent::from(config).post(url).send_json(document(node, letter));
    sent.map(drop).map_err(|error| format!("the webhook did not take it: {error}"))
}

/// Letters on their way by one channel.
#[derive(Debug)]
pub struct Outgoing {
    channel: &'static str,
    waiting: VecDeque<Letter>,
    pause_ms: u64,
    until_ms: u64,
    said: String,
}

impl Outgoing {
    /// Nothing is on its way.
    pub fn new(channel: &'static str) -> Outgoing {
        Outgoing { channel, waiting: VecDeque::new(), pause_ms: 0, until_ms: 0, said: String::new() }
    }

    /// Adds a letter; the oldest goes when there are too many.
    pub fn add(&mut self, letter: Letter) {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(letter);
    }

    /// Tells what waits, in order, until one fails. Takes up to [`WITHIN`] per letter: not for threads that must go on.
    pub fn deliver(&mut self, channels: &Channels, now_ms: u64) {
        while let Some(letter) = self.waiting.front().filter(|_| now_ms >= self.until_ms) {
            match channels.tell(self.channel, letter) {
                Ok(()) => {
                    self.waiting.pop_front();
                    (self.pause_ms, self.until_ms) = (0, 0);
                    self.said.clear();
                }
                Err(error) => {
                    self.pause_ms = (self.pause_ms * 2).clamp(PAUSE_MS.0, PAUSE_MS.1);
                    self.until_ms = now_ms + self.pause_ms;
                    if error != self.said {
                        tracing::warn!("{error} (trying again)");
                        self.said = error;
                    }
                }
            }
        }
    }

    /// Why the last letter did not go; empty when it did.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::mail::Secured;
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn the_oldest_letter_goes_when_too_many_wait() {
        let mut outgoing = Outgoing::new("mail");
        for number in 0..60 {
            outgoing.add(Letter { key: number.to_string(), ..Letter::test(0) });
        }
        assert_eq!((outgoing.len(), outgoing.waiting[0].key.as_str()), (WAITING_MAX, "10"));
    }

    #[test]
    fn a_webhook_gets_json() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = String::new();
            let mut buffer = [0; 4096];
            while !text.contains("\"time\"") {
                let read = stream.read(&mut buffer).unwrap();
                assert!(read > 0, "{text}");
                text.push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
            stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").unwrap();
            text
        });
        let channels = Channels { webhook: Some(url), node: "pit".into(), ..Channels::default() };
        assert_eq!(channels.test(0), [Delivery { channel: "webhook".into(), ok: true, detail: String::new() }]);
        let request = thread.join().unwrap();
        assert!(request.starts_with("POST /hook HTTP/1.1\r\n"), "{request}");
        let body = request.split_once("\r\n\r\n").unwrap().1;
        let document: Value = serde_json::from_str(body).unwrap();
        assert_eq!((&document["state"], &document["node"]), (&"test".into(), &"pit".into()));
    }

    #[test]
    fn a_server_that_is_not_there_is_an_error_with_its_name() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (host, port) = gone.split_once(':').map(|(host, port)| (host.to_string(), port.parse().unwrap())).unwrap();
        let (from, to) = ("a@b.example".into(), vec!["c@d.example".into()]);
        let mail = Mail { host, port, secured: Secured::Plain, login: None, trusted: None, from, to };
        let channels = Channels { mail: Some(mail), webhook: Some(format!("http://{gone}/")), node: "pit".into() };
        let told = channels.test(0);
        assert!(told.iter().all(|one| !one.ok) && told[1].detail.contains(&gone), "{told:?}");
    }
}
