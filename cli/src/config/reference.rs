//! `CONFIGURATION.md`, made from the table of keys. A test compares; `BLESS=1` rewrites.

use std::fmt::Write as _;

use super::keys::{KEYS, Kind, below};
use crate::{environment::LOCAL, variables::VARIABLES};

/// The reference as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(HEAD);
    for key in KEYS {
        let mut kinds: Vec<&str> = key.kinds.iter().map(word).collect();
        if !below(key.path).is_empty() {
            kinds.push("object");
        }
        let _ =
            writeln!(text, "| `{}` | {} | {} | {} |", key.path, kinds.join(", "), key.default, key.meaning);
    }
    text.push_str(OWN);
    for (name, meaning) in VARIABLES {
        let _ = writeln!(text, "| `{name}` | {meaning} |");
    }
    text.push_str(ENVIRONMENT);
    for rule in LOCAL {
        let names: Vec<&str> = rule.names().collect();
        let taken = if rule.never { "never" } else { "if included" };
        let _ = writeln!(text, "| `{}` | {taken} | {} |", names.join("` `"), rule.reason);
    }
    text
}

fn word(kind: &Kind) -> &'static str {
    match kind {
        Kind::Switch => "boolean",
        Kind::Text => "string",
        Kind::Choice(_) => "choice",
        Kind::Words => "string or list",
        Kind::Map => "map",
    }
}

const HEAD: &str = "\
# Configuration

<!-- Made from src/config/keys.rs, src/variables.rs and src/environment/local.rs by `BLESS=1 cargo test -p mirrord`. -->

`mirrord exec` reads the file named by `-f` or `MIRRORD_CONFIG_FILE`, else the nearest `.mirrord/mirrord.json` from the working
directory up to the repository's root or the home directory. JSON; comments and trailing commas are allowed. Flags win over the
file. An unknown key is an error. `mirrord verify-config` checks a file and prints what it means.

| key | type | default | meaning |
|---|---|---|---|
";

const OWN: &str = "
## Variables

| variable | meaning |
|---|---|
";

const ENVIRONMENT: &str = "
## Variables that stay local

The program's environment is the local one with the pod's over it, but for these variables. *Never* means that no configuration
takes them from a pod: they would make the pod run code, or write files, on this machine. (`override` sets them to values of your own.)

| variables | taken from the pod | why |
|---|---|---|
";

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn the_reference_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("CONFIGURATION.md");
        let made = super::markdown();
        if std::env::var_os("BLESS").is_some() {
            fs::write(&path, &made).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == made, "CONFIGURATION.md differs: BLESS=1 cargo test -p mirrord");
    }
}
