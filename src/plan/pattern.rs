//! The tensors that are elsewhere as regular expressions, which is how libllama wants to be told.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;

use super::Plan;
use crate::gguf::Index;

impl Plan {
    /// A regular expression (ECMAScript) that matches the streamed tensors' names and no others of `index`.
    pub fn pattern(&self, index: &Index) -> String {
        pattern(index, self.streamed.iter().flat_map(|u| &u.tensors).copied().collect())
    }

    /// A regular expression that matches the names of what the CPU computes with while a GPU computes the rest; `None` if there
    /// is no such tensor.
    pub fn cpu_pattern(&self, index: &Index) -> Option<String> {
        let tensors: HashSet<usize> = self.by_cpu.iter().copied().collect();
        (!tensors.is_empty()).then(|| pattern(index, tensors))
    }
}

/// A regular expression that matches the names of `tensors` and no others of `index`.
///
/// One for all, and short: libllama compiles every expression anew for every tensor. Blocks with the same roles share a branch,
/// and whole blocks need no roles.
fn pattern(index: &Index, tensors: HashSet<usize>) -> String {
    let mut roles_of: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
    let mut outside = tensors.clone();
    for (i, block) in index.blocks.iter().enumerate() {
        for t in block.tensors.iter().filter(|t| tensors.contains(t)) {
            roles_of.entry(i).or_default().insert(index.tensors[*t].role());
            outside.remove(t);
        }
    }
    let outside: BTreeSet<&str> = outside.iter().map(|&t| index.tensors[t].name.as_str()).collect();
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
    let outside = outside.into_iter().map(|name| escape(name) + "$");
    format!("^{}", any(branches.iter().map(branch).chain(outside)))
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
    use crate::plan::solve::tests::{cut_plan, partly_plan, whole_plan};

    #[test]
    fn whole_blocks_need_no_roles() {
        let (index, plan) = whole_plan();
        assert!(plan.pattern(&index).starts_with("^(?:blk\\.(?:1|3|5|7|9|11|13|"));
        assert!(plan.pattern(&index).ends_with("|37|39)\\.)"));
    }

    #[test]
    fn what_the_cpu_computes_is_named() {
        let (index, mut plan) = partly_plan();
        assert_eq!(plan.cpu_pattern(&index), None);
        let ends = |role: &str| index.tensors.iter().position(|t| t.name.ends_with(role)).unwrap();
        plan.by_cpu = vec![ends("output.weight"), ends("blk.3.ffn_up.weight")];
        let want = "^(?:blk\\.(?:3)\\.(?:ffn_up\\.weight)$|output\\.weight$)";
        assert_eq!(plan.cpu_pattern(&index).unwrap(), want);
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
