//! Where results go: the terminal at once, a JSON file after every line, PERFORMANCE.md between its markers.
//!
//! Invariant: a file is replaced whole or not at all; in PERFORMANCE.md only the parts that were measured in this run
//! change, and what a person wrote outside the markers never does. Caller: main, every item.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::asked::{Asked, Item, Size};
use crate::sample::Sample;
use crate::{Failure, machine};

/// What a line is held against (`design.md`, budgets).
#[derive(Clone, Debug)]
pub(crate) enum Budget {
    /// No more than that.
    Most(f64, &'static str),
    /// At least that.
    Least(f64, &'static str),
}

/// Which figure of a line the budget speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Value,
    Ratio,
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    what: String,
    value: Sample,
    unit: &'static str,
    baseline: Option<(&'static str, Sample)>,
    budgets: Vec<(Held, Budget)>,
    on: &'static str,
    also: String,
}

impl Line {
    /// What was measured, in which unit, and what was on while it was: durability, verification, audit, `synchronous`.
    pub(crate) fn new(what: impl Into<String>, value: Sample, unit: &'static str, on: &'static str) -> Line {
        Line { what: what.into(), value, unit, baseline: None, budgets: Vec::new(), on, also: String::new() }
    }

    pub(crate) fn against(mut self, name: &'static str, baseline: Sample) -> Line {
        self.baseline = Some((name, baseline));
        self
    }

    /// A budget for the figure itself.
    pub(crate) fn value_within(mut self, budget: Budget) -> Line {
        self.budgets.push((Held::Value, budget));
        self
    }

    /// A budget for the figure divided by the baseline's.
    pub(crate) fn ratio_within(mut self, budget: Budget) -> Line {
        self.budgets.push((Held::Ratio, budget));
        self
    }

    pub(crate) fn also(mut self, words: impl Into<String>) -> Line {
        self.also = words.into();
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.baseline.as_ref().map(|(_, baseline)| self.value.over(baseline).median())
    }

    /// Whether all budgets are met; `None` without one.
    fn met(&self) -> Option<bool> {
        let met = |(held, budget): &(Held, Budget)| {
            let figure = match held {
                Held::Value => self.value.median(),
                Held::Ratio => self.ratio().unwrap_or(f64::NAN),
            };
            match budget {
                Budget::Most(most, _) => figure <= *most,
                Budget::Least(least, _) => figure >= *least,
            }
        };
        (!self.budgets.is_empty()).then(|| self.budgets.iter().all(met))
    }

    fn budget_words(&self) -> String {
        let words = self.budgets.iter().map(|(_, Budget::Most(_, words) | Budget::Least(_, words))| *words);
        let verdict = match self.met() {
            None => return String::new(),
            Some(true) => "met",
            Some(false) => "**not met**",
        };
        format!("{}: {verdict}", words.collect::<Vec<_>>().join(", "))
    }

    fn to_json(&self, item: Item) -> Value {
        let sample = |sample: &Sample| json!({ "median": sample.median(), "low": sample.low(), "high": sample.high(), "rounds": sample.rounds() });
        json!({
            "item": item.name(), "what": self.what, "unit": self.unit, "measured": sample(&self.value),
            "baseline": self.baseline.as_ref().map(|(name, value)| json!({ "name": name, "measured": sample(value) })),
            "ratio": self.ratio(), "budget": self.budget_words(), "met": self.met(), "on": self.on, "also": self.also,
        })
    }

    fn to_row(&self) -> String {
        let spread = match self.value.rounds() {
            0 | 1 => String::new(),
            times => format!(" ({}–{}, {times} times)", figure(self.value.low()), figure(self.value.high())),
        };
        let baseline = self
            .baseline
            .as_ref()
            .map_or(String::new(), |(name, sample)| format!("{name}: {} {}", figure(sample.median()), self.unit));
        let ratio = self.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}x"));
        format!(
            "| {} | {} {}{spread} | {baseline} | {ratio} | {} | {} | {} |\n",
            self.what,
            figure(self.value.median()),
            self.unit,
            self.budget_words(),
            self.on,
            self.also
        )
    }
}

/// Three digits that mean something; thousands apart.
pub(crate) fn figure(value: f64) -> String {
    if !value.is_finite() {
        return "?".into();
    }
    let digits = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), String::new()), |(w, r)| (w, format!(".{r}")));
    let mut apart = String::new();
    for (at, letter) in whole.chars().enumerate() {
        if at > 0 && letter.is_ascii_digit() && (whole.len() - at) % 3 == 0 && !apart.ends_with('-') {
            apart.push(',');
        }
        apart.push(letter);
    }
    apart + &rest
}

/// All that was measured in this run.
pub(crate) struct Report {
    facts: Vec<(&'static str, String)>,
    warning: Option<String>,
    size: Size,
    json: PathBuf,
    page: Option<PathBuf>,
    lines: Vec<(Item, Line)>,
    failed: Vec<(Item, String)>,
    at: Item,
    finished: Vec<Item>,
}

impl Report {
    /// Says on what machine, and makes sure that results can be kept.
    pub(crate) fn begin(asked: &Asked) -> Result<Report, Failure> {
        std::fs::create_dir_all(&asked.folder)?;
        if machine::is_in_memory(&asked.folder) {
            let folder = asked.folder.display();
            return Err(format!(
                "{folder} is in memory, where fsync costs nothing: name a folder on a disk with --dir FOLDER"
            )
            .into());
        }
        let (facts, warning) = machine::facts(&asked.folder);
        facts.iter().for_each(|(name, value)| println!("{name}: {value}"));
        if let Some(warning) = &warning {
            println!("WARNING: {warning}");
        }
        let page = asked.write.then(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("PERFORMANCE.md"));
        let report = Report {
            facts,
            warning,
            size: asked.size,
            json: asked.json.clone(),
            page,
            lines: Vec::new(),
            failed: Vec::new(),
            at: asked.items[0],
            finished: Vec::new(),
        };
        report.keep()?;
        Ok(report)
    }

    pub(crate) fn open(&mut self, item: Item) {
        self.at = item;
        println!("\n== {}\n{HEAD}", item.name());
    }

    /// A line is there: it is shown and kept.
    pub(crate) fn push(&mut self, line: Line) -> Result<(), Failure> {
        print!("{}", line.to_row());
        self.lines.push((self.at, line));
        self.keep()
    }

    /// An item is at its end; `failed`: too early, for this reason.
    pub(crate) fn close(&mut self, failed: Option<&str>) -> Result<(), Failure> {
        match failed {
            None => self.finished.push(self.at),
            Some(words) => self.failed.push((self.at, words.to_owned())),
        }
        self.keep()
    }

    pub(crate) fn lines(&self) -> usize {
        self.lines.len()
    }

    /// The lines whose budget is not met, in words.
    pub(crate) fn unmet(&self) -> Vec<String> {
        let unmet = self.lines.iter().filter(|(_, line)| line.met() == Some(false));
        unmet.map(|(item, line)| format!("{}: {}: {}", item.name(), line.what, line.budget_words())).collect()
    }

    fn keep(&self) -> Result<(), Failure> {
        let lines: Vec<Value> = self.lines.iter().map(|(item, line)| line.to_json(*item)).collect();
        let facts: serde_json::Map<String, Value> =
            self.facts.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let failed: Vec<Value> =
            self.failed.iter().map(|(item, words)| json!({ "item": item.name(), "words": words })).collect();
        let document = json!({
            "machine": facts, "warning": self.warning, "size": format!("{:?}", self.size), "lines": lines, "failed": failed,
        });
        replace(&self.json, &serde_json::to_string_pretty(&document)?)?;
        let Some(page) = &self.page else { return Ok(()) };
        let mut text = std::fs::read_to_string(page)
            .map_err(|error| format!("{}: {error}; --write puts the table into that file", page.display()))?;
        let measured = Item::ALL.into_iter().filter(|item| self.lines.iter().any(|(of, _)| of == item));
        for item in measured {
            text = with_part(&text, item, &self.part(item))?;
        }
        replace(page, &text)
    }

    /// One item's part of PERFORMANCE.md.
    fn part(&self, item: Item) -> String {
        let mut text = format!("Measured on: {}.\n", machine::in_words(&self.facts));
        if self.size != Size::Usual {
            let _never = writeln!(text, "\nSize of the run: {:?}.", self.size);
        }
        if let Some(warning) = &self.warning {
            let _never = writeln!(text, "\n**Warning:** {warning}.");
        }
        let _never = writeln!(text, "\n{HEAD}");
        self.lines.iter().filter(|(of, _)| *of == item).for_each(|(_, line)| text += &line.to_row());
        if let Some((_, words)) = self.failed.iter().find(|(of, _)| *of == item) {
            let _never = writeln!(text, "\n**The rest could not be measured:** {words}");
        } else if !self.finished.contains(&item) {
            text += "\n**The run was interrupted here.**\n";
        }
        text
    }
}

const HEAD: &str =
    "| what | measured | baseline | ratio | budget | what was on | also |\n|---|---|---|---|---|---|---|";

/// The page with an item's part in place of the one between its markers.
pub(crate) fn with_part(page: &str, item: Item, part: &str) -> Result<String, Failure> {
    let (from, to) = (format!("<!-- measured: {} -->", item.name()), format!("<!-- end: {} -->", item.name()));
    let cut = page.split_once(&from).and_then(|(before, rest)| Some((before, rest.split_once(&to)?.1)));
    let (before, after) =
        cut.ok_or(format!("PERFORMANCE.md lacks the lines {from} and {to}: put them where the table goes"))?;
    Ok(format!("{before}{from}\n{part}{to}{after}"))
}

/// Whoever reads the file meanwhile, or cuts the run here, finds the old or the new one.
fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let aside = path.with_extension("part");
    std::fs::write(&aside, text).map_err(|error| format!("cannot write {}: {error}", aside.display()))?;
    std::fs::rename(&aside, path)?;
    Ok(())
}
