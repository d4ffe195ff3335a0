//! What SECURITY.md says about tests is so: every defence has one, and it is there. Needs no cluster.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use mirrord_e2e::cluster::checkout;

/// All sources of the repository.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            if name != "target" && name != ".git" {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
}

/// Names of all tests.
fn tests() -> BTreeSet<String> {
    let mut paths = Vec::new();
    sources(checkout(), &mut paths);
    let mut found = BTreeSet::new();
    for path in paths {
        let text = fs::read_to_string(path).expect("readable");
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            if line == "#[test]" || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some((_, rest)) = line.split_once("fn ")
                && std::mem::take(&mut is_test)
            {
                found.insert(rest.split('(').next().unwrap_or_default().to_owned());
            }
        }
    }
    found
}

/// The rows of the tables of threats: number and cells.
fn threats(text: &str) -> Vec<(usize, Vec<&str>)> {
    text.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
            Some((cells.first()?.parse().ok()?, cells))
        })
        .collect()
}

/// What stands in backticks and looks like a test's name.
fn cited(text: &str) -> Vec<&str> {
    let name = |word: &&str| {
        word.matches('_').count() >= 3
            && word.chars().all(|letter| matches!(letter, 'a'..='z' | '0'..='9' | '_'))
    };
    text.split('`').skip(1).step_by(2).filter(name).collect()
}

#[test]
fn every_threat_has_a_test_and_every_test_that_is_cited_exists() {
    let text = fs::read_to_string(checkout().join("SECURITY.md")).expect("it is there");
    let threats = threats(&text);
    let numbers: Vec<usize> = threats.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=threats.len()).collect::<Vec<_>>(), "numbered one by one");
    assert!(threats.len() > 30, "the tables are read");
    for (number, cells) in &threats {
        let tests = cells.last().copied().unwrap_or_default();
        assert!(!cited(tests).is_empty(), "threat {number} cites no test");
    }
    let there = tests();
    assert!(there.len() > 300, "the sources are read");
    let missing: Vec<&str> = cited(&text).into_iter().filter(|name| !there.contains(*name)).collect();
    assert!(missing.is_empty(), "SECURITY.md cites tests that don't exist: {missing:?}");
}
