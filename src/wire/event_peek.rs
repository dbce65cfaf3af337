//! What an answer must know of a stored event to find its place, read without unfolding the event.
//!
//! Invariant: total on any bytes; agrees with the full decoder on every canonical event. Caller: node (answers).

use prost::bytes::Buf as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::WireError;
use super::varint::Stream;
use crate::model::{OriginId, Stamp};

/// Numbers of the fields in `proto/event.proto`: they stand in ascending order.
const STAMP: u32 = 6;
const ORIGINS: u32 = 10;
const APPLIED: u32 = 11;

/// Stamp of an event, and what its author had applied since its event before.
pub fn peek_header(mut bytes: &[u8]) -> Result<(Stamp, Vec<(OriginId, u64)>), WireError> {
    let malformed = |_| WireError::Malformed { what: "not an event" };
    let (mut stamp, mut origins, mut applied) = (Stamp(0), &[][..], Vec::new());
    while bytes.has_remaining() {
        let (field, wire_type) = decode_key(&mut bytes).map_err(malformed)?;
        match (field, wire_type) {
            (STAMP, WireType::SixtyFourBit) => {
                stamp = Stamp(Stream::new(take(&mut bytes, 8)?).fixed64()?);
            }
            (ORIGINS | APPLIED, WireType::LengthDelimited) => {
                let length = decode_varint(&mut bytes).map_err(malformed)?;
                let content = take(&mut bytes, length)?;
                if field == ORIGINS {
                    origins = content;
                } else {
                    let mut counts = Stream::new(content);
                    for origin in origins.as_chunks::<16>().0 {
                        if counts.is_empty() {
                            break;
                        }
                        applied.push((OriginId(*origin), counts.varint()?));
                    }
                    break;
                }
            }
            (field, _) if field > APPLIED => break,
            (field, wire_type) => {
                skip_field(wire_type, field, &mut bytes, DecodeContext::default()).map_err(malformed)?
            }
        }
    }
    Ok((stamp, applied))
}

fn take<'b>(bytes: &mut &'b [u8], length: u64) -> Result<&'b [u8], WireError> {
    let split = usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length));
    let Some((taken, rest)) = split else { return Err(WireError::Malformed { what: "a field is cut short" }) };
    *bytes = rest;
    Ok(taken)
}
