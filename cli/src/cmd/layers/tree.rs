// SPDX-License-Identifier: Apache-2.0
//! Layers as a tree.

use std::collections::{HashMap, HashSet};

/// A layer below its parent.
pub(super) struct Node {
    /// The parent's id, or a word for none.
    pub(super) parent: String,
    /// Its id.
    pub(super) id: String,
    /// Lines under it.
    pub(super) notes: Vec<String>,
}

/// The forest, roots with fewest children first (what is missing comes before `(base)`).
///
/// Layers on a circle of parents have no root and are left out, as in containers/storage.
pub(super) fn render(nodes: &[Node]) -> String {
    let ids: HashSet<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
    let mut children: HashMap<&str, Vec<&Node>> = HashMap::new();
    let mut roots: Vec<&str> = Vec::new();
    for node in nodes {
        let parent = node.parent.as_str();
        if !ids.contains(parent) && !children.contains_key(parent) {
            roots.push(parent);
        }
        children.entry(parent).or_default().push(node);
    }
    roots.sort_by_key(|root| children[root].len());
    let mut text = String::new();
    for root in roots {
        text.push_str(root);
        text.push('\n');
        below(root, &children, &mut text);
    }
    text
}

/// Writes what stands on `root`, without recursion: chains can be long.
fn below(root: &str, children: &HashMap<&str, Vec<&Node>>, text: &mut String) {
    let mut open: Vec<(&[&Node], usize)> = vec![(slice(children, root), 0)];
    while let Some((siblings, at)) = open.last().copied() {
        let Some(node) = siblings.get(at) else {
            open.pop();
            if let Some((_, at)) = open.last_mut() {
                *at += 1;
            }
            continue;
        };
        let indent: String = open[..open.len() - 1]
            .iter()
            .map(|(siblings, at)| {
                if at + 1 < siblings.len() {
                    "\u{2502} "
                } else {
                    "  "
                }
            })
            .collect();
        let more = at + 1 < siblings.len();
        let (branch, note) = if more {
            ("\u{251c}\u{2500}", "\u{2502} ")
        } else {
            ("\u{2514}\u{2500}", "  ")
        };
        text.push_str(&indent);
        text.push_str(branch);
        text.push_str(&node.id);
        text.push('\n');
        for line in &node.notes {
            text.push_str(&indent);
            text.push_str(note);
            text.push_str(line);
            text.push('\n');
        }
        open.push((slice(children, &node.id), 0));
    }
}

fn slice<'a>(children: &'a HashMap<&str, Vec<&'a Node>>, id: &str) -> &'a [&'a Node] {
    children.get(id).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(parent: &str, id: &str, notes: &[&str]) -> Node {
        Node {
            parent: parent.into(),
            id: id.into(),
            notes: notes.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn branches_and_notes() {
        let text = render(&[
            node("(base)", "1", &["name: n"]),
            node("1", "2", &[]),
            node("1", "3", &["name: m"]),
            node("3", "4", &["mount: /x"]),
            node("(base)", "5", &[]),
        ]);
        assert_eq!(
            text,
            "(base)\n\u{251c}\u{2500}1\n\u{2502} name: n\n\u{2502} \u{251c}\u{2500}2\n\
             \u{2502} \u{2514}\u{2500}3\n\u{2502}   name: m\n\u{2502}   \u{2514}\u{2500}4\n\
             \u{2502}     mount: /x\n\u{2514}\u{2500}5\n"
        );
    }
}
