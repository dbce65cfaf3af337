//! The packed number streams inside an event: protobuf varints, read without an intermediate list.
//!
//! Invariant: a [`Stream`] never reads past its bytes. Shortest forms are not checked here: the whole event is encoded
//! again and compared. Callers: the event codec.

use super::WireError;

/// Appends a varint.
pub(super) fn write(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number, small ones of either sign in few bytes.
pub(super) fn write_zigzag(value: i64, out: &mut Vec<u8>) {
    write(((value << 1) ^ (value >> 63)) as u64, out);
}

/// A cursor over a field's bytes.
pub(super) struct Stream<'a> {
    bytes: &'a [u8],
}

impl<'a> Stream<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Stream<'a> {
        Stream { bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next `length` bytes.
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(length) else { return Err(ENDED) };
        self.bytes = rest;
        Ok(taken)
    }

    /// The next 16 bytes.
    pub(super) fn take_16(&mut self) -> Result<[u8; 16], WireError> {
        let Some((taken, rest)) = self.bytes.split_first_chunk::<16>() else { return Err(ENDED) };
        self.bytes = rest;
        Ok(*taken)
    }

    /// The next 8 bytes as a little-endian number.
    pub(super) fn fixed64(&mut self) -> Result<u64, WireError> {
        let Some((taken, rest)) = self.bytes.split_first_chunk::<8>() else { return Err(ENDED) };
        self.bytes = rest;
        Ok(u64::from_le_bytes(*taken))
    }

    /// The next varint.
    pub(super) fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for (position, &byte) in self.bytes.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * position);
            if byte < 0x80 {
                self.bytes = &self.bytes[position + 1..];
                return Ok(value);
            }
        }
        Err(ENDED)
    }

    /// The next varint, as a count or position that must be below `limit`.
    pub(super) fn below(&mut self, limit: usize, what: &'static str) -> Result<usize, WireError> {
        match usize::try_from(self.varint()?) {
            Ok(value) if value < limit => Ok(value),
            Ok(_) | Err(_) => Err(WireError::Malformed { what }),
        }
    }

    /// The next varint, as a 32-bit number.
    pub(super) fn number(&mut self) -> Result<u32, WireError> {
        u32::try_from(self.varint()?).map_err(|_| WireError::Malformed { what: "a number exceeds 32 bits" })
    }

    /// The next signed number.
    pub(super) fn zigzag(&mut self) -> Result<i64, WireError> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}

const ENDED: WireError = WireError::Malformed { what: "a stream ends too early" };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_and_ends_are_errors() {
        for value in [0u64, 1, 127, 128, 300, 1 << 32, u64::MAX] {
            let mut bytes = Vec::new();
            write(value, &mut bytes);
            assert_eq!(Stream::new(&bytes).varint(), Ok(value));
            assert!(Stream::new(&bytes[..bytes.len() - 1]).varint().is_err());
        }
        for value in [0i64, -1, 1, i64::MIN, i64::MAX] {
            let mut bytes = Vec::new();
            write_zigzag(value, &mut bytes);
            assert_eq!(Stream::new(&bytes).zigzag(), Ok(value));
        }
        assert!(Stream::new(&[0xff; 11]).varint().is_err());
        assert!(Stream::new(&[]).take_16().is_err());
    }
}
