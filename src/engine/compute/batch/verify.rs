//! Drafts in a batch: where they are put, which of their tokens come, and what the context forgets of the others. The target chooses
//! every token itself, with the text's own sampler and generator: a draft is right if it is what was chosen, and decides nothing.
//!
//! The first way of a tree is in the text's own sequence. Each further way has a sequence of its own for the time of the pass; if the
//! text goes that way, its tokens are handed over. Models that keep a state get chains only, and a copy of the state before the pass.

use super::{Batcher, Part, Slot, sequence};
use crate::engine::compute::draft::{By, Drafted, Drafts, HEAD, Pace, Passed, Sketch, Tree};
use crate::engine::error::model_name;
use crate::engine::loaded::Drafting;
use crate::ggml::BatchToken;

impl Batcher {
    /// Lets what is drafted follow from another pace than the clock's.
    pub fn pace_drafts(&mut self, pace: Pace) {
        if let Some(drafts) = &mut self.drafts {
            drafts.pace = pace;
        }
    }

    /// Lets drafts be chains, also where the model's memory would allow for trees.
    pub fn draft_chains(&mut self) {
        self.n_ways = 0;
    }

    /// Keeps how drafts turned out, for plans to come.
    pub fn remember_drafts(&mut self) {
        let by = match &self.loaded.draft {
            Some(Drafting::Model(model)) => By::Model(model_name(&model.loaded().index)),
            Some(Drafting::HeadFile(head)) => By::Head(model_name(&head.index)),
            Some(Drafting::Head) => By::Head(HEAD.to_owned()),
            Some(Drafting::Ngrams) | None => By::Ngrams,
        };
        if let Some(drafts) = &mut self.drafts {
            drafts.remember(&model_name(&self.loaded.index), &by);
        }
    }

    /// Has drafts made for the texts of `shares` that get their next token in this batch, and room for them.
    pub(super) fn draft(&mut self, shares: &[(usize, usize)]) -> Vec<(usize, Tree)> {
        let base: usize = shares.iter().map(|share| share.1).sum();
        let Some(mut drafts) = self.drafts.take() else { return Vec::new() };
        let trees = match !self.drafts_pause && drafts.pace.is_awake() {
            true => {
                let room = self.room_for_drafts(base, shares.len());
                let least = drafts.pace.least();
                let (slots, texts) = self.sketches(shares, room, least);
                let trees = drafts.draft(&texts, base, room);
                slots.into_iter().zip(trees).collect()
            }
            false => Vec::new(),
        };
        self.drafts = Some(drafts);
        let mut trees: Vec<(usize, Tree)> =
            trees.into_iter().map(|(slot, tree)| (slot, self.allowed(slot, &tree))).collect();
        trees.retain(|(_, tree)| !tree.is_empty());
        let wanted: usize = trees.iter().map(|(_, tree)| tree.len()).sum();
        // Nobody makes room for what may be wrong but what texts that have ended left.
        if trees.is_empty() || !self.make_room(base + wanted) {
            return Vec::new();
        }
        trees
    }

    /// Drafted tokens that a batch of `base` tokens of `n` texts has room for.
    fn room_for_drafts(&self, base: usize, n: usize) -> usize {
        let outputs = (self.loaded.n_outputs as usize).saturating_sub(n);
        outputs.min(self.n_ubatch.saturating_sub(base))
    }

    /// The texts that can use drafts.
    fn sketches(
        &self,
        shares: &[(usize, usize)],
        room: usize,
        least: f32,
    ) -> (Vec<usize>, Vec<Sketch<'_>>) {
        // A batch with several sequences of a model that keeps a state is cut by length, into more passes than one.
        if self.has_state && (shares.len() > 1 || self.slots[shares[0].0].n_done == 0) {
            return (Vec::new(), Vec::new());
        }
        let mut texts = Vec::with_capacity(shares.len());
        for &(slot, n) in shares {
            let place = &self.slots[slot];
            let Some(running) = place.running.as_ref() else { continue };
            // What takes long to choose takes long to check.
            if place.n_done + n < place.tokens.len() || !running.is_quick() {
                continue;
            }
            let nodes = self.n_ctx.saturating_sub(place.tokens.len());
            // The target adds one token of its own.
            let nodes = nodes.min(running.left().saturating_sub(1)).min(room);
            if nodes > 0 {
                let forks = self.n_ways > 0;
                texts.push(Sketch { slot, text: &place.tokens, nodes, least, forks });
            }
        }
        (texts.iter().map(|text| text.slot).collect(), texts)
    }

    /// What of a tree the text's grammar allows, and fits: its depth, and its ways.
    fn allowed(&self, slot: usize, tree: &Tree) -> Tree {
        let place = &self.slots[slot];
        let Some(running) = &place.running else { return Tree::default() };
        let most = self.n_ctx.saturating_sub(place.tokens.len()).min(running.left());
        let vocab = self.loaded.model.vocab();
        let fits = tree.retain(|i, node| tree.depth(i) <= most && vocab.contains(node.token));
        let way = |i: usize| {
            let mut way: Vec<_> = std::iter::successors(Some(i), |&at| fits.nodes()[at].parent)
                .map(|at| fits.nodes()[at].token)
                .collect();
            way.reverse();
            way
        };
        match running.has_grammar() {
            true => fits.retain(|i, _| running.would_allow(&way(i))),
            false => fits,
        }
    }

    /// Puts a tree behind its text's last token, which is the batch's last so far.
    pub(super) fn plant(&mut self, part: &mut Part, tree: Tree, used: &mut u32) {
        let free = u32::try_from(self.n_ways).unwrap_or(0).saturating_sub(*used);
        let tree = tree.with_leaves(1 + free as usize);
        let (ranges, leaves) = tree.leaves();
        part.ways = (self.first_way + *used, leaves.saturating_sub(1));
        *used += part.ways.1;
        let own = sequence(part.slot);
        for way in 0..part.ways.1 {
            self.context.copy_sequence(own, part.ways.0 + way);
        }
        // All of the text's tokens are on all ways.
        for entry in self.batch.iter_mut().skip(part.first) {
            entry.ways = part.ways;
        }
        let root = self.slots[part.slot].tokens.len() - 1;
        for (i, (node, range)) in tree.nodes().iter().zip(ranges).enumerate() {
            let first = range.start.max(1) - 1;
            self.batch.push(BatchToken {
                own: range.start == 0,
                ways: (part.ways.0 + first, range.end.saturating_sub(1) - first),
                ..BatchToken::new(node.token, root + tree.depth(i), own, true)
            });
        }
        if self.has_state {
            part.state = self.context.save_state(own);
        }
        part.tree = tree;
    }

    /// A text went as far as node `at` of its tree, or nowhere in it: the context forgets what did not come.
    pub(super) fn settle(&mut self, part: &Part, at: Option<usize>) {
        let Part { slot, tree, ways, state, .. } = part;
        if tree.is_empty() {
            return;
        }
        let own = sequence(*slot);
        let depth = at.map_or(0, |at| tree.depth(at));
        let n_done = self.slots[*slot].n_done;
        let whole = at.is_some_and(|at| at + 1 == tree.len());
        let (ranges, _) = tree.leaves();
        let forgot = match (at, state) {
            // A chain that came as a whole leaves nothing to forget.
            (Some(_), Some(_)) if whole => true,
            (_, Some(state)) => {
                let before = n_done - depth - part.n;
                self.slots[*slot].n_done = before;
                self.context.restore_state(own, state, before)
            }
            (Some(at), None) if ranges[at].start > 0 => {
                let way = ways.0 + ranges[at].start - 1;
                let done = self.context.truncate_sequence(own, n_done - depth);
                self.context.copy_part(way, own, n_done - depth, n_done);
                done
            }
            _ => self.context.truncate_sequence(own, n_done),
        };
        if !forgot {
            self.forget(*slot);
        }
        self.drop_ways(part);
    }

    /// Notes what was computed of a text, which went as far as node `at` of its tree, for who drafts and wants to see it. What drafts
    /// does not see, it does without.
    pub(super) fn note(&mut self, part: &Part, at: Option<usize>) {
        if !self.drafts.as_ref().is_some_and(Drafts::follow) {
            return;
        }
        let nodes = part.tree.nodes();
        let mut rows: Vec<usize> = std::iter::successors(at, |&at| nodes[at].parent)
            .map(|node| part.first + part.n + node)
            .collect();
        rows.reverse();
        rows.splice(..0, part.first..part.first + part.n);
        let Slot { tokens, n_done, .. } = &self.slots[part.slot];
        let text = tokens[..(*n_done).min(tokens.len())].to_vec();
        self.passed.push(Passed { slot: part.slot, text, rows });
    }

    /// Shows who drafts what the pass computed.
    pub(super) fn show_drafters(&mut self) {
        let passed = std::mem::take(&mut self.passed);
        if let Some(drafts) = self.drafts.as_mut().filter(|_| !passed.is_empty()) {
            drafts.saw(&passed, &self.context);
        }
    }

    /// Forgets the sequences that were there for one pass.
    pub(super) fn drop_ways(&mut self, part: &Part) {
        for way in 0..part.ways.1 {
            self.context.truncate_sequence(part.ways.0 + way, 0);
        }
    }

    /// What of a tree came: the way to `at`. Each token of it was checked, and so were those that it was chosen instead of.
    pub(super) fn learn(&mut self, tree: &Tree, at: Option<usize>, ended: bool) -> Drafted {
        let mut way: Vec<usize> =
            std::iter::successors(at, |&at| tree.nodes()[at].parent).collect();
        way.reverse();
        let accepted = way.len();
        let Some(drafts) = &mut self.drafts else { return Drafted::default() };
        let mut before = None;
        for next in way.into_iter().map(Some).chain([None]) {
            if next.is_none() && ended {
                break;
            }
            for (i, node) in tree.nodes().iter().enumerate().filter(|(_, n)| n.parent == before) {
                drafts.pace.checked(node, Some(i) == next);
            }
            before = next;
        }
        if !self.drafts_pause {
            let wrong = !ended && tree.nodes().iter().any(|node| node.parent == at);
            drafts.over(tree, accepted, wrong);
        }
        Drafted { tried: tree.len(), accepted }
    }
}
