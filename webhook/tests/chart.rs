//! The chart's values, their schema and their reference agree. `BLESS=1` writes the reference anew: the part of the chart's
//! README below the marker, from the comments and defaults of values.yaml.

use std::{fmt::Write as _, fs, path::PathBuf};

use serde_json::Value;

const MARKER: &str =
    "<!-- Below: made from values.yaml by `BLESS=1 cargo test -p mirrord-webhook --test chart`. -->\n";

fn chart(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../charts/mirrord").join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(chart(file)).unwrap()
}

fn values() -> Value {
    serde_saphyr::from_str(&read("values.yaml")).unwrap()
}

fn schema() -> Value {
    serde_json::from_str(&read("values.schema.json")).unwrap()
}

/// A key of values.yaml, in the order of the file, and the comment above it.
struct Key {
    path: Vec<String>,
    comment: String,
}

impl Key {
    fn dotted(&self) -> String {
        self.path.join(".")
    }

    fn value<'v>(&self, values: &'v Value) -> &'v Value {
        self.path.iter().fold(values, |value, key| &value[key])
    }
}

/// Keys in block style; flow maps (`{…}`) are values.
fn keys(yaml: &str) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut open: Vec<(usize, String)> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in yaml.lines() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(words) = text.strip_prefix('#') {
            comment.push(words.trim());
        } else if let Some((name, _)) =
            text.split_once(':').filter(|(name, _)| !name.contains(['{', '[', ' ']))
        {
            open.retain(|(above, _)| *above < indent);
            open.push((indent, name.to_owned()));
            let path = open.iter().map(|(_, name)| name.clone()).collect();
            keys.push(Key { path, comment: comment.join(" ") });
            comment.clear();
        } else {
            // What stands alone at the head is no key's.
            comment.clear();
        }
    }
    keys
}

/// What a key is for: its own comment, else that of the group below a section that it is in.
fn meaning<'k>(key: &'k Key, all: &'k [Key]) -> &'k str {
    let groups = all.iter().filter(|other| other.path.len() > 1 && key.path.starts_with(&other.path));
    groups.rev().map(|key| key.comment.as_str()).find(|comment| !comment.is_empty()).unwrap_or_default()
}

/// Whether a key is a setting: what it holds isn't made of further keys of ours.
fn is_setting(key: &Key, all: &[Key]) -> bool {
    !all.iter().any(|other| other.path.len() > key.path.len() && other.path.starts_with(&key.path))
}

/// Quantities belong together: `resources` is one setting.
fn settings(all: &[Key]) -> Vec<&Key> {
    let below_resources = |key: &&Key| !key.path.iter().rev().skip(1).any(|name| name == "resources");
    let is_resources = |key: &Key| key.path.last().is_some_and(|name| name == "resources");
    all.iter().filter(below_resources).filter(|key| is_resources(key) || is_setting(key, all)).collect()
}

fn reference() -> String {
    let (yaml, values) = (read("values.yaml"), values());
    let all = keys(&yaml);
    let mut text = String::from(MARKER);
    text.push_str("\n## Values\n");
    for section in all.iter().filter(|key| key.path.len() == 1) {
        let name = section.dotted();
        write!(text, "\n### {name}\n\n{}\n\n| value | default | meaning |\n|---|---|---|\n", section.comment)
            .unwrap();
        for key in settings(&all).into_iter().filter(|key| key.path[0] == name) {
            let default = key.value(&values).to_string();
            writeln!(text, "| `{}` | `{default}` | {} |", key.dotted(), meaning(key, &all)).unwrap();
        }
    }
    text
}

#[test]
fn the_reference_of_values_is_up_to_date() {
    let readme = read("README.md");
    let (head, _) = readme.split_once(MARKER).expect("the README has the marker");
    let made = head.to_owned() + &reference();
    if std::env::var_os("BLESS").is_some() {
        fs::write(chart("README.md"), &made).unwrap();
    }
    assert!(read("README.md") == made, "charts/mirrord/README.md differs: run the test again with BLESS=1");
}

#[test]
fn every_value_says_what_it_is_for() {
    let yaml = read("values.yaml");
    let all = keys(&yaml);
    assert!(all.len() > 30, "the keys are found");
    for key in settings(&all) {
        assert!(meaning(key, &all).ends_with('.'), "{} has no sentence above it", key.dotted());
    }
    for section in all.iter().filter(|key| key.path.len() == 1) {
        assert!(section.comment.ends_with('.'), "{} has no sentence above it", section.dotted());
    }
}

#[test]
fn the_schema_knows_the_values_of_the_file_and_no_others() {
    let (schema, values) = (schema(), values());
    let mut faults = Vec::new();
    compare(&schema, &schema, &values, "", &mut faults);
    // Helm's own.
    faults.retain(|fault| fault != "global has no default");
    assert!(faults.is_empty(), "{faults:?}");
}

/// Walks schema and values together.
fn compare(root: &Value, schema: &Value, values: &Value, path: &str, faults: &mut Vec<String>) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => {
            root.pointer(reference.trim_start_matches('#')).expect("a definition of the schema")
        }
        None => schema,
    };
    let Some(properties) = schema["properties"].as_object() else { return };
    if schema["additionalProperties"] != false {
        faults.push(format!("{path} takes keys that nobody knows"));
    }
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (name, schema) in properties {
        match values.get(name) {
            None => faults.push(format!("{} has no default", below(name))),
            Some(value) => compare(root, schema, value, &below(name), faults),
        }
    }
    for name in values.as_object().into_iter().flatten().map(|(name, _)| name) {
        if !properties.contains_key(name) {
            faults.push(format!("{} isn't in the schema", below(name)));
        }
    }
}
