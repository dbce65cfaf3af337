//! Places in the tree: the first nibbles of a row's key.
//!
//! A row's key is [`RowId::to_bytes`]: 58 nibbles, in the order of the rows. Recent rows of one origin lie side by side.
//! Invariant: everything behind a prefix's nibbles is zero, so equal places have equal bytes. Callers: this room, `log`,
//! `wire`.

use std::fmt;

use crate::model::RowId;

/// Nibbles of a whole key.
pub const NIBBLES: u8 = 58;

/// All rows whose keys begin with these nibbles.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    bytes: [u8; 29],
    length: u8,
}

impl Prefix {
    /// All rows.
    pub const ALL: Prefix = Prefix { bytes: [0; 29], length: 0 };

    /// The first `length` nibbles of a key (all of them at most).
    pub fn new(mut bytes: [u8; 29], length: u8) -> Prefix {
        let length = length.min(NIBBLES);
        let whole = usize::from(length / 2);
        if whole < bytes.len() {
            if length % 2 == 1 {
                bytes[whole] &= 0xf0;
            } else {
                bytes[whole] = 0;
            }
            bytes[whole + 1..].fill(0);
        }
        Prefix { bytes, length }
    }

    /// The first nibbles of a row's key.
    pub fn of(row: &RowId, length: u8) -> Prefix {
        Prefix::new(row.to_bytes(), length)
    }

    /// One row alone.
    pub fn row(row: &RowId) -> Prefix {
        Prefix { bytes: row.to_bytes(), length: NIBBLES }
    }

    /// Its nibbles, packed; zeros behind them.
    pub fn bytes(&self) -> &[u8; 29] {
        &self.bytes
    }

    /// How many nibbles it fixes.
    pub fn len(&self) -> u8 {
        self.length
    }

    /// Whether it fixes none: all rows.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The nibble at a position.
    pub fn nibble(&self, at: u8) -> u8 {
        let byte = self.bytes.get(usize::from(at / 2)).copied().unwrap_or(0);
        if at.is_multiple_of(2) { byte >> 4 } else { byte & 0xf }
    }

    /// The prefix with one nibble more; itself when it is a whole key.
    pub fn child(&self, nibble: u8) -> Prefix {
        if self.length >= NIBBLES {
            return *self;
        }
        let mut bytes = self.bytes;
        bytes[usize::from(self.length / 2)] |= if self.length.is_multiple_of(2) { nibble << 4 } else { nibble & 0xf };
        Prefix { bytes, length: self.length + 1 }
    }

    /// Its first nibbles.
    pub fn cut(&self, length: u8) -> Prefix {
        Prefix::new(self.bytes, length.min(self.length))
    }

    /// Whether all rows of `other` are rows of this one.
    pub fn contains(&self, other: &Prefix) -> bool {
        other.length >= self.length && other.cut(self.length) == *self
    }

    /// How many nibbles both begin with.
    pub fn shared(&self, other: &Prefix) -> u8 {
        let most = self.length.min(other.length);
        let whole = self.bytes.iter().zip(&other.bytes).take_while(|(mine, theirs)| mine == theirs).count() as u8;
        if whole * 2 >= most {
            return most;
        }
        (whole * 2 + u8::from(self.nibble(whole * 2) == other.nibble(whole * 2))).min(most)
    }

    /// The least and the greatest key of its rows, both included.
    pub fn range(&self) -> ([u8; 29], [u8; 29]) {
        let mut through = self.bytes;
        let whole = usize::from(self.length / 2);
        if whole < through.len() {
            if self.length % 2 == 1 {
                through[whole] |= 0x0f;
                through[whole + 1..].fill(0xff);
            } else {
                through[whole..].fill(0xff);
            }
        }
        (self.bytes, through)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nibbles: String =
            (0..self.length).map(|at| char::from_digit(self.nibble(at).into(), 16).unwrap_or('?')).collect();
        write!(f, "Prefix({nibbles})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_holds_exactly_what_begins_with_it() {
        let key: [u8; 29] = std::array::from_fn(|at| (at as u8).wrapping_mul(37) ^ 0x5a);
        for length in 0..=NIBBLES {
            let prefix = Prefix::new(key, length);
            let (from, through) = prefix.range();
            assert!(from <= key && key <= through);
            assert_eq!(Prefix::new(through, length), prefix);
            assert!(prefix.contains(&Prefix::new(key, NIBBLES)));
            if length > 0 {
                let parent = prefix.cut(length - 1);
                assert_eq!(parent.child(prefix.nibble(length - 1)), prefix);
                assert_eq!(parent.shared(&prefix), length - 1);
                let sibling = parent.child(prefix.nibble(length - 1) ^ 1);
                assert!(!prefix.contains(&sibling) && !sibling.contains(&prefix));
                assert_eq!(prefix.shared(&sibling), length - 1);
                let (low, high) = sibling.range();
                assert!(high < from || through < low);
            }
        }
    }
}
