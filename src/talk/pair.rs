//! A question and a text that may answer it, as one prompt: what models read that say how well it does.

use serde_json::json;

use super::marks::{Marks, Signs};
use super::{Error, Vocab};
use crate::ggml::Token;

/// What stands for the two in a template.
const PLACES: [&str; 2] = ["{query}", "{document}"];

/// Makes such prompts.
#[derive(Debug)]
pub struct Pairs<'a> {
    vocab: &'a Vocab,
    template: Option<&'a str>,
    marks: Marks,
}

impl<'a> Pairs<'a> {
    /// By the model's `template` for this, if it has one; without, one text after the other, as the vocabulary puts texts together.
    pub fn new(vocab: &'a Vocab, template: Option<&'a str>) -> Pairs<'a> {
        let marks = template.map(|_| Marks::of(vocab, &|_| true)).unwrap_or_default();
        Pairs { vocab, template, marks }
    }

    /// The tokens of a prompt. What the texts say is never a control token.
    ///
    /// # Errors
    ///
    /// As [`Vocab::tokenize`].
    pub fn tokens(&self, question: &str, text: &str) -> Result<Vec<Token>, Error> {
        let Some(template) = self.template else { return self.joined(question, text) };
        let texts = [question, text];
        let values = texts.map(|text| json!(text));
        let Some(signs) = Signs::free_of(&[&values[0], &values[1], &json!(template)]) else {
            let text = fill(template, &texts.map(str::to_owned));
            return self.vocab.tokenize(&text, false, true);
        };
        let signed = texts.map(|text| self.marks.signed(text, signs, &|_| true));
        self.marks.tokens(&fill(template, &signed), signs, self.vocab)
    }

    fn joined(&self, question: &str, text: &str) -> Result<Vec<Token>, Error> {
        let mut all = self.vocab.tokenize(question, true, false)?;
        let rest = self.vocab.tokenize(text, true, false)?;
        all.extend(self.vocab.between_texts());
        let begins = self.vocab.bos().is_some() && rest.first().copied() == self.vocab.bos();
        all.extend_from_slice(&rest[usize::from(begins)..]);
        Ok(all)
    }
}

/// The template with the texts in it, of which none is looked for the other's place.
fn fill(template: &str, texts: &[String; 2]) -> String {
    let (mut out, mut rest) = (String::new(), template);
    loop {
        let places = PLACES.iter().zip(texts);
        let found = places.filter_map(|(place, text)| Some((rest.find(place)?, *place, text)));
        let Some((at, place, text)) = found.min_by_key(|(at, ..)| *at) else { break };
        out.push_str(&rest[..at]);
        out.push_str(text);
        rest = &rest[at + place.len()..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_once() {
        let texts = ["a {document}".to_owned(), "{query}".to_owned()];
        assert_eq!(fill("Q: {query} D: {document}!", &texts), "Q: a {document} D: {query}!");
        assert_eq!(fill("nothing", &texts), "nothing");
    }
}
