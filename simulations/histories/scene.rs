//! What every history plays in: the schemas of two databases, the nodes' names, and the options drawn from the seed.
//!
//! Invariant: a function of the seed and of what the shrinker switched off; a step carries its own draws, so that dropping
//! one step leaves the draws of the others alone. Callers: the history, the reference, the shrinker.

use crate::dice::Dice;
use litemesh::merge::rank::Ranks;
use litemesh::model::{
    Collation, Column, DatabaseSchema, ForeignKey, Identity, NodeId, Origin, OriginId, Rule, TableSchema, UniqueKey,
    Value,
};

/// Position of a table: database, table.
pub type At = (usize, usize);

/// What may happen in a history. Every switch is off in a part of the seeds, so that no feature hides another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Number of nodes.
    pub nodes: usize,
    /// Number of distinct key values: few make many collisions.
    pub values: u64,
    /// UNIQUE keys are numbers: nothing can carry a tag.
    pub numbers: bool,
    /// Tables that are written to.
    pub tables: Vec<At>,
    /// Clocks are off by up to a year.
    pub skew: bool,
    /// Nodes write the merges that they find (R11).
    pub emit: bool,
    /// Such a merge says as its cut what was shown before the events that brought the pair.
    pub early: bool,
    /// People merge rows.
    pub merge: bool,
    /// People split rows.
    pub split: bool,
    /// Apps delete.
    pub delete: bool,
    /// Apps change ids.
    pub claim: bool,
    /// Files hold rows before the history begins.
    pub genesis: bool,
    /// Apps write references that lead nowhere.
    pub dangling: bool,
    /// Pulled events are evaluated one by one (else all at once).
    pub single: bool,
    /// Events are delivered again.
    pub repeat: bool,
    /// The last node comes late.
    pub late: bool,
}

impl Options {
    /// The names of the switches, for the shrinker and the command line.
    pub const SWITCHES: [&'static str; 13] = [
        "skew", "emit", "early", "merge", "split", "delete", "claim", "genesis", "dangling", "batch", "repeat", "late",
        "numbers",
    ];

    /// Draws the options of a seed.
    pub fn draw(dice: &mut Dice, scene: &Scene) -> Options {
        let mut tables = Vec::new();
        for (database, schema) in scene.schemas.iter().enumerate() {
            tables.extend((0..schema.tables.len()).map(|table| (database, table)));
        }
        let wanted = 2 + dice.below(5) as usize;
        while tables.len() > wanted {
            let one = dice.below(tables.len() as u64) as usize;
            tables.remove(one);
        }
        Options {
            nodes: 2 + dice.below(3) as usize + usize::from(dice.chance(20)) * 2,
            values: 2 + dice.below(4),
            numbers: dice.chance(30),
            tables,
            skew: dice.chance(50),
            emit: dice.chance(75),
            early: dice.chance(50),
            merge: dice.chance(40),
            split: dice.chance(40),
            delete: dice.chance(75),
            claim: dice.chance(35),
            genesis: dice.chance(35),
            dangling: dice.chance(20),
            single: dice.chance(60),
            repeat: dice.chance(30),
            late: dice.chance(30),
        }
    }

    /// Switches one feature off. False when it was off already (or nobody knows the name).
    pub fn without(&mut self, name: &str) -> bool {
        let switch = match name {
            "skew" => &mut self.skew,
            "emit" => &mut self.emit,
            "early" => &mut self.early,
            "merge" => &mut self.merge,
            "split" => &mut self.split,
            "delete" => &mut self.delete,
            "claim" => &mut self.claim,
            "genesis" => &mut self.genesis,
            "dangling" => &mut self.dangling,
            "repeat" => &mut self.repeat,
            "late" => &mut self.late,
            "numbers" => &mut self.numbers,
            "batch" => return !std::mem::replace(&mut self.single, true),
            _ => return false,
        };
        std::mem::replace(switch, false)
    }
}

/// Everything that stands still during all histories.
pub struct Scene {
    /// Two databases.
    pub schemas: Vec<DatabaseSchema>,
    /// The nodes' origins, by node number.
    pub origins: Vec<Origin>,
    /// The short names of the origins.
    pub ids: Vec<OriginId>,
    /// Rank and slot per origin, as the evaluator gets them. Node 0 is the founder.
    pub ranks: Ranks,
}

/// At most this many nodes.
pub const NODES_MAX: usize = 6;

impl Scene {
    /// The scene of all histories.
    pub fn new() -> Scene {
        let origins: Vec<Origin> = (0..NODES_MAX).map(|node| origin(node as u8 + 1, 1)).collect();
        let ids: Vec<OriginId> = origins.iter().map(Origin::id).collect();
        let mut ranks = Ranks::default();
        for (node, id) in ids.iter().enumerate() {
            ranks.set(*id, node as u32, node as u32 + 1);
        }
        Scene { schemas: vec![games(), people()], origins, ids, ranks }
    }

    /// Rank of an origin; unknown ones come last.
    pub fn rank(&self, origin: &OriginId) -> u32 {
        self.ids.iter().position(|id| id == origin).map_or(u32::MAX, |node| node as u32)
    }

    /// Slot of an origin; 0 for unknown ones.
    pub fn slot(&self, origin: &OriginId) -> i64 {
        self.ids.iter().position(|id| id == origin).map_or(0, |node| node as i64 + 1)
    }

    /// A table's schema.
    pub fn table(&self, at: At) -> &TableSchema {
        &self.schemas[at.0].tables[at.1]
    }

    /// Where a table is.
    pub fn find(&self, database: &str, table: &str) -> Option<At> {
        let position = self.schemas.iter().position(|schema| schema.database == database)?;
        Some((position, self.schemas[position].tables.iter().position(|other| other.name == table)?))
    }

    /// The parent table of a foreign key.
    pub fn parent(&self, at: At, key: &ForeignKey) -> Option<At> {
        let database = key.database.as_ref().unwrap_or(&self.schemas[at.0].database);
        self.find(database, &key.parent)
    }
}

/// An origin that a number names.
pub fn origin(number: u8, incarnation: u64) -> Origin {
    Origin { node: NodeId([number; 32]), incarnation }
}

/// What a foreign key does when its parent goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// NOT NULL, CASCADE, NO ACTION: the child needs its parent.
    Need,
    /// SET NULL.
    Null,
    /// Declared by the config only.
    Config,
}

struct Draft(TableSchema);

fn draft(name: &str, columns: &[&str], identity: Identity) -> Draft {
    let column = |name: &&str| Column {
        name: name.to_string(),
        declared_type: String::new(),
        not_null: false,
        default: Value::Null,
    };
    Draft(TableSchema {
        name: name.to_string(),
        columns: columns.iter().map(column).collect(),
        identity,
        foreign_keys: Vec::new(),
        unique: Vec::new(),
        collisions: Rule::UniqueMerge,
        without_rowid: false,
    })
}

impl Draft {
    fn refers(mut self, column: &str, database: Option<&str>, parent: &str, to: &str, then: Then) -> Draft {
        let position = self.0.column(column).expect("a foreign key names a column of its table");
        self.0.columns[position].not_null = then == Then::Need;
        self.0.foreign_keys.push(ForeignKey {
            columns: vec![position],
            database: database.map(str::to_string),
            parent: parent.to_string(),
            parent_columns: vec![to.to_string()],
            keeps_parent: then == Then::Need,
            declared: then != Then::Config,
        });
        self
    }

    /// Two columns that name one parent (SET NULL).
    fn refers_both(mut self, columns: [&str; 2], parent: &str, to: [&str; 2]) -> Draft {
        let positions = columns.map(|name| self.0.column(name).expect("a foreign key names columns of its table"));
        self.0.foreign_keys.push(ForeignKey {
            columns: positions.to_vec(),
            database: None,
            parent: parent.to_string(),
            parent_columns: to.map(str::to_string).to_vec(),
            keeps_parent: false,
            declared: true,
        });
        self
    }

    /// The later row of a collision goes to the shelf, whatever it could show.
    fn shelves(mut self) -> Draft {
        self.0.collisions = Rule::UniqueShelve;
        self
    }

    fn unique(mut self, columns: &[&str], collation: Collation) -> Draft {
        let position = |name: &&str| self.0.column(name).expect("a UNIQUE key names columns of its table");
        let columns: Vec<_> = columns.iter().map(|name| (position(name), collation)).collect();
        let name = format!("{}_{}", self.0.name, self.0.unique.len() + 1);
        self.0.unique.push(UniqueKey { name, columns, exact: true, computed: None });
        self
    }

    /// A self-reference may be NULL although it keeps its parent (NO ACTION).
    fn nullable(mut self, column: &str) -> Draft {
        let position = self.0.column(column).expect("names a column of its table");
        self.0.columns[position].not_null = false;
        self
    }
}

fn database(name: &str, drafts: Vec<Draft>) -> DatabaseSchema {
    let mut tables: Vec<TableSchema> = drafts
        .into_iter()
        .map(|Draft(mut table)| {
            if table.holds_accounts() {
                table.collisions = Rule::UniqueSuffix;
            }
            table
        })
        .collect();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    DatabaseSchema { database: name.to_string(), tables, left_out: Vec::new(), fingerprint: [0; 16] }
}

/// The first database: teams, what hangs on them, and keyed tables.
fn games() -> DatabaseSchema {
    let nocase = Collation::NoCase;
    database(
        "games",
        vec![
            draft("team", &["id", "number", "nick"], Identity::Surrogate(0)).unique(&["number"], Collation::Binary),
            draft("game", &["id", "event", "number", "label"], Identity::Surrogate(0))
                .unique(&["event", "number"], Collation::Binary)
                .unique(&["label"], nocase),
            draft("score", &["id", "team", "points"], Identity::Surrogate(0)).refers(
                "team",
                None,
                "team",
                "id",
                Then::Need,
            ),
            draft("pit", &["id", "team", "note"], Identity::Surrogate(0))
                .refers("team", None, "team", "id", Then::Null)
                .unique(&["team"], Collation::Binary),
            draft("task", &["id", "above", "title"], Identity::Surrogate(0))
                .refers("above", None, "task", "id", Then::Need)
                .nullable("above"),
            draft("roster", &["team", "game", "role"], Identity::Keyed(vec![0, 1]))
                .refers("team", None, "team", "id", Then::Need)
                .refers("game", None, "game", "id", Then::Need),
            draft("shift", &["id", "team", "game", "who"], Identity::Surrogate(0)).refers_both(
                ["team", "game"],
                "roster",
                ["team", "game"],
            ),
            draft("badge", &["id", "code", "text"], Identity::Surrogate(0))
                .unique(&["code"], Collation::Binary)
                .shelves(),
            draft("setting", &["name", "value"], Identity::Keyed(vec![0])),
            draft("choice", &["id", "setting", "pick"], Identity::Surrogate(0))
                .refers("setting", None, "setting", "name", Then::Need)
                .unique(&["setting", "pick"], Collation::Binary),
            draft("line", &["words", "team"], Identity::Rowid).refers("team", None, "team", "id", Then::Null),
        ],
    )
}

/// The second database: accounts, and rows that refer to the first one.
fn people() -> DatabaseSchema {
    database(
        "people",
        vec![
            draft("account", &["id", "name", "password"], Identity::Surrogate(0)).unique(&["name"], Collation::NoCase),
            draft("profile", &["id", "account", "team", "nick"], Identity::Surrogate(0))
                .refers("account", None, "account", "id", Then::Need)
                .refers("team", Some("games"), "team", "id", Then::Config)
                .unique(&["nick"], Collation::NoCase),
        ],
    )
}
