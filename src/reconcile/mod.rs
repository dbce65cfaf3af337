//! Floor L1: range fingerprints: which rows differ between two sides, without sending the rows that do not.
//!
//! Every table's rows, in the order of their identities, are the leaves of a fixed tree with 16 branches ([`prefix`]); a
//! block's *print* stands for all its rows ([`mod@print`]). Two sides compare the prints of a table, then of its blocks, and
//! go down only where they differ ([`descent`]), two levels a round trip, many blocks in one message.
//!
//! The side that asks keeps what is open; the side that answers keeps nothing: an answer depends on the question and its own
//! rows alone. So a lost message is asked again, a cut costs one question, and nobody can fill the memory of who answers.
//! What is compared is compared at one stand only (both sides hold the same events and have applied them): who asks says its
//! stand, and who stands elsewhere says so instead of answering. So no row is named that merely moved on.
//!
//! Invariants: pure, no clock, no dice; any two sets of rows give exactly their symmetric difference, or say that they were
//! cut off at a limit; every message and the work for it are bounded; what a hostile peer says can waste the asker's rounds
//! (bounded), never its memory, and never names rows of its own as equal.
//! Callers: log (keeps the sums), wire (messages), node (sessions with peers, and between log and file).

pub mod descent;
pub mod prefix;
pub mod print;

pub use descent::{Answer, Block, Descent, Found, Question, Side, Tree, View, answer};
pub use prefix::Prefix;
pub use print::Print;
