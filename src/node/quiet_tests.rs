//! R12: an id that people see moves in a quiet moment only.

#![allow(clippy::unwrap_used)]

use super::pair_tests::{Pair, Site};

const NOTES: &str = "CREATE TABLE note(id INTEGER PRIMARY KEY, text TEXT);
    INSERT INTO note VALUES (1, 'one');";

/// Both apps gave id 50 while they were apart, and meet right after it.
#[test]
fn an_id_moves_two_seconds_after_the_last_write_and_the_row_is_nowhere_else_before() {
    let sites = [Site::new(1).with("app", NOTES, &[]), Site::new(2).with("app", NOTES, &[])];
    let mut pair = Pair::start([&sites[0], &sites[1]], &[]);
    pair.meet();
    pair.part();
    let own = ["first", "second"];
    for (site, text) in sites.iter().zip(own) {
        site.app("app", &format!("INSERT INTO note VALUES (50, '{text}')"));
    }
    let wrote_ms = pair.now.mono_ms;
    (0..8).for_each(|_| pair.pass());
    pair.connect();
    let shown = |site: &Site| site.ask("app", "SELECT text FROM note WHERE id = 50");
    let stays = |at: usize| shown(&sites[at]) == [own[at]];
    let waits = (0..200).take_while(|_| {
        pair.pass();
        stays(0) && stays(1)
    });
    assert!(waits.count() < 199, "no id moved");
    assert!(pair.now.mono_ms >= wrote_ms + 2_000, "moved after {} ms", pair.now.mono_ms - wrote_ms);
    pair.work();
    assert_eq!(shown(&sites[0]), shown(&sites[1]));
    for site in &sites {
        assert_eq!(site.ask("app", "SELECT text FROM note ORDER BY text"), ["first", "one", "second"]);
    }
}
