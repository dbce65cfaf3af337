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
