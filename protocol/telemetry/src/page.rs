//! The page of all metrics, made from what a scrape shows: every series is there from the start, so the page knows each
//! label and each of its values.

use std::fmt::Write as _;

use prometheus_client::registry::Registry;

use crate::exposition::{Family, parse, text};

/// What a label holds that isn't the same in each release.
pub const RELEASE: &str = "the release";

/// A table of a registry's metrics.
///
/// # Errors
/// Where the registry can't be read.
pub fn table(registry: &Registry) -> Result<String, String> {
    let families = parse(&text(registry).map_err(|error| error.to_string())?)?;
    let mut table = String::from("| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n");
    for family in &families {
        let Family { kind, unit, help, .. } = family;
        let _ = writeln!(table, "| `{}` | {kind} | {unit} | {} | {help} |", queried(family), labels(family));
    }
    Ok(table)
}

/// The name that one asks Prometheus for.
#[must_use]
pub fn queried(family: &Family) -> String {
    match family.kind.as_str() {
        "counter" => format!("{}_total", family.name),
        "info" => format!("{}_info", family.name),
        _ => family.name.clone(),
    }
}

/// Labels with their values, as they appear.
fn labels(family: &Family) -> String {
    let mut labels: Vec<(&str, Vec<&str>)> = Vec::new();
    for (label, value) in family.samples.iter().flat_map(|sample| &sample.labels) {
        // A histogram's own: the upper bounds of its buckets.
        if label == "le" {
            continue;
        }
        let value = if family.kind == "info" { RELEASE } else { value };
        match labels.iter_mut().find(|(known, _)| known == label) {
            Some((_, values)) if values.contains(&value) => {}
            Some((_, values)) => values.push(value),
            None => labels.push((label, vec![value])),
        }
    }
    let label = |(label, values): (&str, Vec<&str>)| format!("`{label}`: {}", values.join(", "));
    labels.into_iter().map(label).collect::<Vec<_>>().join("; ")
}
