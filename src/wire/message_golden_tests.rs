//! Golden bytes of every message: what was sent once means the same for ever.
//!
//! `message_golden.txt` has a line per message: its name and its bytes in hex. If a line differs, the wire has changed: that
//! takes a new version of the protocol; add lines, change none. The packed frame is only unpacked: another release of zstd
//! may pack it in other bytes.

use super::*;

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
