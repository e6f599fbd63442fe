//! Many models behind one address: each is loaded when somebody asks for it, and let go when nobody has for a while or another needs
//! its memory. Every loaded model is a [`Server`](super::server::Server) of its own with a worker and paths, as if it were the only one; this finds the one that a
//! request means, and answers what concerns all of them (`list`). `rooms` says who is loaded and who must go.

mod attend;
mod front;
mod keeper;
mod list;
mod offer;
mod rooms;

pub(super) use attend::attend;
pub use offer::{Household, Offer};
