//! The support matrix of the chart says what the goldens say. `BLESS=1 cargo test` writes its tables anew.

use std::{env, fmt::Write, fs, path::Path};

use crate::goldens::{Golden, goldens};

#[test]
fn the_support_matrix_is_that_of_the_goldens() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/mirrord/SUPPORT.md");
    let written = fs::read_to_string(&path).unwrap();
    let with_kinds = with_table(&written, "kinds", &kinds());
    let expected = with_table(&with_kinds, "skips", include_str!("../../src/injection/skips.md"));
    if env::var_os("BLESS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), expected, "BLESS=1 rewrites it");
}

fn kinds() -> String {
    let mut table =
        String::from("| kind | Pod Security | sidecar | view | started |\n|---|---|---|---|---|\n");
    for Golden { kind, about, .. } in goldens() {
        let sidecar =
            if about.outcome == "injected" { "yes".to_owned() } else { format!("no: `{}`", about.outcome) };
        let view = match about.view.as_deref() {
            Some("live") => "live",
            Some("isolated") => "own: not shared",
            Some("capabilities") => "own: capabilities",
            _ => "",
        };
        let started = if about.start { "yes" } else { "" };
        writeln!(table, "| `{kind}`: {} | {} | {sidecar} | {view} | {started} |", about.about, about.level)
            .unwrap();
    }
    table
}

/// The document with this table between the marks of this name.
fn with_table(document: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->\n"));
    let (before, rest) = document.split_once(&begin).expect("the mark where it begins");
    let (_, after) = rest.split_once(&end).expect("the mark where it ends");
    format!("{before}{begin}\n{}\n\n{end}{after}", table.trim_end())
}
