//! Grammars (GBNF), read for tests: texts made at random that fit one, and whether a text does. It knows what airrun writes, and is no parser of others' grammars.

use std::collections::{HashMap, HashSet};
use std::iter::Peekable;
use std::str::Chars;

/// A part of a rule.
#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Class(Vec<(u32, u32)>, bool),
    Rule(String),
    Any(Vec<Vec<Part>>),
    Times(Box<Part>, usize, Option<usize>),
}

#[derive(Debug)]
pub(crate) struct Gbnf {
    rules: HashMap<String, Vec<Vec<Part>>>,
}

/// A row of numbers that looks random.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

impl Gbnf {
    pub(crate) fn read(text: &str) -> Gbnf {
        let mut rules = HashMap::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (name, body) = line.split_once(" ::= ").unwrap_or_else(|| {
                (line.strip_suffix(" ::=").unwrap_or_else(|| panic!("{line}")), "")
            });
            let mut chars = body.chars().peekable();
            let ways = any(&mut chars);
            assert!(chars.next().is_none(), "{line}");
            assert!(rules.insert(name.trim().to_owned(), ways).is_none(), "{name} is there twice");
        }
        Gbnf { rules }
    }

    /// A text that fits; None where it became too long.
    pub(crate) fn text(&self, dice: &mut Dice) -> Option<String> {
        let mut out = String::new();
        let root = Part::Rule("root".to_owned());
        self.say(&root, dice, &mut out, 0).then_some(out)
    }

    fn say(&self, part: &Part, dice: &mut Dice, out: &mut String, depth: usize) -> bool {
        if depth > 400 || out.len() > 20_000 {
            return false;
        }
        let one = |ways: &[Vec<Part>], dice: &mut Dice, out: &mut String| {
            // Deep down, what ends soonest.
            let way = if depth > 60 {
                ways.iter().min_by_key(|way| way.len()).unwrap()
            } else {
                &ways[dice.below(ways.len())]
            };
            way.iter().all(|part| self.say(part, dice, out, depth + 1))
        };
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Class(ranges, negated) => {
                let c = if *negated {
                    let mut c = 'a';
                    while within(ranges, c) {
                        c = ['b', 'z', 'é', '7', ' '][dice.below(5)];
                    }
                    c
                } else {
                    let (a, b) = ranges[dice.below(ranges.len())];
                    let at = a + dice.below((b - a + 1) as usize) as u32;
                    char::from_u32(at).unwrap_or('\u{e000}')
                };
                out.push(c);
            }
            Part::Rule(name) => return one(&self.rules[name], dice, out),
            Part::Any(ways) => return one(ways, dice, out),
            Part::Times(part, least, most) => {
                let most = most.unwrap_or(least + 4);
                let room = (most - least).min(if depth > 60 { 0 } else { 6 });
                let n = if dice.below(4) == 0 && most < 40 && depth < 60 {
                    most
                } else {
                    least + dice.below(room + 1)
                };
                return (0..n).all(|_| self.say(part, dice, out, depth + 1));
            }
        }
        true
    }

    /// Whether a text fits.
    pub(crate) fn fits(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        self.ends(&Part::Rule("root".to_owned()), &text, 0).contains(&text.len())
    }

    /// Where a part may end that begins at `at`.
    fn ends(&self, part: &Part, text: &[char], at: usize) -> HashSet<usize> {
        let any = |ways: &[Vec<Part>]| {
            ways.iter()
                .flat_map(|way| {
                    way.iter().fold(HashSet::from([at]), |from, part| {
                        from.iter().flat_map(|&at| self.ends(part, text, at)).collect()
                    })
                })
                .collect()
        };
        match part {
            Part::Text(part) => {
                let part: Vec<char> = part.chars().collect();
                let fits = text[at..].starts_with(&part);
                fits.then_some(at + part.len()).into_iter().collect()
            }
            Part::Class(ranges, negated) => {
                let fits = text.get(at).is_some_and(|&c| within(ranges, c) != *negated);
                fits.then_some(at + 1).into_iter().collect()
            }
            Part::Rule(name) => any(&self.rules[name]),
            Part::Any(ways) => any(ways),
            Part::Times(part, least, most) => {
                let (mut all, mut here) = (HashSet::new(), HashSet::from([at]));
                for n in 0.. {
                    if n >= *least {
                        let before = all.len();
                        all.extend(&here);
                        if all.len() == before {
                            break;
                        }
                    }
                    if most.is_some_and(|most| n >= most) {
                        break;
                    }
                    here = here.iter().flat_map(|&at| self.ends(part, text, at)).collect();
                }
                all
            }
        }
    }
}

fn within(ranges: &[(u32, u32)], c: char) -> bool {
    ranges.iter().any(|&(a, b)| (a..=b).contains(&u32::from(c)))
}

fn any(chars: &mut Peekable<Chars<'_>>) -> Vec<Vec<Part>> {
    let mut ways = vec![Vec::new()];
    loop {
        let Some(&c) = chars.peek() else { return ways };
        let way = ways.last_mut().unwrap();
        match c {
            ' ' => drop(chars.next()),
            ')' => return ways,
            '|' => {
                chars.next();
                ways.push(Vec::new());
            }
            '"' => {
                chars.next();
                let mut text = String::new();
                while chars.peek() != Some(&'"') {
                    text.push(char::from_u32(letter(chars)).unwrap());
                }
                chars.next();
                way.push(Part::Text(text));
            }
            '[' => {
                chars.next();
                let negated = chars.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                while chars.peek() != Some(&']') {
                    let from = letter(chars);
                    let to = if chars.next_if_eq(&'-').is_some() { letter(chars) } else { from };
                    ranges.push((from, to));
                }
                chars.next();
                way.push(Part::Class(ranges, negated));
            }
            '(' => {
                chars.next();
                let inner = any(chars);
                assert_eq!(chars.next(), Some(')'));
                way.push(Part::Any(inner));
            }
            '*' | '+' | '?' => {
                chars.next();
                let part = Box::new(way.pop().unwrap());
                let (least, most) = match c {
                    '*' => (0, None),
                    '+' => (1, None),
                    _ => (0, Some(1)),
                };
                way.push(Part::Times(part, least, most));
            }
            '{' => {
                chars.next();
                let text: String = chars.by_ref().take_while(|&c| c != '}').collect();
                let (least, most) =
                    text.split_once(',').map_or((text.as_str(), Some(text.as_str())), |(a, b)| {
                        (a, (!b.is_empty()).then_some(b))
                    });
                let number = |text: &str| text.parse().unwrap();
                let part = Box::new(way.pop().unwrap());
                way.push(Part::Times(part, number(least), most.map(number)));
            }
            _ => {
                let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
                let name: String = std::iter::from_fn(|| chars.next_if(is_name)).collect();
                assert!(!name.is_empty(), "{c}");
                way.push(Part::Rule(name));
            }
        }
    }
}

/// A character, escaped or not.
fn letter(chars: &mut Peekable<Chars<'_>>) -> u32 {
    let c = chars.next().unwrap();
    if c != '\\' {
        return c.into();
    }
    let n = match chars.next().unwrap() {
        'n' => return 10,
        'r' => return 13,
        't' => return 9,
        'x' => 2,
        'u' => 4,
        'U' => 8,
        c => return c.into(),
    };
    let digits: String = chars.by_ref().take(n).collect();
    u32::from_str_radix(&digits, 16).unwrap()
}
