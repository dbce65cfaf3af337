//! Golden bytes of every message: what was sent once means the same for ever.
//!
//! `message_golden.txt` has a line per message: its name and its bytes in hex. If a line differs, the wire has changed: that
//! takes a new version of the protocol; add lines, change none. The packed frame is only unpacked: another release of zstd
//! may pack it in other bytes.

use super::super::compare::ComparedTable;
use super::*;
use crate::model::{Birth, RowId};
use crate::reconcile::{Block, Found, Prefix, Side, View};

fn head(seed: u8) -> Head {
    let origin = Origin { node: NodeId([seed; 32]), incarnation: 0x0102_0304_0506_0700 + u64::from(seed) };
    Head { origin, seq: 300 + u64::from(seed), hash: [seed ^ 0xff; 32] }
}

fn events() -> Message {
    Message::Events(Events {
        request: 7,
        events: vec![
            SignedEvent { bytes: b"an event".to_vec(), signature: None },
            SignedEvent { bytes: b"its head".to_vec(), signature: Some([9; 64]) },
        ],
        more: true,
        later_ms: 60_000,
        applied_all: true,
        ..Events::default()
    })
}

fn row(seq: u64) -> RowId {
    RowId::Born(Birth { origin: OriginId([0x12; 16]), seq, index: 0 })
}

fn table() -> ComparedTable {
    ComparedTable { number: 1, database: "scouting".into(), table: "team".into(), schema: [8; 16] }
}

fn compare() -> Message {
    let block = |length, view| Block { table: 1, prefix: Prefix::of(&row(300), length), after: None, view };
    let prints = vec![(0, 0x0102_0304_0506_0708), (15, 7)];
    let blocks = vec![
        block(0, View::Print(0x1122_3344_5566_7788)),
        block(47, View::Children { at: Prefix::of(&row(300), 48), prints }),
        Block { after: Some(row(9)), ..block(50, View::Rows { rows: vec![(row(300), 5)], more: true }) },
    ];
    Message::Compare(Compare { stand: 0x8877_6655_4433_2211, number: 3, tables: vec![table()], blocks })
}

fn compared() -> Message {
    let view = View::Rows { rows: Vec::new(), more: false };
    let blocks = vec![Block { table: 1, prefix: Prefix::of(&row(300), 49), after: None, view }];
    Message::Compared(Compared { stand: 0x8877_6655_4433_2211, number: 3, answered: 2, blocks, unlike: vec![0] })
}

fn differences() -> Message {
    let rows = vec![
        Found { table: 1, row: row(300), side: Side::Differs },
        Found { table: 1, row: RowId::Keyed([4; 16]), side: Side::OnlyThere },
    ];
    Message::Differences(Differences { stand: 9, count: 2, tables: vec![table()], rows })
}

fn messages() -> Vec<(&'static str, Message)> {
    let hello = Hello {
        version: 1,
        name: "pit".into(),
        wall_ms: 1_767_225_600_000,
        heads: vec![head(1), head(2)],
        applied_all: true,
        reply: true,
        membership: 0x1122_3344_5566_7788,
        ..Hello::default()
    };
    let newer = Hello {
        version: 2,
        heads: vec![head(3)],
        member_heads: vec![[5; 32]],
        oldest: 1,
        heads_digest: 0x8877_6655_4433_2211,
        number: 4,
        tell: true,
        all: true,
        more: true,
        ..hello.clone()
    };
    let partial = Partial { origin: OriginId([6; 16]), seq: 12, offset: 262_144 };
    let pull = Pull { request: 7, heads: vec![head(1)], max_bytes: 524_288, partial: Some(partial), ..Pull::default() };
    let range = Range { origin: OriginId([6; 16]), after: 12, through: 500, offset: 262_144 };
    let ranges = Pull { request: 8, max_bytes: 65_536, ranges: vec![range], small_only: true, ..Pull::default() };
    let piece = Piece { origin: OriginId([6; 16]), seq: 13, offset: 4, total: 9, bytes: b"piece".to_vec() };
    let last = Events { request: 8, piece: Some(piece), heads: vec![head(2)], ..Events::default() };
    vec![
        ("hello-1", Message::Hello(hello)),
        ("hello-2", Message::Hello(newer)),
        ("pull-1", Message::Pull(pull)),
        ("pull-2", Message::Pull(ranges)),
        ("events", events()),
        ("events-piece", Message::Events(last)),
        ("hello-content", Message::Hello(Hello { version: 2, content: Some([3; 16]), ..Hello::default() })),
        ("compare", compare()),
        ("compared", compared()),
        ("differences", differences()),
    ]
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

#[test]
fn the_golden_messages_keep_their_bytes() {
    let mut text = String::new();
    for (name, message) in messages() {
        text += &format!("{name} {}\n", hex(&message.encode()));
    }
    let announcement = Announcement { heads: vec![head(1)], more: true };
    text += &format!("announcement {}\n", hex(&announcement.encode()));
    let golden = include_str!("message_golden.txt");
    let kept: String =
        golden.lines().filter(|line| !line.starts_with("packed ")).map(|line| format!("{line}\n")).collect();
    assert_eq!(text, kept);
    for line in golden.lines() {
        let (name, bytes) = line.split_once(' ').unwrap();
        let bytes = data_encoding::HEXLOWER.decode(bytes.as_bytes()).unwrap();
        match name {
            "announcement" => assert_eq!(Announcement::decode(&bytes), Ok(announcement.clone())),
            "packed" => assert_eq!(Message::decode(&bytes), Ok(events())),
            _ => {
                let message = messages().into_iter().find(|(known, _)| *known == name).map(|(_, message)| message);
                assert_eq!(Message::decode(&bytes).ok(), message, "{name}");
            }
        }
    }
}
