//! The benchmark harness's own words and files: what it would do to PERFORMANCE.md, how it counts, what it names.
//!
//! Invariant: no time is measured or asserted here. What it does not verify: the measurements themselves (`cargo bench`).

#![cfg(all(feature = "daemon", feature = "simulation"))]
// The harness prints.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[allow(dead_code)]
#[path = "../benches/performance/asked.rs"]
mod asked;
#[allow(dead_code)]
#[path = "../benches/performance/machine.rs"]
mod machine;
#[allow(dead_code)]
#[path = "../benches/performance/report.rs"]
mod report;
#[allow(dead_code)]
#[path = "../benches/performance/sample.rs"]
mod sample;

use asked::{Asked, Item, Size};
use report::{Budget, Line, Report, figure, with_part};
use sample::{Sample, in_turns, percentile};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn asked(words: &[&str]) -> Result<Option<Asked>, String> {
    Asked::from_arguments(words.iter().map(|word| (*word).to_owned()))
}

#[test]
fn the_page_has_a_place_for_every_item_and_only_that_place_changes() {
    let page = include_str!("../PERFORMANCE.md");
    for item in Item::ALL {
        let written = with_part(page, item, "measured here\n").unwrap();
        let (before, after) = (page.lines().collect::<Vec<_>>(), written.lines().collect::<Vec<_>>());
        let place = before.iter().position(|line| *line == format!("<!-- measured: {} -->", item.name())).unwrap();
        assert_eq!(after[..=place], before[..=place]);
        assert_eq!(after[place + 1], "measured here");
        let end = format!("<!-- end: {} -->", item.name());
        let rest =
            |lines: &[&str]| lines.iter().skip_while(|line| **line != end).map(|l| (*l).to_owned()).collect::<Vec<_>>();
        assert_eq!(rest(&after), rest(&before), "{}", item.name());
        assert_eq!(with_part(&written, item, "measured here\n").unwrap(), written, "a second run writes the same");
    }
    assert!(with_part("no markers", Item::App, "").is_err_and(|error| error.to_string().contains("measured: app")));
}

#[test]
fn what_was_measured_is_kept_line_by_line() {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let json = root.path().join("kept.json");
    let words = ["capture", "--quick", "--json", json.to_str().unwrap(), "--dir", root.path().to_str().unwrap()];
    let asked = asked(&words).unwrap().unwrap();
    if machine::is_in_memory(root.path()) {
        assert!(Report::begin(&asked).is_err_and(|error| error.to_string().contains("in memory")));
        return;
    }
    let mut report = Report::begin(&asked).unwrap();
    report.open(Item::Capture);
    let two = |a, b| -> Sample { [a, b].into_iter().collect() };
    let line = Line::new("slow", two(3.0, 8.0), "ms", "all").against("fast", two(1.0, 2.0));
    report.push(line.ratio_within(Budget::Most(2.9, "≤ 2.9x"))).unwrap();
    // The run is interrupted here: nothing is closed.
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(kept["lines"][0]["ratio"], 3.0, "the lower of the rounds' own ratios 3 and 4: {kept}");
    assert_eq!(kept["lines"][0]["met"], false);
    assert!(kept["machine"]["SQLite"].as_str().unwrap().starts_with("3."));
    assert_ne!(kept["machine"]["redb"], "unknown");
    assert_eq!(report.unmet().len(), 1);
}

#[test]
fn figures_medians_and_turns_are_what_they_say() {
    for (value, words) in [
        (1_234_567.8, "1,234,568"),
        (123.4, "123"),
        (12.34, "12.3"),
        (1.234, "1.23"),
        (0.1234, "0.123"),
        (-1234.0, "-1,234"),
        (-123.0, "-123"),
        (0.0, "0"),
        (f64::NAN, "?"),
    ] {
        assert_eq!(figure(value), words);
    }
    let values: Vec<f64> = (1..=100).map(f64::from).rev().collect();
    assert_eq!([50.0, 99.0, 99.9, 100.0].map(|percent| percentile(&values, percent)), [50.0, 99.0, 100.0, 100.0]);
    assert_eq!(percentile(&[], 50.0), 0.0);
    let mut order = Vec::new();
    let samples = in_turns(2, 2, |way, round| -> Result<f64, Failure> {
        order.push(way);
        Ok((way * 10 + round) as f64)
    });
    assert_eq!(order, [0, 1, 1, 0], "who begins changes");
    assert_eq!(samples.unwrap()[1].median(), 10.0);
}

#[test]
fn the_command_line_says_what_it_does_not_understand() {
    let usual = asked(&["--bench"]).unwrap().unwrap();
    assert_eq!((usual.items.len(), usual.size, usual.write), (Item::ALL.len(), Size::Usual, false));
    assert_eq!(asked(&["scale", "--full"]).unwrap().unwrap().items, [Item::Scale]);
    assert!(asked(&["--help"]).unwrap().is_none());
    for item in Item::ALL {
        assert!(asked::HELP.contains(&format!("\n  {} ", item.name())), "--help is silent about {}", item.name());
    }
    for (words, told) in [(["scal"], "\"scal\""), (["--rounds"], "a number"), (["--json"], "a file")] {
        assert!(asked(&words).is_err_and(|error| error.contains(told)), "{words:?}");
    }
}

#[test]
fn only_paths_that_are_run_have_a_count_and_the_ci_compares_them() {
    let program = include_str!("../benches/instructions.rs");
    let counts: toml::Table = include_str!("../benches/instructions.toml").parse().unwrap();
    let table = program.split_once("const PATHS").unwrap().1.split_once("];").unwrap().0;
    let paths: Vec<&str> = table.split('"').skip(1).step_by(2).collect();
    assert_eq!(paths.len(), 6);
    // A path without a count is found by `.ci/instructions` itself, which fails then.
    for (path, count) in counts["paths"].as_table().unwrap() {
        assert!(paths.contains(&path.as_str()), "{path} is not run by benches/instructions.rs");
        assert!(count.as_integer().is_some_and(|count| count > 0), "{path}: {count}");
    }
    assert_eq!(counts["tolerance_percent"].as_integer(), Some(5));
    let ci = include_str!("../.ci/run");
    assert!(ci.contains("--bin instructions") && ci.contains("step \"instructions\" .ci/instructions"));
    // The script names the function that is counted.
    assert!(include_str!("../.ci/instructions").contains("'*counted_section*'"));
    assert!(include_str!("../benches/performance/mesh.rs").contains("fn counted_section"));
}
