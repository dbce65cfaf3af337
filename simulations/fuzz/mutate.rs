//! Changes to an input: bits, bytes, numbers, lengths, splices, and whole fields of a protobuf with their lengths mended.
//!
//! Invariant: the same dice make the same change; no input grows beyond [`BYTES_MAX`]. Caller: the driver.

use crate::dice::Dice;

/// Bytes of an input.
pub const BYTES_MAX: usize = 1 << 16;

/// Numbers at the edges of what decoders do with them.
const EDGES: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, 1 << 63, u64::MAX];

/// A changed copy of `input`; `others` and `words` lend parts.
pub fn mutate(input: &[u8], others: &[Vec<u8>], words: &[&[u8]], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..1 + dice.below(4) {
        if dice.chance(35)
            && let Some(changed) = mutate_field(&bytes, others, words, dice, 4)
        {
            bytes = changed;
        } else {
            mutate_plain(&mut bytes, others, words, dice);
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn mutate_plain(bytes: &mut Vec<u8>, others: &[Vec<u8>], words: &[&[u8]], dice: &mut Dice) {
    let length = bytes.len() as u64;
    let at = dice.below(length) as usize;
    let until = (at + 1 + dice.below(16) as usize).min(bytes.len());
    match dice.below(12) {
        _ if bytes.is_empty() => bytes.push(dice.bits() as u8),
        0 | 1 => bytes[at] ^= 1 << dice.below(8),
        2 => bytes[at] = dice.bits() as u8,
        3 => bytes[at] = bytes[at].wrapping_add(if dice.chance(50) { 1 } else { 255 }),
        4 => bytes.truncate(at),
        5 => drop(bytes.drain(at..until)),
        6 => {
            let copy = bytes[at..until].to_vec();
            insert(bytes, at, &copy);
        }
        7 => {
            let edge = EDGES[dice.below(EDGES.len() as u64) as usize];
            let width = 1 << dice.below(4);
            let number = if dice.chance(50) { edge.to_le_bytes() } else { edge.to_be_bytes() };
            overwrite(bytes, at, &number[..width]);
        }
        8 => {
            let mut number = Vec::new();
            write_varint(EDGES[dice.below(EDGES.len() as u64) as usize], &mut number);
            insert(bytes, at, &number);
        }
        9 => {
            let filler = vec![bytes[at]; 1 << dice.below(12)];
            insert(bytes, at, &filler);
        }
        10 if !words.is_empty() => {
            let word = words[dice.below(words.len() as u64) as usize];
            if dice.chance(50) { insert(bytes, at, word) } else { overwrite(bytes, at, word) }
        }
        _ => {
            let Some(other) = dice.clone().pick(others) else { return };
            let from = dice.below(other.len() as u64) as usize;
            let part = &other[from..(from + 1 + dice.below(64) as usize).min(other.len())];
            if dice.chance(30) {
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            } else {
                insert(bytes, at, part);
            }
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    if bytes.len() + part.len() <= BYTES_MAX {
        bytes.splice(at..at, part.iter().copied());
    }
}

fn overwrite(bytes: &mut [u8], at: usize, part: &[u8]) {
    for (byte, new) in bytes[at..].iter_mut().zip(part) {
        *byte = *new;
    }
}

/// Changes one field of a protobuf message, fields inside it included: what is around it stays well-formed. `None`: no
/// protobuf.
fn mutate_field(bytes: &[u8], others: &[Vec<u8>], words: &[&[u8]], dice: &mut Dice, depth: u32) -> Option<Vec<u8>> {
    let fields = fields(bytes)?;
    let position = dice.below(fields.len() as u64) as usize;
    let (start, content, end) = *fields.get(position)?;
    let mut out = bytes[..start].to_vec();
    match dice.below(10) {
        0 => {}
        1 => {
            out.extend_from_slice(&bytes[start..end]);
            out.extend_from_slice(&bytes[start..end]);
        }
        _ if content == end => {
            write_varint(u64::from(bytes[start]), &mut out);
            write_varint(EDGES[dice.below(EDGES.len() as u64) as usize], &mut out);
        }
        _ => {
            let inner = &bytes[content..end];
            let deeper = (depth > 0 && dice.chance(50)).then(|| mutate_field(inner, others, words, dice, depth - 1));
            let changed = deeper.flatten().unwrap_or_else(|| {
                let mut changed = inner.to_vec();
                mutate_plain(&mut changed, others, words, dice);
                changed
            });
            let mut key = &bytes[start..];
            write_varint(read_varint(&mut key)?, &mut out);
            write_varint(changed.len() as u64, &mut out);
            out.extend_from_slice(&changed);
        }
    }
    out.extend_from_slice(&bytes[end..]);
    Some(out)
}

/// The fields of a message: where each starts, where its content starts (its end, when it is a bare number), its end.
fn fields(bytes: &[u8]) -> Option<Vec<(usize, usize, usize)>> {
    let mut fields = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let start = bytes.len() - rest.len();
        let key = read_varint(&mut rest)?;
        let content = match key & 7 {
            0 => read_varint(&mut rest).map(|_| None)?,
            1 => rest.split_off(..8).map(|_| None)?,
            5 => rest.split_off(..4).map(|_| None)?,
            2 => {
                let length = usize::try_from(read_varint(&mut rest)?).ok()?;
                let content = bytes.len() - rest.len();
                rest.split_off(..length)?;
                Some(content)
            }
            _ => return None,
        };
        let end = bytes.len() - rest.len();
        fields.push((start, content.unwrap_or(end), end));
    }
    (!fields.is_empty()).then_some(fields)
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
