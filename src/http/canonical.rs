//! JSON in the one form that checksums are taken of: keys sorted, no blanks, everything beyond ASCII escaped, numbers as
//! Python writes them.
//!
//! Values that JSON cannot say travel as objects with one member: a blob as `{"$blob": base64}`, text that is no UTF-8 as
//! `{"$text": base64}`, an infinite number as `{"$real": "inf"}`.
//! Invariants: a value comes back bit for bit (1 and 1.0 stay two); what is written here is what
//! `json.dumps(x, sort_keys=True, separators=(",", ":"))` writes of it. Another's document is brought to that form with its
//! numbers as they stand in it, because other languages write them differently; text may also stand unescaped
//! (`ensure_ascii=False`). Callers: [`super::legacy`].

use std::collections::BTreeMap;
use std::fmt::Write;

use data_encoding::BASE64;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::model::Value;

/// Deepest document that is read.
const DEPTH_MAX: usize = 32;

/// SHA-256 in hex.
pub(super) fn sha256(text: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()))
}

/// Writes a text.
pub(super) fn write_text(text: &str, ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || (ascii && (c as u32) > 0x7e) => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    // Writing to a string cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Writes a value of SQLite's.
pub(super) fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Integer(number) => {
            let _ = write!(out, "{number}");
        }
        Value::Real(bits) => out.push_str(&real(f64::from_bits(*bits))),
        Value::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => write_text(text, true, out),
            Err(_) => {
                let _ = write!(out, "{{\"$text\":\"{}\"}}", BASE64.encode(bytes));
            }
        },
        Value::Blob(bytes) => {
            let _ = write!(out, "{{\"$blob\":\"{}\"}}", BASE64.encode(bytes));
        }
    }
}

/// A number as Python's `repr` writes it: the shortest digits that come back, an exponent below 1e-4 and from 1e16 on.
fn real(number: f64) -> String {
    if number.is_infinite() {
        return format!("{{\"$real\":\"{}\"}}", if number > 0.0 { "inf" } else { "-inf" });
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        return format!("{number:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

/// Writes an object of columns, sorted.
pub(super) fn write_cells(cells: &[(String, Value)], out: &mut String) {
    let mut sorted: Vec<&(String, Value)> = cells.iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    out.push('{');
    for (position, (name, value)) in sorted.into_iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        write_text(name, true, out);
        out.push(':');
        write_value(value, out);
    }
    out.push('}');
}

/// Another's document in canonical form; `None` when it is no JSON or too deep.
pub(super) fn canonical(raw: &RawValue, ascii: bool) -> Option<String> {
    let mut out = String::new();
    write_raw(raw, ascii, 0, &mut out)?;
    Some(out)
}

fn write_raw(raw: &RawValue, ascii: bool, depth: usize, out: &mut String) -> Option<()> {
    let text = raw.get().trim();
    if depth > DEPTH_MAX {
        return None;
    }
    match text.as_bytes().first()? {
        b'{' => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
            out.push('{');
            for (position, (name, value)) in members.into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write_text(&name, ascii, out);
                out.push(':');
                write_raw(value, ascii, depth + 1, out)?;
            }
            out.push('}');
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            out.push('[');
            for (position, item) in items.into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write_raw(item, ascii, depth + 1, out)?;
            }
            out.push(']');
        }
        b'"' => write_text(&serde_json::from_str::<String>(text).ok()?, ascii, out),
        _ => out.push_str(text),
    }
    Some(())
}

/// A value of SQLite's from another's document; the words say what is wrong with it.
pub(super) fn read_value(raw: &RawValue) -> Result<Value, String> {
    let text = raw.get().trim();
    let bad = |what: &str| format!("{what}: {}", text.chars().take(60).collect::<String>());
    match text.as_bytes().first() {
        Some(b'n') => Ok(Value::Null),
        Some(b't') => Ok(Value::Integer(1)),
        Some(b'f') => Ok(Value::Integer(0)),
        Some(b'"') => serde_json::from_str::<String>(text).map(|it| Value::text(&it)).map_err(|_| bad("no text")),
        Some(b'{') => read_object(raw, text, &bad),
        // Lists are what some apps keep in columns of JSON: as text.
        Some(b'[') => canonical(raw, false).map(|it| Value::text(&it)).ok_or_else(|| bad("too deep a list")),
        Some(_) if text.contains(['.', 'e', 'E']) => text.parse().map(Value::real).map_err(|_| bad("no number")),
        Some(_) => text.parse().map(Value::Integer).map_err(|_| bad("a number beyond 64 bits")),
        None => Err("nothing where a value should be".to_string()),
    }
}

fn read_object(raw: &RawValue, text: &str, bad: &dyn Fn(&str) -> String) -> Result<Value, String> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(|_| bad("no object"))?;
    let word = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).unwrap_or_default();
    let bytes = |raw: &RawValue| BASE64.decode(word(raw).as_bytes()).map_err(|_| bad("no base64"));
    if let (1, Some((name, value))) = (members.len(), members.first_key_value()) {
        match (name.as_str(), word(value).as_str()) {
            ("$blob", _) => return Ok(Value::Blob(bytes(value)?)),
            ("$text", _) => return Ok(Value::Text(bytes(value)?)),
            ("$real", "inf") => return Ok(Value::real(f64::INFINITY)),
            ("$real", "-inf") => return Ok(Value::real(f64::NEG_INFINITY)),
            _ => {}
        }
    }
    canonical(raw, false).map(|it| Value::text(&it)).ok_or_else(|| bad("too deep an object"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_string()).unwrap()
    }

    #[test]
    fn numbers_read_as_python_writes_them() {
        for (number, want) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e16, "1e+16"),
            (123456789012345.6, "123456789012345.6"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.5e-7, "-2.5e-07"),
            (5e-324, "5e-324"),
            (9007199254740993.0, "9007199254740992.0"),
        ] {
            assert_eq!(real(number), want);
        }
    }

    #[test]
    fn values_come_back_bit_for_bit() {
        for value in [
            Value::Null,
            Value::Integer(i64::MIN),
            Value::real(1.0),
            Value::Integer(1),
            Value::real(-0.0),
            Value::real(f64::INFINITY),
            Value::text("zwölf \u{1f600} \"\\\n\u{0}"),
            Value::Text(vec![0xff, 0]),
            Value::Blob(vec![0, 255]),
        ] {
            let mut out = String::new();
            write_value(&value, &mut out);
            assert!(out.is_ascii(), "{out}");
            assert_eq!(read_value(&raw(&out)).as_ref(), Ok(&value), "{out}");
            assert_eq!(canonical(&raw(&out), true).as_deref(), Some(out.as_str()));
        }
        assert_eq!(read_value(&raw("true")), Ok(Value::Integer(1)));
        assert_eq!(read_value(&raw("{\"b\": [1, 2.0], \"a\": \"ä\"}")), Ok(Value::text("{\"a\":\"ä\",\"b\":[1,2.0]}")));
        assert!(read_value(&raw("99999999999999999999")).is_err());
        assert!(read_value(&raw("{\"$blob\": \"?\"}")).is_err());
    }

    #[test]
    fn anothers_document_keeps_its_numbers_and_gets_sorted_keys() {
        let document = raw(" { \"b\" : 1E2, \"a\" : [ 1.50 , \"\\u00e4\", { } ] } ");
        assert_eq!(canonical(&document, true).unwrap(), "{\"a\":[1.50,\"\\u00e4\",{}],\"b\":1E2}");
        assert_eq!(canonical(&document, false).unwrap(), "{\"a\":[1.50,\"ä\",{}],\"b\":1E2}");
        assert_eq!(canonical(&raw(&format!("{}1{}", "[".repeat(40), "]".repeat(40))), true), None);
        assert_eq!(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
