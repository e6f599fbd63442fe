//! Texts that end an answer although the model did not end it, found across the pieces in which the answer comes.

/// Cuts a text that comes in pieces at the first of some stop words, which may be spread over several pieces.
#[derive(Clone, Debug, Default)]
pub struct StopWords {
    words: Vec<String>,
    held: String,
}

impl StopWords {
    /// Stops at any of `words`; without one, all text passes.
    pub fn new(words: impl IntoIterator<Item = impl Into<String>>) -> StopWords {
        let words = words.into_iter().map(Into::into).filter(|word: &String| !word.is_empty());
        StopWords { words: words.collect(), held: String::new() }
    }

    /// Takes a piece. Returns what may be shown by now, and the word if one has come.
    pub fn push(&mut self, piece: &str) -> (String, Option<String>) {
        self.held.push_str(piece);
        let found =
            self.words.iter().filter_map(|word| Some((self.held.find(word.as_str())?, word)));
        if let Some((at, word)) = found.min_by_key(|(at, _)| *at) {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), Some(word.clone()));
        }
        let kept = self.words.iter().map(|word| held_back(word, &self.held)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// What was held back, when the text has ended without a word.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// How many bytes at the end of `text` may be the beginning of `word`.
fn held_back(word: &str, text: &str) -> usize {
    let longest = word.len().min(text.len() + 1) - 1;
    let begins = |&n: &usize| word.is_char_boundary(n) && text.ends_with(&word[..n]);
    (1..=longest).rev().find(begins).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_are_found_across_pieces() {
        let mut stop = StopWords::new(["\nUser:", "END", ""]);
        assert_eq!(stop.push("Yes."), ("Yes.".to_owned(), None));
        assert_eq!(stop.push("\nUs"), (String::new(), None));
        assert_eq!(stop.push("ually E"), ("\nUsually ".to_owned(), None));
        assert_eq!(stop.push("N"), (String::new(), None));
        assert_eq!(stop.push("D no"), (String::new(), Some("END".to_owned())));
        assert_eq!(
            StopWords::new(["b", "ab"]).push("xaby"),
            ("x".to_owned(), Some("ab".to_owned()))
        );
    }

    proptest! {
        #[test]
        fn what_is_shown_is_the_text_before_the_first_word(
            pieces in prop::collection::vec("[abé]{0,4}", 0..12),
            words in prop::collection::vec("[abé]{1,3}", 0..3),
        ) {
            let whole = pieces.concat();
            let mut stop = StopWords::new(words.clone());
            let mut shown = String::new();
            let mut hit = false;
            for piece in &pieces {
                let (text, word) = stop.push(piece);
                shown += &text;
                hit = word.is_some();
                if hit {
                    break;
                }
            }
            if !hit {
                shown += &stop.finish();
            }
            prop_assert_eq!(hit, words.iter().any(|w| whole.contains(w.as_str())));
            prop_assert!(whole.starts_with(&shown));
            prop_assert!(words.iter().all(|w| !shown.contains(w.as_str())));
            prop_assert!(hit || shown == whole);
        }
    }
}
