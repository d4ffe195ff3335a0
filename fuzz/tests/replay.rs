//! Plays all inputs of the tree, those that once found a fault among them, without a fuzzer.

use std::{
    collections::BTreeSet,
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use mirrord_fuzz::TARGETS;

fn here(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

/// What is in a folder; nothing where there is none.
fn entries(folder: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("an entry").path()).collect()
}

fn names(folder: &str) -> BTreeSet<String> {
    let stem = |path: PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    entries(&here(folder)).into_iter().map(stem).collect()
}

#[test]
fn every_input_of_the_tree_keeps_what_its_target_promises() {
    let mut failed = Vec::new();
    for (name, target) in TARGETS {
        let inputs = ["corpus", "regressions"].map(|folder| entries(&here(folder).join(name)));
        assert!(!inputs[0].is_empty(), "{name} has no inputs");
        for path in inputs.iter().flatten() {
            let input = fs::read(path).expect("readable");
            if catch_unwind(|| target(&input)).is_err() {
                failed.push(path.clone());
            }
        }
    }
    assert!(failed.is_empty(), "see above; failed: {failed:#?}");
}

#[test]
fn every_target_has_a_program_and_every_folder_a_target() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets"), targets);
    let manifest = fs::read_to_string(here("Cargo.toml")).expect("readable");
    for name in &targets {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is no program yet");
    }
    for folder in ["corpus", "regressions", "dictionaries"] {
        assert!(names(folder).is_subset(&targets), "{folder} has what no target takes");
    }
}

#[test]
fn the_inputs_of_the_tree_stay_few_and_small() {
    for (name, _) in TARGETS {
        let inputs = entries(&here("corpus").join(name));
        let bytes: u64 = inputs.iter().map(|path| fs::metadata(path).expect("there").len()).sum();
        assert!(inputs.len() <= 60 && bytes <= 100 * 1024, "{name}: {} inputs, {bytes} bytes", inputs.len());
    }
}
