//! Just enough of Rust's surface to measure it: comments and literals blanked, tests marked, paths and functions found.
//!
//! Invariant: line numbers and line counts are those of the original text.
//! Callers: `tests/architecture.rs`.

/// What a line of a test item becomes, so that it can be counted out and nothing in it is found.
pub(crate) const TEST_LINE: char = '\u{1}';

/// A function and its length from `fn` to its closing brace.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) lines: usize,
}

/// The text with comments, strings and character literals replaced by spaces; line breaks stay.
pub(crate) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let length = literal_length(&chars, at);
        if length == 0 {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..at + length].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at += length;
        }
    }
    out
}

/// Length of the comment or literal that starts here, or 0.
fn literal_length(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let next = rest.get(1).copied().unwrap_or(' ');
    match rest[0] {
        '/' if next == '/' => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
        '/' if next == '*' => block_comment_length(rest),
        '"' => quoted_length(rest, '"'),
        '\'' if next == '\\' => quoted_length(rest, '\''),
        '\'' if rest.get(2) == Some(&'\'') => 3,
        'r' if (next == '"' || next == '#') && !continues_word(chars, at) => raw_string_length(rest),
        _ => 0,
    }
}

fn continues_word(chars: &[char], at: usize) -> bool {
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_') && chars[at - 1] != 'b'
}

fn block_comment_length(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        match (rest[at], rest.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted_length(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string_length(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0; // a raw identifier
    }
    let mut closing = vec!['"'];
    closing.resize(1 + hashes, '#');
    let body = 2 + hashes;
    let end = rest[body..].windows(closing.len()).position(|window| window == closing);
    end.map_or(rest.len(), |end| body + end + closing.len())
}

/// Replaces every item behind `#[cfg(test)]` by lines of [`TEST_LINE`]. Takes the output of [`code_only`].
pub(crate) fn without_tests(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(test)]") {
        out.push_str(&rest[..start]);
        let item = &rest[start..];
        let length = item_length(item);
        for (number, _) in item[..length].split('\n').enumerate() {
            if number > 0 {
                out.push('\n');
            }
            out.push(TEST_LINE);
        }
        rest = &item[length..];
    }
    out.push_str(rest);
    out
}

/// Length of an item up to its `;` or its closing brace, whichever ends it.
fn item_length(item: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in item.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

/// Every function with a body. Takes the output of [`code_only`].
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let starts_word = at == 0 || !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !starts_word || name.is_empty() {
            continue;
        }
        let body = &code[at..at + body_length(&code[at..])];
        if body.ends_with('}') {
            found.push(Function { name, lines: body.lines().count() });
        }
    }
    found
}

/// Like [`item_length`], but a `;` inside `[u8; 16]` in the signature does not end it.
fn body_length(item: &str) -> usize {
    let signature_end = item.char_indices().scan(0i32, |nested, (at, c)| {
        match c {
            '(' | '[' => *nested += 1,
            ')' | ']' => *nested -= 1,
            _ => {}
        }
        Some((at, c, *nested))
    });
    for (at, c, nested) in signature_end {
        match c {
            ';' if nested == 0 => return at + 1,
            '{' => return at + item_length(&item[at..]),
            _ => {}
        }
    }
    item.len()
}

/// Every path in the code, with `use` groups multiplied out. Takes the output of [`code_only`].
pub(crate) fn paths_in(code: &str) -> Vec<Vec<String>> {
    let mut tokens = tokens_of(code).into_iter().peekable();
    let mut paths = Vec::new();
    while tokens.peek().is_some() {
        read_path(&mut tokens, &[], &mut paths);
    }
    paths
}

fn tokens_of(code: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut chars = code.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_alphanumeric() || c == '_' {
            let mut word = String::from(c);
            while let Some(more) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                word.push(more);
            }
            tokens.push(word);
        } else if c == ':' && chars.next_if_eq(&':').is_some() {
            tokens.push("::".to_owned());
        } else if !c.is_whitespace() {
            tokens.push(c.to_string());
        }
    }
    tokens
}

/// Reads `a::b::{c, d::e}` behind a prefix; anything else is one token that stands for itself.
fn read_path(
    tokens: &mut std::iter::Peekable<std::vec::IntoIter<String>>,
    prefix: &[String],
    into: &mut Vec<Vec<String>>,
) {
    let mut path = prefix.to_vec();
    let Some(first) = tokens.next() else { return };
    if !first.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
        return;
    }
    path.push(first);
    while tokens.next_if(|token| token == "::").is_some() {
        if tokens.next_if(|token| token == "{").is_some() {
            while tokens.peek().is_some_and(|token| token != "}") {
                read_path(tokens, &path, into);
            }
            tokens.next();
            return;
        }
        match tokens.next_if(|token| token.starts_with(|c: char| c.is_alphanumeric() || c == '_')) {
            Some(segment) => path.push(segment),
            None => break,
        }
    }
    into.push(path);
}
