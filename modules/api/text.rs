//! A text file as lines that keep their endings, so that an edit changes nothing but what it means to.

use std::borrow::Cow;

/// The lines of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    lines: Vec<Line>,
    /// Whether the last line ends without a newline; it stays so whatever is done to the lines.
    open: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    text: Vec<u8>,
    /// Whether it ends with a carriage return before the newline.
    carriage: bool,
}

impl Text {
    /// Takes a file's content apart.
    pub fn parse(content: &[u8]) -> Self {
        let mut lines: Vec<Line> = Vec::new();
        let mut open = false;
        for piece in content.split_inclusive(|byte| *byte == b'\n') {
            if let Some(text) = piece.strip_suffix(b"\r\n") {
                lines.push(Line { text: text.to_vec(), carriage: true });
            } else if let Some(text) = piece.strip_suffix(b"\n") {
                lines.push(Line { text: text.to_vec(), carriage: false });
            } else {
                open = true;
                lines.push(Line { text: piece.to_vec(), carriage: lines.last().is_some_and(|line| line.carriage) });
            }
        }
        Self { lines, open }
    }

    /// Returns the file's content.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut content = Vec::new();
        for (number, line) in self.lines.iter().enumerate() {
            content.extend_from_slice(&line.text);
            if !self.open || number + 1 < self.lines.len() {
                content.extend_from_slice(if line.carriage { b"\r\n" } else { b"\n" });
            }
        }
        content
    }

    /// Returns how many lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Returns whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Returns the lines without their endings.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator {
        self.lines.iter().map(|line| line.text.as_slice())
    }

    /// Returns the lines as text, what is no UTF-8 replaced.
    pub fn shown(&self) -> impl DoubleEndedIterator<Item = Cow<'_, str>> + ExactSizeIterator {
        self.iter().map(String::from_utf8_lossy)
    }

    /// Puts a line before the one numbered `at`, with its neighbour's ending.
    pub fn insert(&mut self, at: usize, text: &[u8]) {
        let at = at.min(self.lines.len());
        let neighbour = at.checked_sub(1).and_then(|before| self.lines.get(before)).or(self.lines.first());
        let carriage = neighbour.is_some_and(|line| line.carriage);
        self.lines.insert(at, Line { text: text.to_vec(), carriage });
    }

    /// Gives the line numbered `at` another text; its ending stays.
    pub fn replace(&mut self, at: usize, text: &[u8]) {
        if let Some(line) = self.lines.get_mut(at) {
            text.clone_into(&mut line.text);
        }
    }

    /// Keeps the lines for which `keep` says so of their number and text.
    pub fn retain(&mut self, mut keep: impl FnMut(usize, &[u8]) -> bool) {
        let mut number = 0;
        self.lines.retain(|line| {
            number += 1;
            keep(number - 1, &line.text)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_edited_stays_byte_by_byte() {
        for content in ["", "\n", "a", "a\n", "a\r\nb\n\n\nc", "\r\n", "a\rb\n", "\r", "a\r\nb", "\u{feff}a\n"] {
            assert_eq!(Text::parse(content.as_bytes()).to_bytes(), content.as_bytes(), "{content:?}");
        }
        assert_eq!(Text::parse(b"\xff\xfe\n\0").to_bytes(), b"\xff\xfe\n\0");
    }

    #[test]
    fn a_new_line_ends_as_its_neighbour_does() {
        let cases =
            [("", 0, "x\n"), ("a\r\n", 1, "a\r\nx\r\n"), ("a\r\nb\n", 0, "x\r\na\r\nb\n"), ("a", 1, "a\nx"), ("a\r\nb", 2, "a\r\nb\r\nx")];
        for (content, at, expected) in cases {
            let mut text = Text::parse(content.as_bytes());
            text.insert(at, b"x");
            assert_eq!(String::from_utf8_lossy(&text.to_bytes()), expected, "{content:?}");
        }
    }

    #[test]
    fn a_missing_last_newline_stays_missing() {
        let mut text = Text::parse(b"a\nb");
        text.retain(|at, _| at != 1);
        assert_eq!(text.to_bytes(), b"a");
        text.replace(0, b"c");
        assert_eq!(text.to_bytes(), b"c");
        text.retain(|_, _| false);
        assert_eq!(text.to_bytes(), b"");
    }
}
