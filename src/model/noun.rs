//! Counted nouns, for every sentence that people read: `1 row`, `2 rows`.
//!
//! Invariant: pure; nothing that a machine reads is made here. Callers: every room that writes sentences.

/// `1 row`, `2 rows`, `1 entry`, `2 entries`.
pub fn counted(number: u64, noun: &str) -> String {
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) if !stem.ends_with(['a', 'e', 'i', 'o', 'u']) => format!("{number} {stem}ies"),
        _ => format!("{number} {noun}s"),
    }
}

/// The verb that fits a number: `1 row differs`, `2 rows differ`.
pub fn fits<'w>(number: u64, one: &'w str, several: &'w str) -> &'w str {
    if number == 1 { one } else { several }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one_and_all_others_are_several() {
        for (number, noun, want) in
            [(1, "row", "1 row"), (0, "row", "0 rows"), (2, "entry", "2 entries"), (3, "key", "3 keys")]
        {
            assert_eq!(counted(number, noun), want);
        }
        assert_eq!((fits(1, "is", "are"), fits(0, "is", "are")), ("is", "are"));
    }
}
