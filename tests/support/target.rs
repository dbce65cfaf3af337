//! What a fuzz target is, for tests that run some of them. Invariant: as in `simulations/fuzz/target.rs`, without its
//! table. Caller: `tests/values.rs`.

use std::borrow::Cow;

use crate::dice::Dice;

pub type Outcome = Cow<'static, str>;

pub struct Target {
    pub name: &'static str,
    pub promise: &'static str,
    pub run: fn(&[u8]) -> Outcome,
    pub generate: fn(&mut Dice) -> Vec<u8>,
    pub words: &'static [&'static [u8]],
}
