//! `[verify]` and the `verify` of tables: words of people to settings.
//!
//! Invariant: what is refused names the key, what stands there and what may. Caller: [`super::resolve`].

use super::ConfigError;
use super::raw::{RawConfig, RawVerify};
use super::resolve::refuse;
use crate::node::verify_schedule::{Criticality, Schedule, VerifySettings};

const WHEN: &str = "an interval of 10 s to 366 days (\"15m\"), a time (\"03:00\", \"sun 03:00\"), a cron line of five fields (\"0 4 * * 0\"), \
     \"session\" (after what others wrote was applied) or \"off\"";

pub(super) fn resolve(raw: &RawConfig) -> Result<VerifySettings, ConfigError> {
    let RawVerify { count, ids, checksum, full, share, share_by_hand, repair } = &raw.verify;
    let when = |key: &str, text: &Option<String>| {
        let text = text.as_deref().unwrap_or("off");
        Schedule::parse(text).ok_or_else(|| refuse(key, text, WHEN))
    };
    let percent = |key: &str, value: &Option<i64>, usual: u32| match value {
        None => Ok(usual),
        Some(value @ 1..=100) => Ok(*value as u32),
        Some(value) => Err(refuse(key, value.to_string(), "1 to 100, percent of a core")),
    };
    let repair = match repair.as_deref().unwrap_or("auto") {
        "auto" => true,
        "ask" => false,
        other => return Err(refuse("verify.repair", other, "\"auto\" or \"ask\"")),
    };
    let usual = VerifySettings::default();
    let count = when("verify.count", count)?;
    let deeper = [("verify.ids", ids), ("verify.checksum", checksum), ("verify.full", full)];
    let [ids, checksum, full] = deeper.map(|(key, text)| match when(key, text) {
        Ok(Schedule::AfterSession) => Err(refuse(key, "session", "for `verify.count` only")),
        other => other,
    });
    Ok(VerifySettings {
        count,
        ids: ids?,
        checksum: checksum?,
        full: full?,
        share: percent("verify.share", share, usual.share)?,
        share_by_hand: percent("verify.share_by_hand", share_by_hand, usual.share_by_hand)?,
        repair,
        tables: tables(raw)?,
    })
}

fn tables(raw: &RawConfig) -> Result<Vec<(String, String, Criticality)>, ConfigError> {
    let mut tables = Vec::new();
    for database in &raw.database {
        for table in &database.table {
            let what = match table.verify.as_deref().unwrap_or("normal") {
                "normal" => continue,
                "critical" => Criticality::Critical,
                "off" => Criticality::Off,
                other => {
                    return Err(refuse("database.table.verify", other, "one of critical, normal, off"));
                }
            };
            tables.push((database.name.clone(), table.name.clone(), what));
        }
    }
    Ok(tables)
}
