// SPDX-License-Identifier: Apache-2.0
//! What every faulty driver is: the correct one, with some answers replaced.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{
    Capabilities, CreateRequest, DiffView, Driver, ExternalDirectory, LayerId, MountPlan,
    MountRequest, NativeChange, OpenRequest, Removed, Result, Staged, UnpackTarget, Usage,
};

use crate::reference::ReferenceDriver;

/// A correct driver and what the fault remembers.
pub(crate) trait Wrapper: Send + Sync + Sized + 'static {
    fn driver(&self) -> &ReferenceDriver;
}

macro_rules! operations {
    ($(fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $answer:ty;)*) => {
        /// One fault: a method replaces the correct driver's.
        pub(crate) trait Fault: Wrapper {
            /// What the directory of a layer is called.
            const DIRECTORY: fn(&LayerId) -> String = LayerId::to_string;

            /// Changes what the driver is opened with.
            fn before_open(request: &mut OpenRequest) -> Result<()> {
                let _ = request;
                Ok(())
            }

            /// Spoils the tree of a layer that was just made or staged.
            fn spoil(&self, tree: &Path, request: &CreateRequest) -> Result<()> {
                let _ = (tree, request);
                Ok(())
            }

            fn create(&self, request: &CreateRequest) -> Result<()> {
                self.driver().create(request)?;
                let tree = self.driver().unpack_target(&request.id)?.directory;
                self.spoil(&tree, request)
            }

            fn stage(&self, request: &CreateRequest) -> Result<Staged> {
                let staged = self.driver().stage(request)?;
                self.spoil(&staged.target.directory, request)?;
                Ok(staged)
            }

            $(fn $name(&self $(, $argument: $type)*) -> $answer {
                self.driver().$name($($argument),*)
            })*
        }

        impl<F: Fault> Driver for Faulty<F> {
            fn create(&self, request: &CreateRequest) -> Result<()> {
                self.0.create(request)
            }

            fn stage(&self, request: &CreateRequest) -> Result<Staged> {
                self.0.stage(request)
            }

            $(fn $name(&self $(, $argument: $type)*) -> $answer {
                self.0.$name($($argument),*)
            })*
        }
    };
}

/// An open faulty driver.
pub(crate) struct Faulty<F>(pub(crate) F);

operations! {
    fn capabilities(&self) -> Capabilities;
    fn status(&self) -> Result<Vec<(String, String)>>;
    fn remove(&self, id: &LayerId) -> Result<Removed>;
    fn exists(&self, id: &LayerId) -> Result<bool>;
    fn list(&self) -> Result<Vec<LayerId>>;
    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>>;
    fn usage(&self, id: &LayerId) -> Result<Usage>;
    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan>;
    fn mount(&self, id: &LayerId, request: &MountRequest) -> Result<PathBuf>;
    fn unmount(&self, id: &LayerId) -> Result<()>;
    fn released(&self, id: &LayerId) -> Result<()>;
    fn unpack_target(&self, id: &LayerId) -> Result<UnpackTarget>;
    fn diff_view(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<DiffView>;
    fn content_roots(&self, id: &LayerId) -> Result<Vec<PathBuf>>;
    fn native_changes(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Vec<NativeChange>>;
    fn sync_staged(&self, token: &str) -> Result<()>;
    fn adopt(&self, token: &str, request: &CreateRequest) -> Result<()>;
    fn discard(&self, token: &str) -> Result<()>;
    fn trash(&self, id: &LayerId) -> Result<Option<String>>;
    fn reap(&self, token: &str) -> Result<()>;
    fn recover(&self) -> Result<Vec<String>>;
    fn sync(&self, id: &LayerId) -> Result<()>;
    fn image_stores(&self) -> Vec<PathBuf>;
    fn create_external(&self, request: &CreateRequest, external: &ExternalDirectory) -> Result<()>;
    fn external_layer(&self, id: &LayerId) -> Result<Option<PathBuf>>;
    fn close(&self) -> Result<()>;
}
