//! Numbers within bounds, digit by digit: each is read in one way, without an exponent. A bound is what its decimal digits say.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::Value;

use super::Writer;
use crate::ggml::grammar::invalid;
use crate::ggml::result::Error;

/// How many digits numbers have before and after the point, unless a bound has more, and how many a bound may have.
const DIGITS: usize = 16;
const MAX_DIGITS: usize = 60;
/// The most rules for one number: a divisor with many remainders needs more.
const MAX_STATES: usize = 3000;
const MAX_DIVISOR: u64 = 1000;

/// A number without its sign.
#[derive(Clone, Debug, Default, PartialEq)]
struct Digits {
    /// Before the point, without zeros at its beginning.
    whole: Vec<u8>,
    /// After the point, without zeros at its end.
    part: Vec<u8>,
}

/// A bound and whether it is out of bounds itself.
#[derive(Clone, Debug, PartialEq)]
struct Bound {
    negative: bool,
    digits: Digits,
    open: bool,
}

/// What a number must be.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Limits {
    low: Option<Bound>,
    high: Option<Bound>,
    /// What it is a multiple of: this, divided by ten so many times.
    step: Option<(u64, usize)>,
    whole: bool,
}

impl Digits {
    fn of(text: &str) -> Digits {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().map(|c| c - b'0').collect();
        Digits {
            whole: digits(whole.trim_start_matches('0')),
            part: digits(part.trim_end_matches('0')),
        }
    }

    fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.part.is_empty()
    }

    fn cmp(&self, other: &Digits) -> Ordering {
        let key = |digits: &Digits| (digits.whole.len(), digits.whole.clone(), digits.part.clone());
        key(self).cmp(&key(other))
    }
}

impl Bound {
    fn of(value: &Value, open: bool) -> Option<Bound> {
        // All digits, and no exponent.
        let text = match (value.as_i64(), value.as_u64(), value.as_f64()) {
            (Some(n), ..) => n.to_string(),
            (_, Some(n), _) => n.to_string(),
            (.., n) => format!("{}", n?),
        };
        let digits = Digits::of(text.trim_start_matches('-'));
        Some(Bound { negative: text.starts_with('-') && !digits.is_zero(), digits, open })
    }

    fn cmp(&self, other: &Bound) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.digits.cmp(&other.digits),
            (true, true) => other.digits.cmp(&self.digits),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }

    fn is_long(&self) -> bool {
        self.digits.whole.len().max(self.digits.part.len()) > MAX_DIGITS
    }
}

impl Limits {
    /// What `map` says of numbers; of a divisor nothing, if it is too large to be followed.
    ///
    /// # Errors
    ///
    /// Bounds of more digits than can be followed, a divisor that divides nothing.
    pub(super) fn of(map: &serde_json::Map<String, Value>, whole: bool) -> Result<Limits, Error> {
        let bound = |key: &str, open| map.get(key).and_then(|value| Bound::of(value, open));
        let stricter = |a: Option<Bound>, b: Option<Bound>, more: Ordering| match (a, b) {
            (Some(a), Some(b)) => Some(if a.cmp(&b) == more { a } else { b }),
            (a, b) => a.or(b),
        };
        let mut low =
            stricter(bound("minimum", false), bound("exclusiveMinimum", true), Ordering::Greater);
        let mut high =
            stricter(bound("maximum", false), bound("exclusiveMaximum", true), Ordering::Less);
        // What no number that is written here reaches bounds nothing.
        low = low.filter(|low| !(low.negative && low.digits.whole.len() > DIGITS + 1));
        high = high.filter(|high| high.negative || high.digits.whole.len() <= DIGITS + 1);
        if low.iter().chain(&high).any(Bound::is_long) {
            return Err(invalid("has bounds of too many digits"));
        }
        let step = match map.get("multipleOf") {
            None => None,
            Some(value) => {
                let step = Bound::of(value, false).filter(|n| !n.negative && !n.digits.is_zero());
                let step =
                    step.ok_or_else(|| invalid("has a 'multipleOf' that is not more than zero"))?;
                Some(step)
            }
        };
        let step = step.map(|Bound { digits: Digits { whole, part }, .. }| {
            let digits = whole.iter().chain(&part);
            let number = digits
                .fold(0_u64, |n, &digit| n.saturating_mul(10).saturating_add(u64::from(digit)));
            (number, part.len())
        });
        Ok(Limits { low, high, step, whole })
    }

    /// Whether a number may be anything.
    pub(super) fn are_none(&self) -> bool {
        self.low.is_none() && self.high.is_none() && self.step.is_none()
    }

    /// Without the divisor.
    pub(super) fn without_step(self) -> Limits {
        Limits { step: None, ..self }
    }
}

/// Where a number is: in how many digits, before or after the point, how those compare with the bounds', and the remainder.
type State = (bool, usize, Ordering, Ordering, u64);

/// Numbers of one sign.
struct Side<'a> {
    low: Option<&'a Bound>,
    high: Option<&'a Bound>,
    /// The most digits before and after the point.
    digits: (usize, usize),
    step: Option<(u64, usize)>,
    /// The expression after each state that is known; none if no number comes of it.
    known: HashMap<State, Option<String>>,
}

impl Writer<'_> {
    /// The rule of numbers within `limits`; `Ok(None)` if there are none, `Err(())` if it would be too many rules.
    pub(super) fn number(&mut self, limits: &Limits) -> Result<Option<String>, ()> {
        if limits.step.is_some_and(|(step, _)| step > MAX_DIVISOR) {
            return Err(());
        }
        let zero = Bound { negative: false, digits: Digits::default(), open: true };
        let (low, high) = (limits.low.as_ref(), limits.high.as_ref());
        let mut ways = Vec::new();
        if high.is_none_or(|high| !high.negative) {
            let low = low.filter(|low| !low.negative);
            ways.extend(self.side(low, high, limits)?);
        }
        if low.is_none_or(|low| low.negative) {
            // The other way round: what is larger is farther from zero.
            let least = high.filter(|high| high.negative).unwrap_or(&zero);
            let rest = self.side(Some(least), low, limits)?;
            ways.extend(rest.map(|rest| format!("\"-\" {rest}")));
        }
        Ok((!ways.is_empty()).then(|| self.rule(&ways.join(" | "))))
    }

    fn side(
        &mut self,
        low: Option<&Bound>,
        high: Option<&Bound>,
        limits: &Limits,
    ) -> Result<Option<String>, ()> {
        let most = |f: fn(&Digits) -> usize| {
            [low, high].into_iter().flatten().map(|bound| f(&bound.digits)).max().unwrap_or(0)
        };
        // Readers divide numbers of double precision, which have 15 digits for certain.
        let digits = if limits.step.is_some() { DIGITS - 1 } else { DIGITS };
        let whole = digits.max(most(|digits| digits.whole.len()) + 1);
        let part = DIGITS.max(most(|digits| digits.part.len()) + 2);
        let part = limits.step.map_or(part, |(_, shift)| shift);
        let digits = (whole, if limits.whole { 0 } else { part });
        let mut side = Side { low, high, digits, step: limits.step, known: HashMap::new() };
        let begin = (false, 0, Ordering::Equal, Ordering::Equal, 0);
        self.after(&mut side, begin)
    }

    /// What may come after a state; as deep as a number is long.
    fn after(&mut self, side: &mut Side<'_>, state: State) -> Result<Option<String>, ()> {
        if let Some(known) = side.known.get(&state) {
            return Ok(known.clone());
        }
        if side.known.len() > MAX_STATES {
            return Err(());
        }
        let (behind, n, ..) = state;
        let mut ways: Vec<(String, String)> = Vec::new();
        let room = if behind { n < side.digits.1 } else { n < side.digits.0 };
        let mut digits: Vec<(u8, String)> = Vec::new();
        if room && !side.is_lost(state) {
            // A zero before all other digits has a way of its own.
            for digit in u8::from(!behind && n == 0)..10 {
                if let Some(rest) = self.after(side, side.step_to(state, digit))? {
                    digits.push((digit, rest));
                }
            }
        }
        while let Some((from, rest)) = digits.first().cloned() {
            let same = digits.iter().enumerate();
            let n_same = same
                .take_while(|(i, (digit, other))| usize::from(digit - from) == *i && *other == rest)
                .count();
            let class = match n_same {
                1 => format!("[{from}]"),
                n => format!("[{from}-{}]", usize::from(from) + n - 1),
            };
            digits.drain(..n_same);
            ways.push((class, rest));
        }
        let mut end = false;
        if behind {
            end = n > 0 && side.ends(state);
        } else if n > 0 {
            let (ended, point) = self.at_point(side, state)?;
            end = ended;
            ways.extend(point);
        } else if let Some(rest) = self.zero(side)? {
            ways.push(("\"0\"".to_owned(), rest));
        }
        let all: Vec<String> = ways
            .iter()
            .map(|(head, rest)| format!("{head} {rest}").trim_end().to_owned())
            .collect();
        let written = match (all.is_empty(), end) {
            (true, false) => None,
            (true, true) => Some(String::new()),
            (false, true) => Some(self.rule(&format!("({})?", all.join(" | ")))),
            (false, false) => Some(self.rule(&all.join(" | "))),
        };
        side.known.insert(state, written.clone());
        Ok(written)
    }

    /// Whether a number may end before a point, and what comes with one.
    fn at_point(
        &mut self,
        side: &mut Side<'_>,
        state: State,
    ) -> Result<(bool, Option<(String, String)>), ()> {
        let point = side.point(state);
        let rest = if side.digits.1 > 0 { self.after(side, point)? } else { None };
        Ok((side.ends(point), rest.map(|rest| ("\".\"".to_owned(), rest))))
    }

    /// What may come after a zero before the point.
    fn zero(&mut self, side: &mut Side<'_>) -> Result<Option<String>, ()> {
        let none = (false, 0, Ordering::Equal, Ordering::Equal, 0);
        let (end, point) = self.at_point(side, none)?;
        Ok(match (point, end) {
            (None, false) => None,
            (None, true) => Some(String::new()),
            (Some((head, rest)), true) => Some(format!("({head} {rest})?")),
            (Some((head, rest)), false) => Some(format!("{head} {rest}")),
        })
    }
}

impl Side<'_> {
    /// Whether no digit leads within the bounds any more.
    fn is_lost(&self, (behind, n, low, high, _): State) -> bool {
        let too_long = |bound: &Bound| n > bound.digits.whole.len();
        match behind {
            true => {
                high == Ordering::Greater && self.high.is_some()
                    || low == Ordering::Less && self.low.is_some()
            }
            false => self.high.is_some_and(too_long),
        }
    }

    fn digit(bound: Option<&Bound>, behind: bool, n: usize) -> Option<u8> {
        let digits = &bound?.digits;
        Some(if behind {
            digits.part.get(n).copied().unwrap_or(0)
        } else {
            digits.whole.get(n).copied()?
        })
    }

    fn step_to(&self, (behind, n, low, high, rest): State, digit: u8) -> State {
        let compare = |before: Ordering, bound: Option<&Bound>| match before {
            Ordering::Equal => {
                Side::digit(bound, behind, n).map_or(Ordering::Equal, |other| digit.cmp(&other))
            }
            before => before,
        };
        let rest = self.step.map_or(0, |(step, _)| (rest * 10 + u64::from(digit)) % step);
        (behind, n + 1, compare(low, self.low), compare(high, self.high), rest)
    }

    /// The state behind the point.
    fn point(&self, (_, n, low, high, rest): State) -> State {
        let compare = |before: Ordering, bound: Option<&Bound>| {
            let len = bound.map_or(n, |bound| bound.digits.whole.len());
            n.cmp(&len).then(before)
        };
        (true, 0, compare(low, self.low), compare(high, self.high), rest)
    }

    /// Whether a number that is behind its point may end.
    fn ends(&self, (_, n, low, high, rest): State) -> bool {
        let compare = |before: Ordering, bound: &Bound| match before {
            Ordering::Equal if bound.digits.part.len() > n => Ordering::Less,
            before => before,
        };
        let above = self.low.is_none_or(|bound| match compare(low, bound) {
            Ordering::Less => false,
            Ordering::Equal => !bound.open,
            Ordering::Greater => true,
        });
        let below = self.high.is_none_or(|bound| match compare(high, bound) {
            Ordering::Less => true,
            Ordering::Equal => !bound.open,
            Ordering::Greater => false,
        });
        let divides = self
            .step
            .is_none_or(|(step, shift)| (n..shift).fold(rest, |rest, _| rest * 10 % step) == 0);
        above && below && divides
    }
}
