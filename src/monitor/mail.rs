//! Mail: one letter to one server, plain or with TLS and a password.
//!
//! The SMTP is lettre's, on the TLS that the webhooks have already. Three ways: `smtp://host:25` is plain (a relay of the
//! user's own network), `smtp://user@host:587` must turn to TLS before anything is said, `smtps://` is TLS from the first
//! byte. Invariants: a password travels inside TLS only; it is read when a letter goes, stands in no log, no error and no
//! debug output; names and messages cannot add headers or lines of protocol; nothing waits longer than [`super::deliver::WITHIN`]
//! for an answer. Caller: [`super::deliver`].

use std::error::Error as _;
use std::fmt;
use std::path::{Path, PathBuf};

use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Body, Mailbox, Message};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, SmtpTransport, Transport as _};

use super::deliver::{Letter, WITHIN};

/// Longest subject, characters.
const SUBJECT_MAX: usize = 120;

/// How mail goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Name or address of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// When TLS begins.
    pub secured: Secured,
    /// Who logs in; `None`: nobody does.
    pub login: Option<Login>,
    /// A file with certificates (PEM) that are trusted besides those of the web.
    pub trusted: Option<PathBuf>,
    /// Sender.
    pub from: String,
    /// Receivers.
    pub to: Vec<String>,
}

/// When TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secured {
    /// Never.
    Plain,
    /// After STARTTLS, and nothing is said without it.
    StartTls,
    /// With the first byte.
    Tls,
}

/// Who logs in.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub user: String,
    /// Where the password is.
    pub password: Password,
}

/// Where a password is.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// In the first line of this file, read each time a letter goes.
    File(PathBuf),
    /// Here: it came by the environment.
    Given(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Mail {
    /// The server as people write it.
    fn server(&self) -> String {
        let scheme = if self.secured == Secured::Tls { "smtps" } else { "smtp" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }

    /// Sends one letter. The words of an error say what to do; a retry may help.
    pub(super) fn send(&self, node: &str, letter: &Letter) -> Result<(), String> {
        let message = self.message(node, letter)?;
        let transport = self.transport()?;
        transport.send(&message).map(drop).map_err(|error| self.explain(&error))
    }

    fn transport(&self) -> Result<SmtpTransport, String> {
        let name = ClientId::Domain("litemesh".to_string());
        let mut builder = SmtpTransport::builder_dangerous(self.host.clone())
            .port(self.port)
            .timeout(Some(WITHIN))
            .hello_name(name)
            .tls(match self.secured {
                Secured::Plain => Tls::None,
                Secured::StartTls => Tls::Required(self.trust()?),
                Secured::Tls => Tls::Wrapper(self.trust()?),
            });
        if let Some(login) = &self.login {
            if self.secured == Secured::Plain {
                return Err("mail without TLS gets no password: use smtps:// in alerts.smtp".to_string());
            }
            let password = login.password.read()?;
            builder = builder.credentials(Credentials::new(login.user.clone(), password));
        }
        Ok(builder.build())
    }

    fn trust(&self) -> Result<TlsParameters, String> {
        let mut parameters = TlsParameters::builder(self.host.clone());
        if let Some(path) = &self.trusted {
            let wrong = |error: String| {
                format!("the certificate of alerts.smtp_ca, {}, cannot be used: {error}", path.display())
            };
            let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            let certificate = Certificate::from_pem(&text).map_err(|error| wrong(words(&error)))?;
            parameters = parameters.add_root_certificate(certificate);
        }
        parameters.build().map_err(|error| format!("mail cannot use TLS: {}", words(&error)))
    }

    /// Cause and next step.
    fn explain(&self, error: &lettre::transport::smtp::Error) -> String {
        let (server, said) = (self.server(), words(error));
        let code = error.status().map(|code| code.to_string());
        match code.as_deref() {
            Some("530" | "534") => format!(
                "the mail server {server} wants another login ({said}): name the user in alerts.smtp, the password in \
                 alerts.smtp_password_file"
            ),
            Some("535") => format!(
                "the mail server {server} refused the user or the password ({said}): correct the user in alerts.smtp and \
                 the password in alerts.smtp_password_file or LITEMESH_ALERTS_SMTP_PASSWORD"
            ),
            _ if said.contains("certificate") => format!(
                "the mail server {server} has a certificate that this machine does not trust ({said}): put the \
                 certificate that it is signed with into a file and name that in alerts.smtp_ca"
            ),
            _ if said.contains("STARTTLS") => format!(
                "the mail server {server} offers no STARTTLS and gets no password without it ({said}): use smtps:// and \
                 its port, or leave the user out"
            ),
            _ => format!("the mail server {server} did not take it: {said}"),
        }
    }

    fn message(&self, node: &str, letter: &Letter) -> Result<Message, String> {
        let headline: String =
            letter.headline(node).chars().map(|c| if c.is_control() { ' ' } else { c }).take(SUBJECT_MAX).collect();
        let id = blake3::hash(format!("{node} {} {} {}", letter.key, letter.state, letter.time).as_bytes()).to_hex();
        let mut builder = Message::builder()
            .from(mailbox(&self.from)?)
            .subject(headline)
            .date_now()
            .message_id(Some(format!("<{}@litemesh>", &id[..32])))
            .header(ContentType::TEXT_PLAIN)
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_string(),
            ));
        for receiver in &self.to {
            builder = builder.to(mailbox(receiver)?);
        }
        let text = format!(
            "{}\n\n{}\n\nWhat to do: {}\nServer: {node}\nSince: {} UTC\nKey: {}\n",
            letter.headline(node),
            letter.message,
            letter.next,
            letter.time,
            letter.key
        );
        // Base64 has no dots: no line can end the message early.
        let body = Body::new_with_encoding(text, ContentTransferEncoding::Base64)
            .map_err(|_| "the mail's text cannot be encoded".to_string())?;
        builder.body(body).map_err(|error| format!("the mail cannot be written: {error}"))
    }
}

impl Password {
    fn read(&self) -> Result<String, String> {
        match self {
            Password::Given(password) => Ok(password.clone()),
            Password::File(path) => first_line(path).map_err(|error| {
                format!("the password of alerts.smtp_password_file, {}, cannot be read: {error}", path.display())
            }),
        }
    }
}

/// Editors end a file with a newline that is no part of the password.
fn first_line(path: &Path) -> std::io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    match text.lines().next().filter(|line| !line.is_empty()) {
        Some(line) => Ok(line.to_string()),
        None => Err(std::io::Error::other("its first line is empty")),
    }
}

fn mailbox(address: &str) -> Result<Mailbox, String> {
    let parsed = address.parse::<Address>();
    let parsed = parsed.map_err(|error| format!("`{address}` in [alerts] is no mail address: {error}"))?;
    Ok(Mailbox::new(None, parsed))
}

/// An error with all of its causes, each said once.
fn words(error: &lettre::transport::smtp::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "mail_tests.rs"]
mod tests;
