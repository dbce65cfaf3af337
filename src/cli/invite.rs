//! `litemesh invite`.
//!
//! Invariant: prints one line, the join code. Called by [`super`].

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use super::error::CommandError;

/// Print a one-time join code, one line
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How long the code is good for
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = humantime::parse_duration)]
    expires: std::time::Duration,
    /// Print the code as a QR picture too
    #[arg(long, hide = true)]
    qr: bool,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    if arguments.qr {
        return Err(
            CommandError::usage("--qr is not part of this version").hint("copy the code as text: litemesh invite")
        );
    }
    let client = context.client()?;
    let body = json!({ "expires_s": arguments.expires.as_secs() });
    let made: Value = client.post("/api/v1/invites", &body, None)?;
    context.output.result(&made, |made| made["code"].as_str().unwrap_or_default().to_string());
    let expires = made["expires"].as_str().unwrap_or_default();
    context.output.notice(&format!("good for one server until {expires}; there: litemesh join CODE --db NAME=PATH …"));
    Ok(())
}
