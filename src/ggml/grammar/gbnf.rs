//! What libllama would make of a grammar (GBNF): its parser writes out each repetition, and then follows all that a rule may begin with,
//! without a limit to either. It reads as that parser reads, keeps what begins a rule, and counts.

mod costs;

use std::collections::HashMap;

use crate::ggml::result::Error;

/// What a rule is made of, as far as its beginning is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Item {
    /// Reads at least a character, or a token.
    Character,
    Rule(usize),
}

/// The alternatives of a rule.
type Rule = Vec<Vec<Item>>;

/// A grammar that libllama's parser understands, and that it has room for.
pub(in crate::ggml) struct Rules {
    /// One for each name, those included that the parser gives.
    rules: Vec<Rule>,
    /// The names that the text gives.
    names: HashMap<String, usize>,
    /// How deep its brackets are nested.
    depth: usize,
}

/// The deepest brackets: both parsers go as deep.
const MAX_DEPTH: usize = 200;
/// The most times that the parser repeats anything; from there on, it has no limit in mind.
const MAX_TIMES: u64 = 2000;
/// What the parser's rules may take. (bytes)
const MAX_ROOM: usize = 64 << 20;
/// What it has for each character, with its copies, and for each rule.
const ROOM_OF_ITEM: usize = 16;
const ROOM_OF_RULE: usize = 400;

/// Reads a grammar.
///
/// # Errors
///
/// Libllama would not understand it, or come to no end with it.
pub(in crate::ggml) fn read(text: &str) -> Result<Rules, Error> {
    rules(text).map_err(|why| Error::Invalid(format!("the grammar {why}")))
}

fn rules(text: &str) -> Result<Rules, String> {
    let mut reader = Reader {
        text: text.as_bytes(),
        at: 0,
        rules: Vec::new(),
        names: HashMap::new(),
        room: MAX_ROOM,
        depth: 0,
    };
    reader.grammar()?;
    let rules = Rules {
        rules: reader.rules.into_iter().map(Option::unwrap_or_default).collect(),
        names: reader.names,
        depth: reader.depth,
    };
    rules.check_names()?;
    rules.check_costs()?;
    Ok(rules)
}

impl Rules {
    /// How many rules there are, with those that brackets and repetitions become.
    pub(super) fn len(&self) -> usize {
        self.rules.len()
    }

    /// How deep brackets are nested.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Each name means a rule.
    fn check_names(&self) -> Result<(), String> {
        let missing = self.names.iter().filter(|(_, rule)| self.rules[**rule].is_empty());
        match missing.map(|(name, _)| name).min() {
            Some(name) => Err(format!("has no rule '{name:.40}'")),
            None => Ok(()),
        }
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    rules: Vec<Option<Rule>>,
    names: HashMap<String, usize>,
    /// What is left of it.
    room: usize,
    /// The deepest brackets so far.
    depth: usize,
}

/// A sequence while it is read.
struct Sequence {
    items: Vec<Item>,
    /// Its characters and references, of which `items` may have fewer.
    size: usize,
    /// Where the last symbol begins, in both.
    last: (usize, usize),
    /// How many rules the last symbol is, as the parser counts them.
    n_rules: u64,
}

impl Sequence {
    /// Adds a symbol of so many characters.
    fn push(&mut self, item: Option<Item>, size: usize) {
        self.last = (self.items.len(), self.size);
        self.n_rules = 1;
        self.items.extend(item);
        self.size += size;
    }
}

impl Reader<'_> {
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn wrong<T>(&self, wanted: &str) -> Result<T, String> {
        let line = self.text[..self.at.min(self.text.len())].iter().filter(|b| **b == b'\n');
        Err(format!("makes no sense in line {}: {wanted}", line.count() + 1))
    }

    fn spend(&mut self, room: usize) -> Result<(), String> {
        self.room = self.room.checked_sub(room).ok_or("repeats too much")?;
        Ok(())
    }

    /// Blanks and comments, and ends of lines where these mean nothing.
    fn space(&mut self, lines: bool) {
        loop {
            match self.peek() {
                b' ' | b'\t' => self.at += 1,
                b'\r' | b'\n' if lines => self.at += 1,
                b'#' => {
                    while !matches!(self.peek(), 0 | b'\r' | b'\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn name(&mut self) -> Result<String, String> {
        let begin = self.at;
        while self.peek().is_ascii_alphanumeric() || self.peek() == b'-' {
            self.at += 1;
        }
        match begin == self.at {
            true => self.wrong("a name is missing"),
            false => Ok(String::from_utf8_lossy(&self.text[begin..self.at]).into_owned()),
        }
    }

    fn number(&mut self) -> Result<u64, String> {
        let begin = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        let digits = std::str::from_utf8(&self.text[begin..self.at]).unwrap_or_default();
        digits.parse().or_else(|_| self.wrong("a number is missing or too large"))
    }

    /// A rule of which nothing is known yet.
    fn new_rule(&mut self, name: &str) -> Result<usize, String> {
        self.spend(ROOM_OF_RULE + 2 * name.len())?;
        self.rules.push(None);
        Ok(self.rules.len() - 1)
    }

    fn named(&mut self, name: String) -> Result<usize, String> {
        if let Some(&rule) = self.names.get(&name) {
            return Ok(rule);
        }
        let rule = self.new_rule(&name)?;
        self.names.insert(name, rule);
        Ok(rule)
    }

    fn grammar(&mut self) -> Result<(), String> {
        if self.text.contains(&0) {
            return Err("has a zero byte".to_owned());
        }
        self.space(true);
        while self.at < self.text.len() {
            let name = self.name()?;
            self.space(false);
            let rule = self.named(name.clone())?;
            if !self.text[self.at..].starts_with(b"::=") {
                return self.wrong("'::=' is missing");
            }
            self.at += 3;
            self.space(true);
            let alternatives = self.alternatives(&name, 0)?;
            self.rules[rule] = Some(alternatives);
            if !matches!(self.peek(), 0 | b'\r' | b'\n') {
                return self.wrong("a rule ends there");
            }
            self.space(true);
        }
        Ok(())
    }

    /// Alternatives of the rule `name`, inside of so many brackets.
    fn alternatives(&mut self, name: &str, depth: usize) -> Result<Rule, String> {
        self.depth = self.depth.max(depth);
        if depth > MAX_DEPTH {
            return Err("is nested too deeply".to_owned());
        }
        let mut found = Vec::new();
        loop {
            let sequence = self.sequence(name, depth)?;
            self.spend(ROOM_OF_ITEM * (sequence.size + 1))?;
            found.push(sequence.items);
            if self.peek() != b'|' {
                return Ok(found);
            }
            self.at += 1;
            self.space(true);
        }
    }

    fn sequence(&mut self, name: &str, depth: usize) -> Result<Sequence, String> {
        let nested = depth > 0;
        let mut found = Sequence { items: Vec::new(), size: 0, last: (0, 0), n_rules: 1 };
        loop {
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    let size = self.characters(b'"')?;
                    found.push((size > 0).then_some(Item::Character), size);
                }
                b'[' => {
                    self.at += 1;
                    if self.peek() == b'^' {
                        self.at += 1;
                    }
                    let size = self.characters(b']')?;
                    found.push((size > 0).then_some(Item::Character), size);
                }
                b'<' | b'!' => {
                    self.token()?;
                    found.push(Some(Item::Character), 1);
                }
                b'.' => {
                    self.at += 1;
                    found.push(Some(Item::Character), 1);
                }
                b'(' => self.group(name, depth, &mut found)?,
                c if c.is_ascii_alphanumeric() || c == b'-' => {
                    let to = self.name()?;
                    let to = self.named(to)?;
                    found.push(Some(Item::Rule(to)), 1);
                }
                b'*' | b'+' | b'?' | b'{' => {
                    let (least, most) = self.times()?;
                    self.repeat(name, &mut found, least, most)?;
                }
                _ => return Ok(found),
            }
            self.space(nested);
        }
    }

    fn group(&mut self, name: &str, depth: usize, found: &mut Sequence) -> Result<(), String> {
        self.at += 1;
        self.space(true);
        let before = self.rules.len();
        let rule = self.new_rule(name)?;
        let alternatives = self.alternatives(name, depth + 1)?;
        self.rules[rule] = Some(alternatives);
        if self.peek() != b')' {
            return self.wrong("')' is missing");
        }
        self.at += 1;
        found.push(Some(Item::Rule(rule)), 1);
        found.n_rules = (self.rules.len() - before).max(1) as u64;
        Ok(())
    }

    /// The characters of a literal or a class, behind which it goes on.
    fn characters(&mut self, end: u8) -> Result<usize, String> {
        let mut n = 0;
        loop {
            match self.peek() {
                0 => return self.wrong("a text or a class has no end"),
                b'\\' => {
                    let digits = match self.text.get(self.at + 1) {
                        Some(b'x') => 2,
                        Some(b'u') => 4,
                        Some(b'U') => 8,
                        Some(b't' | b'r' | b'n' | b'\\' | b'"' | b'[' | b']' | b'-') => 0,
                        _ => return self.wrong("there is no such escape"),
                    };
                    let hex = self.text.get(self.at + 2..self.at + 2 + digits);
                    if !hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) {
                        return self.wrong("an escape is too short");
                    }
                    self.at += 2 + digits;
                    n += 1;
                }
                c => {
                    self.at += 1;
                    if c == end {
                        return Ok(n);
                    }
                    // One for each character, not for its other bytes.
                    n += usize::from(c & 0xC0 != 0x80);
                }
            }
        }
    }

    /// `<word>`, `<[7]>`, and with `!` all but these.
    fn token(&mut self) -> Result<(), String> {
        if self.peek() == b'!' {
            self.at += 1;
        }
        if self.peek() != b'<' {
            return self.wrong("a token begins with '<'");
        }
        while self.peek() != b'>' {
            if self.peek() == 0 {
                return self.wrong("a token has no end");
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(())
    }

    /// How often something may come: at least, and at most.
    fn times(&mut self) -> Result<(u64, Option<u64>), String> {
        self.at += 1;
        match self.text[self.at - 1] {
            b'*' => return Ok((0, None)),
            b'+' => return Ok((1, None)),
            b'?' => return Ok((0, Some(1))),
            _ => {}
        }
        self.space(true);
        let least = self.number()?;
        self.space(true);
        let mut most = Some(least);
        if self.peek() == b',' {
            self.at += 1;
            self.space(true);
            most = if self.peek().is_ascii_digit() { Some(self.number()?) } else { None };
            self.space(true);
        }
        if self.peek() != b'}' {
            return self.wrong("'}' is missing");
        }
        self.at += 1;
        // The parser would take that for nearly without end, and make a rule for each time.
        if most.is_some_and(|most| least > most) {
            return self.wrong("a repetition counts down");
        }
        if least > MAX_TIMES {
            return Err("repeats too much".to_owned());
        }
        Ok((least, most.filter(|most| *most <= MAX_TIMES)))
    }

    /// Writes out a repetition of the last symbol, as the parser does.
    fn repeat(
        &mut self,
        name: &str,
        found: &mut Sequence,
        least: u64,
        most: Option<u64>,
    ) -> Result<(), String> {
        let symbol = found.items[found.last.0..].to_vec();
        let size = found.size - found.last.1;
        if size == 0 {
            return self.wrong("there is nothing to repeat");
        }
        let total = most.filter(|most| *most > 0).unwrap_or(least.max(1));
        found.n_rules = found.n_rules.saturating_mul(total);
        if found.n_rules > MAX_TIMES {
            return Err("repeats too much".to_owned());
        }
        let optional = most.map_or(1, |most| most - least);
        let times = usize::try_from(least.max(1) + optional).unwrap_or(usize::MAX);
        self.spend(times.saturating_mul(ROOM_OF_ITEM * (size + 3)))?;
        if least == 0 {
            found.items.truncate(found.last.0);
            found.size = found.last.1;
        }
        for _ in 1..least {
            found.items.extend(&symbol);
            found.size += size;
        }
        let mut further = None;
        for _ in 0..optional {
            let rule = self.new_rule(name)?;
            let again = if most.is_none() { Some(rule) } else { further };
            let mut items = symbol.clone();
            items.extend(again.map(Item::Rule));
            self.rules[rule] = Some(vec![items, Vec::new()]);
            further = Some(rule);
        }
        if let Some(rule) = further {
            found.items.push(Item::Rule(rule));
            found.size += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libllama_understands_is_read() {
        for (text, n_rules) in [
            (
                r#"root ::= "a" item{1,4} [{5,2}] "{5,2}"
item ::= "b""#,
                5,
            ),
            ("root ::= a{2} b{3,} # it's {5,2}\r\na ::= .\nb ::= [^\\]\\x41-\\u00e4-]+", 5),
            ("# \"\nroot ::= (\"a\" # {5,2}\n | <|im_end|> !<[7]>)?", 3),
            ("root ::= \"\" | x\nx-1 ::= \"a\"\nx ::= x-1 x |", 3),
            ("root ::= (\"a\"{0} \"b\"){0,3}", 5),
            ("root ::= [a]{ 3 , 5 } \"b\"{1,9999}", 4),
        ] {
            assert_eq!(rules(text).map(|rules| rules.len()), Ok(n_rules), "{text}");
        }
    }

    #[test]
    fn what_has_no_end_is_refused() {
        let forty = |last: &str| {
            let rules = (0..40).map(|i| format!("r{i} ::= r{0} \"x\" | r{0} \"y\"\n", i + 1));
            format!("root ::= {last} r0\n{}r40 ::= \"a\"\n", rules.collect::<String>())
        };
        for (text, why) in [
            ("root ::= item{4,1}\nitem ::= \"a\"".to_owned(), "counts down"),
            ("root ::= (\"a\"){ 17 , 15 }".to_owned(), "counts down"),
            ("root ::= \"\\\"\" \"a\"{2,1}".to_owned(), "counts down"),
            // What looks like a text and is none, and the other way round.
            ("# \"\nroot ::= \"a\"{5,2}".to_owned(), "counts down"),
            ("root ::= (\"a\"{5 #\n, 2})".to_owned(), "counts down"),
            ("root ::= <\"> \"a\"{5,2}".to_owned(), "counts down"),
            (format!("root ::= \"{}\"{{0,2000}}", "x".repeat(60_000)), "repeats too much"),
            (format!("root ::= \"{}\"{{2000}}", "x".repeat(60_000)), "repeats too much"),
            (format!("root{} ::= \"x\"{{0,2000}}", "-x".repeat(30_000)), "repeats too much"),
            ("root ::= (\"a\" \"b\"?){1001}".to_owned(), "repeats too much"),
            (forty(""), "too many ways"),
            (forty("\"<\""), "too many ways"),
            ("root ::= root \"a\" | \"b\"".to_owned(), "itself: 'root'"),
            ("root ::= \"b\" x\nx ::= y | \"\"\ny ::= x".to_owned(), "itself"),
            // Behind what may be nothing, by a detour.
            ("root ::= a root \"x\" | \"y\"\na ::= b\nb ::= \"z\"?".to_owned(), "itself: 'root'"),
            ("root ::= (\"z\"*)*".to_owned(), "itself"),
        ] {
            let refused = rules(&text).err().unwrap_or_default();
            assert!(refused.contains(why), "{text:.60}: {refused}");
        }
    }

    #[test]
    fn what_is_no_grammar_is_refused_with_its_line() {
        for text in [
            "root = \"a\"",
            "root ::= \"a",
            "root ::= [a",
            "root ::= (\"a\"",
            "root ::= *",
            "root ::= \"a\"{",
            "root ::= \"a\"{,2}",
            "root ::= \"a\"{1,2",
            "root ::= \"a\"{99999999999999999999}",
            "root ::= \"\\q\"",
            "root ::= \"\\x4\"",
            "root ::= <a",
            "root ::= !a",
            "root ::= \"a\" ;",
            "root ::= \"\"*",
            "root ::= nothing",
        ] {
            assert!(rules(text).is_err(), "{text}");
        }
        assert_eq!(
            rules("root ::= a\na ::= *").err().as_deref(),
            Some("makes no sense in line 2: there is nothing to repeat")
        );
    }
}
