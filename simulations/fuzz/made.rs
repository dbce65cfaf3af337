//! Events, messages and records that mean something, drawn from bytes: what the codecs' fuzzing starts from.
//!
//! Invariant: events keep the model's rules (columns in ascending order, tables that are there), so they survive their
//! encoding; what is outside of those rules comes from mutation. Callers: the codec targets, the node's target.

use std::collections::BTreeSet;

use litemesh::model::{
    Birth, Cell, Change, Cut, Edit, Event, Head, Header, Member, MemberRecord, NodeId, Origin, OriginId, RecordKind,
    Reference, Role, RowId, Rule, Stamp, TableColumns, Value,
};
use litemesh::reconcile::{Block, Found, Prefix, Side, View};
use litemesh::wire::compare::{Compare, Compared, ComparedTable, Differences};
use litemesh::wire::message::{Announcement, Events, Hello, Message, Partial, Piece, Pull, Range, SignedEvent};
use litemesh::wire::snapshot::{Snapshot, SnapshotAsk, SnapshotPart};

use crate::draws::Draws;

/// A value of any kind.
pub fn value(draws: &mut Draws<'_>) -> Value {
    const TEXTS: [&[u8]; 8] = [b"", b"a", b"NaN", b"\0", b"\xff\xfe", b"1", b"[1,2]", "é\u{1f600}".as_bytes()];
    match draws.below(6) {
        0 => Value::Null,
        1 => Value::Integer(draws.number() as i64),
        2 => Value::Real(draws.number()),
        3 => Value::Text(draws.pick(&TEXTS).to_vec()),
        4 => {
            let length = draws.below(20) as usize;
            Value::Text(draws.take(length))
        }
        _ => {
            let length = draws.below(20) as usize;
            Value::Blob(draws.take(length))
        }
    }
}

/// Who writes, and rows that are there.
#[derive(Clone, Copy)]
pub struct Cast<'c> {
    /// The event's origin.
    pub own: OriginId,
    /// Rows of others.
    pub known: &'c [RowId],
}

/// A row: of this event, of its author, of another one, of the genesis, or named by its key.
pub fn row(draws: &mut Draws<'_>, cast: Cast<'_>) -> RowId {
    let own = cast.own;
    match draws.below(8) {
        0 | 1 if !cast.known.is_empty() => *draws.pick(cast.known),
        0..=3 => RowId::Born(Birth { origin: own, seq: 1 + draws.below(8), index: draws.below(6) as u32 }),
        4 => RowId::Born(Birth { origin: own, seq: draws.number(), index: draws.number() as u32 }),
        5 => RowId::Born(Birth { origin: OriginId(draws.fixed()), seq: draws.number(), index: draws.byte().into() }),
        6 => RowId::Genesis(draws.fixed()),
        _ => RowId::Keyed(draws.fixed()),
    }
}

fn cell(draws: &mut Draws<'_>, tables: &[TableColumns], cast: Cast<'_>) -> Cell {
    match draws.below(8) {
        0 => {
            let table = draws.pick(tables);
            let column = table.columns.get(draws.below(table.columns.len() as u64) as usize);
            Cell::Ref(Reference {
                database: draws.pick(&["app", "app", "app", "other", ""]).to_string(),
                table: table.table.clone(),
                row: row(draws, cast),
                column: column.cloned().unwrap_or_default(),
            })
        }
        1 => Cell::Step { value: draws.number() as i64, by: draws.number() as i64 },
        2 => {
            let mut elements = || -> Vec<Vec<u8>> { (0..draws.below(3)).map(|_| vec![draws.byte()]).collect() };
            let (added, removed) = (elements(), elements());
            let value = if draws.chance(80) { Value::Text(b"[1, 2]".to_vec()) } else { Value::Null };
            Cell::Edit(Box::new(Edit { value, added, removed }))
        }
        _ => Cell::Plain(value(draws)),
    }
}

fn cells(draws: &mut Draws<'_>, tables: &[TableColumns], table: usize, cast: Cast<'_>) -> Vec<(u32, Cell)> {
    let columns = tables[table].columns.len() as u32;
    let all = draws.chance(60);
    let wanted: Vec<u32> = (0..columns).filter(|_| all || draws.chance(50)).collect();
    wanted.into_iter().map(|column| (column, cell(draws, tables, cast))).collect()
}

/// A change of one of these tables.
pub fn change(draws: &mut Draws<'_>, tables: &[TableColumns], cast: Cast<'_>, at: (u64, u32)) -> Change {
    let position = draws.below(tables.len() as u64) as usize;
    let table = position as u32;
    let columns = tables[position].columns.len() as u32;
    match draws.below(16) {
        0..=5 => {
            let born = RowId::Born(Birth { origin: cast.own, seq: at.0, index: at.1 });
            let row = if draws.chance(10) { row(draws, cast) } else { born };
            let claim = draws.chance(80).then(|| draws.number() as i64);
            let after = draws.chance(20).then(|| self::row(draws, cast));
            Change::Insert { table, row, claim, after, cells: cells(draws, tables, position, cast) }
        }
        6..=9 => {
            let row = row(draws, cast);
            let cells = cells(draws, tables, position, cast);
            let stamped = |(column, cell)| (column, cell, Stamp(draws.number()));
            Change::Update { table, row, cells: cells.into_iter().map(stamped).collect() }
        }
        10 => Change::Delete { table, row: row(draws, cast) },
        11 => Change::Claim {
            table,
            row: row(draws, cast),
            id: draws.number() as i64,
            after: draws.chance(40).then(|| row(draws, cast)),
            depth: draws.number() as u32,
        },
        12 => {
            let some: BTreeSet<u32> = (0..draws.below(3)).map(|_| draws.below(u64::from(columns)) as u32).collect();
            let columns = if columns == 0 { Vec::new() } else { some.into_iter().collect() };
            Change::Merge { table, row: row(draws, cast), other: row(draws, cast), columns }
        }
        13 => Change::Split { table, row: row(draws, cast), other: row(draws, cast) },
        _ => {
            let column = (columns > 0 && draws.chance(60)).then(|| draws.below(u64::from(columns)) as u32);
            Change::Rule { table, column, rule: *draws.pick(&Rule::ALL) }
        }
    }
}

/// An event of any author and any tables.
pub fn event(draws: &mut Draws<'_>) -> Event {
    const NAMES: [&str; 8] = ["t", "teams", "näme \"quoted\"", "", "select", "a;b", "\u{1f600}", "sqlite_x"];
    let origin = Origin { node: NodeId(draws.fixed()), incarnation: draws.number() };
    let columns = |draws: &mut Draws<'_>| {
        let count = if draws.chance(3) { 300 } else { draws.below(6) };
        (0..count).map(|number| format!("{}{number}", draws.pick(&NAMES))).collect()
    };
    let tables: Vec<TableColumns> = (0..1 + draws.below(3))
        .map(|_| TableColumns { table: (*draws.pick(&NAMES)).to_string(), columns: columns(draws) })
        .collect();
    let seq = draws.number().max(1);
    let count = if draws.chance(4) { draws.below(600) } else { draws.below(8) };
    let cast = Cast { own: origin.id(), known: &[] };
    let changes = (0..count as u32).map(|index| change(draws, &tables, cast, (seq, index))).collect();
    Event { header: header(draws, origin, seq), tables, changes }
}

fn header(draws: &mut Draws<'_>, origin: Origin, seq: u64) -> Header {
    let dots = (0..draws.below(4)).map(|_| (OriginId(draws.fixed()), draws.number().max(1))).collect();
    Header {
        cluster: draws.fixed(),
        origin,
        seq,
        previous: draws.fixed(),
        stamp: Stamp(draws.number()),
        database: (*draws.pick(&["app", "", "other", "a\"b"])).to_string(),
        applied: Cut { dots },
        schema: draws.fixed(),
        continues: draws.chance(20),
        note: if draws.chance(10) { "undo: why".to_string() } else { String::new() },
    }
}

/// Heads of some origins.
pub fn heads(draws: &mut Draws<'_>) -> Vec<Head> {
    let count = if draws.chance(5) { draws.below(200) } else { draws.below(4) };
    (0..count)
        .map(|_| Head {
            origin: Origin { node: NodeId(draws.fixed()), incarnation: draws.number() },
            seq: draws.number(),
            hash: draws.fixed(),
        })
        .collect()
}

/// All kinds of member records.
const KINDS: [RecordKind; 7] = [
    RecordKind::Admit,
    RecordKind::Found,
    RecordKind::Revoke,
    RecordKind::Role,
    RecordKind::Name,
    RecordKind::Rotate,
    RecordKind::Recover,
];

/// A member's record with a signature of the right size.
pub fn record(draws: &mut Draws<'_>) -> MemberRecord {
    let founder = draws.chance(30);
    let node = NodeId(draws.fixed());
    let name = |draws: &mut Draws<'_>| (*draws.pick(&["pit", "", "é", "<script>", "a\nb"])).to_string();
    MemberRecord {
        cluster: if founder { [0; 32] } else { draws.fixed() },
        kind: *draws.pick(&KINDS),
        member: Member {
            node,
            name: name(draws),
            rank: draws.number() as u32,
            slot: draws.number() as u32,
            role: *draws.pick(&[Role::Member, Role::Admin, Role::ReadOnly]),
            admitted_ms: draws.number(),
        },
        cluster_name: name(draws),
        recovery: if founder { draws.fixed() } else { [0; 32] },
        after: (0..draws.below(3)).map(|_| draws.fixed()).collect(),
        signer: if founder { node } else { NodeId(draws.fixed()) },
        signature: draws.take(64),
    }
}

/// A frame's content.
pub fn message(draws: &mut Draws<'_>) -> Message {
    let partial = |draws: &mut Draws<'_>| Partial {
        origin: OriginId(draws.fixed()),
        seq: draws.number(),
        offset: draws.number(),
    };
    match draws.below(4) {
        0 => Message::Hello(Hello {
            version: draws.number() as u32,
            name: (*draws.pick(&["pit", "", "é"])).to_string(),
            wall_ms: draws.number(),
            heads: heads(draws),
            applied_all: draws.chance(50),
            members: (0..draws.below(3)).map(|_| record(draws)).collect(),
            reply: draws.chance(50),
            membership: draws.number(),
            oldest: draws.number() as u32,
            heads_digest: draws.number(),
            number: draws.number() as u32,
            tell: draws.chance(30),
            all: draws.chance(50),
            more: draws.chance(20),
            member_heads: (0..draws.below(3)).map(|_| draws.fixed()).collect(),
            content: draws.chance(50).then(|| draws.fixed()),
            snapshot_rows: draws.number(),
        }),
        1 => Message::Pull(Pull {
            request: draws.number(),
            heads: heads(draws),
            max_bytes: draws.number() as u32,
            partial: draws.chance(40).then(|| partial(draws)),
            ranges: (0..draws.below(3)).map(|_| range(draws)).collect(),
            small_only: draws.chance(20),
        }),
        2 if draws.chance(40) => comparison(draws),
        2 if draws.chance(20) => Message::Unknown(40 + draws.below(1000) as u32),
        2 => Message::Snapshot(snapshot(draws)),
        _ => {
            let count = draws.below(4);
            Message::Events(Events {
                request: draws.number(),
                events: (0..count).map(|_| signed(draws)).collect(),
                piece: draws.chance(30).then(|| piece(draws)),
                more: draws.chance(50),
                heads: heads(draws),
                applied_all: draws.chance(50),
                later_ms: draws.number() as u32,
            })
        }
    }
}

fn snapshot(draws: &mut Draws<'_>) -> Snapshot {
    if draws.chance(50) {
        let id = draws.chance(50).then(|| draws.fixed());
        let held = (0..draws.below(3)).map(|_| draws.fixed()).collect();
        let (table, parts) = (draws.number() as u32, draws.number() as u32);
        return Snapshot::Ask(SnapshotAsk { id, table, after: draws.fixed(), parts, held });
    }
    Snapshot::Part(SnapshotPart {
        id: draws.fixed(),
        table: draws.number() as u32,
        after: draws.fixed(),
        through: draws.fixed(),
        content: draws.fixed(),
        unpacked: draws.number() as u32,
        zstd: draws.take(64),
        ends: draws.chance(50),
        rows: draws.number() as u32,
    })
}

fn comparison(draws: &mut Draws<'_>) -> Message {
    let (stand, number) = (draws.number(), draws.number());
    let table = |draws: &mut Draws<'_>| ComparedTable {
        number: draws.number() as u32,
        database: "scouting".to_string(),
        table: (*draws.pick(&["team", "", "é"])).to_string(),
        schema: draws.fixed(),
    };
    let tables: Vec<ComparedTable> = (0..draws.below(3)).map(|_| table(draws)).collect();
    let blocks: Vec<Block> = (0..draws.below(5)).map(|_| block(draws)).collect();
    match draws.below(3) {
        0 => Message::Compare(Compare { stand, number, tables, blocks }),
        1 => Message::Compared(Compared { stand, number, answered: draws.number() as u32, blocks, unlike: vec![7] }),
        _ => {
            let side = *draws.pick(&[Side::OnlyHere, Side::OnlyThere, Side::Differs]);
            let rows = (0..draws.below(3)).map(|_| Found { table: 1, row: row_id(draws), side }).collect();
            Message::Differences(Differences { stand, count: number, tables, rows })
        }
    }
}

fn row_id(draws: &mut Draws<'_>) -> RowId {
    match draws.below(3) {
        0 => RowId::Genesis(draws.fixed()),
        1 => RowId::Keyed(draws.fixed()),
        _ => {
            let (seq, index) = (draws.number(), draws.number() as u32);
            RowId::Born(Birth { origin: OriginId(draws.fixed()), seq, index })
        }
    }
}

fn block(draws: &mut Draws<'_>) -> Block {
    let row = row_id(draws);
    let prefix = Prefix::of(&row, draws.below(59) as u8);
    let view = match draws.below(3) {
        0 => View::Print(draws.number()),
        1 => {
            let at = Prefix::of(&row, prefix.len() + draws.below(4) as u8);
            View::Children { at, prints: (0..draws.below(17) as u8).map(|nibble| (nibble, draws.number())).collect() }
        }
        _ => View::Rows { rows: (0..draws.below(3)).map(|_| (row, draws.number())).collect(), more: draws.chance(30) },
    };
    let after = draws.chance(30).then(|| row_id(draws));
    Block { table: draws.number() as u32, prefix, after, view }
}

fn range(draws: &mut Draws<'_>) -> Range {
    let after = draws.number().min(u64::MAX - 1_000);
    Range { origin: OriginId(draws.fixed()), after, through: after + 1 + draws.below(900), offset: draws.number() }
}

fn signed(draws: &mut Draws<'_>) -> SignedEvent {
    let bytes = litemesh::wire::encode_event(&event(draws));
    SignedEvent { bytes, signature: draws.chance(70).then(|| [draws.byte(); 64]) }
}

fn piece(draws: &mut Draws<'_>) -> Piece {
    let bytes = draws.take(64);
    let offset = draws.below(1 << 20);
    let total = offset + bytes.len() as u64 + draws.below(2) * draws.below(1 << 26);
    Piece { origin: OriginId(draws.fixed()), seq: draws.number(), offset, total: total.min(66 << 20), bytes }
}

/// An announcement.
pub fn announcement(draws: &mut Draws<'_>) -> Announcement {
    Announcement { heads: heads(draws).into_iter().take(100).collect(), more: draws.chance(20) }
}
