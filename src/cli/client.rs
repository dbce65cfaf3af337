//! The running node, over HTTP.
//!
//! Invariant: the token goes only to the process that holds the data directory's lock. Callers: every command that needs
//! a running node.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::Agent;

use super::error::{CommandError, Kind};
use crate::config::Config;
use crate::daemon::DataDir;

/// Bytes of an answer, at most.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// How long a short question may take.
const SHORT: Duration = Duration::from_secs(40);

/// How long a rebuild or a check of a large log may take.
pub(super) const LONG: Duration = Duration::from_secs(3_700);

/// The way to a running node.
pub(super) struct Client {
    agent: Agent,
    base: String,
    token: String,
}

impl Client {
    /// The node of a data directory; an error of kind "unreachable" when none runs.
    pub(super) fn connect(config: &Config) -> Result<Client, CommandError> {
        let shown = config.data_dir.display();
        let data = DataDir::at(&config.data_dir);
        let Some(info) = data.run_info()? else {
            let message = if data.is_locked() {
                format!("the node in {shown} is just starting")
            } else {
                format!("no node is running in {shown}")
            };
            return Err(CommandError::new(Kind::Unreachable, message)
                .hint(format!("start it with: litemesh --data {shown} run")));
        };
        let Some(base) = info.http else {
            let message = format!("the node (pid {}) runs without its API (--http off)", info.pid);
            return Err(CommandError::new(Kind::Unreachable, message).hint("start it again without --http off"));
        };
        let (token, _) = data.token_or_new(Some(&info.token_file))?;
        Ok(Client::to(base, token))
    }

    /// A node at a known address.
    pub(super) fn to(base: String, token: String) -> Client {
        let config = Agent::config_builder().http_status_as_error(false).timeout_connect(Some(Duration::from_secs(5)));
        Client { agent: config.build().into(), base, token }
    }

    /// Asks.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, CommandError> {
        self.get_within(path, query, SHORT)
    }

    /// Asks what may take long.
    pub(super) fn get_within<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
        within: Duration,
    ) -> Result<T, CommandError> {
        let mut request = self.agent.get(format!("{}{path}", self.base)).header("authorization", self.bearer());
        for (name, value) in query {
            request = request.query(*name, value);
        }
        read(request.config().timeout_global(Some(within)).build().call())
    }

    /// Orders; `within` bounds the wait.
    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        within: Option<Duration>,
    ) -> Result<T, CommandError> {
        let request = self.agent.post(format!("{}{path}", self.base)).header("authorization", self.bearer());
        read(request.config().timeout_global(Some(within.unwrap_or(SHORT))).build().send_json(body))
    }

    /// The dashboard, with the token in the link's fragment.
    pub(super) fn page_link(&self) -> String {
        let kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let text = |byte| if kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        format!("{}/#token={}", self.base, self.token.bytes().map(text).collect::<String>())
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }
}

fn read<T: DeserializeOwned>(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<T, CommandError> {
    let unreachable = |error: ureq::Error| {
        let result = CommandError::new(Kind::Unreachable, "the node cannot be reached").because(&error);
        result.hint("see whether it runs: litemesh doctor")
    };
    let mut answer = answer.map_err(unreachable)?;
    let status = answer.status();
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(unreachable)?;
    if !status.is_success() {
        return Err(refused(status.as_u16(), &body));
    }
    serde_json::from_slice(&body).map_err(|error| {
        let result = CommandError::new(Kind::Internal, "the node's answer cannot be read").because(&error);
        result.hint("is the running node of another version? Restart it")
    })
}

/// From a problem document to an error with an exit code.
fn refused(status: u16, body: &[u8]) -> CommandError {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_string();
    let (code, detail) = (text("code"), text("detail"));
    let kind = match (code.as_str(), status) {
        ("integrity" | "bundle_damaged", _) => Kind::Integrity,
        ("node_busy" | "node_timeout" | "token_wrong" | "token_missing" | "host_refused", _) => Kind::Unreachable,
        (_, 400..500) => Kind::User,
        _ => Kind::Internal,
    };
    let error = CommandError::new(kind, if detail.is_empty() { format!("the node answered {status}") } else { detail });
    let error = error.coded(&code);
    match code.as_str() {
        "integrity" => error.hint("see what is damaged: litemesh log verify"),
        "exists" => error.hint("choose another --out directory"),
        "lease_held" => error.hint("wait for it with --wait SECONDS, or run both with --parallel"),
        _ => error,
    }
}
