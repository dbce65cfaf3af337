//! Failures, sorted: a class for machines, a pattern for people.
//!
//! Invariant: pure; every text has exactly one class, and texts that differ only in numbers, keys or quoted names have one
//! pattern. Callers: [`super::store`], [`super::reliability`].

/// All classes, the last for what fits none.
pub const CLASSES: [&str; 9] =
    ["network", "timeout", "peer", "database", "disk", "data", "permission", "interrupted", "other"];

/// Words that tell a class, the more telling ones first.
const WORDS: [(&str, &[&str]); 8] = [
    ("interrupted", &["interrupted", "no sign of life", "was dropped"]),
    ("timeout", &["timeout", "timed out", "in time", "deadline"]),
    ("disk", &["disk", "no space", "i/o error", "input/output"]),
    ("permission", &["permission", "denied", "unauthorized", "forbidden", "401", "403"]),
    ("network", &["network", "connection", "unreachable", "refused", "dns", "host", "socket", "reset by peer"]),
    ("database", &["database", "sqlite", "locked", "busy", "table", "sql"]),
    ("data", &["parse", "invalid", "constraint", "decode", "malformed", "checksum", "unexpected", "missing"]),
    ("peer", &["peer", "protocol"]),
];

/// Longest pattern and message that are kept, in characters.
const KEPT_MAX: usize = 500;

/// The class of a failure. A text that begins with a class and a colon names it itself.
pub fn class(message: &str) -> &'static str {
    let lower = message.to_lowercase();
    let named = lower.split_once(':').and_then(|(head, _)| CLASSES.iter().find(|class| **class == head));
    if let Some(class) = named {
        return class;
    }
    let fits = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    WORDS.iter().find(|(_, words)| fits(words)).map_or("other", |(class, _)| class)
}

/// What is alike in failures of one kind: numbers become N, long hex keys H, quoted text "…".
pub fn pattern(message: &str) -> String {
    let mut out = String::new();
    let mut rest = message;
    while let Some(first) = rest.chars().next() {
        if matches!(first, '"' | '`' | '\'')
            && let Some(end) = rest[1..].find(first)
        {
            out.push('…');
            rest = &rest[1 + end + 1..];
            continue;
        }
        if first.is_ascii_alphanumeric() {
            let word = &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len())];
            out.push_str(&word_pattern(word));
            rest = &rest[word.len()..];
            continue;
        }
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    kept(&out)
}

fn word_pattern(word: &str) -> String {
    let digits = word.chars().filter(char::is_ascii_digit).count();
    let hex = word.chars().all(|c| c.is_ascii_hexdigit());
    if digits > 0 && hex && word.len() >= 8 {
        return "H".to_string();
    }
    if digits == 0 { word.to_string() } else { collapse(word) }
}

/// Runs of digits become one N: `3s` and `12s` are alike.
fn collapse(word: &str) -> String {
    let mut out = String::new();
    for c in word.chars() {
        match c.is_ascii_digit() {
            true if out.ends_with('N') => {}
            true => out.push('N'),
            false => out.push(c),
        }
    }
    out
}

/// A text as it is kept: bounded, without control characters.
pub fn kept(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(KEPT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_a_class() {
        for (message, want) in [
            ("network: the connection was lost", "network"),
            ("timeout: the peer did not answer in time", "timeout"),
            ("Connection refused (os error 111)", "network"),
            ("HTTPSConnectionPool: Read timed out.", "timeout"),
            ("database is locked", "database"),
            ("[Errno 28] No space left on device", "disk"),
            ("UNIQUE constraint failed: team.number", "data"),
            ("exit code 3", "other"),
            ("", "other"),
        ] {
            assert_eq!(class(message), want, "{message}");
        }
    }

    #[test]
    fn what_differs_in_numbers_and_names_is_alike() {
        let one = pattern("row 57 of `team` at 0af31bc2 after 3s: \"x y\" is bad");
        assert_eq!(one, "row N of … at H after Ns: … is bad");
        assert_eq!(one, pattern("row 1234 of `match` at ffee12aa99 after 120s: \"\" is bad"));
        assert_eq!(pattern("it's broken"), "it's broken");
        assert_eq!(pattern(&"x".repeat(9_000)).len(), KEPT_MAX);
        assert_eq!(pattern("zwölf \u{7} Äpfel"), "zwölf   Äpfel");
    }
}
