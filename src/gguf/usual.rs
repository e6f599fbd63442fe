//! What is usual of mixtures of experts, where nobody has seen the model itself at work.

/// What is hit with a share of the experts kept, for one text: between what was measured of large models, and of a small one whose
/// feed-forward networks were divided into experts. A model is as far from it as these are, some six points.
pub fn usual_hits(share: f64) -> f64 {
    const USUAL: [(f64, f64); 8] = [
        (0.0, 0.0),
        (0.06, 0.31),
        (0.12, 0.55),
        (0.19, 0.68),
        (0.25, 0.77),
        (0.35, 0.86),
        (0.5, 0.935),
        (1.0, 1.0),
    ];
    let between =
        USUAL.windows(2).find(|w| share <= w[1].0).map_or((USUAL[6], USUAL[7]), |w| (w[0], w[1]));
    let ((x0, y0), (x1, y1)) = between;
    (y0 + (y1 - y0) * (share - x0) / (x1 - x0)).min(1.0)
}
