// SPDX-License-Identifier: Apache-2.0
//! Layers of other stores, which are never written.
//!
//! A store says nowhere below which dataset its layers are; it is the one that its home is on, as
//! for a store that is opened without `zfs.fsname`.
//!
//! A child of such a layer on the same pool is a clone, so its owner keeps a snapshot of the layer
//! for as long as the child is there.

use std::path::PathBuf;

use plywood_plugin_sdk::{LayerId, Result, toolkit};

use crate::{dataset::Datasets, parent};

/// Where a layer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) dataset: String,
    /// Whether it is a layer of the store that was asked.
    pub(crate) own: bool,
}

/// The datasets below which read-only stores have their layers.
#[derive(Clone, Debug, Default)]
pub(crate) struct ImageStores(Vec<String>);

impl ImageStores {
    /// Finds the datasets of the stores with the given graph roots; a store without layers of zfs
    /// has none.
    ///
    /// # Errors
    /// [`INCOMPATIBLE_FILESYSTEM`](plywood_plugin_sdk::DriverErrorCode::INCOMPATIBLE_FILESYSTEM)
    /// for a home that is not on zfs.
    pub(crate) fn find(graph_roots: &[PathBuf]) -> Result<Self> {
        let mut parents = Vec::new();
        for root in graph_roots {
            let home = root.join("zfs");
            if toolkit::is_there(&home)? {
                parents.push(parent::of(&home)?);
            }
        }
        Ok(Self(parents))
    }

    /// The datasets below which the layers are.
    pub(crate) fn parents(&self) -> &[String] {
        &self.0
    }

    /// The layer, in the first store that has it.
    pub(crate) fn locate(&self, datasets: &Datasets, id: &LayerId) -> Result<Option<Found>> {
        for parent in &self.0 {
            let dataset = format!("{parent}/{id}");
            if datasets.exists(&dataset)? {
                return Ok(Some(Found {
                    dataset,
                    own: false,
                }));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use plywood_plugin_sdk::DriverErrorCode;

    use super::*;
    use crate::command::fake::Script;

    #[test]
    fn the_first_store_that_has_a_layer_counts() {
        let list = |name: &str| format!("zfs list -H -o name -t filesystem {name}");
        let missing = "!cannot open 'x': dataset does not exist";
        let script = Script::new(&[
            (&list("tank/one/layer"), missing),
            (&list("rust/two/layer"), "rust/two/layer\n"),
            (&list("tank/one/other"), missing),
            (&list("rust/two/other"), missing),
        ]);
        let stores = ImageStores(vec!["tank/one".into(), "rust/two".into()]);
        let datasets = Datasets::impatient(script.clone());
        let locate = |id: &str| {
            stores
                .locate(&datasets, &LayerId::new(id).unwrap())
                .unwrap()
        };
        let found = locate("layer").unwrap();
        assert_eq!(
            (found.dataset.as_str(), found.own),
            ("rust/two/layer", false)
        );
        assert_eq!(locate("other"), None);
        script.finish();
    }

    #[test]
    fn a_store_has_no_layers_of_zfs_or_is_on_zfs() {
        let root = tempfile::tempdir().unwrap();
        let find = || ImageStores::find(&[root.path().to_owned()]);
        assert_eq!(find().unwrap().0, Vec::<String>::new());
        std::fs::create_dir(root.path().join("zfs")).unwrap();
        let error = find().unwrap_err();
        assert_eq!(error.code, DriverErrorCode::INCOMPATIBLE_FILESYSTEM);
        assert!(error.message.contains("/zfs` is not on a zfs filesystem"));
    }
}
