//! `[alerts]` and `[log]`: where alerts go, from when on something is one, and how the log is written.
//!
//! Invariant: what is refused names the key, what stands there and what may. Caller: [`super::resolve`].

use std::fmt;
use std::path::PathBuf;

use super::ConfigError;
use super::raw::RawAlerts;
use super::resolve::refuse;

/// `[alerts]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertsConfig {
    /// URL that gets a POST.
    pub webhook: Option<String>,
    /// Mail.
    pub mail: Option<MailConfig>,
    /// A peer that was not seen for so long; 0: no such alert.
    pub peer_unseen_ms: u64,
    /// A clock that is off by so much; 0: no such alert.
    pub clock_skew_ms: u64,
    /// Less free bytes than this; 0: no such alert.
    pub disk_free_bytes: u64,
}

/// `smtp_…` of `[alerts]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailConfig {
    /// Name or address of the server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// TLS from the first byte.
    pub tls: bool,
    /// Who logs in; with a password, and never without TLS.
    pub login: Option<(String, PasswordConfig)>,
    /// Certificates that are trusted besides those of the web.
    pub trusted: Option<PathBuf>,
    /// Sender.
    pub from: String,
    /// Receivers.
    pub to: Vec<String>,
}

/// Where a password is.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordConfig {
    /// In the first line of this file.
    File(PathBuf),
    /// Here, from the environment.
    Given(String),
}

/// Shows no password.
impl fmt::Debug for PasswordConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PasswordConfig::File(path) => out.debug_tuple("File").field(path).finish(),
            PasswordConfig::Given(_) => out.write_str("Given(not shown)"),
        }
    }
}

/// Shortest time of a rule.
const SHORTEST_MS: u64 = 1_000;

pub(super) fn resolve(raw: &RawAlerts) -> Result<AlertsConfig, ConfigError> {
    let there = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let mail = mail(raw)?;
    Ok(AlertsConfig {
        webhook: there(&raw.webhook),
        mail,
        peer_unseen_ms: time("alerts.peer_unseen", raw.peer_unseen.as_deref())?,
        clock_skew_ms: time("alerts.clock_skew", raw.clock_skew.as_deref())?,
        disk_free_bytes: bytes("alerts.disk_free", raw.disk_free.as_deref())?,
    })
}

/// Ports when none is named: of relays, of mail programs that log in, of those that begin with TLS.
const PORTS: (u16, u16, u16) = (25, 587, 465);

fn mail(raw: &RawAlerts) -> Result<Option<MailConfig>, ConfigError> {
    let there = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let to = raw.smtp_to.clone().unwrap_or_default();
    let (url, from) = match (there(&raw.smtp), there(&raw.smtp_from), to.is_empty()) {
        (Some(url), Some(from), false) => (url, from),
        (None, None, true) => return Ok(None),
        (url, ..) => {
            let allowed = "given together with alerts.smtp_from and alerts.smtp_to, or all of them empty";
            return Err(refuse("alerts.smtp", without_password(&url.unwrap_or_default()), allowed));
        }
    };
    if let Some(address) = to.iter().chain([&from]).find(|address| !address.contains('@')) {
        return Err(refuse("alerts.smtp_to / smtp_from", address, "mail addresses"));
    }
    let allowed = "smtp://host:25 (plain), smtp://user@host:587 (STARTTLS) or smtps://user@host:465 (TLS), or empty";
    let wrong = || refuse("alerts.smtp", without_password(&url), allowed);
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let tls = match scheme {
        "smtp" => false,
        "smtps" => true,
        _ => return Err(wrong()),
    };
    // The user may be a mail address: the last @ ends it.
    let (user, server) = rest.rsplit_once('@').map_or((None, rest), |(user, server)| (Some(user), server));
    if user.is_some_and(|user| user.contains(':')) {
        let allowed = "without a password, which everyone who reads this file would see: put it into \
                       alerts.smtp_password_file or LITEMESH_ALERTS_SMTP_PASSWORD";
        return Err(refuse("alerts.smtp", without_password(&url), allowed));
    }
    let usual = if tls { PORTS.2 } else { user.map_or(PORTS.0, |_| PORTS.1) };
    let (host, port) = address(server.trim_end_matches('/'), usual).ok_or_else(wrong)?;
    let login = match user.filter(|user| !user.is_empty()) {
        None => None,
        Some(user) => Some((
            user.to_string(),
            password(raw).ok_or_else(|| {
                let allowed =
                    "with a user only together with alerts.smtp_password_file or LITEMESH_ALERTS_SMTP_PASSWORD";
                refuse("alerts.smtp", &url, allowed)
            })?,
        )),
    };
    let trusted = there(&raw.smtp_ca).map(PathBuf::from);
    Ok(Some(MailConfig { host, port, tls, login, trusted, from, to }))
}

/// The environment beats the file, as everywhere.
fn password(raw: &RawAlerts) -> Option<PasswordConfig> {
    let there = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let given = raw.smtp_password.as_ref().filter(|given| !given.0.is_empty());
    let given = given.map(|given| PasswordConfig::Given(given.0.clone()));
    given.or_else(|| there(&raw.smtp_password_file).map(|path| PasswordConfig::File(path.into())))
}

/// `host`, `host:port` or `[v6]:port`.
fn address(server: &str, usual: u16) -> Option<(String, u16)> {
    let (host, port) = match server.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(host, port)| (host, port.strip_prefix(':')))?,
        None => server.split_once(':').map_or((server, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(usual), |port| port.parse().ok().filter(|port| *port > 0))?;
    let plain = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control() || "/?#".contains(c));
    plain.then(|| (host.to_string(), port))
}

/// What a person wrote, without what must not be shown again.
fn without_password(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((before, host)) if before.matches(':').count() > usize::from(before.contains("://")) => {
            format!("{}:(not shown)@{host}", before.rsplit_once(':').map_or(before, |(user, _)| user))
        }
        _ => url.to_string(),
    }
}

fn time(key: &str, text: Option<&str>) -> Result<u64, ConfigError> {
    let text = text.unwrap_or("off");
    let length = humantime::parse_duration(text).ok().and_then(|length| u64::try_from(length.as_millis()).ok());
    match length.filter(|ms| *ms >= SHORTEST_MS) {
        Some(ms) => Ok(ms),
        None if text == "off" => Ok(0),
        None => Err(refuse(key, text, "a time of at least a second, like \"10m\", or \"off\"")),
    }
}

fn bytes(key: &str, text: Option<&str>) -> Result<u64, ConfigError> {
    let text = text.unwrap_or("off");
    match super::pace::rate(text) {
        Some(bytes) => Ok(bytes),
        None if text == "off" => Ok(0),
        None => Err(refuse(key, text, "bytes, like \"500 MB\", or \"off\"")),
    }
}

/// `[log] format`: whether lines are JSON.
pub(super) fn is_json(text: Option<&str>) -> Result<bool, ConfigError> {
    match text.unwrap_or("text") {
        "text" => Ok(false),
        "json" => Ok(true),
        other => Err(refuse("log.format", other, "text or json")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::raw::Unshown;
    use super::*;

    fn raw(server: &str, to: &[&str]) -> RawAlerts {
        RawAlerts {
            smtp: Some(server.into()),
            smtp_from: Some(if server.is_empty() { "" } else { "a@b" }.into()),
            smtp_to: Some(to.iter().map(|to| to.to_string()).collect()),
            peer_unseen: Some("10m".into()),
            clock_skew: Some("off".into()),
            disk_free: Some("500 MB".into()),
            ..RawAlerts::default()
        }
    }

    fn server(url: &str) -> Result<MailConfig, String> {
        let raw = RawAlerts { smtp_password_file: Some("/secret".into()), ..raw(url, &["c@d"]) };
        resolve(&raw).map(|config| config.mail.unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_way_of_mail_is_one_url() {
        let of = |url: &str| server(url).map(|mail| (mail.host, mail.port, mail.tls, mail.login.map(|one| one.0)));
        assert_eq!(of("smtp://mail").unwrap(), ("mail".into(), 25, false, None));
        assert_eq!(of("smtp://pit@mail/").unwrap(), ("mail".into(), 587, false, Some("pit".into())));
        assert_eq!(of("smtps://pit@x.org@mail:99").unwrap(), ("mail".into(), 99, true, Some("pit@x.org".into())));
        assert_eq!(of("smtp://[::1]:2525").unwrap(), ("::1".into(), 2525, false, None));
        for bad in ["mail:25", "http://mail", "smtp://", "smtp://:25", "smtp://mail:x", "smtp://mail:0", "smtp://a b"] {
            let error = of(bad).unwrap_err();
            assert!(error.contains("alerts.smtp") && error.contains("smtps://user@host:465"), "{error}");
        }
    }

    #[test]
    fn a_password_is_never_shown_and_never_in_the_url() {
        let error = server("smtps://pit:hunter2@mail").unwrap_err();
        assert!(!error.contains("hunter2") && error.contains("smtp_password_file"), "{error}");
        let error = resolve(&raw("smtp://pit:hunter2@mail", &[])).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        let error = resolve(&raw("smtps://pit@mail", &["c@d"])).unwrap_err().to_string();
        assert!(error.contains("LITEMESH_ALERTS_SMTP_PASSWORD"), "{error}");
        let given = RawAlerts {
            smtp_password: Some(Unshown("hunter2".into())),
            smtp_password_file: Some("/secret".into()),
            ..raw("smtps://pit@mail", &["c@d"])
        };
        let config = resolve(&given).unwrap();
        assert!(!format!("{config:?} {given:?}").contains("hunter2"), "{config:?} {given:?}");
        assert_eq!(config.mail.unwrap().login.unwrap().1, PasswordConfig::Given("hunter2".into()));
    }

    #[test]
    fn mail_needs_all_of_its_keys_and_rules_have_units() {
        let config = resolve(&raw("", &[])).unwrap();
        assert_eq!((config.mail, config.peer_unseen_ms, config.clock_skew_ms), (None, 600_000, 0));
        assert_eq!(config.disk_free_bytes, 500_000_000);
        assert!(resolve(&raw("smtp://mail:25", &["c@d"])).unwrap().mail.is_some());
        for bad in [raw("smtp://mail:25", &[]), raw("", &["c@d"])] {
            assert!(resolve(&bad).unwrap_err().to_string().contains("alerts.smtp"));
        }
        for bad in [
            RawAlerts { peer_unseen: Some("soon".into()), ..raw("", &[]) },
            RawAlerts { disk_free: Some("much".into()), ..raw("", &[]) },
        ] {
            assert!(resolve(&bad).is_err());
        }
        assert!(is_json(Some("json")).unwrap() && !is_json(None).unwrap() && is_json(Some("xml")).is_err());
    }
}
