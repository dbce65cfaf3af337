//! The table of targets: what is fed, and what it must withstand.
//!
//! Invariant: a target is a plain function of bytes that panics when something is wrong and says in a few words what came
//! of the bytes otherwise; equal words mean the same way through the code. Callers: both drivers.

use std::borrow::Cow;

use crate::dice::Dice;

/// What became of an input, in words that tell ways through the code apart.
pub type Outcome = Cow<'static, str>;

/// One target.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// What must hold.
    pub promise: &'static str,
    /// Feeds it one input.
    pub run: fn(&[u8]) -> Outcome,
    /// Makes an input that means something.
    pub generate: fn(&mut Dice) -> Vec<u8>,
    /// What mutations may put in.
    pub words: &'static [&'static [u8]],
}

/// All targets of this build: the last ones need the daemon.
pub const TARGETS: &[Target] = &[
    crate::codec::EVENT,
    crate::codec::MESSAGE,
    crate::codec::MEMBER,
    crate::codec::INVITE,
    crate::bundle::BUNDLE,
    crate::records::RECORDS,
    crate::member::NODE,
    crate::values::VALUES,
    crate::values::NAMES,
    #[cfg(feature = "daemon")]
    crate::settings::CONFIG,
    #[cfg(feature = "daemon")]
    crate::settings::WORD,
    #[cfg(feature = "daemon")]
    crate::api::HTTP,
];

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
