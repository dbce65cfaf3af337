//! `litemesh demo`: three servers, a cut network, colliding writes on all sides, and nothing lost.
//!
//! Invariant: exit 0 only when all three databases are really equal and every row that was inserted is found: shown, or on
//! the shelf, or as what lost in the list of conflicts. Called by [`super`].

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::demo_cluster::{Server, all_equal, digests_equal, wait_until};
use super::error::{CommandError, Kind};
use super::output::table;
use super::{Context, conflicts};
use crate::node::view::{ConflictView, Status};

/// Longest wait for equality.
const EQUAL_WITHIN: Duration = Duration::from_secs(30);

/// The three servers.
const NAMES: [&str; 3] = ["pit", "stand", "field"];

/// Rows that each side writes apart under ids of its own choice.
const ENTRIES_EACH: u64 = 5;

/// Start three nodes on sample data, cut the network, write on all sides, heal, and show that nothing was lost
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Keep the directory of the three servers
    #[arg(long)]
    keep: bool,
}

/// One row that somebody inserted: where, and the text by which it is found again.
struct Inserted {
    database: &'static str,
    by: &'static str,
    what: &'static str,
    /// Counts the row where it is shown.
    sql: String,
    text: String,
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let directory = std::env::temp_dir().join(format!("litemesh-demo-{}", std::process::id()));
    let made = std::fs::create_dir_all(&directory);
    made.map_err(|error| CommandError::user(format!("cannot make {}", directory.display())).because(&error))?;
    let result = play(context, &directory);
    if arguments.keep {
        context.output.notice(&format!("kept: {}", directory.display()));
    } else {
        // Left behind it is only a temporary directory.
        let _ = std::fs::remove_dir_all(&directory);
    }
    result
}

fn play(context: &Context, directory: &Path) -> Result<(), CommandError> {
    let start = Instant::now();
    let say = |text: &str| context.output.notice(&format!("{:5.1} s  {text}", start.elapsed().as_secs_f64()));
    say("three servers, each with its own copy of the sample databases, each with a node");
    let mut servers = Vec::new();
    for name in NAMES {
        servers.push(Server::new(name, directory)?);
    }
    form_cluster(&mut servers)?;
    let before = equal_or_error(&servers, "before the cut")?;
    say(&format!("one cluster, equal content: {}", digests(&before)));

    servers.iter_mut().for_each(Server::stop);
    for server in &mut servers {
        server.start(None)?;
    }
    say("the network is cut: the three nodes run, and none can reach another");
    let inserted = write_apart(&servers)?;
    let apart =
        wait_until(&servers, EQUAL_WITHIN, |seen| seen.iter().all(|s| s.databases.iter().all(|d| d.outbox == 0)))?;
    let apart =
        apart.ok_or_else(|| CommandError::new(Kind::Integrity, "the nodes did not capture what the apps wrote"))?;
    say(&format!("{} rows inserted on the three sides, content now differs: {}", inserted.len(), digests(&apart)));
    if digests_equal(&apart) {
        return Err(CommandError::new(Kind::Internal, "the cut did not cut"));
    }

    servers.iter_mut().for_each(Server::stop);
    say("the network heals");
    let addresses: Vec<String> = servers.iter().map(Server::address).collect();
    for server in &mut servers {
        server.start(Some(&addresses))?;
    }
    let healed = equal_or_error(&servers, "after the cut")?;
    say(&format!("equal again: {}", digests(&healed)));
    report(context, &servers, &inserted, &healed)
}

/// The first founds, the others join by code.
fn form_cluster(servers: &mut [Server]) -> Result<(), CommandError> {
    let addresses: Vec<String> = servers.iter().map(Server::address).collect();
    let (founder, joiners) = servers.split_first_mut().expect("the demo has three servers");
    founder.start(Some(&[]))?;
    for joiner in joiners {
        joiner.join(&founder.invite()?)?;
        joiner.start(Some(&addresses))?;
    }
    Ok(())
}

fn equal_or_error(servers: &[Server], when: &str) -> Result<Vec<Status>, CommandError> {
    match wait_until(servers, EQUAL_WITHIN, all_equal)? {
        Some(seen) => Ok(seen),
        None => {
            let seen = wait_until(servers, Duration::ZERO, |_| true)?.unwrap_or_default();
            let states = seen.iter().map(super::status::describe).collect::<Vec<_>>().join("\n\n");
            let message = format!("the three servers are not equal {when}:\n{states}");
            Err(CommandError::new(Kind::Integrity, message)
                .hint("this should not happen: keep the output and report it"))
        }
    }
}

/// What the three apps write while they cannot see each other.
fn write_apart(servers: &[Server]) -> Result<Vec<Inserted>, CommandError> {
    let mut all = Vec::new();
    for (position, server) in servers.iter().enumerate() {
        let by = server.name;
        for number in 1..=ENTRIES_EACH {
            let text = format!("entry {number} of {by}");
            let id = 100 + number;
            server.write("scouting", &format!(
                "INSERT INTO scouting_entry (id, match_id, team_id, scout, notes) VALUES ({id}, 1, {number}, '{by}', '{text}')"
            ))?;
            let sql = format!("SELECT count(*) FROM scouting_entry WHERE notes = '{text}'");
            all.push(Inserted { database: "scouting", by, what: "the same five ids on all three", sql, text });
        }
        let text = format!("user-of-{by}");
        server.write("users", &format!("INSERT INTO user (username, team_number) VALUES ('{text}', 202)"))?;
        let sql = format!("SELECT count(*) FROM user WHERE username = '{text}'");
        all.push(Inserted { database: "users", by, what: "an id made by SQLite", sql, text });
        if position < 2 {
            let text = format!("Night Shift of {by}");
            server.write("scouting", &format!("INSERT INTO team (team_number, team_name) VALUES (707, '{text}')"))?;
            let sql = format!("SELECT count(*) FROM team WHERE team_name = '{text}'");
            all.push(Inserted { database: "scouting", by, what: "the same UNIQUE team number on two", sql, text });
            server.write("scouting", &format!("UPDATE team SET location = 'moved by {by}' WHERE team_number = 101"))?;
        }
    }
    Ok(all)
}

/// Where every row is now; the error when one is nowhere.
fn report(context: &Context, servers: &[Server], inserted: &[Inserted], healed: &[Status]) -> Result<(), CommandError> {
    let mut rows = Vec::new();
    let mut missing = Vec::new();
    let mut found = Vec::new();
    for row in inserted {
        let mut places = Vec::new();
        for server in servers {
            places.push(place(server, row)?);
        }
        let lost = places.iter().any(Option::is_none);
        if lost {
            missing.push(row.text.clone());
        }
        let same = places.windows(2).all(|pair| pair[0] == pair[1]);
        let shown = match (lost, same) {
            (true, _) => "LOST".to_string(),
            (false, true) => places[0].clone().unwrap_or_default(),
            (false, false) => places.into_iter().flatten().collect::<Vec<_>>().join(" / "),
        };
        found.push(json!({ "database": row.database, "by": row.by, "row": row.text, "place": shown }));
        rows.push(vec![row.by.to_string(), row.text.clone(), row.what.to_string(), shown]);
    }
    let lists: Value = servers[0].get("/api/v1/conflicts", &[("limit", "1000".into())])?;
    let lost: Vec<ConflictView> = serde_json::from_value(lists["conflicts"].clone()).unwrap_or_default();
    let document = json!({
        "equal": digests_equal(healed), "digests": healed.iter().map(digest_of).collect::<Vec<_>>(),
        "inserted": found, "missing": missing, "conflicts": lost,
    });
    context.output.result(&document, |_| {
        let mut text = format!("\n{}\n", table(&["written on", "row", "with", "is now, on all three"], &rows));
        if !lost.is_empty() {
            text += &format!("\nboth values of every collision are kept:\n{}\n", conflicts::list(&lost));
        }
        let lines: Vec<_> = healed.iter().map(|s| vec![s.node.name.clone(), digest_of(s)]).collect();
        text + &format!("\n{}\n\nnothing was lost, and all three are equal", table(&["server", "content"], &lines))
            .replace(
                "nothing was lost, and",
                if missing.is_empty() { "nothing was lost, and" } else { "ROWS ARE MISSING, though" },
            )
    });
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("rows that were inserted are nowhere: {}", missing.join(", "));
    Err(CommandError::new(Kind::Integrity, message).hint("this should not happen: keep the output and report it"))
}

/// Where a row is on one server: in the app's table, on the shelf, or among what lost.
fn place(server: &Server, row: &Inserted) -> Result<Option<String>, CommandError> {
    match server.read(row.database, &row.sql)? {
        0 => {}
        1 => {
            let column = row.sql.replace("count(*)", "id");
            return Ok(Some(format!("shown, id {}", server.read(row.database, &column)?)));
        }
        more => return Ok(Some(format!("shown {more} times"))),
    }
    let holds = |document: &Value| document.to_string().contains(&row.text);
    let shelf: Value = server.get("/api/v1/shelf", &[])?;
    if shelf["shelf"].as_array().into_iter().flatten().any(holds) {
        return Ok(Some("kept on the shelf".to_string()));
    }
    let lost: Value = server.get("/api/v1/conflicts", &[("limit", "1000".into())])?;
    let among = lost["conflicts"].as_array().into_iter().flatten().any(holds);
    Ok(among.then(|| "merged; its values are in the list of conflicts".to_string()))
}

fn digest_of(status: &Status) -> String {
    let short =
        |d: &crate::node::view::DatabaseView| format!("{} {}", d.name, d.digest.chars().take(12).collect::<String>());
    status.databases.iter().map(short).collect::<Vec<_>>().join("  ")
}

/// Each server's content, short.
fn digests(seen: &[Status]) -> String {
    if digests_equal(seen) {
        return seen.first().map(digest_of).unwrap_or_default();
    }
    seen.iter().map(|status| format!("{}: {}", status.node.name, digest_of(status))).collect::<Vec<_>>().join("; ")
}
