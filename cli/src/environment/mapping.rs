//! Values by patterns of names.

use std::ffi::{OsStr, OsString};

use regex::Regex;

use super::Variables;

/// What variables get whose whole name fits a pattern.
#[derive(Clone, Debug)]
pub struct Mapping {
    pattern: Regex,
    /// As the user wrote it.
    text: String,
    value: String,
}

impl PartialEq for Mapping {
    fn eq(&self, other: &Self) -> bool {
        (&self.text, &self.value) == (&other.text, &other.value)
    }
}

impl Eq for Mapping {}

impl Mapping {
    /// Of a pattern in the syntax of the regex crate; in the value `$1` or `${group}` stands for what a group fits, `$$` for a
    /// dollar sign.
    ///
    /// # Errors
    /// Why it is no pattern, in one line.
    pub fn new(pattern: &str, value: &str) -> Result<Self, String> {
        let regex = Regex::new(&format!("^(?:{pattern})$")).map_err(|error| {
            // It draws the pattern over several lines; the last one says what is wrong.
            let told = error.to_string();
            told.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
        })?;
        Ok(Self { pattern: regex, text: pattern.to_owned(), value: value.to_owned() })
    }

    /// Pattern and value, as they were written.
    #[must_use]
    pub fn as_written(&self) -> (&str, &str) {
        (&self.text, &self.value)
    }

    fn value_of(&self, name: &OsStr) -> Option<OsString> {
        let captures = self.pattern.captures(name.to_str()?)?;
        let mut value = String::new();
        captures.expand(&self.value, &mut value);
        Some(value.into())
    }
}

/// Gives variables the value of the first mapping that their name fits.
pub(super) fn apply(mappings: &[Mapping], variables: &mut Variables) {
    if mappings.is_empty() {
        return;
    }
    for (name, value) in variables {
        if let Some(mapped) = mappings.iter().find_map(|mapping| mapping.value_of(name)) {
            *value = mapped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pattern_that_fits_a_whole_name_decides() {
        let mapping = |pattern, value| Mapping::new(pattern, value).unwrap();
        let mappings = [mapping("A_(?<rest>.+)", "<${rest}> $$1"), mapping("A_B|C", "other")];
        let mut variables: Variables =
            ["A_B", "C", "XC", "A_"].into_iter().map(|name| (name.into(), "was".into())).collect();
        apply(&mappings, &mut variables);
        let values: Vec<_> = variables.values().filter_map(|value| value.to_str()).collect();
        assert_eq!(values, ["was", "<B> $1", "other", "was"]);
    }

    #[test]
    fn what_is_no_pattern_is_told_in_a_line() {
        assert_eq!(Mapping::new("A(", "x").unwrap_err(), "unclosed group");
    }
}
