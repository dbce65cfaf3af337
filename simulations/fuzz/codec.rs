//! Targets over the decoders of what comes from outside: events, frames, member records, join codes.
//!
//! Invariant checked: what decodes is what was encoded, within the limits; events have one form only; nothing panics.
//! What it does not verify: signatures and meaning; those are the node's target. Caller: the table of targets.

use litemesh::model::{Cell, ClusterId, Event, NodeId, Role};
use litemesh::wire::invite::{CodeError, InviteCode, StoredInvite, decode_invites, encode_invites};
use litemesh::wire::member::{decode_member, encode_member, signed_bytes};
use litemesh::wire::message::{Announcement, Message, MessageError};
use litemesh::wire::{WireError, decode_event, encode_event, limits};

use crate::draws::{Draws, random};
use crate::made;
use crate::target::{Outcome, Target};

/// Numbers that decoders of lengths stumble over.
const LENGTHS: &[&[u8]] = &[
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80],
    &[0x80, 0x00],
    &[0x0b],
    &[0x0c],
];

/// Events.
pub const EVENT: Target = Target {
    name: "event",
    promise: "what decodes re-encodes to the same bytes and keeps every limit",
    run: run_event,
    generate: |dice| encode_event(&made::event(&mut Draws::new(&random(dice, 2_000)))),
    words: LENGTHS,
};

fn run_event(bytes: &[u8]) -> Outcome {
    match decode_event(bytes) {
        Ok(event) => {
            assert!(encode_event(&event) == bytes, "an event has a second form");
            check_limits(&event);
            let kinds: Vec<String> =
                event.changes.iter().take(3).map(|change| format!("{:?}", std::mem::discriminant(change))).collect();
            format!("event {}", kinds.join(" ")).into()
        }
        Err(WireError::TooLarge { what, .. } | WireError::Malformed { what }) => what.into(),
        Err(WireError::NotCanonical) => "not canonical".into(),
    }
}

fn check_limits(event: &Event) {
    let names = event.tables.iter().map(|table| 1 + table.columns.len()).sum::<usize>();
    let cells: usize = event
        .changes
        .iter()
        .map(|change| match change {
            litemesh::model::Change::Insert { cells, .. } => cells.len(),
            litemesh::model::Change::Update { cells, .. } => cells.len(),
            _ => 0,
        })
        .sum();
    assert!(event.tables.len() <= limits::EVENT_TABLES_MAX && names <= limits::EVENT_NAMES_MAX);
    assert!(event.changes.len() <= limits::EVENT_CHANGES_MAX && cells <= limits::EVENT_CELLS_MAX);
    for change in &event.changes {
        let columns = event.tables[change.table() as usize].columns.len();
        let fits = |column: &u32| (*column as usize) < columns;
        let in_place = match change {
            litemesh::model::Change::Insert { cells, .. } => {
                cells.iter().all(|(column, cell)| fits(column) && names_fit(cell))
                    && cells.is_sorted_by_key(|(column, _)| *column)
            }
            litemesh::model::Change::Update { cells, .. } => {
                cells.iter().all(|(column, cell, _)| fits(column) && names_fit(cell))
                    && cells.is_sorted_by_key(|(column, ..)| *column)
            }
            litemesh::model::Change::Merge { columns, .. } => columns.iter().all(fits),
            litemesh::model::Change::Rule { column, .. } => column.iter().all(fits),
            _ => true,
        };
        assert!(in_place, "a cell of a column that is not there");
    }
}

fn names_fit(cell: &Cell) -> bool {
    let Cell::Ref(reference) = cell else { return true };
    [&reference.database, &reference.table, &reference.column]
        .iter()
        .all(|name| name.len() <= limits::IDENTIFIER_BYTES_MAX)
}

/// Frames and announcements.
pub const MESSAGE: Target = Target {
    name: "message",
    promise: "what decodes survives its own encoding; counts are bounded before memory is taken",
    run: run_message,
    generate: |dice| {
        let bytes = random(dice, 1_500);
        let draws = &mut Draws::new(&bytes);
        match draws.below(4) {
            0 => made::announcement(draws).encode(),
            1 => made::message(draws).encode_packed(),
            _ => made::message(draws).encode(),
        }
    },
    words: LENGTHS,
};

fn run_message(bytes: &[u8]) -> Outcome {
    let announced = match Announcement::decode(bytes) {
        Ok(announcement) => {
            assert!(announcement.heads.len() <= limits::ANNOUNCED_HEADS_MAX);
            assert_eq!(Announcement::decode(&announcement.encode()).as_ref(), Ok(&announcement));
            "announcement"
        }
        Err(error) => message_words(&error),
    };
    let framed = match Message::decode(bytes) {
        Ok(message) => {
            assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(&message), "a frame changes by its encoding");
            match message {
                Message::Hello(_) => "hello",
                Message::Pull(_) => "pull",
                Message::Events(events) if events.piece.is_some() => "piece",
                Message::Events(_) => "events",
                Message::Compare(_) => "compare",
                Message::Compared(_) => "compared",
                Message::Differences(_) => "differences",
                Message::Unknown(_) => "unknown",
            }
        }
        Err(error) => message_words(&error),
    };
    format!("{framed}/{announced}").into()
}

fn message_words(error: &MessageError) -> &'static str {
    match error {
        MessageError::Malformed(what) | MessageError::TooLarge(what) => what,
    }
}

/// Member records, and a node's stored invites.
pub const MEMBER: Target = Target {
    name: "member",
    promise: "a record that decodes survives its encoding and signs the same bytes",
    run: run_member,
    generate: |dice| {
        let bytes = random(dice, 400);
        let draws = &mut Draws::new(&bytes);
        if draws.chance(30) {
            let invite = |draws: &mut Draws<'_>| StoredInvite {
                secret: draws.fixed(),
                expires_ms: draws.number(),
                tries_left: draws.number() as u32,
                used_by: draws.chance(50).then(|| NodeId(draws.fixed())),
                role: *draws.pick(&[Role::Member, Role::ReadOnly]),
            };
            encode_invites(&(0..draws.below(4)).map(|_| invite(draws)).collect::<Vec<_>>())
        } else {
            encode_member(&made::record(draws))
        }
    },
    words: LENGTHS,
};

fn run_member(bytes: &[u8]) -> Outcome {
    if let Ok(invites) = decode_invites(bytes) {
        assert_eq!(decode_invites(&encode_invites(&invites)), Ok(invites));
    }
    match decode_member(bytes) {
        Ok(record) => {
            assert!(record.member.name.len().max(record.cluster_name.len()) <= limits::NAME_BYTES_MAX);
            let again = decode_member(&encode_member(&record));
            assert_eq!(again.as_ref().map(signed_bytes), Ok(signed_bytes(&record)));
            assert_eq!(again, Ok(record));
            "record".into()
        }
        Err(error) => message_words(&error).into(),
    }
}

/// Join codes: text from a mail, a chat or a hand.
pub const INVITE: Target = Target {
    name: "invite",
    promise: "a code that is read is written the same; everything else is a clear refusal",
    run: run_invite,
    generate: |dice| {
        let bytes = random(dice, 300);
        let draws = &mut Draws::new(&bytes);
        let address = |draws: &mut Draws<'_>| (*draws.pick(&["/ip4/10.0.0.7/tcp/1", "", "é", "/dns4/x"])).to_string();
        let code = InviteCode {
            cluster: ClusterId(draws.fixed()),
            inviter: NodeId(draws.fixed()),
            addresses: (0..draws.below(9)).map(|_| address(draws)).collect(),
            secret: draws.fixed(),
            expires_ms: draws.number(),
        };
        code.to_text().into_bytes()
    },
    words: &[b"litemesh1:", b"litemesh2:", b"\n", b" ", b"AAAA", b"\xe2\x80\x83"],
};

fn run_invite(bytes: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(bytes);
    // What is inside a code can be reached only with a right checksum: it is made right here.
    let inside = InviteCode::from_text(&sealed(bytes));
    for code in [InviteCode::from_text(&text), inside.clone()].into_iter().flatten() {
        assert!(code.addresses.len() <= limits::INVITE_ADDRESSES_MAX);
        assert_eq!(InviteCode::from_text(&code.to_text()), Ok(code));
    }
    let words = |read: &Result<InviteCode, CodeError>| match read {
        Ok(_) => "code",
        Err(CodeError::NotACode) => "no code",
        Err(CodeError::Mistyped) => "mistyped",
        Err(CodeError::Invalid(error)) => message_words(error),
    };
    format!("{}/{}", words(&InviteCode::from_text(&text)), words(&inside)).into()
}

/// These bytes as the content of a code.
fn sealed(content: &[u8]) -> String {
    let mut bytes = content.to_vec();
    let sum = blake3::derive_key("litemesh 1 join code checksum", content);
    bytes.extend_from_slice(&sum[..4]);
    format!("litemesh1:{}", data_encoding::BASE64URL_NOPAD.encode(&bytes))
}
