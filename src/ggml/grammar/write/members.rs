//! What stands in brackets, one after the other: members that must be there or may be left out, in their order, and then others.

use super::Writer;
use crate::ggml::grammar::invalid;
use crate::ggml::result::Error;

/// The most numbers of members that are told apart.
const MAX_STATES: usize = 8192;
/// How often libllama's parser repeats something at once.
const MAX_TIMES: usize = 1000;
/// How many repetitions that may be left out libllama is given to write out, at some 400 bytes each.
const MAX_WRITTEN_OUT: usize = 20_000;
/// Fewer than these take no more room than their rules do.
const FEW: usize = 4;
/// More than any answer has of anything.
const ENDLESS: usize = 16 << 20;

/// What stands in brackets.
pub(super) struct Members {
    /// Expressions, and whether each must be there.
    pub(super) named: Vec<(String, bool)>,
    /// What may come after them, as often as it likes.
    pub(super) more: Option<String>,
    pub(super) least: usize,
    pub(super) most: Option<usize>,
}

impl Writer<'_> {
    /// The members, with commas between them; `None` if there cannot be so many.
    pub(super) fn members(&mut self, members: &Members) -> Result<Option<String>, Error> {
        let Members { named, more, least, most } = members;
        let n = named.len();
        // Beyond this, it does not matter how many there were.
        let cap = most.unwrap_or((*least).max(1)).min(n.max(1));
        if n.saturating_mul(cap) > MAX_STATES {
            return Err(invalid("has too many members to count"));
        }
        // The expressions after the first `i` members, of which `count` were there.
        let mut after = Vec::new();
        for count in 0..=cap {
            after.push(self.rest(more.as_deref(), count, *least, *most));
        }
        for (member, required) in named.iter().rev() {
            let mut here = Vec::new();
            for count in 0..=cap {
                let comma = if count > 0 { "\",\" space " } else { "" };
                let full = most.is_some_and(|most| count >= most);
                let taken = if full { None } else { after[(count + 1).min(cap)].as_ref() };
                let taken =
                    taken.map(|rest| format!("{comma}{member} {rest}").trim_end().to_owned());
                let left = if *required { None } else { after[count].clone() };
                here.push(match (taken, left) {
                    (Some(taken), None) => Some(taken),
                    (None, left) => left,
                    (Some(taken), Some(left)) if left.is_empty() => {
                        Some(self.rule(&format!("({taken})?")))
                    }
                    (Some(taken), Some(left)) => Some(self.rule(&format!("{taken} | {left}"))),
                });
            }
            after = here;
        }
        Ok(after.swap_remove(0))
    }

    /// What comes after `count` members that have names.
    fn rest(
        &mut self,
        more: Option<&str>,
        count: usize,
        least: usize,
        most: Option<usize>,
    ) -> Option<String> {
        let missing = least.saturating_sub(count);
        let room = most.map(|most| most.saturating_sub(count));
        let Some(more) = more.filter(|_| room != Some(0)) else {
            return (missing == 0).then(String::new);
        };
        if room.is_some_and(|room| room < missing) {
            return None;
        }
        let next = self.rule(&format!("\",\" space {more}"));
        if count > 0 {
            return Some(self.times(&next, missing, room));
        }
        let others = self.times(&next, missing.saturating_sub(1), room.map(|room| room - 1));
        let all = format!("{more} {others}");
        Some(if missing == 0 { self.rule(&format!("({all})?")) } else { all })
    }

    /// `rule`, so many times. Where a schema has many such numbers, they share the rules of up to one, up to two, and so on.
    fn between(&mut self, rule: &str, least: usize, most: usize) -> String {
        let spare = most.saturating_sub(least);
        self.n_written_out = self.n_written_out.saturating_add(spare);
        if spare <= FEW || self.n_written_out <= MAX_WRITTEN_OUT {
            return format!("{rule}{{{least},{most}}}");
        }
        let one = self.rule(rule);
        let mut ladder = self.ladders.remove(&one).unwrap_or_default();
        while ladder.len() < spare {
            let body = match ladder.last() {
                Some(fewer) => format!("{one} {fewer} | \"\""),
                None => format!("{one} | \"\""),
            };
            ladder.push(self.rule(&body));
        }
        let rest = ladder[spare - 1].clone();
        self.ladders.insert(one.clone(), ladder);
        if least > 0 { format!("{one}{{{least}}} {rest}") } else { rest }
    }

    /// `rule`, repeated.
    pub(super) fn times(&mut self, rule: &str, least: usize, most: Option<usize>) -> String {
        if least.max(most.unwrap_or(0)) <= MAX_TIMES {
            return match (least, most) {
                (_, Some(0)) => String::new(),
                (0, None) => format!("{rule}*"),
                (1, None) => format!("{rule}+"),
                (least, None) => format!("{rule}{{{least},}}"),
                (least, Some(most)) => self.between(rule, least, most),
            };
        }
        // Many of them at once are a rule, and rules of rules.
        let many = self.rule(&format!("{rule}{{{MAX_TIMES}}}"));
        if least > 0 {
            let (times, left) = (least / MAX_TIMES, least % MAX_TIMES);
            let first = self.times(&many, times, Some(times));
            let then = self.times(rule, left, Some(left));
            let rest = self.times(rule, 0, most.map(|most| most - least));
            return format!("{first} {then} {rest}");
        }
        let Some(most) = most.filter(|most| *most <= ENDLESS) else { return format!("{rule}*") };
        // Up to so many: as many whole rows as there are, then a part of one. Only the row in which the text ends is read in two ways.
        // The part is a rule, too: libllama writes out what is repeated, wherever it stands.
        let part = self.times(rule, 0, Some(MAX_TIMES - 1));
        let part = self.rule(&part);
        let last = self.times(rule, 0, Some((most % MAX_TIMES).max(1)));
        let mut rest = if most % MAX_TIMES == 0 { String::new() } else { self.rule(&last) };
        for _ in 0..most / MAX_TIMES {
            rest = self.rule(&format!("{many} {rest} | {part}"));
        }
        rest
    }
}
