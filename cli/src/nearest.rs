//! What a mistyped word may have meant.

/// How alike words must be where the known ones are all there are, from 0 to 1.
pub const LIKELY: f64 = 0.5;
/// How alike they must be where the word may well be somebody else's.
pub const ALMOST_CERTAIN: f64 = 0.7;

/// The word among the known ones that is most like a mistyped one, if it is as much like it as is asked for.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>, at_least: f64) -> Option<&'a str> {
    let likeness = |candidate: &str| strsim::normalized_damerau_levenshtein(word, candidate);
    let ranked = known.into_iter().map(|candidate| (likeness(candidate), candidate));
    let (likeness, nearest) = ranked.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (likeness >= at_least).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_is_told_if_it_is_near_enough() {
        let known = ["files", "env", "outgoing"];
        assert_eq!(nearest("file", known, LIKELY), Some("files"));
        assert_eq!(nearest("otugoing", known, ALMOST_CERTAIN), Some("outgoing"));
        assert_eq!(nearest("x", known, LIKELY), None);
        assert_eq!(nearest("env", [], LIKELY), None);
    }
}
