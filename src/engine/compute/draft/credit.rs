//! What drafts may lose: a bound that holds for any text, whatever drafters say of themselves. It is counted in tokens: those that
//! would have come in the time that drafts took, less those that came of them.

/// The share of the tokens that drafts may cost in the long run.
const SHARE: f64 = 0.01;

/// What a drafter of whom nothing is known may lose, for each text: repetition is often chance, and a small model knows more.
const FIRST: [f64; 2] = [0.5, 2.0];

/// What a drafter who was right keeps of it, for each text: enough for long drafts, and soon lost by one who is right no more.
const MOST: f64 = 4.0;

/// By drafter, the tokens that it may lose.
#[derive(Debug, Default)]
pub(super) struct Credit {
    left: Vec<f64>,
    texts: f64,
}

impl Credit {
    /// A pass of so many texts begins.
    pub(super) fn pass(&mut self, texts: f64) {
        self.earn(SHARE * texts);
        // Who asks first for more texts than before gets what a first draft may lose for each of them.
        let more = (texts - self.texts).max(0.0);
        for (by, left) in self.left.iter_mut().enumerate() {
            *left += more * first(by);
        }
        self.texts = self.texts.max(texts);
    }

    /// A pass in which nothing is drafted, of as many texts as before.
    pub(super) fn idle(&mut self) {
        self.earn(SHARE * self.texts);
    }

    fn earn(&mut self, tokens: f64) {
        let most = MOST * self.texts.max(1.0);
        self.left.iter_mut().for_each(|left| *left = (*left + tokens).min(most));
    }

    /// What drafter `by` may still lose. (tokens)
    pub(super) fn of(&self, by: usize) -> f64 {
        self.left.get(by).copied().unwrap_or(first(by) * self.texts.max(1.0))
    }

    /// A drafter's tokens cost what so many others take.
    pub(super) fn spend(&mut self, by: usize, tokens: f64) {
        let left = self.of(by) - tokens;
        while self.left.len() <= by {
            let next = self.of(self.left.len());
            self.left.push(next);
        }
        self.left[by] = left;
    }

    /// One of its tokens came.
    pub(super) fn gain(&mut self, by: usize) {
        let most = MOST * self.texts.max(1.0);
        self.spend(by, (self.of(by) - most).clamp(-1.0, 0.0));
    }
}

fn first(by: usize) -> f64 {
    FIRST[by.min(FIRST.len() - 1)]
}
