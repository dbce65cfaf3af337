//! Errors as a person at the terminal reads them: what, why, what next.
//!
//! Invariant: the exit code is a function of the kind, and kinds never change their number. Callers: all of `cli`.

use std::error::Error;
use std::fmt;

use crate::config::ConfigError;
use crate::daemon::DaemonError;
use crate::log::LogError;
use crate::net::NetError;
use crate::node::NodeError;
use crate::node::bundle::BundleError;
use crate::sqlite::SqliteError;

/// The way out when the log is damaged.
pub(super) const HEAL: &str = "the app's files are whole, and the other members hold the same events: on one of them make a code \
     with litemesh invite, then here: litemesh join CODE. It sets the damaged log aside and keeps it";

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The user's or the data's.
    User,
    /// The command line is wrong.
    Usage,
    /// The node does not run or cannot be reached.
    Unreachable,
    /// Drift, corruption, a bad signature.
    Integrity,
    /// Ours.
    Internal,
}

impl Kind {
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Kind::User => 1,
            Kind::Usage => 2,
            Kind::Unreachable => 3,
            Kind::Integrity => 4,
            Kind::Internal => 70,
        }
    }
}

/// A command that did not do what it was asked.
#[derive(Debug)]
pub(super) struct CommandError {
    pub(super) kind: Kind,
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
    code: Option<String>,
}

impl CommandError {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> CommandError {
        CommandError { kind, message: message.into(), causes: Vec::new(), hints: Vec::new(), code: None }
    }

    pub(super) fn user(message: impl Into<String>) -> CommandError {
        CommandError::new(Kind::User, message)
    }

    pub(super) fn usage(message: impl Into<String>) -> CommandError {
        CommandError::new(Kind::Usage, message)
    }

    /// The stable code of the API's refusal.
    pub(super) fn coded(mut self, code: &str) -> CommandError {
        self.code = Some(code.to_string());
        self
    }

    /// See [`CommandError::coded`].
    pub(super) fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Adds a next action.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> CommandError {
        self.hints.push(hint.into());
        self
    }

    /// Adds an error and what is behind it.
    pub(super) fn because(mut self, error: &dyn Error) -> CommandError {
        self.causes.push(error.to_string());
        let mut source = error.source();
        while let Some(inner) = source {
            self.causes.push(inner.to_string());
            source = inner.source();
        }
        self
    }

    fn of(kind: Kind, error: &dyn Error) -> CommandError {
        let mut result = CommandError::new(kind, error.to_string());
        let mut source = error.source();
        while let Some(inner) = source {
            // Transparent wrappers repeat their inner error's words.
            if !result.message.contains(&inner.to_string()) {
                result.causes.push(inner.to_string());
            }
            source = inner.source();
        }
        result
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        for cause in &self.causes {
            write!(f, "\n  cause: {cause}")?;
        }
        for hint in &self.hints {
            write!(f, "\n  next: {hint}")?;
        }
        Ok(())
    }
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> CommandError {
        let hint = match &error {
            ConfigError::Unreadable { .. } => "correct --config, or leave it out to use the defaults",
            ConfigError::Syntax { .. } => "correct that line",
            ConfigError::UnknownKey { .. } => "correct the key; all keys and their meaning are in config/default.toml",
            ConfigError::Value { .. } => "correct the value in the flag, the environment or the configuration file",
        };
        CommandError::of(Kind::User, &error).hint(hint)
    }
}

impl From<DaemonError> for CommandError {
    fn from(error: DaemonError) -> CommandError {
        let result = CommandError::of(kind(&error), &error);
        match &error {
            DaemonError::Files { .. } => {
                result.hint("check owner, permissions and free space there, or name another --data directory")
            }
            DaemonError::NoDatabases { .. } => result
                .hint("go to the app's directory, or name its files: litemesh run --db scouting=PATH --db users=PATH")
                .hint("to try it without the app: litemesh run --sample"),
            DaemonError::Net(NetError::Listen { .. }) => {
                result.hint("stop the program that has the port, or choose another: --listen /ip4/0.0.0.0/tcp/0")
            }
            DaemonError::Http(_) => result.hint("choose another address: --http 127.0.0.1:0, or --http off"),
            DaemonError::Join(_) | DaemonError::Code(_) => {
                result.hint("on a member, make a new code with: litemesh invite")
            }
            DaemonError::Log(_) | DaemonError::Node(_) if result.kind == Kind::Integrity => {
                result.hint("see what is damaged: litemesh log verify").hint(HEAL)
            }
            _ => result,
        }
    }
}

fn kind(error: &DaemonError) -> Kind {
    match error {
        DaemonError::Node(error) => node_kind(error),
        DaemonError::Log(error) => log_kind(error),
        DaemonError::Bundle(BundleError::Node(error)) => node_kind(error),
        DaemonError::Bundle(error) if error.is_damage() => Kind::Integrity,
        DaemonError::Sqlite(SqliteError::Corrupt { .. }) => Kind::Integrity,
        DaemonError::Net(NetError::Address(_) | NetError::Listen { .. }) => Kind::User,
        DaemonError::Net(_) | DaemonError::NodeDied | DaemonError::NoRandomness | DaemonError::Runtime { .. } => {
            Kind::Internal
        }
        _ => Kind::User,
    }
}

fn node_kind(error: &NodeError) -> Kind {
    match error {
        NodeError::Log(error) => log_kind(error),
        NodeError::Sqlite(SqliteError::Corrupt { .. }) | NodeError::Wire(_) | NodeError::Record(_) => Kind::Integrity,
        NodeError::Membership(_) => Kind::Integrity,
        NodeError::Sqlite(_) | NodeError::Invalid(_) | NodeError::NotEntitled(_) => Kind::User,
        NodeError::NoCluster | NodeError::Io { .. } => Kind::User,
        NodeError::PeerFault { .. } => Kind::Internal,
    }
}

fn log_kind(error: &LogError) -> Kind {
    match error {
        // What redb says of a file that is none of its own any more.
        LogError::Storage(error) if error.kind() == std::io::ErrorKind::InvalidData => Kind::Integrity,
        LogError::SegmentNotWritten(_) => Kind::User,
        LogError::Storage(_) | LogError::Newer { .. } | LogError::Locked => Kind::User,
        _ => Kind::Integrity,
    }
}
