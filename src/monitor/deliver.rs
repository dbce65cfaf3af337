//! Telling people: a webhook, and mail.
//!
//! The mail goes to a relay of the user's own (a mail server on this machine or in this network, port 25 or 587) in plain
//! SMTP, by a client of a few lines: without a network outside there is no other server to reach, and a mail library would
//! bring eight crates and a second version of a parser that is here already. A server that demands TLS or a password is
//! reached through such a relay. The webhook goes by the HTTP client that is here anyway.
//! Invariants: nothing here waits longer than [`WITHIN`]; names and messages cannot add headers, lines of protocol or
//! members of JSON; what could not be told is kept (the newest [`WAITING_MAX`]) and tried again, ever more rarely.
//! Callers: daemon, http.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::alerts::Notice;
use super::store::moment;

/// How long a server may take for anything.
const WITHIN: Duration = Duration::from_secs(10);

/// Notices that wait for a server to come back, per channel.
const WAITING_MAX: usize = 50;

/// Pause after a failure: first and longest.
const PAUSE_MS: (u64, u64) = (30_000, 600_000);

/// Longest line of an SMTP server.
const REPLY_MAX: u64 = 4_096;

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

/// How mail goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// host:port.
    pub server: String,
    /// Sender.
    pub from: String,
    /// Receivers.
    pub to: Vec<String>,
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

    fn headline(&self, node: &str) -> String {
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
            ("mail", _, Some(mail)) => send(mail, &self.node, letter),
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

fn send(mail: &Mail, node: &str, letter: &Letter) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("the mail server {} did not take it: {error}", mail.server);
    let addresses = mail.server.to_socket_addrs().map_err(failed)?;
    let mut last = std::io::Error::other("its name leads nowhere");
    for address in addresses {
        match TcpStream::connect_timeout(&address, WITHIN) {
            Ok(stream) => return converse(stream, mail, node, letter).map_err(failed),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

/// RFC 5321, as far as one message needs it.
fn converse(stream: TcpStream, mail: &Mail, node: &str, letter: &Letter) -> std::io::Result<()> {
    stream.set_read_timeout(Some(WITHIN))?;
    stream.set_write_timeout(Some(WITHIN))?;
    let mut out = stream.try_clone()?;
    let mut replies = BufReader::new(stream);
    expect(&mut replies, 220)?;
    let mut say = |line: &str, code: u16| -> std::io::Result<()> {
        out.write_all(line.as_bytes())?;
        out.write_all(b"\r\n")?;
        expect(&mut replies, code)
    };
    say("EHLO litemesh", 250)?;
    say(&format!("MAIL FROM:<{}>", bare(&mail.from)), 250)?;
    for receiver in &mail.to {
        say(&format!("RCPT TO:<{}>", bare(receiver)), 250)?;
    }
    say("DATA", 354)?;
    say(&format!("{}\r\n.", message(mail, node, letter)), 250)?;
    // It is taken: how the server says goodbye is its own business.
    let _ = say("QUIT", 221);
    Ok(())
}

/// Reads a reply of one or several lines.
fn expect(replies: &mut BufReader<TcpStream>, code: u16) -> std::io::Result<()> {
    loop {
        let mut line = Vec::new();
        std::io::Read::take(&mut *replies, REPLY_MAX).read_until(b'\n', &mut line)?;
        let text = String::from_utf8_lossy(&line);
        let said = text.get(..3).and_then(|code| code.parse::<u16>().ok());
        // 251: taken, and forwarded.
        let fits = said == Some(code) || (code == 250 && said == Some(251));
        match text.as_bytes().get(3) {
            _ if !fits => return Err(std::io::Error::other(format!("it said: {}", text.trim()))),
            Some(b'-') => {}
            _ => return Ok(()),
        }
    }
}

/// An address without anything that could end its line or its brackets.
fn bare(address: &str) -> String {
    address.chars().filter(|c| !c.is_control() && !"<> ".contains(*c)).collect()
}

/// Headers and text, lines with a dot in front doubled.
fn message(mail: &Mail, node: &str, letter: &Letter) -> String {
    let subject = data_encoding::BASE64.encode(letter.headline(node).chars().take(120).collect::<String>().as_bytes());
    let id = blake3::hash(format!("{node} {} {} {}", letter.key, letter.state, letter.time).as_bytes()).to_hex();
    let since = Duration::from_millis(super::recorder::now_ms());
    let headers = format!(
        "From: <{}>\r\nTo: {}\r\nSubject: =?UTF-8?B?{subject}?=\r\nDate: {}\r\nMessage-ID: <{}@litemesh>\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\
         Auto-Submitted: auto-generated\r\n",
        bare(&mail.from),
        mail.to.iter().map(|to| format!("<{}>", bare(to))).collect::<Vec<_>>().join(", "),
        mail_date(since.as_secs()),
        &id[..32],
    );
    let text = format!(
        "{}\n\n{}\n\nWhat to do: {}\nServer: {node}\nSince: {} UTC\nKey: {}\n",
        letter.headline(node),
        letter.message,
        letter.next,
        letter.time,
        letter.key
    );
    let body = data_encoding::BASE64.encode(text.as_bytes());
    let lines: Vec<&str> = body.as_bytes().chunks(76).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    // Base64 has no dots: no line can end the message early.
    format!("{headers}\r\n{}", lines.join("\r\n"))
}

/// RFC 5322's form of a time.
fn mail_date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = moment(seconds * 1000);
    let month = text.get(5..7).and_then(|month| month.parse::<usize>().ok()).unwrap_or(1);
    format!(
        "{}, {} {} {} {} +0000",
        DAYS[(seconds / 86_400 % 7) as usize],
        text.get(8..10).unwrap_or("01"),
        MONTHS[month.clamp(1, 12) - 1],
        text.get(..4).unwrap_or("1970"),
        text.get(11..19).unwrap_or("00:00:00"),
    )
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
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    fn letter() -> Letter {
        Letter { message: "the disk\r\n.\r\nRCPT TO:<evil@x> is full: Zwölf".into(), ..Letter::test(0) }
    }

    /// Takes one mail and gives back what was said.
    fn mail_server(refuse: bool) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut out = stream.try_clone().unwrap();
            let mut lines = BufReader::new(stream).lines();
            out.write_all(b"220-hello\r\n220 there\r\n").unwrap();
            let (mut said, mut data) = (Vec::new(), false);
            while let Some(Ok(line)) = lines.next() {
                said.push(line.clone());
                let reply: &[u8] = match (data, line.as_str()) {
                    (true, ".") => {
                        data = false;
                        b"250 taken\r\n"
                    }
                    (true, _) => continue,
                    (_, "DATA") => {
                        data = true;
                        b"354 go on\r\n"
                    }
                    (_, "QUIT") => b"221 bye\r\n",
                    (_, line) if refuse && line.starts_with("RCPT") => b"550 no such user\r\n",
                    _ => b"250-one\r\n250 two\r\n",
                };
                out.write_all(reply).unwrap();
            }
            said
        });
        (address, thread)
    }

    #[test]
    fn a_mail_arrives_whole_and_nothing_in_it_can_forge_protocol() {
        let (server, thread) = mail_server(false);
        let to = vec!["a@b.example".to_string(), "c@d.example>\r\nDATA".to_string()];
        let mail = Mail { server, from: "litemesh@pit.example".into(), to };
        let channels = Channels { mail: Some(mail), node: "pit\r\nBcc: evil@x".into(), ..Channels::default() };
        channels.tell("mail", &letter()).unwrap();
        let said = thread.join().unwrap();
        assert_eq!(
            said[..4],
            ["EHLO litemesh", "MAIL FROM:<litemesh@pit.example>", "RCPT TO:<a@b.example>", "RCPT TO:<c@d.exampleDATA>"]
        );
        assert_eq!(
            said.iter().filter(|line| line.starts_with("RCPT") || line.starts_with("Bcc")).count(),
            2,
            "{said:?}"
        );
        let body: String =
            said.iter().skip_while(|line| !line.is_empty()).take_while(|line| *line != ".").cloned().collect();
        let text = String::from_utf8(data_encoding::BASE64.decode(body.as_bytes()).unwrap()).unwrap();
        assert!(text.contains("is full: Zwölf"), "{text}");
        assert_eq!(said.last().map(String::as_str), Some("QUIT"));
    }

    #[test]
    fn what_a_server_does_not_take_is_tried_again_later() {
        let (server, thread) = mail_server(true);
        let mail = Mail { server, from: "a@b".into(), to: vec!["c@d".into()] };
        let channels = Channels { mail: Some(mail), node: "pit".into(), ..Channels::default() };
        let mut outgoing = Outgoing::new("mail");
        outgoing.add(letter());
        outgoing.deliver(&channels, 1_000);
        assert_eq!(outgoing.len(), 1);
        assert!(thread.join().unwrap().len() >= 3);
        assert!(outgoing.said.contains("550 no such user"), "{}", outgoing.said);
        // Nobody is asked before the pause is over.
        outgoing.deliver(&channels, 1_000 + PAUSE_MS.0 - 1);
        let (server, thread) = mail_server(false);
        let mail = Mail { server, from: "a@b".into(), to: vec!["c@d".into()] };
        let channels = Channels { mail: Some(mail), ..channels };
        outgoing.deliver(&channels, 1_000 + PAUSE_MS.0);
        assert!(outgoing.is_empty());
        thread.join().unwrap();
        for number in 0..60 {
            outgoing.add(Letter { key: number.to_string(), ..letter() });
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
        let mail = Mail { server: gone.clone(), from: "a@b".into(), to: vec!["c@d".into()] };
        let channels = Channels { mail: Some(mail), webhook: Some(format!("http://{gone}/")), node: "pit".into() };
        let told = channels.test(0);
        assert!(told.iter().all(|one| !one.ok) && told[1].detail.contains(&gone), "{told:?}");
    }

    #[test]
    fn dates_read_as_mail_writes_them() {
        assert_eq!(mail_date(0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(mail_date(1_741_251_600), "Thu, 06 Mar 2025 09:00:00 +0000");
    }
}
