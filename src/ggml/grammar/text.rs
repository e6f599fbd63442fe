//! Grammars that people write (GBNF): whether libllama's parser can be given one. It goes as deep as its brackets, and, when it
//! looks for rules that begin with themselves, as deep as there are rules.

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
/// It is empty, too long, too deep, or has too many rules.
pub fn check_grammar_text(text: &str) -> Result<(), Error> {
    let invalid = |why: &str| Err(Error::Invalid(format!("the grammar {why}")));
    if text.trim().is_empty() {
        return invalid("is empty");
    }
    if text.len() > MAX_LEN {
        return invalid("is longer than 64 KiB");
    }
    let (mut depth, mut rules) = (0_usize, 0_usize);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => skip(&mut chars, '"'),
            '[' => skip(&mut chars, ']'),
            '#' => drop(chars.by_ref().find(|&c| c == '\n')),
            '(' => (depth, rules) = (depth + 1, rules + 1),
            ')' => depth = depth.saturating_sub(1),
            '=' | '*' | '+' | '?' => rules += 1,
            '{' => {
                let range: String = chars.by_ref().take_while(|&c| c != '}').collect();
                let times = range.split(',').filter_map(|n| n.trim().parse::<usize>().ok()).max();
                rules = rules.saturating_add(times.unwrap_or(1));
            }
            _ => {}
        }
        if depth > MAX_DEPTH {
            return invalid("is nested too deeply");
        }
        if rules > MAX_RULES {
            return invalid("has too many rules");
        }
    }
    Ok(())
}

/// Goes on behind the next `end` that no backslash precedes.
fn skip(chars: &mut std::str::Chars<'_>, end: char) {
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            c if c == end => return,
            _ => {}
        }
    }
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
