//! A row's life as text: what `litemesh history` prints.
//!
//! It stands here, and not in `cli`, because its golden text is proven on real nodes, and whoever shows a history shows the
//! same. Invariants: a function of the view alone; one line per happening, oldest first; control characters never move the
//! reader's cursor. Callers: cli.

use super::view::{HeldId, HistoryView, VersionView};

impl HistoryView {
    /// The whole life, without the list of conflicts.
    pub fn text(&self) -> String {
        let shown = if self.id.is_empty() { &self.row } else { &self.id };
        let mut text = format!("{}.{} {shown} ({}): {}", self.database, self.table, self.row, self.state);
        let own: Vec<&HeldId> = self.ids.iter().filter(|held| held.row == self.row).collect();
        if own.len() > 1 {
            text += "\nids:";
            for held in own {
                text += &format!("\n    {}  {}", held.id, span(held));
            }
        }
        for other in &self.others {
            let now = if other.now.is_empty() { &other.row } else { &other.now };
            text += &format!("\nalso known under that id: row {} of {}, ", other.row, other.node);
            text += &if other.now == other.born_as {
                format!("still {now} ({})", other.state)
            } else {
                format!("born as {}, now {now} ({})", other.born_as, other.state)
            };
            for held in self.ids.iter().filter(|held| held.row == other.row) {
                text += &format!("\n    {}  {}", held.id, span(held));
            }
        }
        text.push('\n');
        for version in &self.versions {
            text += &told(version);
        }
        text
    }
}

fn span(held: &HeldId) -> String {
    match held.to.as_str() {
        "" => format!("since {}", held.from),
        to => format!("from {} to {to}", held.from),
    }
}

fn told(version: &VersionView) -> String {
    let mut lines = vec![format!(
        "{}  {}  {}  ({}:{})",
        version.time, version.node, version.operation, version.event, version.index
    )];
    if !version.note.is_empty() {
        lines.push(format!("    {}", version.note));
    }
    lines.extend(version.said.iter().map(|said| format!("    {said}")));
    let width = version.changes.iter().map(|change| change.column.chars().count()).max().unwrap_or(0);
    for change in &version.changes {
        let column = format!("{:width$}", change.column);
        lines.push(match (change.from.as_str(), change.to.as_str()) {
            ("", "NULL") => continue,
            ("", to) => format!("    {column}  {to}"),
            (from, "") => format!("    {column}  was {from}"),
            (from, to) => format!("    {column}  {from} -> {to}"),
        });
    }
    // What it wrote and the row does not show is told as well.
    let wrote =
        version.changes.is_empty() && matches!(version.operation.as_str(), "update" | "insert" | "merge" | "split");
    if wrote {
        let cells: Vec<String> = version.cells.iter().map(|(column, value)| format!("{column} {value}")).collect();
        lines.extend((!cells.is_empty()).then(|| format!("    wrote {}", cells.join(", "))));
    }
    let clean = |line: &String| line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    lines.iter().map(|line| format!("\n{}", clean(line))).collect()
}
