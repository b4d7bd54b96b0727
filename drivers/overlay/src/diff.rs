// SPDX-License-Identifier: Apache-2.0
//! Where a layer's changes are, and whether they can be read there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{
    DiffView, DriverError, IoContext, LayerId, Result, UnpackTarget, WhiteoutForm,
};

use crate::{
    config::Config,
    external,
    layout::{Layout, Place, absent, corrupt},
};

/// The directory with the layer's files: `diff`, or where it points to when the layer's content
/// lives in an additional layer store.
pub(crate) fn content_dir(place: &Place) -> Result<PathBuf> {
    Place::refuse_composefs(&place.dir)?;
    let diff = place.diff();
    match fs::read_link(&diff) {
        Ok(target) if target.is_absolute() => Ok(target),
        Ok(target) => Err(relative(&diff, &target)),
        // Not a link.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
            Ok(diff)
        }
        Err(error) if absent(&error) => {
            let message = format!("the layer has lost its files: `{}`", diff.display());
            Err(corrupt(message, &diff))
        }
        Err(error) => Err(error).at("cannot read", &diff),
    }
}

/// The link `diff` leads nowhere that is known.
pub(crate) fn relative(diff: &Path, target: &Path) -> DriverError {
    let message = format!("linkpath must be absolute (got: \"{}\")", target.display());
    corrupt(message, diff)
}

/// How core unpacks into a layer's directory.
pub(crate) fn unpack_target(
    directory: PathBuf,
    whiteouts: WhiteoutForm,
    config: &Config,
) -> Result<UnpackTarget> {
    let mut entries = fs::read_dir(&directory).at("cannot read", &directory)?;
    let fresh = entries.next().is_none();
    let mut target = UnpackTarget::tree(directory);
    target.whiteouts = whiteouts;
    target.apply_root = false;
    target.implied_directory_mode = 0o777;
    target.implied_directory_umask = true;
    target.ignore_chown_errors = config.ignore_chown_errors;
    target.force_mask = config.force_mask;
    target.fresh = fresh;
    Ok(target)
}

impl Layout {
    /// The directories below a layer, nearest first, as files are looked up in them.
    fn lower_contents(&self, place: &Place) -> Result<Vec<PathBuf>> {
        let further = |dir: &std::path::Path| {
            let names = Self::further_diffs(dir).into_iter();
            names.map(|name| dir.join(name)).collect::<Vec<_>>()
        };
        let mut contents = further(&place.dir);
        for lower in place.read_chain()?.unwrap_or_default().0 {
            let below = self.below(&lower)?;
            let home = self.home.clone();
            external::reach(&below.dir.join("diff"), self.timeout)?;
            let place = Place {
                dir: below.dir,
                home,
                own: below.own,
            };
            contents.push(content_dir(&place)?);
            contents.extend(further(&place.dir));
        }
        Ok(contents)
    }

    /// Directories in which the files of the layer's own tar are found.
    pub(crate) fn content_roots(&self, place: &Place) -> Result<Vec<PathBuf>> {
        external::reach(&place.diff(), self.timeout)?;
        let mut roots = vec![content_dir(place)?];
        roots.extend(self.lower_contents(place)?);
        Ok(roots)
    }

    /// Whether `parent` is what the layer stands on.
    fn is_parent(&self, place: &Place, parent: Option<&LayerId>) -> Result<bool> {
        let chain = place.read_chain()?.unwrap_or_default();
        match (chain.0.first(), parent) {
            (None, None) => Ok(true),
            (Some(lower), Some(parent)) => Ok(self.below(lower)?.dir == self.get(parent)?.dir),
            _ => Ok(false),
        }
    }

    /// How the layer's changes against `parent` can be read.
    ///
    /// # Behavior
    /// - Only against its own parent does `diff` hold them, and only while owners were not changed
    ///   for an id map, which moves them to `diff1`.
    pub(crate) fn diff_view(
        &self,
        place: &Place,
        parent: Option<&LayerId>,
        whiteouts: WhiteoutForm,
    ) -> Result<DiffView> {
        if !self.is_parent(place, parent)? || !Self::further_diffs(&place.dir).is_empty() {
            return Ok(DiffView::Mounted);
        }
        external::reach(&place.diff(), self.timeout)?;
        Ok(DiffView::Upper {
            upper: content_dir(place)?,
            lowers: self.lower_contents(place)?,
            whiteouts,
        })
    }
}
