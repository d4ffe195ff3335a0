//! Columns of text.

use std::fmt::Write as _;

use mirrord_layer_brain::text::printable;

/// Lays rows out below a head; columns are as wide as their widest cell.
#[must_use]
pub fn layout<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    // Names are others' choice, and the terminal is ours.
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| printable(cell).into_owned())).collect();
    let mut widths = head.map(|cell| cell.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&head.map(str::to_owned)).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}   ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

/// A cell of several words; a dash for none.
#[must_use]
pub fn words(words: &[String]) -> String {
    if words.is_empty() { "-".to_owned() } else { words.join(",") }
}

/// A cell of one word; a dash for none.
#[must_use]
pub fn word(word: &str) -> String {
    if word.is_empty() { "-".to_owned() } else { word.to_owned() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up() {
        let rows = [["deployment/a".to_owned(), "1".to_owned()], ["pod/ä".to_owned(), "-".to_owned()]];
        let expected = "TARGET         PODS\ndeployment/a   1\npod/ä          -";
        assert_eq!(super::layout(["TARGET", "PODS"], &rows), expected);
    }

    #[test]
    fn a_cell_cannot_steer_the_terminal() {
        let rows = [["eve\u{1b}[2J\nann".to_owned()]];
        assert_eq!(super::layout(["USER"], &rows), "USER\neve\\u{1b}[2J\\nann");
    }
}
