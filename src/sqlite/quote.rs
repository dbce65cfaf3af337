//! The one place where a name becomes SQL.
//!
//! Invariant: a quoted name is one identifier token in every SQLite, whatever characters it holds. Callers: all of
//! `sqlite`; no other code puts a name of the app into SQL.

use super::SqliteError;

/// The name as a quoted SQL identifier.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Refuses names that would end SQL text early.
pub(super) fn check_name(name: &str) -> Result<(), SqliteError> {
    if name.contains('\0') { Err(SqliteError::BadName(name.to_owned())) } else { Ok(()) }
}

/// Whether a name matches a pattern of `*` (any run) and `?` (any character); ASCII case is ignored, as in SQLite's names.
pub(super) fn matches_pattern(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().map(|c| c.to_ascii_lowercase()).collect();
    let name: Vec<char> = name.chars().map(|c| c.to_ascii_lowercase()).collect();
    let (mut p, mut n) = (0, 0);
    // Where to go back to when a later part does not fit: behind the last star, one more character taken by it.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == '*' {
            retry = Some((p + 1, n));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == name[n]) {
            p += 1;
            n += 1;
        } else if let Some((after_star, taken)) = retry {
            retry = Some((after_star, taken + 1));
            p = after_star;
            n = taken + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// The condition of a partial index, out of its CREATE INDEX text: what follows the WHERE behind the column list.
pub(super) fn partial_condition(sql: &str) -> Option<String> {
    let mut depth = 0usize;
    let mut at = 0;
    while at < sql.len() {
        let rest = &sql[at..];
        let length = token_length(rest);
        match &rest[..length] {
            "(" => depth += 1,
            ")" => depth = depth.checked_sub(1)?,
            word if depth == 0 && word.eq_ignore_ascii_case("where") => {
                // The line break ends a comment that the app may have left at the end.
                return Some(format!("{}\n", rest[length..].trim()));
            }
            _ => {}
        }
        at += length;
    }
    None
}

/// The terms of an index, out of its CREATE INDEX text, without their ASC and DESC.
pub(super) fn index_terms(sql: &str) -> Option<Vec<String>> {
    let (mut depth, mut at) = (0usize, 0);
    let mut terms: Vec<String> = vec![String::new()];
    while at < sql.len() {
        let rest = &sql[at..];
        let token = &rest[..token_length(rest)];
        at += token.len();
        match (token, depth) {
            ("(", _) => depth += 1,
            (")", 1) => {
                let plain = |term: &String| {
                    let term = term.trim();
                    let order = term.rsplit(char::is_whitespace).next().unwrap_or_default();
                    let ordered = order.eq_ignore_ascii_case("asc") || order.eq_ignore_ascii_case("desc");
                    if ordered { term[..term.len() - order.len()].trim().to_owned() } else { term.to_owned() }
                };
                return Some(terms.iter().map(plain).collect());
            }
            (")", _) => depth = depth.checked_sub(1)?,
            (",", 1) => {
                terms.push(String::new());
                continue;
            }
            _ => {}
        }
        let comment = token.starts_with("--") || token.starts_with("/*");
        let opens = token == "(" && depth == 1;
        if depth > 0 && !opens {
            terms.last_mut()?.push_str(if comment { " " } else { token });
        }
    }
    None
}

/// The words of SQL text that can be names, without their quotes.
pub(super) fn words(sql: &str) -> Vec<String> {
    let (mut at, mut found) = (0, Vec::new());
    while at < sql.len() {
        let token = &sql[at..at + token_length(&sql[at..])];
        at += token.len();
        let first = token.chars().next().unwrap_or(' ');
        match first {
            '"' | '`' | '[' if token.len() > 1 => found.push(token[1..token.len() - 1].to_owned()),
            c if c.is_alphabetic() || c == '_' || !c.is_ascii() => found.push(token.to_owned()),
            _ => {}
        }
    }
    found
}

/// Length of the token, comment or single character that SQL text begins with.
fn token_length(text: &str) -> usize {
    let until = |end: &str, from: usize| text[from..].find(end).map_or(text.len(), |at| from + at + end.len());
    let first = text.chars().next().map_or(0, char::len_utf8);
    if text.starts_with("--") {
        return until("\n", 2);
    }
    if text.starts_with("/*") {
        return until("*/", 2);
    }
    match &text[..first] {
        // A doubled quote reads as two quoted tokens side by side: the same for finding what is outside.
        quote @ ("'" | "\"" | "`") => until(quote, 1),
        "[" => until("]", 1),
        _ => {
            let word = |c: char| c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii();
            let length: usize = text.chars().take_while(|c| word(*c)).map(char::len_utf8).sum();
            length.max(first)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_survives_every_character_but_nul() {
        assert_eq!(quote("a\"b c"), "\"a\"\"b c\"");
        assert!(check_name("select").is_ok());
        assert!(check_name("a\0b").is_err());
    }

    #[test]
    fn the_condition_of_a_partial_index_is_found() {
        for (sql, condition) in [
            ("CREATE UNIQUE INDEX i ON t(a) WHERE b = 1", Some("b = 1\n")),
            (
                "CREATE UNIQUE INDEX \"where (\" ON t(a, \"b)\") /* where */ where (b IN (1, 2)) -- x",
                Some("(b IN (1, 2)) -- x\n"),
            ),
            (
                "CREATE UNIQUE INDEX i ON [t (] (lower('where)') , nowhere) WHERE \"a\"\"b\" = 'x''y'",
                Some("\"a\"\"b\" = 'x''y'\n"),
            ),
            ("CREATE UNIQUE INDEX wheres ON t(a)", None),
            ("", None),
        ] {
            assert_eq!(partial_condition(sql).as_deref(), condition, "{sql}");
        }
    }

    #[test]
    fn the_terms_of_an_index_are_told_apart() {
        for (sql, terms) in [
            ("CREATE UNIQUE INDEX i ON t(a)", vec!["a"]),
            ("CREATE UNIQUE INDEX i ON t (lower(a), b DESC) WHERE c > (1)", vec!["lower(a)", "b"]),
            (
                "CREATE UNIQUE INDEX \"i(\" ON [t(] ( coalesce(a, 'x,)') COLLATE NOCASE asc /* , */ , \"b,\")",
                vec!["coalesce(a, 'x,)') COLLATE NOCASE", "\"b,\""],
            ),
        ] {
            assert_eq!(index_terms(sql).unwrap(), terms, "{sql}");
        }
        assert_eq!(index_terms("CREATE UNIQUE INDEX i ON t"), None);
        assert_eq!(words("lower(\"A b\") = 'no' AND [c] IS `d`"), ["lower", "A b", "AND", "c", "IS", "d"]);
    }

    #[test]
    fn patterns_match_like_a_shell() {
        for (pattern, name, fits) in [
            ("*", "anything", true),
            ("*", "", true),
            ("team", "Team", true),
            ("team", "teams", false),
            ("team*", "teams", true),
            ("*_log", "sync_log", true),
            ("*_log", "sync_logs", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches_pattern(pattern, name), fits, "{pattern} against {name}");
        }
    }
}
