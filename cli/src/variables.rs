//! The variables that mirrord itself listens to: one table, for the reference and for what looks like a slip.

use crate::{
    nearest::{ALMOST_CERTAIN, nearest},
    progress::Progress,
};

/// What all of them begin with.
const PREFIX: &str = "MIRRORD_";

/// Instead of `-t`.
pub const TARGET: &str = "MIRRORD_TARGET";

/// Name and meaning.
pub const VARIABLES: &[(&str, &str)] = &[
    (TARGET, "As `-t`."),
    ("MIRRORD_CONFIG_FILE", "As `-f`."),
    ("MIRRORD_PROGRESS_MODE", "`standard`, `off` (stderr is the program's alone) or `json`."),
    (
        "MIRRORD_LINGER_SECONDS",
        "How long the tunnel stays open for the next `exec`; 600, or 0 where `CI` is set.",
    ),
    (
        "MIRRORD_ALLOW_LOCAL",
        "`1`: programs that mirrord can't enter (static, set-user-ID) run locally instead of being refused.",
    ),
    ("MIRRORD_LAYER_FILE", "Another preload library than the one that came with `mirrord`."),
    ("MIRRORD_LOG", "Filter of the proxy's log, as in `mirrord=debug`."),
];

/// The table as text, for `--help`.
#[must_use]
pub fn table() -> String {
    let row = |(name, meaning): &(&str, &str)| format!("  {name:<24}{}\n", meaning.replace('`', ""));
    format!("Environment variables:\n{}", VARIABLES.iter().map(row).collect::<String>())
}

/// Warns of variables that are set, unknown, and much like a known one. Others are other programs'.
pub fn warn_of_slips(progress: &Progress) {
    for (name, _) in std::env::vars_os() {
        if let Some((name, meant)) = name.to_str().and_then(|name| Some((name, slip(name)?))) {
            progress.warning(&format!("mirrord doesn't know the variable {name}, did you mean {meant}?"));
        }
    }
}

/// The variable that was meant.
fn slip(name: &str) -> Option<&'static str> {
    let rest = name.strip_prefix(PREFIX)?;
    let known = || VARIABLES.iter().filter_map(|(known, _)| Some((known.strip_prefix(PREFIX)?, *known)));
    let meant =
        nearest(rest, known().map(|(rest, _)| rest), ALMOST_CERTAIN).filter(|meant| *meant != rest)?;
    known().find(|(rest, _)| *rest == meant).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_told_from_another_program_s_variable() {
        assert_eq!(slip("MIRRORD_TARGT"), Some(TARGET));
        assert_eq!(slip("MIRRORD_PROGRESS_MOD"), Some("MIRRORD_PROGRESS_MODE"));
        assert_eq!(slip("MIRRORD_CONFIG"), Some("MIRRORD_CONFIG_FILE"));
        assert_eq!(slip("MIRRORD_PROGRESS"), Some("MIRRORD_PROGRESS_MODE"));
        for right in VARIABLES.iter().map(|(name, _)| *name).chain([
            "MIRRORD_CACHE",
            "MIRRORD_E2E_CLUSTER",
            "MIRRORD_SETTINGS",
            "MIRRORD_DESCRIPTORS",
            "OTHER_TARGT",
        ]) {
            assert_eq!(slip(right), None, "{right}");
        }
    }
}
