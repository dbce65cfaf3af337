//! Messages of snapshots: ask, plan, part.
//!
//! Invariant: decoding is total; every list is counted before anything is built from it, and what a part unfolds to is
//! bounded before memory is taken for it. Who says what when: `node::snapshot`. Caller: [`super::message`], node.

use super::limits::*;
use super::member::fixed;
use super::message::MessageError;
use super::proto;
use super::proto::frame::Message as Body;
use crate::merge::rules::RuleRecord;
use crate::model::{Cut, Dot, Head, NodeId, Origin, OriginId, Rule, Stamp};

/// Fast; see `message`.
const ZSTD_LEVEL: i32 = 1;

/// Names one snapshot of one giver.
pub type SnapshotId = [u8; 16];

/// Hash of a part's content.
pub type ContentHash = [u8; 16];

/// A place in a table: the bytes of a row's identity; zeros: its beginning.
pub type Place = [u8; 29];

/// What is said of snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// Asks for parts.
    Ask(SnapshotAsk),
    /// What a snapshot holds.
    Plan(SnapshotPlan),
    /// Some rows.
    Part(SnapshotPart),
}

/// Asks for the parts behind a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotAsk {
    /// Of this snapshot; `None`: a new one, and its plan first.
    pub id: Option<SnapshotId>,
    /// Number of the table.
    pub table: u32,
    /// Behind this row of it.
    pub after: Place,
    /// At most so many.
    pub parts: u32,
    /// Contents held from there on.
    pub held: Vec<ContentHash>,
}

/// What a snapshot holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotPlan {
    /// Its name.
    pub id: SnapshotId,
    /// The databases.
    pub databases: Vec<PlannedDatabase>,
    /// The last events that the state takes in.
    pub heads: Vec<Head>,
    /// The greatest stamp that the giver knew.
    pub clock: Stamp,
    /// Why there is none; empty: there is one.
    pub refusal: String,
}

/// One database of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedDatabase {
    /// Its name in the cluster.
    pub name: String,
    /// Fingerprint of its schema.
    pub schema: [u8; 16],
    /// All tables that events ever named, in the order of the giver's numbers.
    pub tables: Vec<PlannedTable>,
    /// The cut that the state takes in.
    pub shown: Cut,
}

/// One table of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedTable {
    /// Its name.
    pub name: String,
    /// Its columns by number.
    pub columns: Vec<String>,
    /// Records of rows, dead ones included.
    pub rows: u64,
    /// Rules that events said of it.
    pub rules: Vec<RuleRecord>,
}

/// Some rows of a table, or some cuts of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPart {
    /// The snapshot.
    pub id: SnapshotId,
    /// Number of the table.
    pub table: u32,
    /// Behind this row.
    pub after: Place,
    /// Through this one.
    pub through: Place,
    /// Hash of the content.
    pub content: ContentHash,
    /// Bytes of the content.
    pub unpacked: u32,
    /// The content, packed; empty: it was said to be held.
    pub zstd: Vec<u8>,
    /// The last part of its table.
    pub ends: bool,
    /// Records in it.
    pub rows: u32,
}

/// The name of a content.
pub fn content_hash(content: &[u8]) -> ContentHash {
    crate::model::identity::hash_16("litemesh 2 snapshot content", content)
}

impl SnapshotPart {
    /// Packs a content. Falls back to nothing: an error is one of memory.
    pub fn pack(content: &[u8]) -> Option<Vec<u8>> {
        zstd::bulk::compress(content, ZSTD_LEVEL).ok()
    }

    /// The content, checked against its name.
    pub fn unpack(zstd: &[u8], unpacked: u32, content: &ContentHash) -> Result<Vec<u8>, MessageError> {
        if unpacked as usize > SNAPSHOT_PART_BYTES_MAX {
            return Err(MessageError::TooLarge("part of a snapshot"));
        }
        let plain = zstd::bulk::decompress(zstd, unpacked as usize).map_err(|_| MessageError::Malformed("part"))?;
        if plain.len() != unpacked as usize || content_hash(&plain) != *content {
            return Err(MessageError::Malformed("part of a snapshot that is not what it says"));
        }
        Ok(plain)
    }
}

impl Snapshot {
    pub(super) fn to_frame(&self) -> Body {
        match self {
            Snapshot::Ask(ask) => Body::SnapshotAsk(proto::SnapshotAsk {
                id: ask.id.map(|id| id.to_vec()).unwrap_or_default(),
                table: ask.table,
                after: place_to_proto(&ask.after),
                parts: ask.parts,
                held: ask.held.iter().map(|content| content.to_vec()).collect(),
            }),
            Snapshot::Plan(plan) => Body::SnapshotPlan(plan.to_proto()),
            Snapshot::Part(part) => Body::SnapshotPart(proto::SnapshotPart {
                id: part.id.to_vec(),
                table: part.table,
                after: place_to_proto(&part.after),
                through: part.through.to_vec(),
                content: part.content.to_vec(),
                unpacked: part.unpacked,
                zstd: part.zstd.clone(),
                ends: part.ends,
                rows: part.rows,
            }),
        }
    }

    pub(super) fn from_frame(body: Body) -> Result<Snapshot, MessageError> {
        match body {
            Body::SnapshotAsk(ask) => {
                if ask.held.len() > SNAPSHOT_PARTS_MAX {
                    return Err(MessageError::TooLarge("contents held"));
                }
                let id = if ask.id.is_empty() { None } else { Some(fixed(&ask.id, "a snapshot")?) };
                let held = ask.held.iter().map(|content| fixed(content, "a content")).collect::<Result<_, _>>()?;
                let after = place_from_proto(&ask.after)?;
                Ok(Snapshot::Ask(SnapshotAsk { id, table: ask.table, after, parts: ask.parts, held }))
            }
            Body::SnapshotPlan(plan) => SnapshotPlan::from_proto(plan).map(Snapshot::Plan),
            Body::SnapshotPart(part) => Ok(Snapshot::Part(SnapshotPart {
                id: fixed(&part.id, "a snapshot")?,
                table: part.table,
                after: place_from_proto(&part.after)?,
                through: fixed(&part.through, "a place")?,
                content: fixed(&part.content, "a content")?,
                unpacked: part.unpacked,
                zstd: part.zstd,
                ends: part.ends,
                rows: part.rows,
            })),
            _ => Err(MessageError::Malformed("no frame of a snapshot")),
        }
    }
}

impl SnapshotPlan {
    /// The plan's bytes alone: to be kept.
    pub fn encode(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(&self.to_proto())
    }

    /// The inverse of [`SnapshotPlan::encode`].
    pub fn decode(bytes: &[u8]) -> Result<SnapshotPlan, MessageError> {
        let plan = prost::Message::decode(bytes).map_err(|_| MessageError::Malformed("plan of a snapshot"))?;
        SnapshotPlan::from_proto(plan)
    }

    /// Number of all tables.
    pub fn tables(&self) -> usize {
        self.databases.iter().map(|database| database.tables.len()).sum()
    }

    /// Number of all that parts are of: tables, then the cuts of each database.
    pub fn sections(&self) -> usize {
        self.tables() + self.databases.len()
    }

    /// All records of rows.
    pub fn rows(&self) -> u64 {
        self.databases.iter().flat_map(|database| &database.tables).map(|table| table.rows).sum()
    }

    /// Database and table of a number; `None` beyond the tables.
    pub fn table(&self, number: usize) -> Option<(&PlannedDatabase, &PlannedTable)> {
        let all = self.databases.iter().flat_map(|database| database.tables.iter().map(move |table| (database, table)));
        all.into_iter().nth(number)
    }

    fn to_proto(&self) -> proto::SnapshotPlan {
        let head = |head: &Head| proto::SnapshotHead {
            node: head.origin.node.0.to_vec(),
            incarnation: head.origin.incarnation,
            seq: head.seq,
            hash: head.hash.to_vec(),
        };
        proto::SnapshotPlan {
            id: self.id.to_vec(),
            databases: self.databases.iter().map(PlannedDatabase::to_proto).collect(),
            heads: self.heads.iter().map(head).collect(),
            clock: self.clock.0,
            refusal: self.refusal.clone(),
        }
    }

    fn from_proto(plan: proto::SnapshotPlan) -> Result<SnapshotPlan, MessageError> {
        let tables: usize = plan.databases.iter().map(|database| database.tables.len()).sum();
        if plan.heads.len() > HEADS_MAX || tables > SNAPSHOT_TABLES_MAX || plan.refusal.len() > 4 * NAME_BYTES_MAX {
            return Err(MessageError::TooLarge("plan of a snapshot"));
        }
        let head = |head: &proto::SnapshotHead| {
            let origin = Origin { node: NodeId(fixed(&head.node, "a key")?), incarnation: head.incarnation };
            Ok(Head { origin, seq: head.seq, hash: fixed(&head.hash, "hash of a head")? })
        };
        Ok(SnapshotPlan {
            id: fixed(&plan.id, "a snapshot")?,
            databases: plan.databases.into_iter().map(PlannedDatabase::from_proto).collect::<Result<_, _>>()?,
            heads: plan.heads.iter().map(head).collect::<Result<_, MessageError>>()?,
            clock: Stamp(plan.clock),
            refusal: plan.refusal,
        })
    }
}

impl PlannedDatabase {
    fn to_proto(&self) -> proto::SnapshotDatabase {
        let shown = self.shown.dots.iter().map(|(origin, seq)| [&origin.0[..], &seq.to_be_bytes()].concat());
        proto::SnapshotDatabase {
            name: self.name.clone(),
            schema: self.schema.to_vec(),
            tables: self.tables.iter().map(PlannedTable::to_proto).collect(),
            shown: shown.collect(),
        }
    }

    fn from_proto(database: proto::SnapshotDatabase) -> Result<PlannedDatabase, MessageError> {
        let mut shown = Cut::default();
        for entry in &database.shown {
            let entry: [u8; 24] = fixed(entry, "entry of a cut")?;
            let (mut origin, mut seq) = ([0; 16], [0; 8]);
            origin.copy_from_slice(&entry[..16]);
            seq.copy_from_slice(&entry[16..]);
            shown.dots.insert(OriginId(origin), u64::from_be_bytes(seq));
        }
        Ok(PlannedDatabase {
            name: database.name,
            schema: fixed(&database.schema, "fingerprint of a schema")?,
            tables: database.tables.into_iter().map(PlannedTable::from_proto).collect::<Result<_, _>>()?,
            shown,
        })
    }
}

impl PlannedTable {
    fn to_proto(&self) -> proto::SnapshotTable {
        let rule = |rule: &RuleRecord| proto::SnapshotRule {
            stamp: rule.stamp.0,
            dot: Some(dot_to_proto(&rule.dot)),
            column: rule.column.map_or(0, |column| u32::from(column) + 1),
            rule: rule.rule as u32,
            replaced: rule.replaced.iter().map(dot_to_proto).collect(),
        };
        proto::SnapshotTable {
            name: self.name.clone(),
            columns: self.columns.clone(),
            rows: self.rows,
            rules: self.rules.iter().map(rule).collect(),
        }
    }

    fn from_proto(table: proto::SnapshotTable) -> Result<PlannedTable, MessageError> {
        if table.columns.len() > COLUMNS_MAX {
            return Err(MessageError::TooLarge("columns"));
        }
        let rule = |rule: proto::SnapshotRule| {
            let column = rule.column.checked_sub(1).map(u16::try_from).transpose();
            let dot = rule.dot.as_ref().ok_or(MessageError::Malformed("a rule"))?;
            Ok(RuleRecord {
                stamp: Stamp(rule.stamp),
                dot: dot_from_proto(dot)?,
                column: column.map_err(|_| MessageError::Malformed("a rule"))?,
                rule: Rule::from_number(u64::from(rule.rule)).ok_or(MessageError::Malformed("a rule"))?,
                replaced: rule.replaced.iter().map(dot_from_proto).collect::<Result<_, _>>()?,
            })
        };
        let rules = table.rules.into_iter().map(rule).collect::<Result<_, MessageError>>()?;
        Ok(PlannedTable { name: table.name, columns: table.columns, rows: table.rows, rules })
    }
}

fn dot_to_proto(dot: &Dot) -> proto::SnapshotDot {
    proto::SnapshotDot { origin: dot.origin.0.to_vec(), seq: dot.seq, index: dot.index }
}

fn dot_from_proto(dot: &proto::SnapshotDot) -> Result<Dot, MessageError> {
    Ok(Dot { origin: OriginId(fixed(&dot.origin, "an origin")?), seq: dot.seq, index: dot.index })
}

fn place_to_proto(place: &Place) -> Vec<u8> {
    if *place == [0; 29] { Vec::new() } else { place.to_vec() }
}

fn place_from_proto(bytes: &[u8]) -> Result<Place, MessageError> {
    if bytes.is_empty() { Ok([0; 29]) } else { fixed(bytes, "a place") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::wire::message::Message;

    /// Golden bytes: what was sent once means the same for ever.
    const ASK: &str = "\
        d201470a100606060606060606060606060606060610011a1d0808080808080808080808080808080808080808080808\
        08080808080820102a1009090909090909090909090909090909";
    const PLAN: &str = "\
        da01f4010a10060606060606060606060606060606061284010a03617070121007070707070707070707070707070707\
        1a510a047465616d1202696412046e616d651846223d09090000000000000012160a1002020202020202020202020202\
        02020210031804180220032a160a10020202020202020202020202020202021003180422180202020202020202020202\
        0202020202000000000000012c1a500a2001010101010101010101010101010101010101010101010101010101010101\
        0111050000000000000018ac022220030303030303030303030303030303030303030303030303030303030303030321\
        4d00000000000000";
    const PART: &str = "\
        e201510a10060606060606060606060606060606061001221d0808080808080808080808080808080808080808080808\
        0808080808082a100909090909090909090909090909090930e8073a030102034001480c";

    fn messages() -> Vec<(Snapshot, &'static str)> {
        let dot = Dot { origin: OriginId([2; 16]), seq: 3, index: 4 };
        let rules =
            vec![RuleRecord { stamp: Stamp(9), dot, column: Some(1), rule: Rule::Counter, replaced: vec![dot] }];
        let table = PlannedTable { name: "team".into(), columns: vec!["id".into(), "name".into()], rows: 70, rules };
        let shown = Cut { dots: [(OriginId([2; 16]), 300)].into() };
        let database = PlannedDatabase { name: "app".into(), schema: [7; 16], tables: vec![table], shown };
        let origin = Origin { node: NodeId([1; 32]), incarnation: 5 };
        let heads = vec![Head { origin, seq: 300, hash: [3; 32] }];
        let plan =
            SnapshotPlan { id: [6; 16], databases: vec![database], heads, clock: Stamp(77), refusal: String::new() };
        let ask = SnapshotAsk { id: Some([6; 16]), table: 1, after: [8; 29], parts: 16, held: vec![[9; 16]] };
        let part = SnapshotPart {
            id: [6; 16],
            table: 1,
            after: [0; 29],
            through: [8; 29],
            content: [9; 16],
            unpacked: 1000,
            zstd: vec![1, 2, 3],
            ends: true,
            rows: 12,
        };
        vec![(Snapshot::Ask(ask), ASK), (Snapshot::Plan(plan), PLAN), (Snapshot::Part(part), PART)]
    }

    #[test]
    fn the_golden_messages_keep_their_bytes() {
        let hex = |message: &Snapshot| data_encoding::HEXLOWER.encode(&Message::Snapshot(message.clone()).encode());
        let made: Vec<String> = messages().iter().map(|(message, _)| hex(message)).collect();
        let golden: Vec<&str> = messages().iter().map(|(_, golden)| *golden).collect();
        assert_eq!(made, golden);
        for (message, golden) in messages() {
            let bytes = data_encoding::HEXLOWER.decode(golden.as_bytes()).unwrap();
            assert_eq!(Message::decode(&bytes), Ok(Message::Snapshot(message)));
        }
    }

    #[test]
    fn a_part_that_is_not_what_it_says_is_refused() {
        let content = b"rows and rows and rows".repeat(20);
        let (zstd, name) = (SnapshotPart::pack(&content).unwrap(), content_hash(&content));
        let length = content.len() as u32;
        assert_eq!(SnapshotPart::unpack(&zstd, length, &name).unwrap(), content);
        assert!(SnapshotPart::unpack(&zstd, length - 1, &name).is_err());
        assert!(SnapshotPart::unpack(&zstd, u32::MAX, &name).is_err());
        assert!(SnapshotPart::unpack(&zstd, length, &[0; 16]).is_err());
    }
}
