//! How the vectors of tokens become one.

/// What becomes of the vectors of a text's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// They become one as the model was made for, or else their mean.
    OfModel,
    /// Their mean is taken.
    Mean,
    /// The model's head says a number of them: how well a text answers a question.
    Score,
}
