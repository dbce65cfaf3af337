//! The order of the layers and the words of refusals.

use super::*;
use crate::model::Rule;

fn nothing(_: &str) -> Option<String> {
    None
}

fn load_text(text: &str) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(DEFAULT_FILE), text).unwrap();
    load(&Flags::default(), &nothing, directory.path())
}

fn refusal(text: &str) -> String {
    load_text(text).unwrap_err().to_string()
}

#[test]
fn the_embedded_file_is_the_defaults() {
    let directory = tempfile::tempdir().unwrap();
    let config = load(&Flags::default(), &nothing, directory.path()).unwrap();
    assert_eq!(config.http.listen.unwrap().to_string(), "127.0.0.1:7480");
    assert_eq!(config.data_dir, directory.path().join("litemesh-data"));
    assert!(config.network.mdns && config.network.peers.is_empty() && config.databases.is_empty());
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    for table in ["sync_servers", "login_attempts", "crsql_*", "alembic_version"] {
        assert!(config.capture.exclude.iter().any(|pattern| pattern == table), "{table}");
    }
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = "[node]\nname = \"file\"\ndata_dir = \"from-file\"\n[http]\nlisten = \"127.0.0.1:1\"\n[network]\nmdns = false\n";
    std::fs::write(directory.path().join(DEFAULT_FILE), file).unwrap();
    let environment = |name: &str| match name {
        "LITEMESH_NODE_NAME" => Some("environment".to_string()),
        "LITEMESH_HTTP_LISTEN" => Some("off".to_string()),
        "LITEMESH_DB" => Some("a=x.db, b=y.db".to_string()),
        _ => None,
    };
    let flags = Flags { name: Some("flag".into()), ..Flags::default() };
    let config = load(&flags, &environment, directory.path()).unwrap();
    assert_eq!((config.name.as_str(), config.http.listen, config.network.mdns), ("flag", None, false));
    assert_eq!(config.data_dir, directory.path().join("from-file"));
    assert_eq!(config.databases.len(), 2);
    let flags = Flags { databases: vec![("c".into(), "z.db".into())], data: Some("d".into()), ..Flags::default() };
    let config = load(&flags, &environment, directory.path()).unwrap();
    assert_eq!((config.databases.len(), config.databases[0].name.as_str()), (1, "c"));
    assert_eq!((config.name.as_str(), config.data_dir), ("environment", directory.path().join("d")));
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_valid_one() {
    let text = refusal("[node]\nname = \"pit\"\n\n[network]\nlisen = []\n");
    assert!(text.contains("litemesh.toml, line 5: unknown key `lisen`; the nearest valid key is `listen`"), "{text}");
    let text = refusal("[netwrk]\nmdns = true\n");
    assert!(text.contains("line 1: unknown key `netwrk`; the nearest valid key is `network`"), "{text}");
    let text =
        refusal("[[database]]\nname = \"a\"\npath = \"a.db\"\n[[database.table]]\nname = \"t\"\npkk = \"natural\"\n");
    assert!(text.contains("line 6: unknown key `pkk`; the nearest valid key is `pk`"), "{text}");
}

#[test]
fn a_bad_value_is_named_with_what_is_allowed() {
    for (text, parts) in [
        ("[http]\nlisten = \"0.0.0.0:7480\"", ["`http.listen` is `0.0.0.0:7480`", "loopback"]),
        ("[http]\nlisten = \"7480\"", ["`http.listen` is `7480`", "127.0.0.1:7480"]),
        ("[network]\npeers = [\"10.0.0.1:7481\"]", ["`network.peers` is `10.0.0.1:7481`", "multiaddr"]),
        ("[network]\nrelays = [\"/ip4/10.0.0.1/tcp/1\"]", ["`network.relays` is `/ip4/10.0.0.1/tcp/1`", "key"]),
        ("[network]\nmdns = \"yes\"", ["line 2", "mdns = \"yes\""]),
        ("[verify]\nfull = \"sometimes\"", ["`verify.full` is `sometimes`", "cron"]),
        ("[verify]\ncount = \"1s\"", ["`verify.count` is `1s`", "10 s to 366 days"]),
        ("[[database]]\nname = \"My DB\"\npath = \"a\"", ["`database.name` is `My DB`", "a-z"]),
        (
            "[[database]]\nname = \"a\"\npath = \"a\"\n[[database.table]]\nname = \"t\"\npk = \"both\"",
            ["`database.table.pk` is `both`", "surrogate, natural"],
        ),
        (
            "[[database]]\nname = \"a\"\npath = \"a\"\n[[database.table]]\nname = \"t\"\nreferences = [{ column = \"c\", to = \"b.t.id\" }]",
            ["`database.table.references.to` is `b.t.id`", "databases a"],
        ),
    ] {
        let refusal = refusal(text);
        assert!(parts.iter().all(|part| refusal.contains(part)), "{refusal}");
    }
}

#[test]
fn settings_without_effect_are_said() {
    let config = load_text(
        "[network]\npsk = \"\"\n[[database]]\nname = \"a\"\npath = \"a.db\"\nexclude = [\"x\"]\n\
         [[database.table]]\nname = \"team\"\npk = \"natural\"\nunique = \"suffix\"\n\
         [[database.column]]\ntable = \"team\"\nname = \"wins\"\nmerge = \"max\"\n",
    )
    .unwrap();
    let all = config.warnings.join("\n");
    assert!(all.contains("network.psk"), "{all}");
    let rules: Vec<_> = config.databases[0].rules.iter().map(|one| (one.column.as_deref(), one.rule)).collect();
    assert_eq!(rules, [(None, Rule::UniqueSuffix), (Some("wins"), Rule::Max)]);
    assert_eq!(config.databases[0].natural_keys, ["team"]);
    assert!(config.databases[0].exclude.iter().any(|pattern| pattern == "x"));
    assert!(config.databases[0].exclude.iter().any(|pattern| pattern == "sync_servers"));
}

#[test]
fn the_wide_area_is_off_until_a_person_says_so() {
    let config = load_text("[network]\nrelays = [\"/ip4/10.0.0.1/tcp/1/p2p/12D3K\"]\n").unwrap();
    assert!(!config.network.wan && config.warnings[0].contains("network.wan = true"), "{:?}", config.warnings);
    let config = load_text("[network]\nwan = true\nrelays = [\"/ip4/10.0.0.1/tcp/1/p2p/12D3K\"]\n").unwrap();
    assert!(config.network.wan && config.network.relays.len() == 1 && config.warnings.is_empty());
}

#[test]
fn steering_has_a_number_of_runs_and_exceptions() {
    let config = load_text(
        "[node]\nsteering_runs = 64\n[[database]]\nname = \"a\"\npath = \"a.db\"\n\
         [[database.table]]\nname = \"team\"\nsteering = false\n[[database.table]]\nname = \"event\"\nsteering = true\n",
    )
    .unwrap();
    assert_eq!((config.databases[0].steering_runs, config.capture.steering_runs), (64, 64));
    assert_eq!(config.databases[0].unsteered, ["team"]);
    assert_eq!(load_text("").unwrap().capture.steering_runs, 16);
    assert_eq!(load_text("[node]\nsteering_runs = 0").unwrap().capture.steering_runs, 0);
    for runs in ["65", "-1"] {
        let refusal = refusal(&format!("[node]\nsteering_runs = {runs}"));
        assert!(refusal.contains("node.steering_runs") && refusal.contains("1 to 64"), "{refusal}");
    }
}

#[test]
fn a_missing_file_is_an_error_only_when_it_was_named() {
    let directory = tempfile::tempdir().unwrap();
    let flags = Flags { config: Some("nowhere.toml".into()), ..Flags::default() };
    let text = load(&flags, &nothing, directory.path()).unwrap_err().to_string();
    assert!(text.contains("nowhere.toml"), "{text}");
}

#[test]
fn known_references_need_both_databases() {
    let directory = tempfile::tempdir().unwrap();
    let capture = load(&Flags::default(), &nothing, directory.path()).unwrap().capture;
    let mut alone = [capture.database("scouting", Path::new("s.db"))];
    capture.add_known_references(&mut alone);
    assert!(alone[0].references.is_empty());
    let mut both = [capture.database("scouting", Path::new("s.db")), capture.database("users", Path::new("u.db"))];
    capture.add_known_references(&mut both);
    assert!(both[0].references.contains(&("scouting_data".into(), "scout_id".into(), "users.user.id".into())));
    assert_eq!(both[1].references.len(), 2);
}

/// What a person states comes before what the defaults know of the real app.
#[test]
fn a_stated_rule_takes_the_place_of_a_known_one() {
    let known = load_text("[[database]]\nname = \"users\"\npath = \"u.db\"\n").unwrap().databases[0].rules.clone();
    assert_eq!(
        known.iter().map(|one| (one.table.as_str(), one.rule)).collect::<Vec<_>>(),
        [("user_roles", Rule::DeleteWins)]
    );
    assert!(known[0].by_default);
    let stated = load_text(
        "[[database]]\nname = \"users\"\npath = \"u.db\"\n[[database.table]]\nname = \"user_roles\"\nmerge = \"lww\"\n",
    );
    let stated = stated.unwrap().databases[0].rules.clone();
    assert_eq!(stated.iter().map(|one| (one.rule, one.by_default)).collect::<Vec<_>>(), [(Rule::Lww, false)]);
}

#[test]
fn verifications_are_scheduled_and_tables_weighed() {
    use crate::model::Tier;
    use crate::node::verify_schedule::Schedule;
    let usual = load_text("").unwrap().verify;
    assert_eq!(usual.count, Schedule::AfterSession);
    assert!(usual.repair && (usual.share, usual.share_by_hand) == (5, 50));
    assert!(matches!(usual.full, Schedule::At(_)), "{usual:?}");
    let table =
        "[[database]]\nname = \"a\"\npath = \"a.db\"\n[[database.table]]\nname = \"vote\"\nverify = \"critical\"\n";
    let own = load_text(&format!("[verify]\nids = \"2m\"\nrepair = \"ask\"\nfull = \"sun 03:00\"\n{table}")).unwrap();
    assert!(own.warnings.is_empty() && !own.verify.repair, "{:?}", own.warnings);
    assert_eq!(own.verify.ids, Schedule::Every(120_000));
    assert_eq!(own.verify.tier_of(Tier::Count, "a", "vote"), Some(Tier::Ids));
    for (text, part) in [
        ("[verify]\nrepair = \"maybe\"", "`verify.repair` is `maybe`"),
        ("[verify]\nshare = 0", "`verify.share` is `0`"),
        ("[verify]\nfull = \"session\"", "`verify.full` is `session`"),
        (&table.replace("critical", "very"), "`database.table.verify` is `very`"),
    ] {
        assert!(refusal(text).contains(part), "{}", refusal(text));
    }
}
