//! End to end: real processes over loopback, from the app's COMMIT on one server to the row in the other's file.
//!
//! The clock starts when COMMIT has returned on A and ends when a reader of another server's file sees the row; readers look
//! about every 0.1 ms and share the machine with all servers, so a figure is what a user would see here, not the best that
//! the program can do. The baseline is a bare loop: the same two commits and a TCP connection of an app that does nothing
//! else. Invariant: every row that was written is seen on every server, or the line fails; `synchronous` as the line says for
//! the app, FULL for the nodes. Caller: main.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use crate::asked::Asked;
use crate::report::{Budget, Line, Report, figure};
use crate::sample::{Sample, percentile};
use crate::shape::{self, DATABASE, Ids, RAW, TABLE, USUAL};
use crate::support::server::Server;
use crate::{Failure, cluster, machine};

const ON: &str = "log durable, signed, verified, encrypted, audit on, apply FULL";

/// Rows whose ids begin here are of the other server's app.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);

pub(crate) fn measure(asked: &Asked, report: &mut Report) -> Result<(), Failure> {
    let scratch = tempfile::tempdir_in(&asked.folder)?;
    for count in [2, 5, 8] {
        let home = scratch.path().join(format!("of-{count}"));
        std::fs::create_dir_all(&home)?;
        let mut servers = cluster::of(&home, count, USUAL)?;
        if count == 2 {
            idle_beside_a_bare_loop(asked, report, &servers, scratch.path())?;
        } else {
            let seen = written(&servers, Pace::Idle(asked.of(10, 100, 500)), "FULL")?;
            tell(report, format!("{count} servers, idle"), &seen)?;
        }
        let seconds = asked.of(1, 5, 30);
        let seen = written(&servers, Pace::PerSecond(200, seconds), "FULL")?;
        tell(report, format!("{count} servers, 200 writes/s, app FULL"), &seen)?;
        let seen = written(&servers, Pace::PerSecond(2_000, seconds), "NORMAL")?;
        tell(report, format!("{count} servers, 2,000 writes/s, app NORMAL"), &seen)?;
        if count == 2 {
            refused(asked, report, &servers)?;
        }
        servers.iter_mut().for_each(Server::stop);
    }
    for rows in asked.of(vec![5_000], vec![100_000], vec![100_000, 1_000_000]) {
        backlog(report, scratch.path(), rows)?;
    }
    Ok(())
}

/// When the app writes its next row.
#[derive(Clone, Copy)]
enum Pace {
    /// So many, each some time after the last was seen.
    Idle(u64),
    /// So many a second, for so many seconds, whether the last was seen or not.
    PerSecond(u64, u64),
}

/// What was seen of one load.
struct Seen {
    /// From commit to visible, ms, of every row on every other server.
    waits: Vec<f64>,
    /// Commits a second that the app came to.
    achieved: f64,
}

/// A row's id, the moment.
type Moments = BTreeMap<i64, Instant>;

/// Looks at files until told to stop; when each id was seen in each file.
fn watch(
    paths: Vec<PathBuf>,
    stop: Arc<AtomicBool>,
    wanted: Arc<AtomicBool>,
    last: i64,
) -> JoinHandle<Result<Vec<Moments>, String>> {
    std::thread::spawn(move || {
        let open = |path: &PathBuf| shape::open(path, "FULL").map_err(|error| error.to_string());
        let files = paths.iter().map(open).collect::<Result<Vec<Connection>, _>>()?;
        let mut seen = vec![Moments::new(); files.len()];
        let mut stands = vec![(0i64, last); files.len()];
        wanted.store(true, Ordering::Release);
        while !stop.load(Ordering::Acquire) {
            for (at, file) in files.iter().enumerate() {
                look(file, &mut stands[at], &mut seen[at]).map_err(|error| error.to_string())?;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(seen)
    })
}

fn look(file: &Connection, (version, last): &mut (i64, i64), seen: &mut Moments) -> Result<(), rusqlite::Error> {
    let now: i64 = file.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
    if now == *version {
        return Ok(());
    }
    *version = now;
    let mut query = file.prepare_cached(&format!("SELECT id FROM {TABLE} WHERE id > ? ORDER BY id"))?;
    let ids: Vec<i64> = query.query_map([*last], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let at = Instant::now();
    for id in ids {
        seen.insert(id, at);
        *last = id;
    }
    Ok(())
}

fn last_id(file: &Connection) -> Result<i64, rusqlite::Error> {
    file.query_row(&format!("SELECT coalesce(max(id), 0) FROM {TABLE}"), [], |row| row.get(0))
}

/// Lets the first server's app write, and the others' files be watched.
fn written(servers: &[Server], pace: Pace, synchronous: &str) -> Result<Seen, Failure> {
    let mut app = shape::open(servers[0].database(DATABASE), synchronous)?;
    let paths = servers[1..].iter().map(|server| server.database(DATABASE).to_owned()).collect();
    observed(&mut app, paths, pace, |app, number| shape::insert_rows(app, USUAL, number..number + 1, Ids::Free))
}

/// Writes at a pace and watches files; `write` commits one row.
fn observed(
    app: &mut Connection,
    paths: Vec<PathBuf>,
    pace: Pace,
    mut write: impl FnMut(&mut Connection, u64) -> Result<(), Failure>,
) -> Result<Seen, Failure> {
    let before = last_id(app)?;
    let (stop, ready) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let watching = watch(paths.clone(), stop.clone(), ready.clone(), before);
    cluster::until("the readers look", Duration::from_millis(1), || Ok(ready.load(Ordering::Acquire)))?;
    let (count, gap) = match pace {
        Pace::Idle(count) => (count, None),
        Pace::PerSecond(rate, seconds) => (rate * seconds, Some(Duration::from_secs_f64(1.0 / rate as f64))),
    };
    let (mut committed, began) = (Moments::new(), Instant::now());
    for number in 0..count {
        match gap {
            None => std::thread::sleep(Duration::from_millis(25 + number % 11)),
            Some(gap) => std::thread::sleep((began + gap * number as u32).saturating_duration_since(Instant::now())),
        }
        write(app, number)?;
        committed.insert(app.last_insert_rowid(), Instant::now());
    }
    let achieved = count as f64 / began.elapsed().as_secs_f64();
    let last = last_id(app)?;
    let files = paths.iter().map(|path| shape::open(path, "FULL")).collect::<Result<Vec<_>, _>>()?;
    let all = cluster::until("every row is on every server", Duration::from_millis(20), || {
        Ok(files.iter().map(last_id).collect::<Result<Vec<_>, _>>()?.into_iter().all(|seen| seen >= last))
    });
    std::thread::sleep(Duration::from_millis(20));
    stop.store(true, Ordering::Release);
    let seen = watching.join().map_err(|_| "the reader ended")??;
    all?;
    let mut waits = Vec::new();
    for file in &seen {
        for (id, committed) in &committed {
            let at = file.get(id).ok_or(format!("row {id} was never seen"))?;
            waits.push(at.saturating_duration_since(*committed).as_secs_f64() * 1e3);
        }
    }
    Ok(Seen { waits, achieved })
}

fn tell(report: &mut Report, words: String, seen: &Seen) -> Result<(), Failure> {
    let line = Line::new(format!("{words}: commit to visible, p50"), seen.waits.iter().copied().collect(), "ms", ON);
    let [p99, p999] = [99.0, 99.9].map(|percent| figure(percentile(&seen.waits, percent)));
    report.push(line.also(format!("p99 {p99} ms, p99.9 {p999} ms; {} commits/s", figure(seen.achieved))))
}

fn idle_beside_a_bare_loop(
    asked: &Asked,
    report: &mut Report,
    servers: &[Server],
    folder: &Path,
) -> Result<(), Failure> {
    let (mut medians, mut tails) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..asked.rounds(3) {
        let pace = Pace::Idle(asked.of(10, 100, 500));
        for (way, seen) in [written(servers, pace, "FULL")?, bare_loop(folder, pace)?].iter().enumerate() {
            medians[way].push(percentile(&seen.waits, 50.0));
            tails[way].push(percentile(&seen.waits, 99.0));
        }
    }
    for (words, [ours, bare], budget) in
        [("p50", medians, Budget::Most(1.5, "≤ 1.5 ms")), ("p99", tails, Budget::Most(10.0, "≤ 10 ms"))]
    {
        let [ours, bare] = [ours, bare].map(|values| values.into_iter().collect::<Sample>());
        let line = Line::new(format!("2 servers, idle, both FULL: commit to visible, {words}"), ours, "ms", ON);
        report.push(line.against("bare loop", bare).value_within(budget))?;
    }
    Ok(())
}

/// Two files, two commits, one connection, no litemesh.
fn bare_loop(folder: &Path, pace: Pace) -> Result<Seen, Failure> {
    let [mine, theirs] = ["mine.db", "theirs.db"].map(|name| folder.join(name));
    for path in [&mine, &theirs] {
        let _old = std::fs::remove_file(path);
        shape::make(path, &USUAL.schema())?;
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    sender.set_nodelay(true)?;
    let receiver = listener.accept()?.0;
    let file = theirs.clone();
    let taking = std::thread::spawn(move || -> Result<(), Failure> {
        let mut app = shape::open(&file, "FULL")?;
        for line in BufReader::new(receiver).lines() {
            let number: u64 = line?.split('\t').next().unwrap_or_default().parse()?;
            shape::insert_rows(&mut app, USUAL, number..number + 1, Ids::Free)?;
        }
        Ok(())
    });
    let mut app = shape::open(&mine, "FULL")?;
    let seen = observed(&mut app, vec![theirs.clone()], pace, |app, number| {
        shape::insert_rows(app, USUAL, number..number + 1, Ids::Free)?;
        Ok(sender.write_all(format!("{number}\t{:?}\n", USUAL.row(number)).as_bytes())?)
    })?;
    drop((sender, app));
    taking.join().map_err(|_| "the bare loop ended")??;
    for path in [&mine, &theirs] {
        std::fs::remove_file(path)?;
    }
    Ok(seen)
}

/// Both apps write 200 rows a second with little patience; who is refused?
fn refused(asked: &Asked, report: &mut Report, servers: &[Server]) -> Result<(), Failure> {
    let seconds = asked.of(1, 5, 30);
    let writing: Vec<_> = servers
        .iter()
        .map(|server| {
            let path = server.database(DATABASE).to_owned();
            std::thread::spawn(move || -> Result<(u64, u64), Failure> {
                let mut app = shape::open(&path, "FULL")?;
                app.busy_timeout(BUSY_TIMEOUT)?;
                let (mut written, mut refused, began) = (0, 0, Instant::now());
                for number in 0..200 * seconds {
                    let due = began + Duration::from_millis(5 * number);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    match shape::insert_rows(&mut app, USUAL, number..number + 1, Ids::Free) {
                        Ok(()) => written += 1,
                        Err(error) if is_busy(&error) => refused += 1,
                        Err(error) => return Err(error),
                    }
                }
                Ok((written, refused))
            })
        })
        .collect();
    let (mut written, mut refused) = (0, 0);
    for thread in writing {
        let (one, other) = thread.join().map_err(|_| "an app ended")??;
        (written, refused) = (written + one, refused + other);
    }
    let words = "2 servers, 200 writes/s on both, app timeout 100 ms: SQLITE_BUSY";
    let line = Line::new(words, Sample::of(refused as f64), "refused", ON).value_within(Budget::Most(0.0, "none"));
    report.push(line.also(format!("of {}", written + refused)))
}

fn is_busy(error: &Failure) -> bool {
    let error = error.downcast_ref::<rusqlite::Error>();
    error.and_then(rusqlite::Error::sqlite_error_code) == Some(ErrorCode::DatabaseBusy)
}

/// One server was away while the other's app wrote.
fn backlog(report: &mut Report, folder: &Path, rows: u64) -> Result<(), Failure> {
    let home = folder.join(format!("behind-{rows}"));
    std::fs::create_dir_all(&home)?;
    let mut servers = cluster::of(&home, 2, USUAL)?;
    servers[1].stop();
    let mut app = shape::open(servers[0].database(DATABASE), "NORMAL")?;
    for from in (0..rows).step_by(500) {
        shape::insert_rows(&mut app, USUAL, from..(from + 500).min(rows), Ids::Free)?;
    }
    cluster::captured(&servers[0])?;
    let (giver, bytes) = (servers[0].pid(), machine::loopback_bytes());
    let giver_before = machine::computed_s(giver);
    let address = servers[0].address();
    servers[1].start_with(&["--peer", &address]);
    let began = Instant::now();
    let file = shape::open(servers[1].database(DATABASE), "FULL")?;
    cluster::until("the backlog is there", Duration::from_millis(20), || {
        Ok(file.query_row(&format!("SELECT count(*) FROM {TABLE}"), [], |row| row.get::<_, i64>(0))? as u64 == rows)
    })?;
    let took = began.elapsed().as_secs_f64();
    let bytes = (machine::loopback_bytes() - bytes) as f64 / rows as f64;
    let giver = (machine::computed_s(giver) - giver_before) * 1e6 / rows as f64;
    let receiver = machine::computed_s(servers[1].pid()) * 1e6 / rows as f64;
    let digest = |server: &Server| server.database_status(DATABASE)["digest"].clone();
    cluster::until("the digests are equal", Duration::from_millis(50), || {
        Ok(digest(&servers[0]) == digest(&servers[1]))
    })?;
    servers.iter_mut().for_each(Server::stop);
    let words = format!("backlog of {rows} rows, 500 in a transaction");
    let line = Line::new(format!("{words}: ready to visible"), Sample::of(rows as f64 / took), "rows/s", ON);
    report.push(line.also(format!("{took:.2} s, connecting included")))?;
    let line = Line::new(format!("{words}: bytes on loopback, headers and all"), Sample::of(bytes), "B/row", ON);
    let line = line.against("the rows as plain data", Sample::of(RAW as f64));
    report.push(line.ratio_within(Budget::Most(1.0, "≤ 1.0x")))?;
    let line = Line::new(format!("{words}: computing of the giver"), Sample::of(giver), "µs/row", ON);
    report.push(line.also("threads that ended are not counted"))?;
    report.push(Line::new(
        format!("{words}: computing of the receiver, start included"),
        Sample::of(receiver),
        "µs/row",
        ON,
    ))
}
