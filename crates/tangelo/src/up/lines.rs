//! Cuts what a process writes into lines.

/// Longest line kept whole, in bytes; a longer one is cut into several.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// The part of a stream after its last newline.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes the next bytes of the stream and hands on the lines that they complete.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(&str)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.finish_with(&mut line, true);
        }
        for chunk in bytes.chunks(LINE_BYTES_MAX) {
            self.rest.extend_from_slice(chunk);
            if self.rest.len() >= LINE_BYTES_MAX {
                self.finish_with(&mut line, true);
            }
        }
    }

    /// Hands on what the stream ended with, if it did not end with a newline.
    pub(super) fn finish(&mut self, mut line: impl FnMut(&str)) {
        self.finish_with(&mut line, false);
    }

    fn finish_with(&mut self, line: &mut impl FnMut(&str), even_empty: bool) {
        if even_empty || !self.rest.is_empty() {
            line(String::from_utf8_lossy(&self.rest).trim_end_matches('\r'));
        }
        self.rest.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(parts: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for part in parts {
            lines.feed(part, |line| found.push(line.to_owned()));
        }
        lines.finish(|line| found.push(line.to_owned()));
        found
    }

    #[test]
    fn lines_come_whole_however_the_bytes_come() {
        let text = "one\r\n\ntwo 二\nthree".as_bytes();
        let whole = cut(&[text]);
        assert_eq!(whole, ["one", "", "two 二", "three"]);
        for end in 0..text.len() {
            assert_eq!(cut(&[&text[..end], &text[end..]]), whole);
        }
    }

    #[test]
    fn endless_lines_are_cut() {
        let part = vec![b'x'; LINE_BYTES_MAX / 2 + 1];
        let found = cut(&[&part, &part, &part, &part, b"y\n"]);
        assert!(found.len() >= 2, "{}", found.len());
        assert!(found.iter().all(|line| line.len() <= 2 * LINE_BYTES_MAX));
        assert_eq!(found.concat().len(), 4 * part.len() + 1);
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        assert_eq!(cut(&[b"a\xff\xfeb\n"]), ["a\u{fffd}\u{fffd}b"]);
    }
}
