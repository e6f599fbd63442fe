//! What drafts bring, by arithmetic: how many tokens are worth guessing for a pass, and how many come of it, from how often there is a
//! guess, how often it is right, and what passes of several tokens cost. It knows neither who guesses nor what.

use crate::units::Bytes;

/// How a text's drafts turn out.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Habit {
    /// The share of passes for which something is drafted at all.
    pub found: f64,
    /// How often a drafted token comes, if all before it came.
    pub right: f64,
}

/// What drafts are expected to bring.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Gain {
    /// Tokens that are drafted for a pass, where any are.
    pub drafted: u32,
    /// Tokens that a pass brings, its own included.
    pub tokens_per_pass: f64,
    /// Tokens of text per second.
    pub tokens_per_second: f64,
}

/// What drafts are expected to bring to a model.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Foreseen {
    /// Who drafts, for people.
    pub who: String,
    /// How drafts turn out: as usual for their kind, or as was seen of this model.
    pub habit: Habit,
    /// What comes of that.
    pub gain: Gain,
    /// What the model or the head that drafts takes of the memory. (bytes)
    pub memory: Bytes,
    /// Why a head in the model's own file does not draft, where it might have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// The most that drafts of this habit bring if a pass of `n` tokens takes `pass(n)` seconds, drafting takes `each` seconds a token, and
/// a pass has room for `room` of them. No drafts are a possibility, too.
pub fn gain(habit: Habit, pass: impl Fn(u32) -> f64, each: f64, room: u32) -> Gain {
    let Habit { found, right } = habit;
    let (found, right) = (found.clamp(0.0, 1.0), right.clamp(0.0, 1.0));
    let alone = pass(1);
    let mut best = Gain { drafted: 0, tokens_per_pass: 1.0, tokens_per_second: 1.0 / alone };
    let (mut reached, mut come) = (1.0, 0.0);
    for drafted in 1..=room {
        reached *= right;
        come += reached;
        let with = pass(1 + drafted) + each * f64::from(drafted);
        let seconds = found * with + (1.0 - found) * alone;
        let tokens_per_pass = 1.0 + found * come;
        let tokens_per_second = tokens_per_pass / seconds;
        if tokens_per_second > best.tokens_per_second {
            best = Gain { drafted, tokens_per_pass, tokens_per_second };
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Passes that stream for a second, and compute a tenth of one for each token meanwhile.
    fn streamed(n: u32) -> f64 {
        (f64::from(n) * 0.1).max(1.0)
    }

    #[test]
    fn where_tokens_are_free_they_are_drafted() {
        let always = Habit { found: 1.0, right: 0.8 };
        let gain_of = |habit, each| gain(habit, streamed, each, 64);
        let free = gain_of(always, 0.0);
        // Nine are free; those after them cost a tenth of a second, and come with less probability each.
        assert!((9..20).contains(&free.drafted), "{free:?}");
        assert!((4.0..5.0).contains(&free.tokens_per_pass), "{free:?}");
        let dear = gain_of(always, 0.1);
        assert!(dear.drafted < free.drafted && dear.tokens_per_second < free.tokens_per_second);
        let seldom = gain_of(Habit { found: 0.25, ..always }, 0.0);
        assert!((1.5..2.2).contains(&seldom.tokens_per_pass), "{seldom:?}");
        let never = Gain { drafted: 0, tokens_per_pass: 1.0, tokens_per_second: 1.0 };
        assert_eq!(gain_of(Habit { right: 0.0, ..always }, 0.01), never);
        // Passes whose time goes by tokens.
        assert_eq!(gain(always, f64::from, 0.0, 64).drafted, 0);
    }

    proptest! {
        #[test]
        fn drafts_never_cost_by_arithmetic(
            found in 0.0..1.0_f64, right in 0.0..1.0_f64, each in 0.0..0.5_f64, room in 0..64_u32,
        ) {
            let got = gain(Habit { found, right }, streamed, each, room);
            prop_assert!(got.tokens_per_second >= 1.0 && got.drafted <= room);
            prop_assert!(got.tokens_per_pass <= 1.0 + f64::from(got.drafted));
            let more = gain(Habit { found, right }, streamed, each, room + 8);
            prop_assert!(more.tokens_per_second >= got.tokens_per_second);
        }
    }
}
