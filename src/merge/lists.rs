//! Texts that are lists: what a column under the rule `set` holds.
//!
//! A list is a JSON array or texts with commas between (`111,222`). An element is named by its bytes, the same ones in both
//! forms where it can be (`"abc"` in JSON is `abc` between commas), so that two servers whose app writes different forms
//! agree. Invariant: a text that names an element twice, or that is no list, is `None` and merges as one value: nothing
//! an app wrote is ever tidied up behind its back. NULL and an empty text are the empty list.
//! Callers: [`super::registers`] (what is shown), node (capture: what an update added and removed).

use std::collections::BTreeSet;

use crate::model::Value;

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Commas,
}

/// The elements of a list in its own order; `None` for what is no list.
pub fn elements(value: &Value) -> Option<Vec<Vec<u8>>> {
    let found = match value {
        Value::Null => return Some(Vec::new()),
        Value::Text(text) => split(text)?.1,
        Value::Integer(_) | Value::Real(_) | Value::Blob(_) => return None,
    };
    let distinct: BTreeSet<&Vec<u8>> = found.iter().collect();
    (distinct.len() == found.len()).then_some(found)
}

/// The list of `present` elements as the app would write it: in the form of `model`, its elements first and in its order,
/// the others behind in byte order. The very same elements give `model` itself, to the byte.
pub(super) fn written_like(model: &Value, present: &BTreeSet<Vec<u8>>, fallback: Option<&Value>) -> Value {
    let own = elements(model).unwrap_or_default();
    if own.len() == present.len() && own.iter().all(|element| present.contains(element)) {
        return model.clone();
    }
    let mut ordered: Vec<&Vec<u8>> = own.iter().filter(|element| present.contains(*element)).collect();
    let known: BTreeSet<&Vec<u8>> = ordered.iter().copied().collect();
    ordered.extend(present.iter().filter(|element| !known.contains(element)));
    let style = [Some(model), fallback].into_iter().flatten().find_map(style_of);
    let (form, gap) = style.unwrap_or((Form::Commas, false));
    let separator: &[u8] = if gap { b", " } else { b"," };
    let texts: Vec<Vec<u8>> = match form {
        Form::Commas => ordered.into_iter().cloned().collect(),
        Form::Json => ordered.into_iter().map(|element| to_json(element)).collect(),
    };
    let joined = texts.join(separator);
    Value::Text(if form == Form::Json { [b"[", &joined[..], b"]"].concat() } else { joined })
}

/// The form of a text that has one, and whether its elements are set apart by a space.
fn style_of(value: &Value) -> Option<(Form, bool)> {
    let Value::Text(text) = value else { return None };
    let (form, found) = split(text)?;
    (form == Form::Json || !found.is_empty()).then(|| (form, text.windows(2).any(|pair| pair == b", ")))
}

fn split(text: &[u8]) -> Option<(Form, Vec<Vec<u8>>)> {
    std::str::from_utf8(text).ok()?;
    let text = text.trim_ascii();
    match text.first() {
        None => Some((Form::Commas, Vec::new())),
        Some(b'[') => Some((Form::Json, split_json(text.strip_prefix(b"[")?.strip_suffix(b"]")?)?)),
        // An object is one value.
        Some(b'{') => None,
        Some(_) => {
            let found: Vec<Vec<u8>> = text.split(|byte| *byte == b',').map(|part| part.trim_ascii().to_vec()).collect();
            found.iter().all(|element| !element.is_empty()).then_some((Form::Commas, found))
        }
    }
}

/// The elements between the brackets of a JSON array, cut at the commas of its own level.
fn split_json(inside: &[u8]) -> Option<Vec<Vec<u8>>> {
    if inside.trim_ascii().is_empty() {
        return Some(Vec::new());
    }
    let (mut found, mut from) = (Vec::new(), 0);
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    for (at, byte) in inside.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 => {
                found.push(from_json(&inside[from..at])?);
                from = at + 1;
            }
            _ => {}
        }
    }
    if quoted || depth > 0 {
        return None;
    }
    found.push(from_json(&inside[from..])?);
    Some(found)
}

/// The name of an element of a JSON array.
fn from_json(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.trim_ascii();
    let plain = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\""));
    match plain {
        Some(plain) if needs_no_quotes(plain) => Some(plain.to_vec()),
        Some(_) => Some(text.to_vec()),
        None => is_json(text).then(|| text.to_vec()),
    }
}

/// Whether a string's content can stand between commas and be taken for nothing else there.
fn needs_no_quotes(content: &[u8]) -> bool {
    let odd = |byte: &u8| matches!(byte, b'"' | b'\\' | b',') || byte.is_ascii_control();
    !content.is_empty() && content.trim_ascii() == content && !content.iter().any(odd) && !is_json(content)
}

/// Whether a text reads as a JSON value other than a string.
fn is_json(text: &[u8]) -> bool {
    match text {
        b"true" | b"false" | b"null" => true,
        [b'[' | b'{', ..] => true,
        _ => is_number(text),
    }
}

fn is_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let allowed = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    digits.first().is_some_and(u8::is_ascii_digit)
        && digits.iter().all(allowed)
        && std::str::from_utf8(digits).is_ok_and(|digits| digits.parse::<f64>().is_ok())
}

/// An element as it stands in a JSON array.
fn to_json(element: &[u8]) -> Vec<u8> {
    if is_json(element) || element.first() == Some(&b'"') {
        return element.to_vec();
    }
    let mut out = vec![b'"'];
    for byte in element {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            byte if byte.is_ascii_control() => out.extend(format!("\\u{byte:04x}").bytes()),
            byte => out.push(*byte),
        }
    }
    out.push(b'"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Vec<String>> {
        let found = elements(&Value::text(text))?;
        Some(found.into_iter().map(|element| String::from_utf8(element).unwrap()).collect())
    }

    fn names(list: &[&str]) -> Option<Vec<String>> {
        Some(list.iter().map(|name| (*name).to_string()).collect())
    }

    #[test]
    fn both_forms_name_the_same_elements() {
        assert_eq!(of("111,222, 333"), names(&["111", "222", "333"]));
        assert_eq!(of("[111, 222,333]"), names(&["111", "222", "333"]));
        assert_eq!(of(r#"["a b", "c"]"#), names(&["a b", "c"]));
        assert_eq!(of(r#"["1", 1, {"k": [1, 2]}, "x,y"]"#), names(&["\"1\"", "1", r#"{"k": [1, 2]}"#, "\"x,y\""]));
        assert_eq!(of(""), names(&[]));
        assert_eq!(of("[ ]"), names(&[]));
    }

    #[test]
    fn what_is_no_list_of_distinct_elements_is_one_value() {
        for text in ["1,,2", "1,1", "[1", "[1]]", "{\"a\": 1}", "[1, x]", r#"["a]"#] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(elements(&Value::Integer(1)), None);
    }

    #[test]
    fn a_list_is_written_as_the_app_writes_it() {
        let present = |list: &[&str]| list.iter().map(|name| name.as_bytes().to_vec()).collect::<BTreeSet<_>>();
        let like = |model: &str, list: &[&str]| written_like(&Value::text(model), &present(list), None);
        assert_eq!(like("3, 1", &["1", "3"]), Value::text("3, 1"));
        assert_eq!(like("3, 1", &["1", "2", "3"]), Value::text("3, 1, 2"));
        assert_eq!(like("3,1", &["1", "7"]), Value::text("1,7"));
        assert_eq!(like(r#"["b"]"#, &["b", "a", "1"]), Value::text(r#"["b",1,"a"]"#));
        assert_eq!(like("[1]", &[]), Value::text("[]"));
        assert_eq!(written_like(&Value::Null, &present(&["1"]), Some(&Value::text("[2]"))), Value::text("[1]"));
        assert_eq!(written_like(&Value::Null, &present(&[]), None), Value::Null);
    }
}
