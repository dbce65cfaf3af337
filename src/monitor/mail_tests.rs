//! Mail against servers of a few lines: plain, STARTTLS, TLS, passwords right and wrong, certificates known and unknown.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};

use super::*;
use crate::monitor::deliver::{Channels, Outgoing};

/// What a server takes.
#[derive(Clone, Copy, Default)]
struct Takes {
    /// Offers STARTTLS.
    start_tls: bool,
    /// Wants this from who logs in: user, password.
    login: Option<(&'static str, &'static str)>,
    /// Refuses every receiver.
    nobody: bool,
}

/// A server for one connection.
struct Sink {
    port: u16,
    /// Ends with the connection, and gives the lines that came; those inside TLS begin with `tls:`.
    thread: JoinHandle<Vec<String>>,
    /// Its certificate, PEM.
    certificate: String,
}

impl Sink {
    fn start(secured: Secured, takes: Takes) -> Sink {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_string(), "localhost".to_string()]).unwrap();
        let certificate = made.cert.pem();
        let key = PrivateKeyDer::Pkcs8(made.key_pair.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let mut said = Vec::new();
            let mut tcp = listener.accept().unwrap().0;
            if secured == Secured::Tls || converse(&mut tcp, &mut said, "", takes, true) {
                inside(&mut tcp, config, &mut said, takes, secured == Secured::Tls);
            }
            said
        });
        Sink { port, thread, certificate }
    }

    fn mail(&self, secured: Secured) -> Mail {
        Mail {
            host: "127.0.0.1".into(),
            port: self.port,
            secured,
            login: None,
            trusted: None,
            from: "litemesh@pit.example".into(),
            to: vec!["a@b.example".to_string(), "c@d.example".to_string()],
        }
    }

    fn said(self) -> Vec<String> {
        self.thread.join().unwrap()
    }
}

fn inside(tcp: &mut TcpStream, config: ServerConfig, said: &mut Vec<String>, takes: Takes, greet: bool) {
    let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
    // Who does not trust the certificate goes away in the middle of the handshake.
    if tls.complete_io(tcp).is_err() {
        return;
    }
    converse(&mut rustls::Stream::new(&mut tls, tcp), said, "tls:", takes, greet);
}

/// Speaks until the client goes; `true`: it asked for STARTTLS.
fn converse(stream: &mut (impl Read + Write), said: &mut Vec<String>, mark: &str, takes: Takes, greet: bool) -> bool {
    if greet && stream.write_all(b"220-hello\r\n220 there\r\n").is_err() {
        return false;
    }
    let (mut line, mut byte, mut data) = (Vec::new(), [0], false);
    while stream.read(&mut byte).is_ok_and(|read| read == 1) {
        line.push(byte[0]);
        if !line.ends_with(b"\r\n") {
            continue;
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_string();
        line.clear();
        said.push(format!("{mark}{text}"));
        let plain = takes.login.map(|(user, password)| {
            format!("AUTH PLAIN {}", data_encoding::BASE64.encode(format!("\0{user}\0{password}").as_bytes()))
        });
        let reply = match text.as_str() {
            "." if data => {
                data = false;
                "250 taken"
            }
            _ if data => continue,
            "DATA" => {
                data = true;
                "354 go on"
            }
            "QUIT" => "221 bye",
            "STARTTLS" => "220 go on",
            line if line.starts_with("EHLO") && mark.is_empty() && takes.start_tls => "250-sink\r\n250 STARTTLS",
            line if line.starts_with("EHLO") && takes.login.is_some() => "250-sink\r\n250 AUTH PLAIN",
            line if line.starts_with("AUTH") => match plain.as_deref() == Some(line) {
                true => "235 welcome",
                false => "535 5.7.8 not you",
            },
            line if takes.nobody && line.starts_with("RCPT") => "550 no such user",
            _ => "250-one\r\n250 two",
        };
        if stream.write_all(format!("{reply}\r\n").as_bytes()).is_err() {
            return false;
        }
        if text == "STARTTLS" {
            return true;
        }
    }
    false
}

fn letter() -> Letter {
    Letter { message: "the disk\r\n.\r\nRCPT TO:<evil@x> is full: Zwölf".into(), ..Letter::test(0) }
}

fn channels(mail: Mail) -> Channels {
    Channels { mail: Some(mail), node: "pit\r\nBcc: evil@x".into(), ..Channels::default() }
}

fn login(password: &str) -> Option<Login> {
    Some(Login { user: "pit@example.org".into(), password: Password::Given(password.into()) })
}

const KNOWS_PIT: Takes = Takes { start_tls: true, login: Some(("pit@example.org", "hunter2")), nobody: false };

#[test]
fn a_mail_arrives_whole_and_nothing_in_it_can_forge_protocol() {
    let sink = Sink::start(Secured::Plain, Takes::default());
    channels(sink.mail(Secured::Plain)).tell("mail", &letter()).unwrap();
    let said = sink.said();
    let envelope: Vec<&str> = said.iter().take(4).map(|line| line.trim_end()).collect();
    assert_eq!(
        envelope,
        ["EHLO litemesh", "MAIL FROM:<litemesh@pit.example>", "RCPT TO:<a@b.example>", "RCPT TO:<c@d.example>"]
    );
    let forged = |line: &&String| line.starts_with("RCPT") || line.starts_with("Bcc");
    assert_eq!(said.iter().filter(forged).count(), 2, "{said:?}");
    let body: String =
        said.iter().skip_while(|line| !line.is_empty()).take_while(|line| *line != ".").cloned().collect();
    let text = String::from_utf8(data_encoding::BASE64.decode(body.as_bytes()).unwrap()).unwrap();
    assert!(text.contains("is full: Zwölf"), "{text}");
    for header in ["From: litemesh@pit.example", "Auto-Submitted: auto-generated", "Date: ", "Message-ID: <"] {
        assert!(said.iter().any(|line| line.starts_with(header)), "{header} {said:?}");
    }
}

#[test]
fn a_password_goes_after_starttls_only() {
    let sink = Sink::start(Secured::StartTls, KNOWS_PIT);
    let directory = tempfile::tempdir().unwrap();
    let (trusted, secret) = (directory.path().join("ca.pem"), directory.path().join("secret"));
    std::fs::write(&trusted, &sink.certificate).unwrap();
    std::fs::write(&secret, "hunter2\n").unwrap();
    let login = Some(Login { user: "pit@example.org".into(), password: Password::File(secret) });
    let mail = Mail { login, trusted: Some(trusted), ..sink.mail(Secured::StartTls) };
    channels(mail).tell("mail", &letter()).unwrap();
    let said = sink.said();
    assert_eq!(said[..2], ["EHLO litemesh", "STARTTLS"]);
    assert!(said[2..].iter().all(|line| line.starts_with("tls:")), "{said:?}");
    assert!(said.iter().any(|line| line == "tls:."), "{said:?}");
}

#[test]
fn without_starttls_nothing_of_the_password_or_the_mail_is_said() {
    let sink = Sink::start(Secured::Plain, Takes { start_tls: false, ..KNOWS_PIT });
    let mail = Mail { login: login("hunter2"), ..sink.mail(Secured::StartTls) };
    let error = channels(mail).tell("mail", &letter()).unwrap_err();
    assert!(error.contains("offers no STARTTLS") && error.contains("smtps://"), "{error}");
    let said = sink.said();
    assert!(!said.iter().any(|line| line.contains("AUTH") || line.contains("MAIL")), "{said:?}");
}

#[test]
fn tls_from_the_first_byte_and_a_wrong_password_is_said_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let trusted = directory.path().join("ca.pem");
    for (password, right) in [("hunter2", true), ("hunter3", false)] {
        let sink = Sink::start(Secured::Tls, KNOWS_PIT);
        std::fs::write(&trusted, &sink.certificate).unwrap();
        let mail = Mail { login: login(password), trusted: Some(trusted.clone()), ..sink.mail(Secured::Tls) };
        let delivery = channels(mail).test(0).remove(0);
        assert_eq!(delivery.ok, right, "{}", delivery.detail);
        let said = sink.said();
        assert_eq!(said.iter().any(|line| line == "tls:."), right, "{said:?}");
        let words = ["refused the user or the password", "535", "alerts.smtp_password_file"];
        assert!(right || words.iter().all(|word| delivery.detail.contains(word)), "{}", delivery.detail);
        assert!(!delivery.detail.contains("hunter"), "{}", delivery.detail);
    }
}

#[test]
fn an_unknown_certificate_gets_no_mail_and_the_words_name_the_setting() {
    for secured in [Secured::Tls, Secured::StartTls] {
        let sink = Sink::start(secured, KNOWS_PIT);
        let mail = Mail { login: login("hunter2"), ..sink.mail(secured) };
        let error = channels(mail).tell("mail", &letter()).unwrap_err();
        assert!(error.contains("does not trust") && error.contains("alerts.smtp_ca"), "{error}");
        assert!(!sink.said().iter().any(|line| line.contains("AUTH")));
    }
}

#[test]
fn files_that_are_not_there_are_named() {
    let sink = Sink::start(Secured::Plain, Takes::default());
    let secret = Login { user: "pit".into(), password: Password::File("/nowhere/secret".into()) };
    let mail = Mail { login: Some(secret), ..sink.mail(Secured::Tls) };
    let error = channels(mail.clone()).tell("mail", &letter()).unwrap_err();
    assert!(error.contains("alerts.smtp_password_file, /nowhere/secret"), "{error}");
    let mail = Mail { trusted: Some("/nowhere/ca.pem".into()), ..mail };
    let error = channels(mail.clone()).tell("mail", &letter()).unwrap_err();
    assert!(error.contains("alerts.smtp_ca, /nowhere/ca.pem"), "{error}");
    let mail = Mail { secured: Secured::Plain, login: None, to: vec!["c@d>\r\nDATA".into()], ..mail };
    assert!(channels(mail.clone()).tell("mail", &letter()).unwrap_err().contains("is no mail address"));
    let mail = Mail { to: vec!["c@d.example".into()], ..mail };
    channels(mail).tell("mail", &letter()).unwrap();
    sink.said();
}

#[test]
fn what_a_server_does_not_take_is_tried_again_later() {
    let sink = Sink::start(Secured::Plain, Takes { nobody: true, ..Takes::default() });
    let mut outgoing = Outgoing::new("mail");
    outgoing.add(letter());
    outgoing.deliver(&channels(sink.mail(Secured::Plain)), 1_000);
    assert_eq!(outgoing.len(), 1);
    assert!(outgoing.said().contains("550") && outgoing.said().contains("no such user"), "{}", outgoing.said());
    sink.said();
    // Nobody is asked before the pause is over.
    let sink = Sink::start(Secured::Plain, Takes::default());
    let channels = channels(sink.mail(Secured::Plain));
    outgoing.deliver(&channels, 1_000 + 29_999);
    assert_eq!(outgoing.len(), 1);
    outgoing.deliver(&channels, 1_000 + 30_000);
    assert!(outgoing.is_empty());
    sink.said();
}

#[test]
fn a_password_stands_in_no_debug_output_and_goes_nowhere_without_tls() {
    let sink = Sink::start(Secured::Plain, Takes::default());
    let mail = Mail { login: login("hunter2"), ..sink.mail(Secured::Plain) };
    assert!(!format!("{:?}", channels(mail.clone())).contains("hunter2"));
    assert!(channels(mail.clone()).tell("mail", &letter()).unwrap_err().contains("without TLS"));
    channels(Mail { login: None, ..mail }).tell("mail", &letter()).unwrap();
    assert!(!sink.said().iter().any(|line| line.contains("AUTH")));
}
