//! The rules of tables and columns at a node: what the config states, what people set, what holds.
//!
//! A rule is an event like any other, of the database it speaks of. States of what a config states: not compared (the file is
//! not read yet, or lags behind the log) → compared, once for every schema: what the cluster lacks is said by an event of
//! this node, and where the cluster has another rule that one stays and a person is told. Invariant: durable in the log
//! when [`Node::set_rule`] returns; a rule that holds already is not said again. Callers: `step`, http, cli.

use super::capture::{Part, table_entry};
use super::query::stamp_text;
use super::view::RuleView;
use super::{Node, NodeError, Now};
use crate::log::LogRead;
use crate::merge::rules::{RuleRecord, TableRules};
use crate::model::rule::StatedRule;
use crate::model::{Change, Rule, TableSchema};

impl Node {
    /// The rules that somebody set and that hold, by database, table and column.
    pub fn rules(&self) -> Result<Vec<RuleView>, NodeError> {
        let read = self.log.read()?;
        let mut views = Vec::new();
        for schema in &self.schemas {
            for table in read.tables_of(&schema.database) {
                let (name, columns) = (read.table_name(table)?.1, read.columns(table)?);
                for held in TableRules::in_force(&read.rules(table)?) {
                    let column = held.column.and_then(|column| columns.get(usize::from(column)).cloned());
                    views.push(self.rule_view(&schema.database, &name, column, held));
                }
            }
        }
        views.sort_by(|a, b| (&a.database, &a.table, &a.column).cmp(&(&b.database, &b.table, &b.column)));
        Ok(views)
    }

    fn rule_view(&self, database: &str, table: &str, column: Option<String>, held: &RuleRecord) -> RuleView {
        RuleView {
            database: database.to_string(),
            table: table.to_string(),
            column: column.unwrap_or_default(),
            rule: held.rule.name().to_string(),
            node: self.author(&held.dot.origin),
            time: stamp_text(held.stamp),
        }
    }

    /// Sets the rule of a table, or of one of its columns, on all servers. What was written before keeps what it shows.
    pub fn set_rule(
        &mut self,
        database: &str,
        table: &str,
        column: Option<&str>,
        rule: &str,
        now: Now,
    ) -> Result<RuleView, NodeError> {
        let position = self.position_of(database)?;
        let schema = self.replicated_table(position, table)?;
        let of_column = column.is_some();
        let rule = Rule::from_name(rule, of_column).ok_or_else(|| {
            let known = Rule::ALL.into_iter().filter(|rule| rule.fits(of_column)).map(Rule::name);
            let known = known.collect::<Vec<_>>().join(", ");
            let of = if of_column { "a column" } else { "a whole table" };
            NodeError::Invalid(format!("{rule} is no rule of {of}: it can have {known}"))
        })?;
        let place = column.map(|column| usable_column(schema, column, rule)).transpose()?;
        let (table, column) = (schema.name.clone(), place.map(|at| schema.columns[at].name.clone()));
        if self.held_rule(&self.log.read()?, database, &table, column.as_deref(), rule)? != Some(rule) {
            self.say_rule(position, &table, column.as_deref(), rule, now)?;
        }
        let set = |view: &&RuleView| {
            view.database == database && view.table == table && view.rule == rule.name() && {
                view.column == column.clone().unwrap_or_default()
            }
        };
        let missing = || NodeError::Invalid(format!("{database}.{table} keeps another rule"));
        self.rules()?.iter().find(set).cloned().ok_or_else(missing)
    }

    /// The rule that answers the same question as `rule`, where somebody set one.
    fn held_rule(
        &self,
        read: &LogRead,
        database: &str,
        table: &str,
        column: Option<&str>,
        rule: Rule,
    ) -> Result<Option<Rule>, NodeError> {
        let Some(id) = read.find_table(database, table)? else { return Ok(None) };
        let columns = read.columns(id)?;
        let number = |name: &str| columns.iter().position(|known| known.eq_ignore_ascii_case(name));
        let number = match column.map(number) {
            Some(None) => return Ok(None),
            Some(Some(number)) => Some(number as u16),
            None => None,
        };
        let records = read.rules(id)?;
        let held = TableRules::in_force(&records);
        let found = held.iter().find(|held| held.column == number && held.rule.aspect() == rule.aspect());
        Ok(found.map(|held| held.rule))
    }

    /// Compares what the config states of a database with what the cluster has, once per schema.
    pub(super) fn state_rules(&mut self, position: usize, now: Now) -> Result<(), NodeError> {
        let database = &mut self.databases[position];
        if database.rules_stated || !database.ready || database.behind {
            return Ok(());
        }
        database.rules_stated = true;
        for stated in self.databases[position].settings.rules.clone() {
            self.state_rule(position, &stated, now)?;
        }
        Ok(())
    }

    fn state_rule(&mut self, position: usize, stated: &StatedRule, now: Now) -> Result<(), NodeError> {
        let database = self.schemas[position].database.clone();
        let place = match &stated.column {
            Some(column) => format!("{database}.{}.{column}", stated.table),
            None => format!("{database}.{}", stated.table),
        };
        let column = stated.column.as_deref();
        let schema = self.schemas[position].table(&stated.table);
        let usable = match (schema, column) {
            (Some(schema), Some(column)) => usable_column(schema, column, stated.rule).map(|_| ()),
            (Some(_), None) => Ok(()),
            (None, _) => {
                Err(NodeError::Invalid(format!("no replicated table of {database} is named {}", stated.table)))
            }
        };
        if let Err(reason) = usable {
            if !stated.by_default {
                self.alert(format!(
                    "the rule {} of {place} in this server's config is not used: {reason}",
                    stated.rule.name()
                ));
            }
            return Ok(());
        }
        let (table, wanted) = (stated.table.clone(), stated.rule);
        let held = self.held_rule(&self.log.read()?, &database, &table, column, wanted)?;
        match held {
            None if wanted == Rule::Lww => Ok(()),
            None => self.say_rule(position, &table, column, wanted, now),
            Some(held) if held == wanted || stated.by_default => Ok(()),
            Some(held) => {
                self.alert(format!(
                    "{place} has the rule {} in the cluster, and {} in this server's config: the cluster's holds; to change \
                     it on all servers: litemesh rules set {place} {}",
                    held.name(),
                    wanted.name(),
                    wanted.name()
                ));
                Ok(())
            }
        }
    }

    fn say_rule(
        &mut self,
        position: usize,
        table: &str,
        column: Option<&str>,
        rule: Rule,
        now: Now,
    ) -> Result<(), NodeError> {
        let Some(schema) = self.schemas[position].table(table) else { return Ok(()) };
        let mut part = Part::default();
        let entry = table_entry(&mut part.tables, schema);
        let column = column.and_then(|column| schema.column(column)).map(|column| column as u32);
        part.changes.push(Change::Rule { table: entry, column, rule });
        self.hear_app_first(position, now)?;
        self.write_decision(position, part, now)
    }
}

/// The position of a column that can have this rule: an id made by SQLite, a key and a reference are no values of their own,
/// and a tree needs a reference to its own table.
fn usable_column(schema: &TableSchema, column: &str, rule: Rule) -> Result<usize, NodeError> {
    let refuse = |why: &str| Err(NodeError::Invalid(format!("{}.{column}: {why}", schema.name)));
    let Some(position) = schema.column(column) else { return refuse("there is no such column") };
    let keys = schema.foreign_keys.iter().filter(|key| key.columns.contains(&position));
    let own = |key: &&crate::model::ForeignKey| {
        key.columns.len() == 1 && key.database.is_none() && key.parent.eq_ignore_ascii_case(&schema.name)
    };
    match rule {
        Rule::Tree if !keys.clone().any(|key| own(&key)) => {
            refuse("a tree is made by a reference to another row of the same table, and this column is none")
        }
        Rule::Tree | Rule::Lww => Ok(position),
        _ if schema.key_columns().contains(&position) => refuse("a key says which row it is; it cannot add up"),
        _ if keys.count() > 0 => refuse("it refers to another row; references cannot add up"),
        _ => Ok(position),
    }
}
