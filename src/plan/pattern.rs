//! The streamed tensors as a regular expression, which is how libllama wants to be told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::Plan;
use crate::gguf::Index;

impl Plan {
    /// A regular expression (ECMAScript) that matches the streamed tensors' names and no others of `index`.
    ///
    /// One for all, and short: libllama compiles every expression anew for every tensor. Blocks with the same streamed roles
    /// share a branch, and whole blocks need no roles.
    pub fn pattern(&self, index: &Index) -> String {
        let mut roles_of: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
        for unit in &self.streamed {
            let roles = unit.tensors.iter().map(|&t| index.tensors[t].role());
            roles_of.entry(unit.block).or_default().extend(roles);
        }
        let mut branches: BTreeMap<(&str, BTreeSet<&str>), Vec<u32>> = BTreeMap::new();
        for (block, mut roles) in roles_of {
            let block = &index.blocks[block];
            if roles.len() == block.tensors.len() {
                roles.clear();
            }
            branches.entry((block.stack.prefix(), roles)).or_default().push(block.number);
        }
        let branch = |((prefix, roles), numbers): (&(&str, BTreeSet<&str>), &Vec<u32>)| {
            let mut text = escape(prefix) + "\\.";
            text += &any(numbers.iter().map(u32::to_string));
            text += "\\.";
            if !roles.is_empty() {
                let _ = write!(text, "{}$", any(roles.iter().map(|r| escape(r))));
            }
            text
        };
        format!("^{}", any(branches.iter().map(branch)))
    }
}

/// Matches one of `texts`.
fn any(texts: impl Iterator<Item = String>) -> String {
    format!("(?:{})", texts.collect::<Vec<_>>().join("|"))
}

/// Matches `text` literally.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 4);
    for c in text.chars() {
        if "^$\\.*+?()[]{}|/-".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use crate::plan::solve::tests::{cut_plan, whole_plan};

    #[test]
    fn whole_blocks_need_no_roles() {
        let (index, plan) = whole_plan();
        assert!(plan.pattern(&index).starts_with("^(?:blk\\.(?:1|3|5|7|9|11|13|"));
        assert!(plan.pattern(&index).ends_with("|37|39)\\.)"));
    }

    #[test]
    fn parts_are_named() {
        let (index, plan) = cut_plan();
        assert_eq!(
            plan.pattern(&index),
            "^(?:blk\\.(?:0|1|2|3|4|5|6|7|8|9)\\.(?:attn_output\\.weight|attn_q\\.weight|\
             ffn_down\\.weight|ffn_gate\\.weight|ffn_up\\.weight)$)"
        );
    }
}
