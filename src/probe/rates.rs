//! How fast this machine reads the model's disk and computes with the model's kinds of weights. Both take a fraction of a
//! second; what is computed with is remembered, because it changes only with the machine.
