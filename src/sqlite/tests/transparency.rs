//! Steering transparency: the same scripts on a steered and on a plain file give the same results up to the ids' values.
//!
//! Ids are compared by their place among all ids of their table: both files get rows in the same order, and new rows come
//! above all others.

use rusqlite::types::Value as Cell;

use super::*;

/// A table with every kind of constraint, one that refers to it, one with AUTOINCREMENT, a view that is written through.
const SCHEMA: &str = "
CREATE TABLE p(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, kind INTEGER NOT NULL CHECK (kind IN (0, 1, 2)),
  a INTEGER NOT NULL, b INTEGER NOT NULL, c TEXT UNIQUE, up INTEGER REFERENCES p(id) ON DELETE SET NULL, note TEXT DEFAULT 'n',
  g AS (a + b), UNIQUE(a, b));
CREATE TABLE c(id INTEGER PRIMARY KEY, p_id INTEGER NOT NULL REFERENCES p(id) ON DELETE CASCADE, text TEXT NOT NULL);
CREATE INDEX c_p ON c(p_id);
CREATE TABLE q(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, p_id INTEGER REFERENCES p(id) DEFERRABLE INITIALLY DEFERRED);
CREATE VIEW v AS SELECT name, kind, a, b FROM p;
CREATE TRIGGER write_v INSTEAD OF INSERT ON v BEGIN INSERT INTO p(name, kind, a, b) VALUES (NEW.name, NEW.kind, NEW.a, NEW.b); END;
CREATE TRIGGER noted AFTER UPDATE ON p BEGIN UPDATE c SET text = text || '!' WHERE p_id = NEW.id; END;
INSERT INTO p(name, kind, a, b) VALUES ('root', 0, 0, 0);
";

const TABLES: [&str; 3] = ["p", "c", "q"];

/// References: (table, column, referred table).
const REFERENCES: [(&str, &str, &str); 3] = [("p", "up", "p"), ("c", "p_id", "p"), ("q", "p_id", "p")];

/// Two apps that do the same; the second one's file is steered.
struct Apps {
    plain: (Place, Connection),
    steered: (Place, Connection),
}

/// A steered file to make copies of.
fn template() -> Place {
    let place = Place::new(SCHEMA);
    let mut file = AppFile::open(FileSettings { steering_runs: 16, ..place.settings() }).unwrap();
    file.set_slot(Some(2));
    file.enroll().unwrap();
    while file.steering_pending() {
        file.refresh_schema().unwrap();
    }
    let report = file.preflight().unwrap();
    assert!(report.tables.iter().all(|table| table.ids == "steered"), "{report:?}");
    place
}

impl Apps {
    fn new(template: &Place) -> Apps {
        let (plain, steered) = (Place::new(SCHEMA), Place::new(""));
        std::fs::copy(template.path(), steered.path()).unwrap();
        let apps = (plain.app(), steered.app());
        for app in [&apps.0, &apps.1] {
            app.execute_batch("PRAGMA synchronous = OFF").unwrap();
        }
        Apps { plain: (plain, apps.0), steered: (steered, apps.1) }
    }

    fn both(&self) -> [&Connection; 2] {
        [&self.plain.1, &self.steered.1]
    }

    /// Runs a statement on both; tells how the results differ.
    fn step(&self, sql: &str) -> Result<(), String> {
        let [plain, steered] = self.both().map(|app| (result(app, sql), dump(app)));
        if plain == steered {
            return Ok(());
        }
        Err(format!("{sql}\nplain   {plain:?}\nsteered {steered:?}"))
    }

    /// A row as another node would have sent it, above all others.
    fn foreign_row(&self, number: u64) {
        let done = self.both().map(|app| {
            let last: i64 = app.query_row("SELECT coalesce(max(id), 0) FROM p", [], |row| row.get(0)).unwrap();
            let id = last + 5 + (number % 40) as i64;
            let sql = "INSERT INTO p(id, name, kind, a, b) VALUES (?1, ?2, 0, ?3, 0)";
            app.execute(sql, (id, format!("foreign {number}"), 1_000 + number as i64)).is_ok()
        });
        assert_eq!(done[0], done[1]);
    }

    /// Every mark is about a row that the steered file showed: what came and is not there has a later mark (it went, or
    /// another row took its place, or an id).
    fn check_marks(&self) -> Result<(), String> {
        let app = &self.steered.1;
        let left: i64 = app.query_row("SELECT count(*) FROM _litemesh_ph", [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0);
        for table in TABLES {
            let strange = format!(
                "SELECT k0 FROM _litemesh_outbox AS m, _litemesh_tables AS t WHERE t.number = m.mark / 8 AND t.name = '{table}' \
                 AND m.mark % 8 = 1 AND k0 NOT IN (SELECT id FROM {table}) AND NOT EXISTS (SELECT 1 FROM _litemesh_outbox AS o \
                 WHERE o.seq > m.seq AND o.mark / 8 = m.mark / 8 AND o.mark % 8 <> 1 AND (o.k0 = m.k0 OR o.o0 = m.k0))"
            );
            if let Ok(id) = app.query_row(&strange, [], |row| row.get::<_, i64>(0)) {
                return Err(format!("a mark tells of the row {id} of {table}, which never was"));
            }
        }
        Ok(())
    }
}

/// Rows or error, `changes()`, whether no transaction is open, `last_insert_rowid()`.
type Seen = (Result<Vec<Vec<String>>, String>, u64, bool, Option<usize>);

/// What an app sees of a statement; ids by their place.
fn result(app: &Connection, sql: &str) -> Seen {
    let run = || -> rusqlite::Result<Vec<Vec<String>>> {
        let mut statement = app.prepare(sql)?;
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query([])?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let cells = (0..names.len()).map(|at| Ok((names[at].clone(), row.get::<_, Cell>(at)?)));
            all.push(cells.collect::<rusqlite::Result<Vec<_>>>()?);
        }
        // The places of ids are looked up when all is done.
        let show = |(name, cell): (String, Cell)| match cell {
            Cell::Integer(id) if name == "id" => format!("id {:?}", place(app, table_of(sql), id)),
            other => format!("{other:?}"),
        };
        Ok(all.into_iter().map(|row| row.into_iter().map(show).collect()).collect())
    };
    let rows = run().map_err(|error| error.to_string());
    let changes = app.changes();
    let inserts = sql.starts_with("INSERT") && !sql.contains("ON CONFLICT") && !sql.contains("INTO v") && changes > 0;
    let last = (inserts && rows.is_ok()).then(|| place(app, table_of(sql), app.last_insert_rowid())).flatten();
    (rows, changes, app.is_autocommit(), last)
}

fn table_of(sql: &str) -> &str {
    TABLES.into_iter().find(|table| sql.contains(&format!("INTO {table}"))).unwrap_or("p")
}

/// How many ids of the table are smaller; `None` for an id that is not there.
fn place(app: &Connection, table: &str, id: i64) -> Option<usize> {
    let sql = format!("SELECT (SELECT count(*) FROM {table} AS o WHERE o.id < t.id) FROM {table} AS t WHERE id = ?1");
    app.query_row(&sql, [id], |row| row.get::<_, i64>(0)).ok().map(|place| place as usize)
}

/// All rows of all tables in the order of their ids, references by the place of what they refer to.
fn dump(app: &Connection) -> Vec<Vec<Cell>> {
    let mut all = Vec::new();
    for table in TABLES {
        let columns = match table {
            "p" => "name, kind, a, b, c, note, g",
            "c" => "text",
            _ => "name",
        };
        let (_, column, parent) = REFERENCES.into_iter().find(|(name, ..)| *name == table).unwrap();
        let reference = format!(
            "CASE WHEN {column} IN (SELECT id FROM {parent}) THEN (SELECT count(*) FROM {parent} AS o WHERE o.id < t.{column}) \
             WHEN {column} IS NULL THEN NULL ELSE 'dangling' END"
        );
        let mut statement = app
            .prepare_cached(&format!("SELECT '{table}', {columns}, {reference} FROM {table} AS t ORDER BY id"))
            .unwrap();
        let width = statement.column_count();
        let rows =
            statement.query_map([], |row| (0..width).map(|at| row.get(at)).collect::<rusqlite::Result<_>>()).unwrap();
        all.extend(rows.map(Result::unwrap));
    }
    all
}

/// Dice without a library: xorshift.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn of<'t>(&mut self, all: &[&'t str]) -> &'t str {
        all[self.below(all.len() as u64) as usize]
    }
}

/// Values that collide often and break constraints now and then.
fn row_of_p(dice: &mut Dice) -> String {
    let name =
        if dice.below(12) == 0 { "NULL".into() } else { format!("'{}{}'", dice.of(&["N", "n"]), dice.below(30)) };
    let kind = dice.of(&["0", "1", "2", "2", "1", "0", "7", "NULL"]);
    let c = if dice.below(2) == 0 { "NULL".into() } else { format!("'c{}'", dice.below(30)) };
    let up = match dice.below(4) {
        0 => "(SELECT id FROM p ORDER BY a, b LIMIT 1)".to_owned(),
        1 => "(SELECT max(id) FROM p)".to_owned(),
        _ => "NULL".to_owned(),
    };
    format!("({name}, {kind}, {}, {}, {c}, {up})", dice.below(8), dice.below(8))
}

fn statement(dice: &mut Dice, foreign_keys: bool) -> String {
    const CLAUSES: [&str; 6] = ["", "OR ABORT", "OR FAIL", "OR IGNORE", "OR REPLACE", "OR ROLLBACK"];
    const TAILS: [&str; 7] = [
        "",
        "",
        " RETURNING id, name",
        " ON CONFLICT DO NOTHING",
        " ON CONFLICT(name) DO UPDATE SET note = excluded.name",
        " ON CONFLICT(a, b) DO UPDATE SET kind = 1 RETURNING id, kind",
        " ON CONFLICT(id) DO NOTHING",
    ];
    let tail = dice.of(&TAILS);
    let clause = if tail.contains("CONFLICT") { "" } else { dice.of(&CLAUSES) };
    // Where a reference may dangle for a while, the rows it means stay: an id that is used again heals it.
    let spared = if foreign_keys {
        " AND id NOT IN (SELECT p_id FROM q WHERE p_id IS NOT NULL)"
    } else {
        " AND id NOT IN (SELECT p_id FROM c UNION SELECT p_id FROM q WHERE p_id IS NOT NULL UNION SELECT up FROM p WHERE up IS NOT NULL)"
    };
    let evicts = clause == "OR REPLACE" && !foreign_keys;
    let clause = if evicts { "OR IGNORE" } else { clause };
    match dice.below(20) {
        0..=6 => format!("INSERT {clause} INTO p(name, kind, a, b, c, up) VALUES {}{tail}", row_of_p(dice)),
        7 | 8 => {
            let rows: Vec<String> = (0..2 + dice.below(20)).map(|_| row_of_p(dice)).collect();
            format!("INSERT {clause} INTO p(name, kind, a, b, c, up) VALUES {}{tail}", rows.join(", "))
        }
        9 => format!(
            "INSERT {clause} INTO p(name, kind, a, b) SELECT name || {}, kind, a + 1, b FROM p WHERE true ORDER BY id LIMIT 9{tail}",
            dice.below(4)
        ),
        10 => {
            format!("INSERT {clause} INTO v(name, kind, a, b) VALUES ('w{}', 1, {}, 9)", dice.below(9), dice.below(9))
        }
        11 | 12 => format!("INSERT INTO c(p_id, text) SELECT id, name FROM p ORDER BY a, id LIMIT {}", dice.below(5)),
        13 => {
            let name = dice.below(30);
            format!("INSERT {clause} INTO q(name, p_id) VALUES ('q{name}', (SELECT max(id) FROM p)) RETURNING id")
        }
        14 => format!("DELETE FROM p WHERE id = (SELECT max(id) FROM p){spared}"),
        15 => format!("DELETE FROM p WHERE a = {} AND b < {}{spared}", dice.below(8), dice.below(8)),
        16 => format!("DELETE FROM {} WHERE id = (SELECT max(id) FROM {0})", dice.of(&["c", "q"])),
        17 => format!("UPDATE p SET kind = {}, note = 'u' WHERE a = {}", dice.below(3), dice.below(8)),
        18 => dice.of(&["BEGIN", "COMMIT", "ROLLBACK", "BEGIN IMMEDIATE"]).to_owned(),
        _ => dice.of(&["SAVEPOINT s", "ROLLBACK TO s", "RELEASE s"]).to_owned(),
    }
}

fn random_script(template: &Place, seed: u64) -> Result<(), String> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let apps = Apps::new(template);
    let foreign_keys = dice.below(2) == 0;
    for app in apps.both() {
        app.execute_batch(&format!("PRAGMA foreign_keys = {}", if foreign_keys { "ON" } else { "OFF" })).unwrap();
        app.execute_batch(&format!(
            "PRAGMA recursive_triggers = {}",
            if seed.is_multiple_of(3) { "ON" } else { "OFF" }
        ))
        .unwrap();
    }
    for number in 0..40 {
        if dice.below(5) == 0 {
            apps.foreign_row(number);
        }
        let sql = statement(&mut dice, foreign_keys);
        apps.step(&sql)?;
    }
    if !apps.plain.1.is_autocommit() {
        apps.step("COMMIT").or_else(|_| apps.step("ROLLBACK"))?;
    }
    apps.check_marks()
}

#[test]
fn random_scripts_give_the_same_but_for_the_ids() {
    let template = template();
    let first = 1 + u64::from(std::process::id()) % 1_000_000;
    let (known, fresh) = (1..=150, first..first + 150);
    for seed in known.chain(fresh) {
        println!("seed {seed}");
        if let Err(difference) = random_script(&template, seed) {
            panic!("seed {seed}: {difference}");
        }
    }
}

/// The same with the library that this machine's Python brings, which may be an older one.
#[test]
fn an_app_with_its_own_library_sees_the_same() {
    let program = "
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute('PRAGMA foreign_keys = ON')
def place(id):
    return c.execute('SELECT count(*) FROM p WHERE id < ?', (id,)).fetchone()[0] if id else id
def step(sql, *rows):
    try:
        cursor = c.executemany(sql, rows) if rows else c.execute(sql)
        found = [] if rows else [(place(r[0]),) + r[1:] for r in cursor.fetchall()]
        print(sql, found, cursor.rowcount, place(cursor.lastrowid) if ' INTO p' in sql else '')
    except sqlite3.IntegrityError as error:
        print(sql, 'refused', error, c.in_transaction)
    print(c.execute('SELECT name, kind, a, b, c, note, g, (SELECT name FROM p AS o WHERE o.id = p.up) FROM p ORDER BY id').fetchall())
for keys in range(2):
    for recursive in ('OFF', 'ON'):
        c.execute('PRAGMA recursive_triggers = ' + recursive)
        for n, clause in enumerate(['', 'OR ABORT', 'OR FAIL', 'OR IGNORE', 'OR REPLACE', 'OR ROLLBACK']):
            x = str(keys) + recursive + str(n)
            into = 'INSERT ' + clause + ' INTO p(name, kind, a, b) VALUES '
            def far():
                step('INSERT INTO p(id, name, kind, a, b) SELECT max(id) + 20, hex(max(a)), 1, max(a) + 1, -1 FROM p'.replace('hex(', \"'far' || (\"))
            for values in [\"('x%s', 1, 1%d, 1)\" % (x, n), \"('x%s', 1, 2%d, 2)\" % (x, n), \"(NULL, 1, 1, 1)\", \"('y%s', 9, 1, 1)\" % x,
                           \"('z%s', NULL, 3%d, 3)\" % (x, n), \"('m%s', 1, 4%d, 4), ('m%s', 1, 5, 5), ('l%s', 0, 6, %s%d)\" % (x, n, x, x, '60', n)]:
                far()
                step(into + values)
            far()
            step('BEGIN'); step(into + \"('b%s', 0, 7%d, 7)\" % (x, n)); step('SAVEPOINT s')
            step(into + \"('d%s', 0, 8%d, 8)\" % (x, n)); step('ROLLBACK TO s') if c.in_transaction else None
            step('COMMIT') if c.in_transaction else None
        far()
        step('INSERT INTO p(name, kind, a, b) VALUES (?, ?, ?, ?)', *[('many%s%d%d' % (recursive, keys, i), 1, 100 + i, keys * 9 + len(recursive)) for i in range(40)])
        step('DELETE FROM p WHERE id = (SELECT max(id) FROM p)')
        step(\"INSERT INTO p(name, kind, a, b) VALUES ('again', 1, 900, 900) ON CONFLICT(name) DO UPDATE SET note = 'twice'\")
        if sqlite3.sqlite_version_info >= (3, 35):
            far()
            step(\"INSERT INTO p(name, kind, a, b) VALUES ('r%s%d', 1, 901, %d%d) RETURNING id, name\" % (recursive, keys, keys, len(recursive)))
";
    let apps = Apps::new(&template());
    let [plain, steered] = [&apps.plain.0, &apps.steered.0].map(|place| python(&place.path(), program, &[]));
    assert!(plain.lines().count() > 300, "{plain}");
    for (plain, steered) in plain.lines().zip(steered.lines()) {
        assert_eq!(plain, steered);
    }
    assert_eq!(plain.lines().count(), steered.lines().count());
}
