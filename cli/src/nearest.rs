//! What a mistyped word may have meant.
//!
//! Callers compare what tells the known words apart, without what all of them share: a common prefix makes any two alike.

/// How alike words must be for a question, where the known ones are all there are; from 0 to 1.
pub const LIKELY: f64 = 0.5;
/// How alike they must be where something is done about it, or where the word may well be somebody else's.
pub const ALMOST_CERTAIN: f64 = 0.7;

/// The word among the known ones that is most like a mistyped one, if it is as much like it as is asked for and no other is
/// as near. Case makes no difference; the beginning of a word of several parts counts as almost certain.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>, at_least: f64) -> Option<&'a str> {
    let word = word.to_lowercase();
    let likeness = |candidate: &str| {
        let candidate = candidate.to_lowercase();
        let rest = candidate.strip_prefix(&word).filter(|_| !word.is_empty());
        match rest.is_some_and(|rest| rest.starts_with(['_', '-', '.'])) {
            true => ALMOST_CERTAIN,
            false => strsim::normalized_damerau_levenshtein(&word, &candidate),
        }
    };
    let mut ranked: Vec<(f64, &str)> = known.into_iter().map(|it| (likeness(it), it)).collect();
    ranked.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    match ranked.as_slice() {
        [(best, nearest), (second, other), ..] if best == second && nearest != other => None,
        [(best, nearest), ..] if *best >= at_least => Some(nearest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_told_if_it_is_near_enough_and_the_only_one() {
        let known = ["files", "env", "outgoing"];
        assert_eq!(nearest("file", known, LIKELY), Some("files"));
        assert_eq!(nearest("ENV", known, ALMOST_CERTAIN), Some("env"));
        assert_eq!(nearest("otugoing", known, ALMOST_CERTAIN), Some("outgoing"));
        assert_eq!(nearest("x", known, LIKELY), None);
        assert_eq!(nearest("env", [], LIKELY), None);
        assert_eq!(nearest("bat", ["cat", "hat"], LIKELY), None, "one as likely as the other");
        assert_eq!(nearest("orders", ["billing", "payments"], LIKELY), None);
    }

    #[test]
    fn a_beginning_is_almost_certain() {
        let known = ["CONFIG_FILE", "LINGER_SECONDS", "LOG"];
        assert_eq!(nearest("CONFIG", known, ALMOST_CERTAIN), Some("CONFIG_FILE"));
        assert_eq!(nearest("LINGER", known, ALMOST_CERTAIN), Some("LINGER_SECONDS"));
        assert_eq!(nearest("", known, ALMOST_CERTAIN), None);
        assert_eq!(nearest("LI", known, ALMOST_CERTAIN), None);
    }
}
