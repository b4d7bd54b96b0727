// SPDX-License-Identifier: Apache-2.0
//! Layers whose files are in an additional layer store.
//!
//! ```text
//! <id>/diff              symlink to STORE/.../DIGEST/diff
//! <id>/additionallayer   the text STORE/.../DIGEST
//! ```
//!
//! # Behavior
//! - Whatever looks at such a layer's files first makes sure that the store answers, since a mount
//!   of a hanging file system cannot be interrupted.
//! - What cannot be said to the store is logged and nothing else: as in containers/storage, uses
//!   are counted for the store's benefit.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use plywood_plugin_sdk::{
    DriverError, DriverErrorCode, ExternalDirectory, Host, IoContext, LayerId, LogLevel, Result,
    toolkit::{
        TempDir,
        layer_store::{LayerDirectory, MARK, Notified},
        patience,
    },
};

use crate::{
    diff,
    driver::TARGET,
    layout::{Attributes, Layout, Place, absent, sync_dir, write_new},
    link::Chain,
    staging::{PLACES, take_down},
};

/// The directory in an additional layer store that the layer in `dir` refers to.
pub(crate) fn directory_of(dir: &Path) -> Result<Option<PathBuf>> {
    let path = dir.join(MARK);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.into())),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(DriverError::io("cannot read", &path, &error)),
    }
}

/// Makes sure that a layer's `diff` can be reached within `limit`, where it leads out of the store.
pub(crate) fn reach(diff: &Path, limit: Duration) -> Result<()> {
    match fs::symlink_metadata(diff) {
        Ok(found) if found.is_symlink() => {}
        // Whoever uses it says what is wrong with it.
        _ => return Ok(()),
    }
    let target = fs::read_link(diff).at("cannot read", diff)?;
    match (target.is_absolute(), target.parent()) {
        (true, Some(directory)) => LayerDirectory::new(directory, limit).check(),
        _ => Err(diff::relative(diff, &target)),
    }
}

/// Tells the additional layer store that a layer's reference to `directory` is gone.
pub(crate) fn release(directory: &Path, limit: Duration, host: &dyn Host) {
    let told = LayerDirectory::new(directory, limit).notify_release();
    report(told, directory, host);
}

fn report(told: Result<Notified>, directory: &Path, host: &dyn Host) {
    let store = directory.display();
    match told {
        Ok(Notified::Counted) => {}
        Ok(Notified::NotCounted(why)) => host.log(
            LogLevel::Debug,
            TARGET,
            &format!("the additional layer store does not count uses of `{store}`: {why}"),
        ),
        Err(error) => host.log(
            LogLevel::Warn,
            TARGET,
            &format!("the additional layer store was not told about `{store}`: {error}"),
        ),
    }
}

impl Layout {
    /// Makes the layer `id` with a reference to `external`.
    ///
    /// # Behavior
    /// - The layer appears whole by one rename, then its link.
    ///
    /// # Compatibility
    /// `CreateAs` in `drivers/overlay/overlay.go`.
    pub(crate) fn refer(
        &self,
        id: &LayerId,
        attributes: &Attributes,
        chain: Option<&Chain>,
        external: &ExternalDirectory,
        host: &dyn Host,
    ) -> Result<()> {
        let text = external
            .directory
            .to_str()
            .filter(|text| text.starts_with('/'));
        let Some(text) = text.filter(|_| external.diff == external.directory.join("diff")) else {
            let shown = external.directory.display();
            let message = format!("`{shown}` cannot be kept as a reference to a layer");
            return Err(DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message)
                .object(shown.to_string()));
        };
        LayerDirectory::new(text, external.timeout).check()?;
        let mut place = TempDir::create_to_build(&self.home.join(PLACES))?;
        let dir = place.addition();
        let built = self.build_reference(&dir, (attributes, chain), text);
        let built = built.and_then(|link| self.appear(&dir, id, &link));
        if let Err(error) = built {
            let (home, own) = (self.home.clone(), true);
            place.spend_reserve();
            let gone = take_down(&Place { dir, home, own });
            if let Err(left) = gone.and_then(|()| place.close()) {
                let text = format!("what was built of layer `{id}` stays for the next: {left}");
                host.log(LogLevel::Warn, TARGET, &text);
            }
            return Err(error);
        }
        let directory = LayerDirectory::new(text, external.timeout);
        report(directory.notify_use(), directory.path(), host);
        place.close()
    }

    fn build_reference(
        &self,
        dir: &Path,
        (attributes, chain): (&Attributes, Option<&Chain>),
        directory: &str,
    ) -> Result<crate::link::LinkId> {
        let link = self.build_parts(dir, None, attributes, chain)?;
        let diff = dir.join("diff");
        fs::remove_dir(&diff).at("cannot remove", &diff)?;
        let target = Path::new(directory).join("diff");
        symlink(&target, &diff).at("cannot create", &diff)?;
        let mark = write_new(&dir.join(MARK), directory, 0o644)?;
        if self.durable {
            mark.sync_all().at("cannot sync", dir.join(MARK))?;
            sync_dir(dir)?;
        }
        Ok(link)
    }

    /// What the layer occupies in the additional layer store.
    pub(crate) fn external_usage(&self, files: PathBuf) -> Result<plywood_plugin_sdk::Usage> {
        let path = files.clone();
        patience::within(self.timeout, "cannot measure", &path, move |pulse| {
            plywood_plugin_sdk::toolkit::tree_usage_with(&files, &|| pulse.beat())
        })
    }
}
