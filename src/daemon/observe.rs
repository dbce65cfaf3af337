//! Looks at the node every few seconds: names of peers for run tracking, and what a person must be told.
//!
//! Invariant: a look is one short question to the node; telling happens on a thread of its own and holds up nothing; a look
//! that gets no answer (the node is at work) is left out. Called by run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::NodeHandle;
use crate::config::{AlertsConfig, Config, PasswordConfig};
use crate::http::{follow_changes, node_of};
use crate::monitor::Monitor;
use crate::monitor::alerts::{AlertRules, Alerts, Observed};
use crate::monitor::deliver::{Channels, Letter, Outgoing};
use crate::monitor::mail::{Login, Mail, Password, Secured};
use crate::monitor::recorder::now_ms;
use crate::node::port::NodePort as _;
use crate::node::view::Status;
use crate::node::{Node, Now};

/// How often it looks. Twice the same makes an alert.
const EVERY: Duration = Duration::from_secs(5);

/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(10);

/// Where alerts go, by the settings.
pub(super) fn channels(config: &AlertsConfig, node: &str) -> Channels {
    let mail = config.mail.clone().map(|mail| Mail {
        secured: match (mail.tls, &mail.login) {
            (true, _) => Secured::Tls,
            (false, Some(_)) => Secured::StartTls,
            (false, None) => Secured::Plain,
        },
        host: mail.host,
        port: mail.port,
        login: mail.login.map(|(user, password)| Login {
            user,
            password: match password {
                PasswordConfig::File(path) => Password::File(path),
                PasswordConfig::Given(password) => Password::Given(password),
            },
        }),
        trusted: mail.trusted,
        from: mail.from,
        to: mail.to,
    });
    Channels { webhook: config.webhook.clone(), mail, node: node.to_string() }
}

/// Everything that is looked at.
pub(super) struct Observer {
    handle: NodeHandle,
    monitor: Monitor,
    rules: AlertRules,
    channels: Arc<Channels>,
    directories: Vec<PathBuf>,
}

impl Observer {
    /// `databases`: paths of the apps' files.
    pub(super) fn new(
        config: &Config,
        handle: NodeHandle,
        monitor: Monitor,
        channels: Arc<Channels>,
        databases: &[PathBuf],
    ) -> Observer {
        let rules = AlertRules {
            peer_unseen_ms: config.alerts.peer_unseen_ms,
            clock_skew_ms: config.alerts.clock_skew_ms,
            disk_free_bytes: config.alerts.disk_free_bytes,
        };
        let parent = |path: &PathBuf| path.parent().map(Path::to_path_buf);
        let mut directories: Vec<PathBuf> =
            databases.iter().filter_map(parent).chain([config.data_dir.clone()]).collect();
        directories.sort();
        directories.dedup();
        Observer { handle, monitor, rules, channels, directories }
    }

    /// Begins to look, and to keep the table of changes, until `shutdown` holds `true`.
    pub(super) fn start(self, shutdown: &watch::Receiver<bool>) {
        let port = Arc::new(self.handle.clone());
        tokio::spawn(follow_changes(port, self.monitor.clone(), shutdown.clone()));
        tokio::spawn(self.run(shutdown.clone()));
    }

    async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let raised = self.monitor.ask(|store, _| store.raised_before()).await.unwrap_or_default();
        let mut alerts = Alerts::new(self.rules.clone(), raised);
        let mut outgoing: Vec<Outgoing> = self.channels.names().into_iter().map(Outgoing::new).collect();
        loop {
            if let Some(observed) = self.observe().await {
                self.tell(&mut alerts, &observed, &mut outgoing).await;
            }
            if outgoing.iter().any(|channel| !channel.is_empty()) {
                outgoing = self.deliver(outgoing).await;
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                // The sender gone means the same as `true`.
                _ = shutdown.wait_for(|stop| *stop) => return,
            }
        }
    }

    async fn status(&self) -> Option<Status> {
        ask(&self.handle, |node, now| node.status(now)).await?.ok()
    }

    async fn observe(&self) -> Option<Observed> {
        let status = self.status().await?;
        let names: Vec<_> =
            status.peers.iter().filter_map(|peer| Some((node_of(&peer.id)?, peer.name.clone()))).collect();
        let known = self.monitor.ask(move |store, now_ms| {
            store.name_servers(&names, now_ms)?;
            Ok((store.kinds()?, store.open_drift()?))
        });
        let (kinds, drift) = known.await.unwrap_or_default();
        let free = |path: &PathBuf| {
            let disk = nix::sys::statvfs::statvfs(path).ok()?;
            // The types of these figures differ between systems.
            #[allow(clippy::useless_conversion)]
            let free = u64::from(disk.blocks_available()) * u64::from(disk.fragment_size());
            Some((path.display().to_string(), free))
        };
        let disks = self.directories.iter().filter_map(free).collect();
        Some(Observed { status, kinds, drift, disks, now_ms: now_ms() })
    }

    async fn tell(&self, alerts: &mut Alerts, observed: &Observed, outgoing: &mut [Outgoing]) {
        for notice in alerts.look(observed) {
            let of = &notice.condition;
            match notice.recovered {
                true => tracing::info!(key = of.key, "alert is over: {}", of.message),
                false => tracing::warn!(key = of.key, severity = of.severity.word(), "alert: {}", of.message),
            }
            if !notice.silent {
                outgoing.iter_mut().for_each(|channel| channel.add(Letter::of(&notice)));
            }
            let by = self.channels.names().join(", ");
            // A list that cannot be written is missed by whoever looks at it, and by nobody else.
            let _ = self.monitor.ask(move |store, _| store.note_alert(&notice, &by)).await;
        }
    }

    /// On a thread of its own: servers may take their time.
    async fn deliver(&self, mut outgoing: Vec<Outgoing>) -> Vec<Outgoing> {
        let channels = self.channels.clone();
        let told = tokio::task::spawn_blocking(move || {
            outgoing.iter_mut().for_each(|channel| channel.deliver(&channels, now_ms()));
            outgoing
        });
        // A thread that panicked took the letters with it: what follows is told again.
        told.await.unwrap_or_else(|_| self.channels.names().into_iter().map(Outgoing::new).collect())
    }
}

/// Asks the node. `None`: it is at work, or gone.
pub(super) async fn ask<T: Send + 'static>(
    handle: &NodeHandle,
    question: impl FnOnce(&mut Node, Now) -> T + Send + 'static,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    let job = move |node: &mut Node, now: Now| {
        // Nobody waits any more when sending fails: nothing to do.
        let _ = reply.send(question(node, now));
    };
    if !handle.submit(Box::new(job)) {
        return None;
    }
    tokio::time::timeout(WITHIN, answer).await.ok()?.ok()
}
