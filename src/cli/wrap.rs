//! Words that are kept whole at the right edge of the terminal. Text comes in pieces of any size; what is to be written for each is
//! told, and a word that turns out to be too long for its line is taken back and begun on the next.

use unicode_width::UnicodeWidthChar;

/// A column every so many of which a tab leads to.
const TAB: usize = 8;

/// A line under way.
#[derive(Debug)]
pub(crate) struct Wrap {
    /// Columns that may be used.
    width: usize,
    /// Columns that are.
    column: usize,
    /// The word at the end of the line, and its columns.
    word: String,
    word_columns: usize,
}

impl Wrap {
    /// For a terminal of so many columns. The last is left free: what a cursor there means differs from terminal to terminal.
    pub(crate) fn new(columns: usize) -> Wrap {
        let width = columns.saturating_sub(1).max(1);
        Wrap { width, column: 0, word: String::new(), word_columns: 0 }
    }

    /// What is to be written for `text`, which has no control characters but tabs and line ends.
    pub(crate) fn push(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '\n' => self.begin_line(&mut out),
                ' ' | '\t' => self.space(c, &mut out),
                c => self.letter(c, &mut out),
            }
        }
        out
    }

    fn begin_line(&mut self, out: &mut String) {
        out.push('\n');
        self.column = 0;
        self.end_word();
    }

    fn end_word(&mut self) {
        self.word.clear();
        self.word_columns = 0;
    }

    fn space(&mut self, c: char, out: &mut String) {
        self.end_word();
        let next = if c == '\t' { (self.column / TAB + 1) * TAB } else { self.column + 1 };
        if next > self.width {
            // The end of the line is space enough.
            self.begin_line(out);
            return;
        }
        out.push(c);
        self.column = next;
    }

    fn letter(&mut self, c: char, out: &mut String) {
        let columns = c.width().unwrap_or(0);
        // Scripts with wide letters have no spaces, and may be broken anywhere.
        if columns > 1 {
            self.end_word();
        }
        if self.column + columns > self.width {
            let is_whole_line = self.word_columns == self.column;
            if self.word_columns == 0 || is_whole_line {
                self.begin_line(out);
            } else {
                out.push_str(&format!("\x1b[{}D\x1b[K\n{}", self.word_columns, self.word));
                self.column = self.word_columns;
            }
        }
        out.push(c);
        self.column += columns;
        if columns < 2 {
            self.word.push(c);
            self.word_columns += columns;
        }
    }
}

/// A whole text in lines of a terminal of so many columns, `begun` of which are used; the blank where a line is broken goes.
pub(crate) fn lines(text: &str, columns: usize, begun: usize) -> String {
    let width = columns.saturating_sub(1).max(1);
    let wide = |word: &str| word.chars().filter_map(UnicodeWidthChar::width).sum::<usize>();
    let mut out = String::with_capacity(text.len());
    let mut column = begun;
    for word in text.split_inclusive(['\n', ' ']) {
        let columns = wide(word.trim_end_matches(['\n', ' ']));
        if column + columns > width && column > begun && out.ends_with(' ') {
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
            column = 0;
        }
        out.push_str(word);
        column = if word.ends_with('\n') { 0 } else { column + wide(word) };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a terminal shows after `written`: it knows the two sequences that are used.
    fn screen(written: &str) -> Vec<String> {
        let mut lines = vec![Vec::new()];
        let mut rest = written;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            let line = lines.last_mut().unwrap();
            match c {
                '\n' => lines.push(Vec::new()),
                '\x1b' => {
                    let end = rest.find(['D', 'K']).unwrap();
                    if let Ok(n) = rest[1..end].parse::<usize>() {
                        line.truncate(line.len() - n);
                    }
                    rest = &rest[end + 1..];
                }
                c => line.push(c),
            }
        }
        lines.into_iter().map(String::from_iter).collect()
    }

    fn wrapped(columns: usize, pieces: &[&str]) -> Vec<String> {
        let mut wrap = Wrap::new(columns);
        screen(&pieces.iter().map(|piece| wrap.push(piece)).collect::<String>())
    }

    #[test]
    fn words_stay_whole() {
        assert_eq!(wrapped(11, &["May I have s", "ome tea?"]), ["May I have", "some tea?"]);
        assert_eq!(wrapped(6, &["abcdefghijk"]), ["abcde", "fghij", "k"]);
        assert_eq!(wrapped(6, &["a\n\nb c d e"]), ["a", "", "b c d", "e"]);
        assert_eq!(wrapped(6, &["日本語日本"]), ["日本", "語日", "本"]);
    }

    #[test]
    fn whole_texts_are_broken_at_blanks() {
        for (text, columns, begun, want) in [
            ("May I have some tea?", 11, 0, "May I have\nsome tea?"),
            ("May I have some tea?", 11, 6, "May\nI have\nsome tea?"),
            ("abcdefghijk abcdefghijk", 6, 0, "abcdefghijk\nabcdefghijk"),
            ("a\n  b c d", 6, 0, "a\n  b c\nd"),
            ("one  two", 6, 0, "one\ntwo"),
            ("", 1, 9, ""),
        ] {
            assert_eq!(lines(text, columns, begun), want);
        }
    }

    proptest! {
        /// Whatever comes in whatever pieces: no line is too long, no letter is lost, and the pieces make no difference.
        #[test]
        fn nothing_is_lost(text in "[a-z é\n]{0,80}", cut in 0_usize..80, columns in 2_usize..30) {
            let cut = text.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(text.len());
            let (a, b) = text.split_at(cut);
            let lines = wrapped(columns, &[a, b]);
            prop_assert_eq!(&lines, &wrapped(columns, &[&text]));
            prop_assert!(lines.iter().all(|line| line.chars().count() < columns));
            let letters = |text: &str| text.split_whitespace().collect::<String>();
            prop_assert_eq!(letters(&lines.join("\n")), letters(&text));
        }
    }
}
