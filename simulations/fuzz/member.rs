//! The node's target: a member with a good key that sends anything, between an app that writes and an honest member.
//!
//! Invariant checked: see [`crate::arena`]; besides, the log verifies and the node starts again with what it took in.
//! Caller: the table of targets.

use std::cell::RefCell;

use litemesh::model::{Cut, MemberRecord, NodeId, OriginId, RowId, Stamp, TableColumns};
use litemesh::node::{Effect, Input};
use litemesh::wire::encode_event;
use litemesh::wire::message::{Events, Message, Pull, Range, SignedEvent, digest_of};

use crate::arena::Arena;
use crate::draws::{Draws, random};
use crate::made::{self, Cast};
use crate::target::{Outcome, Target};

/// Inputs after which a new node is made: what came before may matter, but must not pile up.
const INPUTS_MAX: u32 = 60;

/// A hostile member against a whole node.
pub const NODE: Target = Target {
    name: "node",
    promise: "no frame and no signed event stops a node, its app or the honest members",
    run,
    generate: |dice| random(dice, 1_200),
    words: &[],
};

thread_local! {
    static ARENA: RefCell<Option<(Arena, u32)>> = const { RefCell::new(None) };
}

fn run(bytes: &[u8]) -> Outcome {
    let (mut arena, inputs) = ARENA.take().unwrap_or_else(|| (Arena::new(), 0));
    let mut draws = Draws::new(bytes);
    let mut did = String::new();
    for _ in 0..1 + draws.below(6) {
        did.push(step(&mut arena, &mut draws));
    }
    arena.work(2);
    arena.check();
    if inputs < INPUTS_MAX {
        ARENA.set(Some((arena, inputs + 1)));
    } else {
        let report = arena.node().verify_log();
        assert!(report.is_ok(), "the log does not verify: {report:?}");
        arena.restart();
        arena.check();
    }
    did.into()
}

fn step(arena: &mut Arena, draws: &mut Draws<'_>) -> char {
    match draws.below(20) {
        0..=8 => {
            let (tables, changes) = hostile(arena, draws);
            let applied = applied(arena, draws);
            arena.rogue_event(tables, changes, stamp(draws), applied);
            'e'
        }
        9 => {
            bent(arena, draws);
            'b'
        }
        10 => {
            let message = made::message(draws);
            faults(arena.receive(message.encode_packed()), 'm')
        }
        11 => {
            let length = draws.below(200) as usize;
            let frame = draws.take(length);
            faults(arena.receive(frame), 'g')
        }
        12 => {
            let frame = if draws.chance(50) { made::announcement(draws).encode() } else { draws.take(40) };
            arena.input(Input::Announced { frame });
            'a'
        }
        13 | 14 => {
            let statement = *draws.pick(STATEMENTS);
            if arena.app(statement) { 's' } else { 'x' }
        }
        15 => {
            let records = (0..1 + draws.below(3)).map(|_| record(arena, draws)).collect();
            arena.input(Input::MembersLearnt(records));
            'r'
        }
        16 if draws.chance(30) => {
            pull(arena, draws);
            'p'
        }
        16 => {
            hello(arena, draws);
            'h'
        }
        17 => {
            arena.pass(draws.below(100_000));
            arena.input(Input::Tick);
            't'
        }
        18 if draws.chance(10) => {
            arena.restart();
            'o'
        }
        _ => {
            arena.work(1);
            'w'
        }
    }
}

const STATEMENTS: &[&str] = &[
    "INSERT INTO t(a, b) VALUES ('n', 1)",
    "UPDATE t SET a = a || '!', c = 1.5",
    "DELETE FROM u WHERE id = 2",
    "INSERT OR REPLACE INTO u(id, name) VALUES (1, 'b')",
    "DELETE FROM t",
    "UPDATE k SET k2 = k2 || '+'",
    "INSERT INTO n VALUES (3, NULL)",
    "UPDATE s SET n = n + 1",
    "INSERT INTO k VALUES ('p', 1, 'again') ON CONFLICT DO UPDATE SET v = 'more'",
    "UPDATE u SET id = id + 100",
];

/// Tables as they are, with some columns wrong or missing, or not there at all.
fn tables(draws: &mut Draws<'_>) -> Vec<TableColumns> {
    const TABLES: [(&str, &[&str]); 8] = [
        ("t", &["id", "a", "b", "c", "d"]),
        ("u", &["id", "name", "parent"]),
        ("k", &["k1", "k2", "v"]),
        ("n", &["x", "y"]),
        ("s", &["id", "n", "t"]),
        ("w", &["id", "v"]),
        ("_litemesh_outbox", &["seq", "rid"]),
        ("missing", &["a"]),
    ];
    let mut tables = Vec::new();
    for _ in 0..1 + draws.below(3) {
        let (name, columns) = *draws.pick(&TABLES);
        let mut columns: Vec<String> = columns.iter().map(|column| (*column).to_string()).collect();
        match draws.below(20) {
            0 => columns.push("new".to_string()),
            1 => columns.push(columns[0].to_uppercase()),
            2 => columns.reverse(),
            3 => columns.clear(),
            4 => columns.push(columns[0].clone()),
            _ => {}
        }
        let name = if draws.chance(5) { name.to_uppercase() } else { name.to_string() };
        tables.push(TableColumns { table: name, columns });
    }
    tables
}

fn hostile(arena: &mut Arena, draws: &mut Draws<'_>) -> (Vec<TableColumns>, Vec<litemesh::model::Change>) {
    let known = rows(arena);
    let cast = Cast { own: arena.rogue.origin().id(), known: &known };
    let tables = tables(draws);
    let seq = arena.rogue.next_seq();
    let count = 1 + draws.below(6);
    let changes = (0..count as u32).map(|index| made::change(draws, &tables, cast, (seq, index))).collect();
    (tables, changes)
}

/// Rows that the node's log holds.
fn rows(arena: &mut Arena) -> Vec<RowId> {
    let log = arena.node().log();
    let Ok(read) = log.read() else { return Vec::new() };
    let tables = read.tables_of("app");
    tables.into_iter().flat_map(|table| read.rows_of(table, None, 4).unwrap_or_default()).collect()
}

fn stamp(draws: &mut Draws<'_>) -> Stamp {
    if draws.chance(50) {
        Stamp::from_wall_ms(1_748_736_000_000 + draws.below(1_000_000))
    } else {
        Stamp(draws.number())
    }
}

/// What the hostile one says it had seen: nothing, all, or what cannot be.
fn applied(arena: &mut Arena, draws: &mut Draws<'_>) -> Cut {
    let mut cut = Cut::new();
    if draws.chance(30) {
        return cut;
    }
    let heads = arena.node().log().read().and_then(|read| read.heads()).unwrap_or_default();
    let beyond = draws.chance(10);
    for (origin, head) in heads {
        cut.dots.insert(origin, head.seq + u64::from(beyond));
    }
    if draws.chance(10) {
        cut.dots.insert(OriginId(draws.fixed()), draws.number().max(1));
    }
    cut
}

/// Bytes that are no event, an event with a wrong header, an unsigned one, or two that make a fork: all under a good key.
fn bent(arena: &mut Arena, draws: &mut Draws<'_>) {
    let mut event = made::event(draws);
    let keep = draws.byte();
    let header = &mut event.header;
    if keep & 1 == 0 {
        header.cluster = arena.cluster();
    }
    if keep & 2 == 0 {
        header.origin = arena.rogue.origin();
    }
    if keep & 4 == 0 {
        header.seq = arena.rogue.next_seq();
    }
    if keep & 8 == 0 {
        header.previous = arena.rogue.previous();
    }
    if keep & 16 == 0 {
        header.database = "app".to_string();
    }
    let mut bytes = encode_event(&event);
    if keep & 32 != 0 {
        let at = draws.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << draws.below(8);
    }
    if keep & 64 != 0 {
        let events = Events { events: vec![SignedEvent { bytes, signature: None }], ..Events::default() };
        arena.receive(Message::Events(events).encode());
    } else {
        arena.rogue_bytes(bytes);
    }
}

/// A record that the hostile member signs, with any rank and slot.
fn record(arena: &mut Arena, draws: &mut Draws<'_>) -> MemberRecord {
    let mut record = made::record(draws);
    if draws.chance(70) {
        record.cluster = arena.cluster();
        record.signer = arena.rogue.id();
        // Mostly one that finds its place, so that the rights are looked at.
        if draws.chance(70) {
            record.after = arena.node().membership().heads();
        }
        record.member.rank = draws.below(5) as u32;
        record.member.slot = draws.below(40) as u32;
        record.signature = arena.rogue.sign_bytes(&litemesh::wire::member::signed_bytes(&record));
    }
    record
}

/// A hello with heads that lie: of itself, of the node, of nobody.
fn hello(arena: &mut Arena, draws: &mut Draws<'_>) {
    let Message::Hello(mut hello) = made::message(&mut Draws::new(&[0])) else { return };
    let mut heads = made::heads(draws);
    let own = arena.node().log().read().and_then(|read| read.heads()).unwrap_or_default();
    let node = arena.node().id();
    for mut head in own.into_values() {
        match draws.below(6) {
            0 => head.seq += 1 + draws.below(3),
            1 => head.seq = draws.number(),
            2 => head.hash = draws.fixed(),
            _ => {}
        }
        heads.push(head);
    }
    if draws.chance(10) {
        heads.push(litemesh::model::Head {
            origin: litemesh::model::Origin { node, incarnation: draws.number() },
            seq: draws.number(),
            hash: draws.fixed(),
        });
    }
    hello.version = 1 + draws.below(3) as u32;
    if draws.chance(60) {
        // The digest of what it says, of what the node has, or of nothing.
        let said = heads.iter().map(|head| (head.origin.id(), *head)).collect();
        let own = arena.node().log().read().and_then(|read| read.heads()).unwrap_or_default();
        let lie = draws.number();
        hello.heads_digest = *draws.pick(&[digest_of(&said), digest_of(&own), lie]);
        hello.number = draws.number() as u32;
        (hello.all, hello.more, hello.tell) = (draws.chance(50), draws.chance(20), draws.chance(40));
    }
    hello.wall_ms = draws.number();
    hello.heads = heads;
    hello.reply = true;
    hello.members = vec![record(arena, draws)];
    arena.receive(Message::Hello(hello).encode());
    let peer = NodeId(draws.fixed());
    if draws.chance(20) {
        arena
            .input(Input::Received { peer, frame: Message::Hello(litemesh::wire::message::Hello::default()).encode() });
    }
}

/// A pull of ranges that the node has, or has in part, or not at all.
fn pull(arena: &mut Arena, draws: &mut Draws<'_>) {
    let own = arena.node().log().read().and_then(|read| read.heads()).unwrap_or_default();
    let mut ranges: Vec<Range> = Vec::new();
    for (origin, head) in own {
        let after = draws.below(head.seq + 2);
        let offset = if draws.chance(20) { draws.number() } else { 0 };
        ranges.push(Range { origin, after, through: after + 1 + draws.below(1 << 20), offset });
    }
    let max_bytes = draws.number() as u32;
    let pull = Pull { request: draws.number(), max_bytes, ranges, small_only: draws.chance(30), ..Pull::default() };
    arena.receive(Message::Pull(pull).encode());
}

fn faults(effects: Vec<Effect>, fine: char) -> char {
    if effects.iter().any(|effect| matches!(effect, Effect::PeerFault { .. })) {
        fine.to_ascii_uppercase()
    } else {
        fine
    }
}
