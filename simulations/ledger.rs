//! The ledger of long runs: rows of `RELIABILITY.md`, appended by commands and sealed.
//!
//! Every row ends with a seal: the first 12 hex digits of blake3 over the row before's seal and this row's cells. A row that
//! was edited, left out or put elsewhere breaks every seal from there on; `tests/reliability.rs` reads the file and says
//! where. (A seal proves care, not honesty: who wants to lie can run this code.) Invariant: rows are only ever appended.
//! Callers: `simulate` and the other binaries of `simulations/`; the test.

use std::io;
use std::path::Path;

/// The line above the table's rows.
pub const HEADER: &str = "| # | date | method | commit | seeds | runs | crashes | hours | reached | result | seal |";

/// What one long run came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// What was run: binary, scenario, options.
    pub method: String,
    /// Commit of the source, as `git rev-parse` says; `+` behind it when the tree had changes.
    pub commit: String,
    /// First and last seed, or what stands for it.
    pub seeds: String,
    /// Runs, rounds, histories.
    pub runs: u64,
    /// Processes or nodes killed, power cuts.
    pub crashes: u64,
    /// Virtual hours of whole clusters (0 where time is real).
    pub hours: f64,
    /// Marks and kinds of faults that were reached.
    pub reached: String,
    /// One clause: `0 lost, 0 differences`, or what was found.
    pub result: String,
}

/// Appends a row. The file must have the table.
pub fn append(file: &Path, entry: &Entry) -> io::Result<()> {
    let mut text = std::fs::read_to_string(file)?;
    let rows = rows(&text).map_err(io::Error::other)?;
    let last = rows.last().map_or(String::new(), |row| row.last().cloned().unwrap_or_default());
    let cells = [
        (rows.len() + 1).to_string(),
        today(),
        entry.method.clone(),
        entry.commit.clone(),
        entry.seeds.clone(),
        entry.runs.to_string(),
        entry.crashes.to_string(),
        format!("{:.1}", entry.hours),
        entry.reached.clone(),
        entry.result.clone(),
    ]
    .map(|cell| cell.replace(['|', '\n'], " ").trim().to_string());
    let seal = seal(&last, &cells);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text += &format!("| {} | {seal} |\n", cells.join(" | "));
    std::fs::write(file, text)
}

/// All rows, checked. The error says which one is not as a command wrote it.
pub fn rows(text: &str) -> Result<Vec<Vec<String>>, String> {
    let begin = text.lines().position(|line| line == HEADER).ok_or("the file has no ledger")?;
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut last = String::new();
    for line in text.lines().skip(begin + 2).filter(|line| !line.trim().is_empty()) {
        let number = rows.len() + 1;
        let inner = line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |"));
        let cells: Vec<String> = inner.unwrap_or_default().split(" | ").map(|cell| cell.trim().to_string()).collect();
        if cells.len() != 11 || cells[0] != number.to_string() {
            return Err(format!("row {number} of the ledger is no row: {line}"));
        }
        if seal(&last, &cells[..10]) != cells[10] {
            return Err(format!("row {number} of the ledger was not written by a command: its seal is wrong"));
        }
        last.clone_from(&cells[10]);
        rows.push(cells);
    }
    Ok(rows)
}

/// The commit of the working directory, for [`Entry::commit`].
pub fn commit() -> String {
    let git =
        |words: &[&str]| std::process::Command::new("git").args(words).output().ok().filter(|out| out.status.success());
    let head = git(&["rev-parse", "--short=12", "HEAD"]);
    let head = head.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_string());
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|out| !out.stdout.is_empty());
    head.map_or("unknown".to_string(), |head| if changed { format!("{head}+") } else { head })
}

fn seal(last: &str, cells: &[String]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("litemesh 1 ledger row");
    hasher.update(last.as_bytes());
    for cell in cells {
        hasher.update(&(cell.len() as u64).to_be_bytes()).update(cell.as_bytes());
    }
    hasher.finalize().to_hex()[..12].to_string()
}

/// The date in UTC. The civil date is computed as in Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let shifted = (since.as_secs() / 86_400) as i64 + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    format!("{:04}-{month:02}-{day:02}", year_of_era + era * 400 + i64::from(month <= 2))
}
