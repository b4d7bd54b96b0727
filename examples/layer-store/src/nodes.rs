// SPDX-License-Identifier: Apache-2.0
//! What the kernel knows by number.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Something that is shown.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Root,
    /// The directory for those who ask with an image's name.
    Reference,
    /// The directory of the layer with this digest.
    Layer(String),
    Status,
    /// A file or directory on disk.
    OnDisk(PathBuf),
}

/// What makes two nodes the same: names of one file on disk are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Named(PathBuf),
    OnDisk { device: u64, inode: u64 },
}

/// Nodes by number, for as long as the kernel remembers them.
#[derive(Debug)]
pub(crate) struct Nodes {
    known: HashMap<u64, Known>,
    numbers: HashMap<Key, u64>,
    next: u64,
}

#[derive(Debug)]
struct Known {
    node: Node,
    key: Key,
    lookups: u64,
}

impl Nodes {
    pub(crate) fn new() -> Self {
        let key = Key::Named(PathBuf::new());
        let root = Known {
            node: Node::Root,
            key: key.clone(),
            // The kernel never forgets it.
            lookups: 1,
        };
        Self {
            known: HashMap::from([(1, root)]),
            numbers: HashMap::from([(key, 1)]),
            next: 2,
        }
    }

    pub(crate) fn get(&self, number: u64) -> Option<Node> {
        self.known.get(&number).map(|known| known.node.clone())
    }

    /// Notes that the kernel has got `node`, which is called `name` below the root unless it is on
    /// disk; returns its number.
    pub(crate) fn found(&mut self, name: &Path, node: &Node) -> io::Result<u64> {
        let key = match node {
            Node::OnDisk(path) => {
                let found = fs::symlink_metadata(path)?;
                Key::OnDisk {
                    device: found.dev(),
                    inode: found.ino(),
                }
            }
            _ => Key::Named(name.to_owned()),
        };
        if let Some(number) = self.numbers.get(&key)
            && let Some(known) = self.known.get_mut(number)
        {
            known.lookups += 1;
            return Ok(*number);
        }
        let number = self.next;
        self.next += 1;
        self.numbers.insert(key.clone(), number);
        let node = node.clone();
        let known = Known {
            node,
            key,
            lookups: 1,
        };
        self.known.insert(number, known);
        Ok(number)
    }

    /// Notes that the kernel has forgotten a node as often as `times`.
    pub(crate) fn forget(&mut self, number: u64, times: u64) {
        let Some(known) = self.known.get_mut(&number) else {
            return;
        };
        known.lookups = known.lookups.saturating_sub(times);
        if known.lookups == 0 && number != 1 {
            let key = known.key.clone();
            self.known.remove(&number);
            self.numbers.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_file_are_one_node_until_all_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("one"), dir.path().join("other"));
        fs::write(&one, "x").unwrap();
        fs::hard_link(&one, &other).unwrap();
        let mut nodes = Nodes::new();
        let name = Path::new("unused");
        let first = nodes.found(name, &Node::OnDisk(one.clone())).unwrap();
        let second = nodes.found(name, &Node::OnDisk(other)).unwrap();
        assert_eq!(first, second);
        nodes.forget(first, 1);
        assert!(nodes.get(first).is_some());
        nodes.forget(first, 1);
        assert!(nodes.get(first).is_none());
        let again = nodes.found(name, &Node::OnDisk(one)).unwrap();
        assert_ne!(again, first, "numbers are not used twice");
        nodes.forget(1, 9);
        assert!(matches!(nodes.get(1), Some(Node::Root)));
    }
}
