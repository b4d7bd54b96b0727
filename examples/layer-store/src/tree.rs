// SPDX-License-Identifier: Apache-2.0
//! What is served: files by number, and how often layers are used.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    fmt::Write,
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The folder and what is known about it.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    nodes: Mutex<Nodes>,
    uses: Mutex<BTreeMap<PathBuf, u64>>,
}

/// Paths by number; files with several names have one number.
#[derive(Debug, Default)]
struct Nodes {
    paths: Vec<PathBuf>,
    numbers: HashMap<(u64, u64), u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one step, so a panic elsewhere leaves the data whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tree {
    /// The number of the folder itself.
    pub const ROOT: u64 = 1;
    /// The number of the file with the counters.
    pub const USES: u64 = 2;
    /// The name of the file with the counters.
    pub const USES_NAME: &'static str = "uses";
    const FIRST: u64 = 3;

    /// The folder `root`.
    ///
    /// # Errors
    /// It cannot be found.
    pub fn new(root: &Path) -> io::Result<Self> {
        Ok(Self {
            root: root.canonicalize()?,
            nodes: Mutex::default(),
            uses: Mutex::default(),
        })
    }

    /// Where the file with that number is.
    ///
    /// # Errors
    /// There is none.
    pub fn path(&self, number: u64) -> io::Result<PathBuf> {
        if number == Self::ROOT {
            return Ok(self.root.clone());
        }
        let index = number.checked_sub(Self::FIRST);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let nodes = lock(&self.nodes);
        let path = index.and_then(|index| nodes.paths.get(index));
        path.cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The file called `name` in a directory: its number and what it is.
    ///
    /// # Errors
    /// There is none, and what the file system reports.
    pub fn find(&self, directory: u64, name: &OsStr) -> io::Result<(u64, Metadata)> {
        let path = self.path(directory)?.join(name);
        let found = fs::symlink_metadata(&path)?;
        Ok((self.number(path, &found), found))
    }

    /// The number of the file at `path`.
    pub fn number(&self, path: PathBuf, found: &Metadata) -> u64 {
        let mut nodes = lock(&self.nodes);
        let next = nodes.paths.len() as u64 + Self::FIRST;
        let key = (found.dev(), found.ino());
        let number = *nodes.numbers.entry(key).or_insert(next);
        if number == next {
            nodes.paths.push(path);
        }
        number
    }

    /// Whether the directory with that number is a layer.
    pub fn is_layer(&self, number: u64) -> bool {
        self.path(number).is_ok_and(|path| {
            let there = |part: &str| path.join(part).symlink_metadata().is_ok();
            path != self.root && there("diff") && there("info")
        })
    }

    /// Counts a use of the layer with that number.
    ///
    /// # Errors
    /// There is none.
    pub fn add_use(&self, layer: u64) -> io::Result<()> {
        let path = self.path(layer)?;
        *lock(&self.uses).entry(path).or_default() += 1;
        Ok(())
    }

    /// Takes a use of the layer away; one that nobody uses stays at none.
    ///
    /// # Errors
    /// There is none.
    pub fn end_use(&self, layer: u64) -> io::Result<()> {
        let path = self.path(layer)?;
        let mut uses = lock(&self.uses);
        if let Some(count) = uses.get_mut(&path) {
            *count -= 1;
            if *count == 0 {
                // Here a store may drop what it has fetched of the layer.
                uses.remove(&path);
            }
        }
        Ok(())
    }

    /// The layers in use, a line for each.
    pub fn uses(&self) -> String {
        let mut text = String::new();
        for (path, count) in &*lock(&self.uses) {
            let name = path.strip_prefix(&self.root).unwrap_or(path);
            // Writing to a string cannot fail.
            let _ok = writeln!(text, "{} {count}", name.display());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_file_have_one_number_and_uses_are_counted() {
        let root = tempfile::tempdir().unwrap();
        let layer = root.path().join("sha256:aa");
        fs::create_dir_all(layer.join("diff")).unwrap();
        fs::write(layer.join("info"), "").unwrap();
        fs::hard_link(layer.join("info"), layer.join("blob")).unwrap();
        let tree = Tree::new(root.path()).unwrap();
        let (layer, _) = tree.find(Tree::ROOT, OsStr::new("sha256:aa")).unwrap();
        assert!(tree.is_layer(layer) && !tree.is_layer(Tree::ROOT));
        let (info, _) = tree.find(layer, OsStr::new("info")).unwrap();
        assert_eq!(tree.find(layer, OsStr::new("blob")).unwrap().0, info);
        assert!(tree.find(layer, OsStr::new("use")).is_err());
        assert!(tree.path(99).is_err());
        assert_eq!(tree.uses(), "");
        tree.end_use(layer).unwrap();
        tree.add_use(layer).unwrap();
        tree.add_use(layer).unwrap();
        tree.end_use(layer).unwrap();
        assert_eq!(tree.uses(), "sha256:aa 1\n");
        tree.end_use(layer).unwrap();
        assert_eq!(tree.uses(), "");
    }
}
