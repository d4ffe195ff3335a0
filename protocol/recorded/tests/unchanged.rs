//! What was recorded stays as it was: a changed recording would make the tests that play it worthless.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use mirrord_recorded::folder;
use sha2::{Digest, Sha256};

fn hashes(of: &Path, below: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(of).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            hashes(&path, below, found);
        } else if path.parent() != Some(below) {
            let digest = Sha256::digest(fs::read(&path).unwrap());
            let hash = digest.iter().fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").unwrap();
                text
            });
            found.insert(path.strip_prefix(below).unwrap().to_str().unwrap().to_owned(), hash);
        }
    }
}

#[test]
fn no_recording_was_changed_added_or_removed_without_its_hash() {
    let mut found = BTreeMap::new();
    hashes(&folder(), &folder(), &mut found);
    let list = fs::read_to_string(folder().join("SHA256SUMS")).unwrap();
    let listed: BTreeMap<String, String> = list
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(hash, file)| (file.to_owned(), hash.to_owned()))
        .collect();
    assert_eq!(
        found,
        listed,
        "what releases said is history; of a new release: cd {} && sha256sum */* >SHA256SUMS",
        folder().display()
    );
}
