//! Settings: flag > environment > file > the embedded `config/default.toml`, resolved once into [`Config`].
//!
//! Invariant: every value is checked here, so that no other module meets an impossible one; an error names the key, the
//! value and what is allowed; a setting without an effect yet gives a warning, never silence. Core modules receive their
//! own small settings, never [`Config`]. Called by `cli`, read by `daemon`.

mod alerts;
mod environment;
mod pace;
mod raw;
mod resolve;
mod retention;
mod verify;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::model::rule::StatedRule;
use crate::node::DatabaseSettings;
use raw::{RawConfig, RawDatabase};

/// The defaults, as a file with a comment on every key.
pub const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

/// Name of the file that is read when none is named.
pub const DEFAULT_FILE: &str = "litemesh.toml";

pub use alerts::{AlertsConfig, MailConfig, PasswordConfig};
pub use environment::unknown_variables;

/// All settings, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of this server for people.
    pub name: String,
    /// Directory of log, key and token.
    pub data_dir: PathBuf,
    /// The API.
    pub http: HttpConfig,
    /// The network.
    pub network: NetworkConfig,
    /// When files are compared with the log, and what is done about differences.
    pub verify: crate::node::verify_schedule::VerifySettings,
    /// Rules for tables that no `[[database]]` names.
    pub capture: CaptureConfig,
    /// What stays in the log, and when the rest is moved.
    pub retention: crate::node::RetentionSettings,
    /// History of runs is kept so many days.
    pub run_days_to_keep: u32,
    /// The databases that flags, environment or file name; empty: the daemon looks for them.
    pub databases: Vec<DatabaseSettings>,
    /// Where alerts go, and from when on something is one.
    pub alerts: AlertsConfig,
    /// Log lines are JSON.
    pub log_json: bool,
    /// What the user set and has no effect, in words.
    pub warnings: Vec<String>,
}

/// `[http]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// A loopback address; `None`: off.
    pub listen: Option<SocketAddr>,
    /// The token's file; `None`: `api-token` in the data directory.
    pub token_file: Option<PathBuf>,
}

/// `[network]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Multiaddrs to listen on.
    pub listen: Vec<String>,
    /// Multiaddrs to dial for ever.
    pub peers: Vec<String>,
    /// Look for peers by multicast.
    pub mdns: bool,
    /// How much may travel, and when.
    pub pace: crate::node::PaceSettings,
    /// Relay for members, be called over relays, punch holes.
    pub wan: bool,
    /// Multiaddrs of the members to be called at.
    pub relays: Vec<String>,
}

/// `[capture]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureConfig {
    /// Patterns of replicated tables.
    pub include: Vec<String>,
    /// Patterns of tables that stay on their server.
    pub exclude: Vec<String>,
    /// References known of databases by their name: (database, table, column, "database.table.column").
    pub references: Vec<(String, String, String, String)>,
    /// Rules known of databases by their name.
    pub rules: Vec<(String, StatedRule)>,
    /// `node.steering_runs`: number of runs of ids; 0: SQLite chooses all ids.
    pub steering_runs: u32,
}

/// What the command line says, above environment and file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--data`.
    pub data: Option<PathBuf>,
    /// `--name`.
    pub name: Option<String>,
    /// `--db NAME=PATH`, any number.
    pub databases: Vec<(String, PathBuf)>,
    /// `--listen`, any number; empty: not said.
    pub listen: Vec<String>,
    /// `--peer`, any number; empty: not said.
    pub peers: Vec<String>,
    /// `--no-mdns`.
    pub no_mdns: bool,
    /// `--http`.
    pub http: Option<String>,
}

/// Why there are no settings. None has an effect on any state; none is helped by a retry.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that `--config` names cannot be read.
    #[error("cannot read the configuration {path}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, or a value of the wrong type.
    #[error("{source_name}, line {line}: {message} (the line says: {shown})")]
    Syntax {
        /// File.
        source_name: String,
        /// Line, from 1.
        line: usize,
        /// The line.
        shown: String,
        /// What is wrong with it.
        message: String,
    },
    /// A key that litemesh does not know.
    #[error("{source_name}, line {line}: unknown key `{key}`; the nearest valid key is `{nearest}`")]
    UnknownKey {
        /// File.
        source_name: String,
        /// Line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// The valid key that is most like it.
        nearest: String,
    },
    /// A value outside what is allowed.
    #[error("`{key}` is `{value}`, but must be {allowed}")]
    Value {
        /// The key, with its section.
        key: String,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: String,
    },
}

/// Reads all layers. `environment` gives a variable's value; `directory` is what relative flags start from.
pub fn load(
    flags: &Flags,
    environment: &dyn Fn(&str) -> Option<String>,
    directory: &Path,
) -> Result<Config, ConfigError> {
    let defaults = RawConfig::parse(DEFAULT_TOML, "config/default.toml")?;
    let (file, file_directory) = read_file(flags, environment, directory)?;
    let user = from_flags(flags).over(environment::layer(environment)?).over(file.anchored(&file_directory));
    let databases = database_flags(flags, environment)?;
    resolve::resolve(user, defaults, &databases, directory)
}

/// The file layer and the directory that its relative paths start from.
fn read_file(
    flags: &Flags,
    environment: &dyn Fn(&str) -> Option<String>,
    directory: &Path,
) -> Result<(RawConfig, PathBuf), ConfigError> {
    let named = flags.config.clone().or_else(|| environment("LITEMESH_CONFIG").map(PathBuf::from));
    let path = directory.join(named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE)));
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok((RawConfig::default(), directory.to_path_buf()));
        }
        Err(source) => return Err(ConfigError::Unreadable { path, source }),
    };
    let file_directory = path.parent().map_or_else(|| directory.to_path_buf(), Path::to_path_buf);
    Ok((RawConfig::parse(&text, &path.display().to_string())?, file_directory))
}

fn from_flags(flags: &Flags) -> RawConfig {
    let mut layer = RawConfig::default();
    layer.node.name.clone_from(&flags.name);
    layer.node.data_dir = flags.data.as_ref().map(|path| path.display().to_string());
    layer.http.listen.clone_from(&flags.http);
    layer.network.listen = (!flags.listen.is_empty()).then(|| flags.listen.clone());
    layer.network.peers = (!flags.peers.is_empty()).then(|| flags.peers.clone());
    layer.network.mdns = flags.no_mdns.then_some(false);
    layer
}

/// `--db`, else `LITEMESH_DB`.
fn database_flags(
    flags: &Flags,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, PathBuf)>, ConfigError> {
    match environment("LITEMESH_DB") {
        Some(list) if flags.databases.is_empty() => {
            environment::split(&list).map(|pair| parse_database(&pair)).collect()
        }
        _ => Ok(flags.databases.clone()),
    }
}

/// `NAME=PATH` of `--db`.
pub fn parse_database(pair: &str) -> Result<(String, PathBuf), ConfigError> {
    match pair.split_once('=') {
        Some((name, path)) if !path.is_empty() && resolve::is_database_name(name) => Ok((name.into(), path.into())),
        _ => Err(ConfigError::Value {
            key: "db".into(),
            value: pair.into(),
            allowed: format!(
                "NAME=PATH, with a NAME of {}, like scouting=instance/scouting.db",
                resolve::DATABASE_NAME
            ),
        }),
    }
}

impl RawConfig {
    /// The same layer with its relative paths made relative to nothing.
    fn anchored(mut self, directory: &Path) -> RawConfig {
        let anchor = |path: &mut String| *path = directory.join(&*path).display().to_string();
        self.node.data_dir.iter_mut().for_each(anchor);
        self.http.token_file.iter_mut().filter(|path| !path.is_empty()).for_each(anchor);
        let of_mail = [&mut self.alerts.smtp_password_file, &mut self.alerts.smtp_ca];
        of_mail.into_iter().flatten().filter(|path| !path.is_empty()).for_each(anchor);
        self.database.iter_mut().for_each(|RawDatabase { path, .. }| anchor(path));
        self
    }
}

impl CaptureConfig {
    /// Settings of a database that no `[[database]]` describes.
    pub fn database(&self, name: &str, path: &Path) -> DatabaseSettings {
        DatabaseSettings {
            name: name.into(),
            path: path.to_path_buf(),
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            references: Vec::new(),
            natural_keys: Vec::new(),
            rules: self.rules.iter().filter(|(of, _)| of == name).map(|(_, rule)| rule.clone()).collect(),
            steering_runs: self.steering_runs,
            unsteered: Vec::new(),
        }
    }

    /// Adds the known references whose ends are among `databases`.
    pub fn add_known_references(&self, databases: &mut [DatabaseSettings]) {
        let names: Vec<String> = databases.iter().map(|database| database.name.clone()).collect();
        for (database, table, column, to) in &self.references {
            let target = to.split('.').next().unwrap_or_default();
            if !names.iter().any(|name| name == target) {
                continue;
            }
            for settings in databases.iter_mut().filter(|settings| settings.name == *database) {
                if !settings.references.iter().any(|(t, c, _)| t == table && c == column) {
                    settings.references.push((table.clone(), column.clone(), to.clone()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
