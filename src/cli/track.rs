//! `litemesh track`: the user's own jobs in the same tracking as the node's.
//!
//! `track run` is a guard around any command: output and exit code pass through, a heartbeat says that it lives, and how it
//! ended is recorded however it ended; killed together with its command, the run counts as interrupted when the heartbeat
//! stays out. States: lease wanted → begun → beating → ended. Invariants: tracking never stands in the way of the job: where
//! no node runs, the command is run all the same and a warning says that nobody noted it; only a lease that another run
//! holds keeps it from starting. Called by [`super`].

use std::process::{Command, ExitCode, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::Context;
use super::client::Client;
use super::error::{CommandError, Kind};
use super::output::table;

/// Signs of life of `track run`.
const BEAT: Duration = Duration::from_secs(10);

/// … and how long they may stay out.
const BEAT_LEASE_S: f64 = 45.0;

/// Pause while another run holds the lease.
const LEASE_LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Record jobs of your own (an import, a photo upload) beside the node's: status, history, reliability
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Run a command as a tracked run; its output and exit code pass through
    Run(RunArguments),
    /// Begin a run; prints its number
    Start(StartArguments),
    /// Say how far a run is; also a sign of life
    Progress(ProgressArguments),
    /// End a run well
    Complete(CompleteArguments),
    /// End a run that failed
    Fail(FailArguments),
    /// How every kind of run stands, and the latest runs
    Status(StatusArguments),
}

#[derive(Debug, Args)]
struct RunArguments {
    /// Kind of the run, like "import"
    kind: String,
    /// What it is about
    #[arg(long, default_value = "")]
    subject: String,
    /// Also when another run of this kind and subject is going on
    #[arg(long)]
    parallel: bool,
    /// Wait so many seconds for another run of this kind and subject to end
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    wait: f64,
    /// Anything, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = object)]
    metadata: Option<Value>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
struct StartArguments {
    /// Kind of the run, like "import"
    kind: String,
    /// What it is about
    #[arg(long, default_value = "")]
    subject: String,
    /// Also when another run of this kind and subject is going on
    #[arg(long)]
    parallel: bool,
    /// Counts as interrupted after so many seconds without a sign of life
    #[arg(long, value_name = "SECONDS")]
    lease: Option<f64>,
    /// Which process runs it
    #[arg(long, default_value = "")]
    instance: String,
    /// Records to do
    #[arg(long)]
    total: Option<u64>,
    /// Anything, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = object)]
    metadata: Option<Value>,
}

#[derive(Debug, Args)]
struct ProgressArguments {
    /// The run's number
    run: i64,
    /// Records done so far
    #[arg(long)]
    records: Option<u64>,
    /// Records to do
    #[arg(long)]
    total: Option<u64>,
    /// What it is at
    #[arg(long)]
    message: Option<String>,
    /// Merged into the run's, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = object)]
    metadata: Option<Value>,
}

#[derive(Debug, Args)]
struct CompleteArguments {
    /// The run's number
    run: i64,
    /// Records done
    #[arg(long)]
    records: Option<u64>,
    /// Records that could not be done
    #[arg(long)]
    failed: Option<u64>,
    /// How far the job has come, in its own words; kept as the kind's watermark
    #[arg(long)]
    watermark: Option<String>,
    /// Merged into the run's, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = object)]
    metadata: Option<Value>,
}

#[derive(Debug, Args)]
struct FailArguments {
    /// The run's number
    run: i64,
    /// Why
    #[arg(long, default_value = "it failed")]
    error: String,
    /// Records done all the same
    #[arg(long)]
    records: Option<u64>,
}

#[derive(Debug, Args)]
struct StatusArguments {
    /// Only this kind
    kind: Option<String>,
    /// So many of the latest runs
    #[arg(long, default_value_t = 10)]
    limit: usize,
}

fn object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(Value::Object(object)),
        _ => Err("write it as a JSON object, like '{\"match\": 12}'".to_string()),
    }
}

pub(super) fn call(context: &Context, arguments: Arguments) -> Result<ExitCode, CommandError> {
    match arguments.what {
        What::Run(arguments) => return run(context, arguments),
        What::Start(arguments) => start(context, arguments)?,
        What::Progress(it) => {
            let body = body(&[
                ("records_processed", it.records.map(Value::from)),
                ("records_total", it.total.map(Value::from)),
                ("message", it.message.map(Value::from)),
                ("metadata", it.metadata),
            ]);
            tell(context, it.run, "progress", &body)?;
        }
        What::Complete(it) => {
            let body = body(&[
                ("records_processed", it.records.map(Value::from)),
                ("records_failed", it.failed.map(Value::from)),
                ("latest_timestamp", it.watermark.map(Value::from)),
                ("metadata", it.metadata),
            ]);
            tell(context, it.run, "complete", &body)?;
        }
        What::Fail(it) => {
            let error = Some(Value::from(it.error));
            let body = body(&[("error_message", error), ("records_processed", it.records.map(Value::from))]);
            tell(context, it.run, "fail", &body)?;
        }
        What::Status(arguments) => status(context, &arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The members that are there.
fn body(members: &[(&str, Option<Value>)]) -> Value {
    let there = members.iter().filter_map(|(name, value)| Some((name.to_string(), value.clone()?)));
    Value::Object(there.collect::<Map<_, _>>())
}

fn tell(context: &Context, run: i64, what: &str, body: &Value) -> Result<(), CommandError> {
    let run: Value = context.client()?.post(&format!("/api/v1/runs/{run}/{what}"), body, None)?;
    context.output.result(&run, |run| format!("run {}: {}", run["id"], run["status"].as_str().unwrap_or_default()));
    Ok(())
}

fn start(context: &Context, it: StartArguments) -> Result<(), CommandError> {
    let body = body(&[
        ("sync_type", Some(it.kind.into())),
        ("subject", Some(it.subject.into())),
        ("exclusive", Some((!it.parallel).into())),
        ("lease_s", it.lease.map(Value::from)),
        ("service_instance", (!it.instance.is_empty()).then(|| it.instance.into())),
        ("records_total", it.total.map(Value::from)),
        ("metadata", it.metadata),
    ]);
    let run: Value = context.client()?.post("/api/v1/runs", &body, None)?;
    context.output.result(&run, |run| run["id"].to_string());
    Ok(())
}

fn status(context: &Context, arguments: &StatusArguments) -> Result<(), CommandError> {
    let client = context.client()?;
    let mut kinds: Value = client.get("/api/v1/runs/kinds", &[])?;
    let mut query = vec![("limit", arguments.limit.max(1).to_string())];
    if let Some(kind) = &arguments.kind {
        query.push(("kind", kind.clone()));
        if let Some(list) = kinds["kinds"].as_array_mut() {
            list.retain(|one| one["sync_type"] == kind.as_str());
        }
    }
    let runs: Value = client.get("/api/v1/runs", &query)?;
    let both = json!({ "kinds": kinds["kinds"], "runs": runs["runs"] });
    context.output.result(&both, describe);
    Ok(())
}

fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn describe(both: &Value) -> String {
    let rows = |list: &Value, columns: &[&str]| -> Vec<Vec<String>> {
        let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().map(|one| columns.iter().map(|column| word(&one[*column])).collect()).collect()
    };
    let kinds = rows(
        &both["kinds"],
        &[
            "sync_type",
            "subject",
            "last_sync_status",
            "last_sync_timestamp",
            "successful_sync_count",
            "failed_sync_count",
            "last_records_processed",
            "last_error_message",
        ],
    );
    if kinds.is_empty() {
        return "no run was recorded yet".to_string();
    }
    let runs = rows(
        &both["runs"],
        &[
            "id",
            "sync_type",
            "subject",
            "status",
            "sync_timestamp",
            "records_processed",
            "duration_seconds",
            "service_instance",
        ],
    );
    let kinds =
        table(&["kind", "subject", "status", "last success", "well", "failed", "records", "last error"], &kinds);
    let runs = table(&["run", "kind", "subject", "status", "began", "records", "seconds", "by"], &runs);
    format!("{}\n\n{}", kinds.trim_end(), runs.trim_end())
}

/// The run's number; `None`: nobody notes it.
fn begin(context: &Context, it: &RunArguments) -> Result<Option<(Client, i64)>, CommandError> {
    let client = match context.client() {
        Ok(client) => client,
        Err(error) if error.kind == Kind::Unreachable => {
            context.output.notice(&format!("warning: the run is not recorded\n{error}"));
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let command: Vec<String> = it.command.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let mut metadata = it.metadata.clone().unwrap_or_else(|| json!({}));
    // The program's name only: arguments may hold what is nobody's business.
    metadata["command"] = command.first().cloned().unwrap_or_default().into();
    let body = json!({
        "sync_type": it.kind,
        "subject": it.subject,
        "exclusive": !it.parallel,
        "lease_s": BEAT_LEASE_S,
        "service_instance": format!("{}:{}", crate::daemon::host_name(), std::process::id()),
        "metadata": metadata,
    });
    let until = Instant::now() + Duration::from_secs_f64(it.wait.clamp(0.0, 86_400.0));
    loop {
        match client.post::<Value>("/api/v1/runs", &body, None) {
            Ok(run) => return Ok(run["id"].as_i64().map(|id| (client, id))),
            Err(error) if error.code() == Some("lease_held") && Instant::now() < until => {
                std::thread::sleep(LEASE_LOOK_AGAIN);
            }
            Err(error) if error.kind == Kind::Unreachable => {
                context.output.notice(&format!("warning: the run is not recorded\n{error}"));
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    }
}

fn run(context: &Context, it: RunArguments) -> Result<ExitCode, CommandError> {
    let tracked = begin(context, &it)?;
    let spawned = Command::new(&it.command[0]).args(&it.command[1..]).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(source) => {
            let name = it.command[0].to_string_lossy().into_owned();
            if let Some((client, id)) = &tracked {
                end(context, client, *id, Some(format!("the command cannot be started: {source}")), None);
            }
            let error = CommandError::user(format!("cannot start `{name}`")).because(&source);
            return Err(error.hint("check the command behind `--`"));
        }
    };
    let Some((client, id)) = tracked else {
        return child.wait().map(exit_code).map_err(|source| lost(&source));
    };
    let (ended, heart) = channel::<()>();
    let status = std::thread::scope(|scope| {
        let client = &client;
        let beats = scope.spawn(move || beat(client, id, &heart));
        let status = child.wait();
        stop(ended);
        // A heart that panicked has nothing left to say.
        let _ = beats.join();
        status
    });
    let status = status.map_err(|source| lost(&source))?;
    let failure = (!status.success()).then(|| format!("the command ended with {status}"));
    end(context, &client, id, failure, status.code());
    Ok(exit_code(status))
}

fn stop(ended: Sender<()>) {
    drop(ended);
}

fn lost(source: &std::io::Error) -> CommandError {
    CommandError::new(Kind::Internal, "how the command ended cannot be seen").because(source)
}

/// Says that it lives until nobody holds the other end. A beat that cannot be told is told by the next one.
fn beat(client: &Client, id: i64, heart: &Receiver<()>) {
    while heart.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
        let beaten = client.post::<Value>(&format!("/api/v1/runs/{id}/heartbeat"), &json!({}), None);
        if let Err(error) = beaten {
            tracing::debug!(%error, "heartbeat");
        }
    }
}

/// Records the end. The job is done whatever becomes of its record.
fn end(context: &Context, client: &Client, id: i64, failure: Option<String>, code: Option<i32>) {
    let metadata = json!({ "exit_code": code });
    let (what, body) = match failure {
        Some(error) => ("fail", json!({ "error_message": error, "metadata": metadata })),
        None => ("complete", json!({ "metadata": metadata })),
    };
    if let Err(error) = client.post::<Value>(&format!("/api/v1/runs/{id}/{what}"), &body, None) {
        context.output.notice(&format!("warning: how run {id} ended is not recorded\n{error}"));
    }
}

/// The command's own code; killed by a signal, 128 and its number, as shells say it.
pub(super) fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(70);
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(70))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_are_not_there_are_left_out() {
        let all = body(&[("a", Some(1.into())), ("b", None)]);
        assert_eq!(all, json!({ "a": 1 }));
        assert!(object("{\"a\":1}").is_ok() && object("[1]").is_err() && object("x").is_err());
    }
}
