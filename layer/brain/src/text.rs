//! Text from elsewhere, as it may be shown on a terminal.

use std::borrow::Cow;

/// The text with what would steer a terminal, or turn its letters around, written out: `\u{1b}`. A pod's reasons and the
/// names of others' objects end up on developers' terminals, where an escape sequence could hide or forge lines.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    let steers = |letter: char| {
        letter.is_control() || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if steers(letter) { shown.extend(letter.escape_default()) } else { shown.push(letter) }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_is_shown_as_it_is() {
        assert_eq!(printable("the pod stops: »Ende«"), "the pod stops: »Ende«");
        let forged = "gone\u{1b}[2K\rmirrord: all is well\n\u{9b}31m\u{202e}txt";
        assert_eq!(printable(forged), "gone\\u{1b}[2K\\rmirrord: all is well\\n\\u{9b}31m\\u{202e}txt");
    }
}
