//! `litemesh rules`.
//!
//! Invariant: a rule is of the whole cluster; the node writes it, this only asks. Called by [`super`].

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::Context;
use super::error::CommandError;
use super::output::table;
use crate::node::view::RuleView;

/// Show or set how concurrent changes of a table or column are put together, on all servers
///
/// A rule counts for what is written from now on: what is shown now stays.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All rules that somebody set
    List,
    /// Set a rule, once, on any server; the others follow by themselves
    #[command(after_help = "\
Rules of a column (DB.TABLE.COLUMN), when two servers write it without knowing of each other:
  lww            the later value is shown, the other is kept in `litemesh conflicts` (default)
  counter        both additions count: 10 + 3 here and + 4 there is 17 (whole numbers)
  max, min       the greatest, or least, value stays
  set            what anybody added or removed counts: a JSON array, or texts with commas between
  tree           a reference to the same table: no row becomes its own ancestor

Rules of a table (DB.TABLE):
  lww            who changes a row that another server deleted brings it back (default)
  delete-wins    it stays deleted: for grants, memberships, permissions
  unique-merge   rows made apart with the same UNIQUE value become one row
  unique-suffix  the later one shows its value with a tag, like `name~ab12`, until the value is free
  unique-shelve  the later one waits on the shelf until the value is free

Examples:
  litemesh rules set scouting.team.wins counter
  litemesh rules set users.user_roles delete-wins")]
    Set {
        /// Table or column, like scouting.team or scouting.team.wins
        #[arg(value_name = "DB.TABLE[.COLUMN]", value_parser = place)]
        place: Place,
        /// One of the rules below
        rule: String,
    },
}

/// What a rule is for.
#[derive(Clone, Debug)]
struct Place {
    db: String,
    table: String,
    column: Option<String>,
}

/// The body of `POST /api/v1/rules`.
#[derive(Serialize)]
struct Order<'a> {
    db: &'a str,
    table: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<&'a str>,
    rule: &'a str,
}

#[derive(Deserialize, Serialize)]
struct Rules {
    rules: Vec<RuleView>,
}

fn place(text: &str) -> Result<Place, String> {
    let parts: Vec<&str> = text.splitn(3, '.').collect();
    match parts[..] {
        _ if parts.iter().any(|part| part.is_empty()) => Err(()),
        [db, table] => Ok(Place { db: db.into(), table: table.into(), column: None }),
        [db, table, column] => Ok(Place { db: db.into(), table: table.into(), column: Some(column.into()) }),
        _ => Err(()),
    }
    .map_err(|()| "write it as DB.TABLE or DB.TABLE.COLUMN, like scouting.team.wins".to_string())
}

pub(super) fn call(context: &Context, arguments: &Arguments) -> Result<(), CommandError> {
    let client = context.client()?;
    if let Some(What::Set { place, rule }) = &arguments.what {
        let order = Order { db: &place.db, table: &place.table, column: place.column.as_deref(), rule };
        let set: RuleView = client.post("/api/v1/rules", &order, None)?;
        context.output.result(&set, |set| {
            format!("{} has the rule {}, set by {}; the other servers follow", named(set), set.rule, set.node)
        });
        return Ok(());
    }
    let rules: Rules = client.get("/api/v1/rules", &[])?;
    context.output.result(&rules, |rules| {
        if rules.rules.is_empty() {
            return "no rule was set: everywhere the later value is shown (see: litemesh rules set --help)".to_string();
        }
        let line = |rule: &RuleView| vec![named(rule), rule.rule.clone(), rule.node.clone(), rule.time.clone()];
        table(&["what", "rule", "set by", "at"], &rules.rules.iter().map(line).collect::<Vec<_>>())
    });
    Ok(())
}

fn named(rule: &RuleView) -> String {
    let column = if rule.column.is_empty() { String::new() } else { format!(".{}", rule.column) };
    format!("{}.{}{column}", rule.database, rule.table)
}
