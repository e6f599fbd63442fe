//! What libllama spends on the beginnings of rules: it follows each by itself, however many lead to the same one.

use super::{Item, Rules};

/// The most that a rule may begin with, all ways to it counted: libllama follows them all at once. A text of 64 KiB can hold as many
/// alternatives that are written out.
const MAX_BEGINNINGS: u64 = 16 << 10;
/// The most steps of the walk that looks for rules that begin with themselves.
const MAX_STEPS: u64 = 20 << 20;
/// How deep that walk may go.
const MAX_CHAIN: usize = 4096;

/// What is known of a rule's beginnings.
#[derive(Clone, Copy, Default)]
struct Beginnings {
    n: u64,
    /// The longest chain of rules that begin with each other.
    chain: usize,
}

impl Rules {
    /// A rule that begins with itself has no end, and one that begins with too much takes all memory.
    pub(super) fn check_costs(&self) -> Result<(), String> {
        let leads = self.leads();
        let mut known: Vec<Option<Beginnings>> = vec![None; self.rules.len()];
        let mut open = vec![false; self.rules.len()];
        let mut steps = 0_u64;
        for from in 0..self.rules.len() {
            // Rules, and how many of those that they begin with have been looked at.
            let mut path = if known[from].is_none() { vec![(from, 0)] } else { Vec::new() };
            while let Some((rule, looked_at)) = path.last_mut() {
                let rule = *rule;
                open[rule] = true;
                if let Some(&next) = leads[rule].get(*looked_at) {
                    *looked_at += 1;
                    if open[next] {
                        return Err(format!("has a rule that begins with itself{}", self.of(next)));
                    }
                    if known[next].is_none() {
                        path.push((next, 0));
                    }
                    continue;
                }
                let found = self.beginnings(rule, &leads[rule], &known);
                steps = steps.saturating_add(found.n);
                if found.n > MAX_BEGINNINGS || steps > MAX_STEPS || found.chain > MAX_CHAIN {
                    let of = self.of(rule);
                    return Err(format!("has a rule that can begin in too many ways{of}"));
                }
                (known[rule], open[rule]) = (Some(found), false);
                path.pop();
            }
        }
        Ok(())
    }

    fn beginnings(&self, rule: usize, leads: &[usize], known: &[Option<Beginnings>]) -> Beginnings {
        let own = Beginnings { n: self.rules[rule].len() as u64, chain: 1 };
        leads.iter().filter_map(|to| known[*to]).fold(own, |sum, to| Beginnings {
            n: sum.n.saturating_add(to.n),
            chain: sum.chain.max(to.chain + 1),
        })
    }

    /// ": 'name'", if the text has a name for a rule.
    fn of(&self, rule: usize) -> String {
        let name = self.names.iter().find(|(_, named)| **named == rule);
        name.map(|(name, _)| format!(": '{name:.40}'")).unwrap_or_default()
    }

    /// For each rule, those that it may begin with, each as often as it does.
    fn leads(&self) -> Vec<Vec<usize>> {
        let empty = self.may_be_empty();
        let begins = |items: &Vec<Item>| {
            let mut found = Vec::new();
            for item in items {
                let Item::Rule(rule) = item else { break };
                found.push(*rule);
                if !empty[*rule] {
                    break;
                }
            }
            found
        };
        self.rules.iter().map(|rule| rule.iter().flat_map(begins).collect()).collect()
    }

    /// Which rules fit the empty text.
    fn may_be_empty(&self) -> Vec<bool> {
        // Alternatives of nothing but rules: whose they are, and how many of these are not known to be empty. By each rule, where it is.
        let mut open = Vec::new();
        let mut uses = vec![Vec::new(); self.rules.len()];
        for (rule, alternatives) in self.rules.iter().enumerate() {
            for items in alternatives.iter().filter(|items| !items.contains(&Item::Character)) {
                for item in items {
                    if let Item::Rule(of) = item {
                        uses[*of].push(open.len());
                    }
                }
                open.push((rule, items.len()));
            }
        }
        let mut empty = vec![false; self.rules.len()];
        let mut next: Vec<usize> =
            open.iter().filter(|(_, left)| *left == 0).map(|(rule, _)| *rule).collect();
        while let Some(rule) = next.pop() {
            if std::mem::replace(&mut empty[rule], true) {
                continue;
            }
            for &alternative in &uses[rule] {
                let (owner, left) = &mut open[alternative];
                *left -= 1;
                if *left == 0 {
                    next.push(*owner);
                }
            }
        }
        empty
    }
}
