//! Rules by which concurrent values, deletes and UNIQUE collisions are decided, per column or per table.
//!
//! Invariant: a rule is replicated configuration, carried by [`super::Change::Rule`]; of several for the same table and
//! column that did not know each other the one with the greatest (stamp, event) holds, on every node. Callers: wire, merge, node, config.

use serde::{Deserialize, Serialize};

/// One rule. The numbers are those of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum Rule {
    /// Column or table: any update beats the birth, then the last writer wins.
    Lww = 0,
    /// Column: the greatest value ever written.
    Max = 1,
    /// Column: the least value ever written.
    Min = 2,
    /// Column: the birth value plus the sum of all differences.
    Counter = 3,
    /// Column: a list of elements; everybody's additions and removals count.
    Set = 4,
    /// Table: a delete beats the updates its author did not know.
    DeleteWins = 5,
    /// Table: rows born with the same UNIQUE key become one row.
    UniqueMerge = 6,
    /// Table: the later row of a UNIQUE collision shows its value with a tag.
    UniqueSuffix = 7,
    /// Table: the later row of a UNIQUE collision waits on the shelf.
    UniqueShelve = 8,
    /// Column: a reference to a parent in the same table that must form no ring.
    Tree = 9,
}

impl Rule {
    /// Every rule, in the order of their numbers.
    pub const ALL: [Rule; 10] = [
        Rule::Lww,
        Rule::Max,
        Rule::Min,
        Rule::Counter,
        Rule::Set,
        Rule::DeleteWins,
        Rule::UniqueMerge,
        Rule::UniqueSuffix,
        Rule::UniqueShelve,
        Rule::Tree,
    ];

    /// The rule with this number on the wire.
    pub fn from_number(number: u64) -> Option<Rule> {
        Rule::ALL.into_iter().find(|rule| *rule as u64 == number)
    }

    /// What people write in the config and read in `rules`.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Lww => "lww",
            Rule::Max => "max",
            Rule::Min => "min",
            Rule::Counter => "counter",
            Rule::Set => "set",
            Rule::DeleteWins => "delete-wins",
            Rule::UniqueMerge => "unique-merge",
            Rule::UniqueSuffix => "unique-suffix",
            Rule::UniqueShelve => "unique-shelve",
            Rule::Tree => "tree",
        }
    }

    /// The rule of this name, for a column or for a whole table. Of a table's UNIQUE keys the short names of the config do
    /// as well.
    pub fn from_name(name: &str, of_column: bool) -> Option<Rule> {
        let unique = format!("unique-{name}");
        let named = |rule: &Rule| rule.name() == name || !of_column && rule.name() == unique;
        Rule::ALL.into_iter().filter(|rule| rule.fits(of_column)).find(named)
    }

    /// Whether the rule can be said of a column, or of a whole table.
    pub fn fits(self, of_column: bool) -> bool {
        match self {
            Rule::Lww => true,
            Rule::Max | Rule::Min | Rule::Counter | Rule::Set | Rule::Tree => of_column,
            Rule::DeleteWins | Rule::UniqueMerge | Rule::UniqueSuffix | Rule::UniqueShelve => !of_column,
        }
    }

    /// What kind of question the rule answers: rules of one aspect replace each other.
    pub fn aspect(self) -> Aspect {
        match self {
            Rule::Lww | Rule::Max | Rule::Min | Rule::Counter | Rule::Set | Rule::DeleteWins => Aspect::Values,
            Rule::UniqueMerge | Rule::UniqueSuffix | Rule::UniqueShelve => Aspect::Unique,
            Rule::Tree => Aspect::Shape,
        }
    }
}

/// A rule that a server's config states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedRule {
    /// The table.
    pub table: String,
    /// The column; `None` for the whole table.
    pub column: Option<String>,
    /// The rule.
    pub rule: Rule,
    /// Stated by the defaults, for databases that have such a table: where the cluster has another rule, nobody is told.
    pub by_default: bool,
}

/// The question that a rule answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Aspect {
    /// Which value, or whether a value or a delete, wins.
    Values,
    /// What becomes of rows with the same UNIQUE key.
    Unique,
    /// Whether references must form a tree.
    Shape,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_to_their_rules() {
        for rule in Rule::ALL {
            assert_eq!(Rule::from_number(rule as u64), Some(rule));
        }
        assert_eq!(Rule::from_number(Rule::ALL.len() as u64), None);
    }
}
