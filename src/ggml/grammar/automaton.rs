//! What texts fit some regular expressions and have some length, as an automaton that is in one state at a time: however an expression is written,
//! its grammar is read in one way. Of characters it knows those that JSON's texts are written with here.

use std::collections::HashMap;

use super::pattern::{Places, Whole};

/// The most states, and how much is looked at to find them.
const MAX_STATES: usize = 6000;
const MAX_STEPS: usize = 4_000_000;

/// The characters that are written, as they are or with a backslash before a letter.
const ALPHABET: [(u32, u32); 5] =
    [(0x8, 0xa), (0xc, 0xd), (0x20, 0x7e), (0x80, 0xd7ff), (0xe000, 0x10_ffff)];

/// States, the first of which is the beginning.
#[derive(Debug)]
pub(super) struct Automaton {
    pub(super) states: Vec<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Ranges of characters, and the state after one of them.
    pub(super) next: Vec<(Ranges, usize)>,
    /// Whether a text may end here.
    pub(super) end: bool,
}

/// There would be too many states.
#[derive(Debug)]
pub(super) struct TooLarge;

/// For each expression the places that the last character may have had, and how many characters there were, as far as they count.
type Name = (Vec<Vec<usize>>, usize);

/// First and last characters.
pub(super) type Ranges = Vec<(u32, u32)>;

/// Stands for the place before all others.
const BEGIN: usize = usize::MAX;

impl Automaton {
    /// What fits all of `wholes` and has at least `min` and at most `max` characters; `None` if nothing does.
    pub(super) fn of(
        wholes: &[Whole],
        min: usize,
        max: Option<usize>,
    ) -> Result<Option<Automaton>, TooLarge> {
        let places: Vec<Places> = wholes.iter().map(|whole| Places::of(&whole.hir)).collect();
        if places.iter().any(|places| places.full) {
            return Err(TooLarge);
        }
        let maker = Maker { wholes, places, min, max };
        let states = maker.states()?;
        Ok(living(states).map(|states| Automaton { states }))
    }

    /// Whether a text fits.
    pub(super) fn fits(&self, text: &str) -> bool {
        let step = |at: usize, c: char| {
            let c = u32::from(c);
            let within = |ranges: &[(u32, u32)]| ranges.iter().any(|&(a, b)| (a..=b).contains(&c));
            self.states[at].next.iter().find(|(ranges, _)| within(ranges)).map(|(_, to)| *to)
        };
        text.chars().try_fold(0, step).is_some_and(|at| self.states[at].end)
    }
}

struct Maker<'a> {
    wholes: &'a [Whole],
    places: Vec<Places>,
    min: usize,
    max: Option<usize>,
}

impl Maker<'_> {
    fn states(&self) -> Result<Vec<State>, TooLarge> {
        let begin: Name = (vec![vec![BEGIN]; self.wholes.len()], 0);
        let mut known = HashMap::from([(begin.clone(), 0)]);
        let (mut names, mut states) = (vec![begin], Vec::new());
        let mut steps = 0;
        while let Some(name) = names.get(states.len()).cloned() {
            let mut state = State { next: Vec::new(), end: self.ends(&name) };
            for (to, ranges) in self.next(&name, &mut steps)? {
                let n = *known.entry(to.clone()).or_insert_with(|| {
                    names.push(to);
                    names.len() - 1
                });
                state.next.push((ranges, n));
            }
            states.push(state);
            if names.len() > MAX_STATES {
                return Err(TooLarge);
            }
        }
        Ok(states)
    }

    fn ends(&self, (at, count): &Name) -> bool {
        let each = at.iter().zip(&self.places).zip(self.wholes);
        *count >= self.min
            && each.into_iter().all(|((at, places), whole)| {
                let is_end = |place: &usize| match *place {
                    BEGIN => places.empty,
                    place => places.last.contains(&place),
                };
                at.iter().any(is_end) == whole.fits
            })
    }

    /// What comes after a state, by which characters.
    fn next(&self, (at, count): &Name, steps: &mut usize) -> Result<Vec<(Name, Ranges)>, TooLarge> {
        if self.max.is_some_and(|max| *count >= max) {
            return Ok(Vec::new());
        }
        let count = self.max.map_or((count + 1).min(self.min), |_| count + 1);
        // Where a range begins, and where one has ended, of which expression's place.
        let mut edges: Vec<(u32, bool, usize, usize)> = Vec::new();
        for (i, (at, places)) in at.iter().zip(&self.places).enumerate() {
            let after = |place: &usize| match *place {
                BEGIN => &places.first,
                place => &places.after[place],
            };
            *steps += at.iter().map(|place| after(place).len()).sum::<usize>();
            if *steps > MAX_STEPS {
                return Err(TooLarge);
            }
            let mut open: Vec<usize> = at.iter().flat_map(after).copied().collect();
            open.sort_unstable();
            open.dedup();
            for place in open {
                let ranges = places.classes[place].ranges();
                *steps += 1 + ranges.len();
                for range in ranges {
                    edges.push((u32::from(range.start()), true, i, place));
                    edges.push((u32::from(range.end()) + 1, false, i, place));
                }
            }
        }
        let all = (0, true, usize::MAX, 0);
        edges.extend(
            ALPHABET.iter().flat_map(|&(a, b)| [(a, true, all.2, 0), (b + 1, false, all.2, 0)]),
        );
        edges.sort_unstable();
        let mut here: Vec<Vec<usize>> = vec![Vec::new(); self.wholes.len()];
        let mut written = false;
        let mut found: Vec<(Name, Ranges)> = Vec::new();
        let mut index: HashMap<Vec<Vec<usize>>, usize> = HashMap::new();
        for (n, &(from, begins, i, place)) in edges.iter().enumerate() {
            match here.get_mut(i) {
                None => written = begins,
                Some(here) if begins => here.push(place),
                Some(here) => here.retain(|other| *other != place),
            }
            let Some(&(to, ..)) = edges.get(n + 1).filter(|next| next.0 > from) else { continue };
            let dead =
                here.iter().zip(self.wholes).any(|(here, whole)| whole.fits && here.is_empty());
            if !written || dead {
                continue;
            }
            let mut name = here.clone();
            name.iter_mut().for_each(|places| places.sort_unstable());
            *steps += 1 + name.iter().map(Vec::len).sum::<usize>();
            if *steps > MAX_STEPS {
                return Err(TooLarge);
            }
            let n = *index.entry(name.clone()).or_insert_with(|| {
                found.push(((name, count), Vec::new()));
                found.len() - 1
            });
            match found[n].1.last_mut() {
                Some(last) if last.1 + 1 == from => last.1 = to - 1,
                _ => found[n].1.push((from, to - 1)),
            }
        }
        Ok(found)
    }
}

/// The states from which there is an end; `None` if the first is none.
fn living(states: Vec<State>) -> Option<Vec<State>> {
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); states.len()];
    for (from, state) in states.iter().enumerate() {
        state.next.iter().for_each(|(_, to)| before[*to].push(from));
    }
    let mut alive = vec![false; states.len()];
    let mut next: Vec<usize> = (0..states.len()).filter(|&n| states[n].end).collect();
    while let Some(n) = next.pop() {
        if !std::mem::replace(&mut alive[n], true) {
            next.extend(&before[n]);
        }
    }
    if !alive.first().is_some_and(|alive| *alive) {
        return None;
    }
    let mut names = vec![0; states.len()];
    let mut n_alive = 0;
    for (name, alive) in names.iter_mut().zip(&alive) {
        *name = n_alive;
        n_alive += usize::from(*alive);
    }
    let kept = states.into_iter().zip(&alive).filter(|(_, alive)| **alive);
    let renamed = kept.map(|(mut state, _)| {
        state.next.retain(|(_, to)| alive[*to]);
        state.next.iter_mut().for_each(|(_, to)| *to = names[*to]);
        state
    });
    Some(renamed.collect())
}

#[cfg(test)]
mod tests {
    use super::super::pattern::parsed;
    use super::*;

    fn fits(pattern: &str, min: usize, max: Option<usize>, text: &str) -> bool {
        let wholes = parsed(pattern).unwrap().unwrap_or_else(|| panic!("{pattern}"));
        let automaton = Automaton::of(&wholes, min, max).unwrap_or_else(|_| panic!("{pattern}"));
        automaton.is_some_and(|automaton| automaton.fits(text))
    }

    #[test]
    fn texts_fit_as_the_expression_says() {
        for (pattern, good, bad) in [
            (r"^[a-z0-9]+(?:-[a-z0-9]+)*$", "a-b1", "a--b"),
            (r"^-?\d+(\.\d+)?$", "-1.5", "1."),
            (r"^\p{L}+$", "é", "1"),
            ("[a-z]+", "1a1", "11"),
            ("^a", "ab", "ba"),
            ("a$", "ba", "ab"),
            ("^yes$|^no$", "no", "noyes"),
            ("yes|no", "anon", "a"),
            (r"^(?=.*[A-Z])(?=.*\d)(?!.*x).{4,}$", "aB1c", "aB1x"),
            (r"^(?!admin$)[a-z]+$", "admins", "admin"),
            ("^((((a*)*)*)*)*b$", "aab", "aa"),
            ("^(a?){0,100}$", "aaa", "b"),
            (r#"^"\\$"#, "\"\\", "\""),
            ("^$", "", "a"),
            ("", "anything\n", "\u{1}"),
            (r"^https?:\/\/[^\s/$.?#].[^\s]*$", "https://a.b", "https:// b"),
            (
                r"^[a-zA-Z0-9.!#$%&'*+\/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$",
                "a@b.c",
                "a@-b",
            ),
            (r"^(?<year>\d{4})$", "2024", "24"),
        ] {
            assert!(fits(pattern, 0, None, good), "{pattern} {good}");
            assert!(!fits(pattern, 0, None, bad), "{pattern} {bad}");
        }
    }

    #[test]
    fn lengths_count_with_expressions() {
        for (text, good) in [("a", false), ("ab", true), ("abc", true), ("abcd", false)] {
            assert_eq!(fits("^[a-z]+$", 2, Some(3), text), good, "{text}");
            assert_eq!(fits("^[a-z]+$", 2, None, text), text.len() >= 2, "{text}");
        }
        let wholes = parsed("^a{5}$").unwrap().unwrap();
        assert!(Automaton::of(&wholes, 6, None).unwrap().is_none());
        let wholes = parsed("^a{4000}$").unwrap().unwrap();
        assert!(Automaton::of(&wholes, 0, None).is_ok());
        let wholes = parsed("a.{20}$").unwrap().unwrap();
        assert!(Automaton::of(&wholes, 0, None).is_err());
    }
}
