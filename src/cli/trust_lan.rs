//! `litemesh trust-lan`.
//!
//! Invariant: the door closes by itself and with the process. Called by [`super`].

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use super::error::CommandError;

/// For a while, let in whoever says `litemesh join --lan` on the local network, without a code
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How long, at most a day; "off" ends it at once
    #[arg(value_name = "TIME|off", default_value = "10m", value_parser = time)]
    time: Duration,
}

fn time(text: &str) -> Result<Duration, String> {
    match text {
        "off" => Ok(Duration::ZERO),
        _ => humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 10m, or off")),
    }
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let client = context.client()?;
    let trust: Value = client.post("/api/v1/trust-lan", &json!({ "for_s": arguments.time.as_secs() }), None)?;
    context.output.result(&trust, |trust| match trust["until"].as_str() {
        Some(until) => format!("until {until} anybody on the local network gets in with: litemesh join --lan"),
        None => "nobody gets in without a code".to_string(),
    });
    if !trust["until"].is_null() {
        context
            .output
            .notice("who comes in is listed by litemesh status; whom you do not know: litemesh peers revoke NAME");
    }
    Ok(())
}
