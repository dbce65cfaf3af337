//! Range fingerprints in figures: what it takes to find the rows that differ, and what it costs to keep the fingerprints.
//!
//! Finding: two real logs on disk with the same rows (one event each, 10 columns), some of which show something else on one
//! side; the descent with the real codec, every message encoded and decoded. Counted: bytes of all frames both ways, round
//! trips, time of both sides together. Does not count: the network's own bytes and its latency. The bound is what any protocol
//! needs to name d of n rows that both know: log2 of (n over d) bits. Cost: a real node takes the same events in, or captures
//! the same rows of an app, with and without fingerprints in turns. Callers: `simulate --scenario reconcile [--count ROWS]`,
//! `cargo bench -- compare`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use litemesh::log::{Log, Printed};
use litemesh::merge::Evaluator;
use litemesh::merge::rank::Ranks;
use litemesh::merge::store::{CellState, Row, Store, TableId};
use litemesh::model::{Birth, Cell, Dot, OriginId, RowId, Stamp, Value};
use litemesh::node::membership::{Membership, found_cluster};
use litemesh::node::{DatabaseSettings, Input, Node, NodeSettings, Now};
use litemesh::reconcile::print::print_16;
use litemesh::reconcile::{Answer, Descent, answer};
use litemesh::wire::compare::{Compare, Compared, ComparedTable};
use litemesh::wire::message::Message;

use crate::bytes::{COLUMNS, Chain, append, values};

/// Rows, when nobody says how many.
const ROWS_DEFAULT: u64 = 100_000;
const ROWS_PER_COMMIT: u64 = 20_000;
/// What a node reads in one step.
const BUDGET: usize = 4_000;
const WALL_MS: u64 = 1_748_736_000_000;
const TURNS: usize = 5;

type Failure = Box<dyn std::error::Error>;

/// Measures and prints the tables.
pub fn run(count: Option<u64>) -> Result<String, String> {
    let rows = count.unwrap_or(ROWS_DEFAULT).max(1_000);
    let scratch = crate::world::scratch::Scratch::new();
    let found = finding(scratch.path(), rows).map_err(|error| error.to_string())?;
    let kept = keeping(scratch.path()).map_err(|error| error.to_string())?;
    Ok(format!("{found}\n{kept}"))
}

fn row_id(seq: u64) -> RowId {
    RowId::Born(Birth { origin: OriginId([0x5a; 16]), seq, index: 0 })
}

fn finding(folder: &Path, rows: u64) -> Result<String, Failure> {
    let (stock, root, micros) = Stock::new(folder, rows)?;
    let mut text = format!(
        "{rows} rows, one event each; root {}, read in {micros} µs; a hello says 16 bytes of content (19 with its field)\n\n\
         | differ | which | bytes | a row | bound | all ids (16 B) | round trips | ms, both sides |\n\
         |---|---|---|---|---|---|---|---|\n",
        data_encoding::HEXLOWER.encode(&root[..4]),
    );
    for (differ, recent) in [(0, false), (1, false), (100, false), (100, true), (100_000, false), (100_000, true)] {
        if differ * 2 > rows {
            continue;
        }
        let Found { bytes, rounds, ms } = stock.find(&stock.other(differ, recent)?, differ)?;
        let words = if differ == 0 {
            "-"
        } else if recent {
            "newest"
        } else {
            "random"
        };
        text += &format!(
            "| {differ} | {words} | {bytes} | {} | {} | {} | {rounds} | {ms:.0} |\n",
            (bytes as u64).checked_div(differ).map_or("-".to_string(), |each| each.to_string()),
            bound(rows, differ),
            rows * 16,
        );
    }
    Ok(text)
}

/// A log with rows, and a folder for others that differ.
pub(crate) struct Stock {
    folder: PathBuf,
    here: Log,
    table: TableId,
    rows: u64,
}

/// What it took to find the rows that differ: bytes and round trips, ms of both sides together.
pub(crate) struct Found {
    pub(crate) bytes: usize,
    pub(crate) rounds: u32,
    pub(crate) ms: f64,
}

impl Stock {
    /// The rows; the root of their fingerprints, and in how many µs it was read.
    pub(crate) fn new(folder: &Path, rows: u64) -> Result<(Stock, [u8; 16], u128), Failure> {
        let base = folder.join("base.redb");
        {
            let log = Log::open(&base)?;
            for from in (1..=rows).step_by(ROWS_PER_COMMIT as usize) {
                show(&log, (from..(from + ROWS_PER_COMMIT).min(rows + 1)).collect(), true)?;
            }
        }
        let here = Log::open(&base)?;
        let table = table_of(&here)?;
        let start = Instant::now();
        let root = here.read()?.table_root(table)?;
        let micros = start.elapsed().as_micros();
        Ok((Stock { folder: folder.to_owned(), here, table, rows }, print_16(&root), micros))
    }

    /// Another log in which so many rows show something else: any, or the newest.
    pub(crate) fn other(&self, differ: u64, recent: bool) -> Result<Log, Failure> {
        let other = self.folder.join("other.redb");
        std::fs::copy(self.folder.join("base.redb"), &other)?;
        let there = Log::open(&other)?;
        let chosen = choose(self.rows, differ, recent);
        for page in chosen.chunks(ROWS_PER_COMMIT as usize) {
            show(&there, page.to_vec(), false)?;
        }
        Ok(there)
    }

    /// Finds them, and no others.
    pub(crate) fn find(&self, there: &Log, differ: u64) -> Result<Found, Failure> {
        let (bytes, rounds, found, ms) = descend(&self.here, there, self.table)?;
        if found as u64 != differ {
            return Err(format!("{differ} rows differ, {found} were found").into());
        }
        Ok(Found { bytes, rounds, ms })
    }
}

/// Bytes that name d of n.
pub(crate) fn bound(n: u64, d: u64) -> u64 {
    let bits: f64 = (0..d).map(|at| ((n - at) as f64 / (at + 1) as f64).log2()).sum();
    (bits / 8.0).ceil() as u64
}

fn choose(rows: u64, differ: u64, recent: bool) -> Vec<u64> {
    if recent {
        return (rows - differ + 1..=rows).collect();
    }
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut chosen = std::collections::BTreeSet::new();
    while (chosen.len() as u64) < differ {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chosen.insert((state >> 33) % rows + 1);
    }
    chosen.into_iter().collect()
}

fn table_of(log: &Log) -> Result<TableId, Failure> {
    Ok(log.read()?.find_table("scouting", "scouting_data")?.ok_or("no rows")?)
}

/// Rows that show their values, or others.
fn show(log: &Log, rows: Vec<u64>, own: bool) -> Result<(), Failure> {
    let ranks = Ranks::default();
    let mut write = log.write()?;
    let table = write.table_id("scouting", "scouting_data")?;
    for column in COLUMNS {
        write.column_id(table, column)?;
    }
    let image = |number: u64| values(if own { number } else { !number }).0;
    for number in &rows {
        let dot = Dot { origin: OriginId([0x5a; 16]), seq: *number, index: 0 };
        let state = |(column, value)| CellState {
            column: column as u16,
            cell: Cell::Plain(value),
            stamp: Stamp(*number << 16),
            dot,
            born: true,
            tally: None,
        };
        let cells = image(*number).into_iter().enumerate().map(state).collect();
        if own {
            let births = vec![(dot, Stamp(*number << 16))];
            write.put_row(&row_id(*number), Arc::new(Row { alive: true, births, cells, ..Row::new(table) }), true)?;
        }
    }
    let mut evaluator = Evaluator::new(&mut write, &ranks, &[], 0);
    for number in &rows {
        evaluator.mark_shown(&row_id(*number), Some(&(vec![Value::Integer(*number as i64)], image(*number))))?;
    }
    evaluator.finish()?;
    write.commit_durable()?;
    Ok(())
}

/// Bytes, round trips, rows found, ms.
fn descend(here: &Log, there: &Log, table: TableId) -> Result<(usize, u32, usize, f64), Failure> {
    let (here, there, tables) = (here.read()?, there.read()?, [Some(table)]);
    let mine = Printed { read: &here, tables: &tables };
    let theirs = Printed { read: &there, tables: &tables };
    let named =
        ComparedTable { number: 0, database: "scouting".into(), table: "scouting_data".into(), schema: [7; 16] };
    let start = spent_ms();
    let (mut bytes, mut session, mut number) = (0, Descent::new(1), 0);
    while !session.is_done() && !session.is_cut_off() {
        if session.is_working() {
            session.work(&mine, BUDGET)?;
            continue;
        }
        let Some(blocks) = session.ask(&mine, BUDGET)? else { break };
        number += 1;
        let frame = Message::Compare(Compare { stand: 1, number, tables: vec![named.clone()], blocks }).encode();
        bytes += frame.len();
        let Message::Compare(question) = Message::decode(&frame)? else { return Err("another message".into()) };
        let said = answer(&theirs, &question.blocks, BUDGET)?;
        let (answered, blocks) = (said.answered, said.blocks);
        let frame = Message::Compared(Compared { stand: 1, number, answered, blocks, unlike: Vec::new() }).encode();
        bytes += frame.len();
        let Message::Compared(compared) = Message::decode(&frame)? else { return Err("another message".into()) };
        session.hear(Answer { answered: compared.answered, blocks: compared.blocks })?;
    }
    Ok((bytes, session.rounds(), session.found().len(), spent_ms() - start))
}

/// What a node does in one measurement.
#[derive(Clone, Copy)]
enum Work {
    /// Takes in events of others: how many, rows in each.
    Apply(u64, u64),
    /// Captures rows that an app wrote in one transaction.
    Capture(u64),
}

fn keeping(folder: &Path) -> Result<String, Failure> {
    let mut text = format!(
        "ms of computing, medians of {TURNS} turns each, with and without in turns; a real node, log and file\n\n\
         | work | rows | without, ms | with, ms | with / without |\n|---|---|---|---|---|\n"
    );
    let works = [
        ("takes events of 500 rows in", Work::Apply(100, 500)),
        ("takes events of 1 row in", Work::Apply(10_000, 1)),
        ("captures one transaction", Work::Capture(50_000)),
    ];
    for (words, work) in works {
        let mut times = [Vec::new(), Vec::new()];
        for turn in 0..2 * TURNS {
            // Who begins changes, too.
            let with = (turn + turn / 2) % 2;
            let place = folder.join(format!("turn-{turn}"));
            std::fs::create_dir_all(&place)?;
            times[with].push(measure(&place, work, with == 1)?);
            std::fs::remove_dir_all(&place)?;
        }
        let median = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let [mut without, mut with] = times;
        let (without, with) = (median(&mut without), median(&mut with));
        let rows = match work {
            Work::Apply(events, rows) => events * rows,
            Work::Capture(rows) => rows,
        };
        text += &format!("| {words} | {rows} | {without:.0} | {with:.0} | {:.3} |\n", with / without);
    }
    Ok(text)
}

/// What this thread has computed so far, ms: other programs on the machine do not count. Where the system does not tell, the
/// time that passed.
fn spent_ms() -> f64 {
    static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    match told.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()) {
        Some(nanos) => nanos / 1e6,
        None => BEGAN.get_or_init(Instant::now).elapsed().as_secs_f64() * 1e3,
    }
}

/// Ms for the work.
fn measure(folder: &Path, work: Work, with: bool) -> Result<f64, Failure> {
    let seed = [1; 32];
    let founder = found_cluster(&seed, "server", "measured", WALL_MS);
    let cluster = Membership::new(founder.clone())?.cluster().0;
    let path = folder.join("scouting.db");
    let app = rusqlite::Connection::open(&path)?;
    let columns: Vec<String> = COLUMNS[1..].iter().map(|name| format!("\"{name}\"")).collect();
    app.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; CREATE TABLE scouting_data (id INTEGER PRIMARY KEY, {});",
        columns.join(", ")
    ))?;
    let log = Arc::new(Log::open(&folder.join("events.redb"))?);
    if !with {
        log.leave_out_prints();
    }
    Node::enter(&log, vec![founder])?;
    let settings = NodeSettings {
        data_dir: folder.to_path_buf(),
        key_seed: seed,
        name: "server".into(),
        databases: vec![DatabaseSettings { name: "scouting".into(), path, ..DatabaseSettings::default() }],
        entropy: seed,
        machine_id: "measured".into(),
        pace: Default::default(),
        retention: Default::default(),
    };
    let mut now = Now { mono_ms: 1_000, wall_ms: WALL_MS };
    let mut events = 0;
    if let Work::Apply(count, rows) = work {
        append(&log, &mut Chain::new([2; 32], cluster), count, rows)?;
        events = count;
    }
    let mut node = Node::open(settings, log, now)?;
    if let Work::Capture(rows) = work {
        let transaction = app.unchecked_transaction()?;
        let marks = vec!["?"; COLUMNS.len() - 1].join(", ");
        let mut insert = transaction.prepare(&format!("INSERT INTO scouting_data VALUES (NULL, {marks})"))?;
        for number in 0..rows {
            let (values, _) = values(number);
            let plain = values[1..].iter().map(|value| match value {
                Value::Integer(number) => rusqlite::types::Value::Integer(*number),
                other => rusqlite::types::Value::Text(other.to_string()),
            });
            insert.execute(rusqlite::params_from_iter(plain))?;
        }
        drop(insert);
        transaction.commit()?;
    }
    let wanted = match work {
        Work::Apply(count, rows) => count * rows,
        Work::Capture(rows) => rows,
    };
    let start = spent_ms();
    loop {
        now = Now { mono_ms: now.mono_ms + 5, wall_ms: now.wall_ms + 5 };
        node.handle(Input::FileTouched(0), now)?;
        node.handle(Input::Tick, now)?;
        while node.poll_effect().is_some() {}
        let view = &node.status(now)?.databases[0];
        if view.rows == wanted && view.outbox == 0 && view.events >= events && view.state == "ok" {
            return Ok(spent_ms() - start);
        }
        if now.mono_ms > 10_000_000 {
            return Err(format!("the node did not come to an end: {view:?}").into());
        }
    }
}
