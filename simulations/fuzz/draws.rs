//! Bytes read as decisions: what a structured generator draws, a fuzzer can change and a shrinker can shorten.
//!
//! Invariant: total; behind the end everything is zero, so a shorter input asks for something simpler. Callers: generators.

use crate::dice::Dice;

/// A cursor over the bytes of an input.
pub struct Draws<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Draws<'a> {
    /// Reads from the start.
    pub fn new(bytes: &'a [u8]) -> Draws<'a> {
        Draws { bytes, at: 0 }
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    /// The next eight bytes as a number.
    pub fn bits(&mut self) -> u64 {
        (0..8).fold(0, |bits, _| bits << 8 | u64::from(self.byte()))
    }

    /// A number below `most` (0 for 0): one byte for small ranges.
    pub fn below(&mut self, most: u64) -> u64 {
        match most {
            0 => 0,
            1..=256 => u64::from(self.byte()) % most,
            _ => self.bits() % most,
        }
    }

    /// True for about `percent` of 100 bytes, never for zero.
    pub fn chance(&mut self, percent: u64) -> bool {
        let byte = u64::from(self.byte());
        byte > 0 && (255 - byte) * 100 < percent * 256
    }

    /// One of several.
    pub fn pick<'p, T>(&mut self, from: &'p [T]) -> &'p T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// `length` bytes.
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }

    /// A key or hash that is often the same one: few distinct values find more than many.
    pub fn fixed<const N: usize>(&mut self) -> [u8; N] {
        match self.byte() {
            few @ 0..=239 => [few % 6; N],
            240..=247 => [0xff; N],
            _ => std::array::from_fn(|_| self.byte()),
        }
    }

    /// A number of those that break things.
    pub fn number(&mut self) -> u64 {
        const EDGES: [u64; 16] =
            [0, 1, 2, 3, 7, 15, 16, 127, 128, 255, 256, 65_535, 1 << 32, i64::MAX as u64, i64::MIN as u64, u64::MAX];
        match self.byte() {
            edge @ 0..=159 => EDGES[usize::from(edge) % EDGES.len()],
            160..=199 => self.below(100),
            _ => self.bits(),
        }
    }
}

/// Random bytes for a generator, `most` at most.
pub fn random(dice: &mut Dice, most: u64) -> Vec<u8> {
    let length = 1 + dice.below(most);
    (0..length).map(|_| dice.bits() as u8).collect()
}
