//! Grammars that people write (GBNF): whether libllama's parser can be given one.

use super::gbnf;
use crate::ggml::result::Error;

/// The longest grammar. (bytes)
const MAX_LEN: usize = 64 << 10;
/// How deep brackets may be nested.
const MAX_DEPTH: usize = 48;
/// The most rules: those written, and those that brackets and repetitions become.
const MAX_RULES: usize = 4096;

/// Checks the text of a grammar before libllama parses it.
///
/// # Errors
///
/// It is empty, too long, too deep, or has too many rules; it makes no sense, or libllama would come to no end with it.
pub fn check_grammar_text(text: &str) -> Result<(), Error> {
    let invalid = |why: &str| Err(Error::Invalid(format!("the grammar {why}")));
    if text.trim().is_empty() {
        return invalid("is empty");
    }
    if text.len() > MAX_LEN {
        return invalid("is longer than 64 KiB");
    }
    let rules = gbnf::read(text)?;
    if rules.depth() > MAX_DEPTH {
        return invalid("is nested too deeply");
    }
    if rules.len() > MAX_RULES {
        return invalid("has too many rules");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_grammars_pass() {
        for text in [
            "root ::= \"yes\" | \"no\"",
            "# a comment (\nroot ::= ([a-z(\\]]+ \" (\" )* # more\n",
            "root ::= item{1,20}\nitem ::= \"\\\"(\" [0-9]{4}",
        ] {
            check_grammar_text(text).expect(text);
        }
    }

    #[test]
    fn grammars_that_would_go_too_deep_are_refused() {
        let chain: String = (0..5000).map(|i| format!("r{i} ::= r{}\n", i + 1)).collect();
        for text in [
            "".to_owned(),
            " \n".to_owned(),
            format!("root ::= {}", "(".repeat(40_000)),
            format!("root ::= {}", "(a ".repeat(49)),
            format!("root ::= {}", "\"a\"* ".repeat(5000)),
            "root ::= (\"a\"{2000}){3000}".to_owned(),
            format!("root ::= \"{}\"", "a".repeat(70_000)),
            chain,
        ] {
            assert!(check_grammar_text(&text).is_err(), "{text:.40}");
        }
    }
}
