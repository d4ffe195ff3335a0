//! Steps and numbers out of an input's bytes.

/// What is left of an input.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    /// The next byte, if there is one.
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// The next byte, or 0 at the end.
    pub(crate) fn number(&mut self) -> u8 {
        self.byte().unwrap_or(0)
    }

    /// A byte of length and so many bytes, or all that there are.
    pub(crate) fn text(&mut self) -> &'a [u8] {
        let length = usize::from(self.number()).min(self.0.len());
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        text
    }
}
