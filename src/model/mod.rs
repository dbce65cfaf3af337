//! Floor L0: plain data and total orders. Everything above speaks in these words.
//!
//! Invariant: no I/O, no clock, no randomness, no hashing of iteration order; every order here is total, so that
//! "the greatest" and "the least" mean the same thing on every node.
//! Callers: every other module.

pub mod drift;
pub mod event;
pub mod heads;
pub mod identity;
pub mod member;
pub mod noun;
pub mod planted;
pub mod receipt;
pub mod rule;
pub mod schema;
pub mod sometimes;
pub mod stamp;
pub mod value;

pub use drift::{DriftAction, DriftCause, DriftKind, DriftRecord, RangeFound, RunPlace, RunRecord, RunState, Tier};
pub use event::{Cell, Change, Edit, Event, Header, Reference, TableColumns};
pub use heads::{Cut, Head, Heads};
pub use identity::{Birth, NodeId, Origin, OriginId, RowId};
pub use member::{ClusterId, Member, MemberRecord, RecordHash, RecordKind, Role};
pub use noun::{counted, fits};
pub use planted::{Bug, planted};
pub use receipt::{Receipt, Way};
pub use rule::{Aspect, Rule};
pub use schema::{Collation, Column, DatabaseSchema, ForeignKey, Identity, TableSchema, UniqueKey};
pub use stamp::{Dot, Stamp};
pub use value::{Key, Value};
