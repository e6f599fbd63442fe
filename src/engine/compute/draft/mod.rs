//! Tokens that may come, to be checked in one pass: a pass over weights that stream costs the same for one token as for sixteen. Who
//! drafts is behind one trait; how much is drafted is arithmetic (`pace`). Checking is the batch's matter.

mod block;
mod credit;
mod drafters;
mod growing;
mod habit;
mod head;
mod model;
mod ngram;
mod pace;
mod room;
mod tree;

pub use block::DraftBlock;
pub use habit::Seen;
pub(in crate::engine) use habit::{By, HEAD, known};
pub use head::DraftHead;
pub use model::DraftModel;
pub use ngram::Ngrams;
pub use pace::Pace;
pub use tree::{Node, Tree};

use crate::ggml::{Context, Token};

/// Somebody who guesses how texts go on.
pub trait Drafter: Send + std::fmt::Debug {
    /// What people call it.
    fn name(&self) -> &str;

    /// What may come after each text. It may be wrong, and is asked in vain if it has no idea.
    fn draft(&mut self, texts: &[Sketch<'_>]) -> Vec<Tree>;

    /// Whether it wants to see each pass.
    fn follows(&self) -> bool {
        false
    }

    /// A pass of the model is over: what it computed of each text, and the context that still has what it came to.
    fn saw(&mut self, _passed: &[Passed], _context: &Context) {}
}

/// What a pass computed of a text, less the drafted tokens that did not come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// The place of the text among all.
    pub slot: usize,
    /// The text as far as it was computed, ...
    pub text: Vec<Token>,
    /// ... and where in the batch the last ones of its tokens were.
    pub rows: Vec<usize>,
}

/// A text whose next tokens are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Sketch<'a> {
    /// The place of the text among all: the same place means that it goes on, or that another took its place.
    pub slot: usize,
    /// All of it.
    pub text: &'a [Token],
    /// The most tokens that are wanted.
    pub nodes: usize,
    /// What is reached with less probability is not worth drafting.
    pub least: f32,
    /// Whether forks are of use.
    pub forks: bool,
}

/// What was drafted and what of it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drafted {
    /// Tokens that were checked.
    pub tried: usize,
    /// Those of them that came.
    pub accepted: usize,
}

/// What drafts for a model.
#[derive(Debug)]
pub struct Drafts {
    drafters: Vec<Box<dyn Drafter>>,
    pub(super) pace: Pace,
    seen: Seen,
}

impl Drafts {
    /// Those that draft, and how fast passes are taken to be.
    pub fn new(drafters: Vec<Box<dyn Drafter>>, pace: Pace) -> Drafts {
        Drafts { drafters, pace, seen: Seen::default() }
    }

    /// Who drafts, for people.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.drafters.iter().map(|drafter| drafter.name()).collect();
        names.join(" and ")
    }

    /// Whether somebody wants to see each pass.
    pub(super) fn follow(&self) -> bool {
        self.drafters.iter().any(|drafter| drafter.follows())
    }

    /// A pass of the model is over.
    pub(super) fn saw(&mut self, passed: &[Passed], context: &Context) {
        self.drafters.iter_mut().for_each(|drafter| drafter.saw(passed, context));
    }

    /// A text's pass is over: `came` of the tokens drafted for it came, and `wrong` says whether another one did.
    pub(super) fn over(&mut self, tree: &Tree, came: usize, wrong: bool) {
        self.seen.pass(!tree.is_empty(), came, wrong);
    }

    /// Keeps how drafts turned out since the last call: for the model called `model`, `by` whom they were.
    pub(super) fn remember(&mut self, model: &str, by: &By) {
        habit::remember(model, by, &std::mem::take(&mut self.seen));
    }

    /// What may come after each of `texts`, of which a pass computes `base` tokens anyway, and at most `room` more: as many as pay.
    pub(super) fn draft(&mut self, texts: &[Sketch<'_>], base: usize, room: usize) -> Vec<Tree> {
        let begin = std::time::Instant::now();
        let mut trees = vec![Tree::default(); texts.len()];
        for (by, drafter) in self.drafters.iter_mut().enumerate() {
            for (tree, drafted) in trees.iter_mut().zip(drafter.draft(texts)) {
                let mut named = Tree::default();
                let mut places = Vec::with_capacity(drafted.len());
                for node in drafted.nodes() {
                    let parent = node.parent.map(|parent: usize| places[parent]);
                    places.push(named.add(Node { parent, by, ..*node }));
                }
                // Without forks, the likeliest chain is all there is room for.
                let forks = texts.first().is_some_and(|text| text.forks);
                let worth = |tree: &Tree| -> f64 { self.pace.reached(tree).iter().sum() };
                if forks || tree.is_empty() {
                    tree.merge(&named);
                } else if worth(&named) > worth(tree) {
                    *tree = named;
                }
            }
        }
        self.pace.drafted(begin.elapsed().as_secs_f64());
        self.pace.cut(&trees, base, room)
    }
}
