//! What the program is made of: licences, bans, duplicate versions and sources, as `deny.toml` allows them, and a core
//! that compiles without any async or network crate.
//!
//! Invariant: `deny.toml` is the only list; `cargo deny` and this test read the same one. What it does not verify:
//! advisories, which need a database from the network; `.ci/run` asks `cargo deny` for those where it is installed.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

struct Package {
    name: String,
    version: String,
    licence: String,
    source: String,
    used_by: BTreeSet<String>,
}

fn cargo(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().unwrap();
    assert!(output.status.success(), "cargo {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn packages() -> Vec<Package> {
    let graph: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--locked"])).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut packages: BTreeMap<String, Package> = BTreeMap::new();
    for package in graph["packages"].as_array().unwrap() {
        let package_of = Package {
            name: text(&package["name"]),
            version: text(&package["version"]),
            licence: text(&package["license"]),
            source: text(&package["source"]),
            used_by: BTreeSet::new(),
        };
        packages.insert(text(&package["id"]), package_of);
    }
    for node in graph["resolve"]["nodes"].as_array().unwrap() {
        let user = packages[&text(&node["id"])].name.clone();
        for dependency in node["deps"].as_array().unwrap() {
            packages.get_mut(&text(&dependency["pkg"])).unwrap().used_by.insert(user.clone());
        }
    }
    packages.into_values().collect()
}

fn rules() -> toml::Table {
    include_str!("../deny.toml").parse().unwrap()
}

fn names(list: &toml::Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn licences_are_on_the_list() {
    let rules = rules();
    let strings = |list: &toml::Value| -> BTreeSet<String> {
        list.as_array().unwrap().iter().map(|entry| entry.as_str().unwrap().to_owned()).collect()
    };
    let allowed = strings(&rules["licenses"]["allow"]);
    for package in packages().iter().filter(|package| !package.source.is_empty()) {
        let mut allowed_here = allowed.clone();
        for exception in rules["licenses"]["exceptions"].as_array().unwrap() {
            if exception["name"].as_str() == Some(&package.name) {
                allowed_here.extend(strings(&exception["allow"]));
            }
        }
        let fine = satisfied(&package.licence, &allowed_here);
        assert!(
            fine,
            "{} {} is under `{}`, which deny.toml does not allow",
            package.name, package.version, package.licence
        );
    }
}

#[test]
fn nothing_banned_is_used() {
    let packages = packages();
    for ban in rules()["bans"]["deny"].as_array().unwrap() {
        let name = ban["name"].as_str().unwrap();
        let wrappers: BTreeSet<&str> = ban
            .get("wrappers")
            .and_then(|list| list.as_array())
            .into_iter()
            .flatten()
            .filter_map(|w| w.as_str())
            .collect();
        for package in packages.iter().filter(|package| package.name == name) {
            let others: Vec<&String> =
                package.used_by.iter().filter(|user| !wrappers.contains(user.as_str())).collect();
            assert!(others.is_empty(), "{name} is banned ({}) and used by {others:?}", ban["reason"]);
        }
    }
}

#[test]
fn a_second_version_of_a_crate_needs_a_reason() {
    let skipped = names(&rules()["bans"]["skip"]);
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages() {
        versions.entry(package.name).or_default().push(package.version);
    }
    let several: BTreeMap<_, _> = versions.iter().filter(|(_, versions)| versions.len() > 1).collect();
    for (name, versions) in &several {
        assert!(skipped.contains(*name), "{name} is there as {versions:?}: deny.toml gives no reason");
    }
    for name in skipped {
        assert!(several.contains_key(&name), "deny.toml excuses {name}, which is there only once now: remove the line");
    }
}

#[test]
fn everything_comes_from_the_registry() {
    let allowed = &rules()["sources"]["allow-registry"];
    for package in packages() {
        let known = allowed.as_array().unwrap().iter().any(|url| package.source.contains(url.as_str().unwrap()));
        assert!(known || package.name == "litemesh", "{} comes from {}", package.name, package.source);
    }
}

#[test]
fn the_core_needs_no_async_and_no_network_crate() {
    let tree = cargo(&["tree", "--no-default-features", "--edges", "normal", "--prefix", "none", "--locked"]);
    let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.contains("redb") && crates.contains("rusqlite"), "the tree is not the core's: {crates:?}");
    for banned in
        ["tokio", "libp2p", "axum", "hyper", "clap", "futures", "futures-util", "mio", "getrandom", "rand", "ureq"]
    {
        assert!(!crates.contains(banned), "`{banned}` is in the core: `cargo tree --no-default-features -i {banned}`");
    }
}

/// Whether a licence expression can be fulfilled with the allowed ones. `/` is the old way to write OR.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let result = either(&tokens, &mut at, allowed);
    result && at == tokens.len()
}

fn either(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut result = both(tokens, at, allowed);
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        result |= both(tokens, at, allowed);
    }
    result
}

fn both(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut result = single(tokens, at, allowed);
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        result &= single(tokens, at, allowed);
    }
    result
}

fn single(tokens: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let token = tokens.get(*at).copied().unwrap_or_default();
    *at += 1;
    if token == "(" {
        let result = either(tokens, at, allowed);
        *at += 1;
        return result;
    }
    if tokens.get(*at) == Some(&"WITH") {
        *at += 2; // an exception only ever adds permissions, but the list would have to name it
        return allowed.contains(&format!("{token} WITH {}", tokens[*at - 1]));
    }
    allowed.contains(token)
}

#[test]
fn licence_expressions_are_understood() {
    let allowed: BTreeSet<String> = ["MIT".to_owned(), "ISC".to_owned()].into();
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("ISC AND (GPL-3.0 OR MIT)", true),
        ("(GPL-3.0 OR MIT) AND GPL-3.0", false),
        ("GPL-3.0/MIT", true),
        ("Apache-2.0 WITH LLVM-exception OR MIT", true),
        ("MIT WITH something", false),
        ("", false),
    ] {
        assert_eq!(satisfied(expression, &allowed), expected, "{expression}");
    }
}
