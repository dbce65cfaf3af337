//! The limits in `proto/README.md` are those of `src/wire/limits.rs`: all of them, and the numbers.
//!
//! What it does not verify: the prose of that page.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use litemesh::wire::limits;

macro_rules! values {
    ($($name:ident),* $(,)?) => { BTreeMap::from([$((stringify!($name), limits::$name as u64)),*]) };
}

#[test]
fn the_page_names_every_limit_with_its_number() {
    let page = include_str!("../proto/README.md");
    let source = include_str!("../src/wire/limits.rs");
    let values = values![
        ADDRESS_BYTES_MAX,
        ANNOUNCED_HEADS_MAX,
        ANNOUNCEMENT_BYTES_MAX,
        BUNDLE_HEADER_BYTES_MAX,
        BUNDLE_PART_BYTES_MAX,
        BUNDLE_PART_BYTES_TARGET,
        BUNDLE_PART_EVENTS_MAX,
        BUNDLE_PART_PLAIN_BYTES_MAX,
        COLUMNS_MAX,
        COMPARED_BLOCKS_MAX,
        COMPARED_ROWS_MAX,
        COMPARED_TABLES_MAX,
        COMPARE_BYTES_MAX,
        EVENTS_PER_FRAME_MAX,
        EVENT_BYTES_MAX,
        EVENT_BYTES_TARGET,
        EVENT_CELLS_MAX,
        EVENT_CHANGES_MAX,
        EVENT_COLUMNS_MAX,
        EVENT_NAMES_MAX,
        EVENT_NOTE_BYTES_MAX,
        EVENT_ORIGINS_MAX,
        EVENT_REFERENCE_NAMES_MAX,
        EVENT_TABLES_MAX,
        EVENT_TOTAL_BYTES_MAX,
        FRAME_BYTES_MAX,
        GATE_CHAIN_BYTES_MAX,
        GATE_MESSAGE_BYTES_MAX,
        GATE_RECORDS_MAX,
        GATE_WELCOME_BYTES_MAX,
        GOSSIP_BYTES_MAX,
        HEADS_MAX,
        HELD_BYTES_MAX,
        IDENTIFIER_BYTES_MAX,
        INVITES_MAX,
        INVITE_ADDRESSES_MAX,
        INVITE_TEXT_BYTES_MAX,
        INVITE_TRIES_MAX,
        MEMBERS_MAX,
        MEMBER_RECORDS_MAX,
        MEMBER_RECORDS_BYTES,
        NAME_BYTES_MAX,
        PACK_BYTES_MIN,
        PARTIAL_BYTES_MAX,
        PEER_HEADS_MAX,
        OWN_RECORDS_MAX,
        PIECE_BYTES,
        PULL_BYTES,
        PUSH_BYTES_MAX,
        REVOKING_RECORDS_MAX,
        RECORD_AFTER_MAX,
        REQUEST_TEXT_BYTES_MAX,
        REMEMBERED_MAX,
        REMEMBERED_PER_PEER_MAX,
        SLOT_MAX,
        SNAPSHOT_PARTS_MAX,
        SNAPSHOT_PART_BYTES_MAX,
        SNAPSHOT_PART_BYTES_TARGET,
        SNAPSHOT_PART_ROWS_MAX,
        SNAPSHOT_TABLES_MAX,
        VALUE_BYTES_MAX,
        WAITING_RECORDS_MAX,
        WAYS_ADDRESSES_MAX,
        WAYS_BYTES_MAX,
        WAYS_MEMBERS_MAX,
    ];
    let named = source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    for name in named.filter(|name| !name.starts_with("PROTOCOL_VERSION")) {
        let value = values.get(name).unwrap_or_else(|| panic!("{name} is new: name it here and in proto/README.md"));
        assert!(page.contains(&format!("| `{name}` | {value} |")), "proto/README.md: {name} is {value}");
    }
    assert!(page.contains(&format!("`PROTOCOL_VERSION` is {}.", limits::PROTOCOL_VERSION)));
    assert!(page.contains(&format!("# The wire, version {}", limits::PROTOCOL_VERSION)));
}
