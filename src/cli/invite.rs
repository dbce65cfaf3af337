//! `litemesh invite`.
//!
//! Invariant: prints one line, the join code, and the picture only when asked. Called by [`super`].

use clap::Args;
use serde_json::{Value, json};

use super::Context;
use super::error::{CommandError, Kind};

/// Print a one-time join code, one line
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How long the code is good for
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = humantime::parse_duration)]
    expires: std::time::Duration,
    /// What the new server may do: member, read-only (gets everything, sends nothing) or admin (may let others in)
    #[arg(long, default_value = "member", value_parser = ["member", "read-only", "admin"])]
    role: String,
    /// Print the code as a QR picture too, for a phone or a camera
    #[arg(long)]
    qr: bool,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let client = context.client()?;
    let body = json!({ "expires_s": arguments.expires.as_secs(), "role": arguments.role });
    let made: Value = client.post("/api/v1/invites", &body, None)?;
    let code = made["code"].as_str().unwrap_or_default();
    let picture = if arguments.qr { format!("\n\n{}", picture(code)?) } else { String::new() };
    context.output.result(&made, |_| format!("{code}{picture}"));
    let expires = made["expires"].as_str().unwrap_or_default();
    context.output.notice(&format!("good for one server until {expires}; there: litemesh join CODE --db NAME=PATH …"));
    Ok(())
}

/// The code in half blocks, light on dark as most terminals are; readers take both.
fn picture(code: &str) -> Result<String, CommandError> {
    use qrcode::render::unicode::Dense1x2;
    let made = qrcode::QrCode::with_error_correction_level(code, qrcode::EcLevel::L);
    let made =
        made.map_err(|error| CommandError::new(Kind::Internal, "the code does not fit a picture").because(&error))?;
    Ok(made.render::<Dense1x2>().dark_color(Dense1x2::Dark).light_color(Dense1x2::Light).quiet_zone(true).build())
}
