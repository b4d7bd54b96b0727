// SPDX-License-Identifier: Apache-2.0
//! The directory at which a layer is mounted.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{
    DriverError, DriverErrorCode, Host, IoContext, LayerId, LogLevel, Result,
};

use crate::{
    driver::TARGET,
    layout::{Place, absent, make_dir, make_dirs},
};

/// Where the layer appears: `merged`; for a layer of an image store, which is not written to, a
/// directory below the run root.
pub(crate) fn path(id: &LayerId, place: &Place, run_dir: &Path) -> PathBuf {
    if place.own {
        place.dir.join("merged")
    } else {
        run_dir.join(id.as_str()).join("merged")
    }
}

/// The same, and makes the directory when it is missing: containers/storage 1.43 removes it when
/// it unmounts.
pub(crate) fn ready(id: &LayerId, place: &Place, run_dir: &Path) -> Result<PathBuf> {
    let target = path(id, place, run_dir);
    match fs::symlink_metadata(&target) {
        Ok(_) => {}
        Err(error) if !absent(&error) => {
            return Err(DriverError::io("cannot stat", &target, &error));
        }
        Err(_) if place.own => make(&target, place)?,
        Err(_) => make_dirs(&target, 0o700)?,
    }
    Ok(target)
}

fn make(target: &Path, place: &Place) -> Result<()> {
    let diff = place.diff();
    // Not what it leads to: an additional layer store may hang.
    let found = fs::symlink_metadata(&diff).at("cannot stat", &diff)?;
    make_dir(target, 0o700, (found.uid(), found.gid()))
}

/// Puts a fresh directory in the place of a mount that has gone.
///
/// # Behavior
/// - By rename over the old one, so that there is always one; what still keeps the old one busy
///   keeps a directory that is gone.
/// - On a full disk the old one stays: unmounting is what makes room there.
/// - So does one with files in it, which somebody wrote there who did not see that the mount had
///   gone: the next mount covers them, and they go with the layer.
pub(crate) fn renew(id: &LayerId, place: &Place, run_dir: &Path, host: &dyn Host) -> Result<()> {
    let target = path(id, place, run_dir);
    let kept = if place.own {
        let fresh = place.dir.join("merged.1");
        remove(&fresh)?;
        match make(&fresh, place) {
            Err(error) if error.code == DriverErrorCode::NO_SPACE => return Ok(()),
            made => made?,
        }
        match fs::rename(&fresh, &target) {
            Err(error) if has_entries(&error) => {
                remove(&fresh)?;
                true
            }
            renamed => renamed.at("cannot replace", &target).map(|()| false)?,
        }
    } else {
        !remove(&target)? || !remove(&run_dir.join(id.as_str()))?
    };
    if kept {
        let text = format!(
            "files were written to `{}` while layer `{id}` was not mounted there",
            target.display()
        );
        host.log(LogLevel::Warn, TARGET, &text);
    }
    Ok(())
}

/// Says whether it is gone; a directory with files in it stays.
fn remove(path: &Path) -> Result<bool> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if has_entries(&error) => Ok(false),
        Err(error) => Err(DriverError::io("cannot remove", path, &error)),
    }
}

/// POSIX allows two numbers for it; xfs uses the other one in renames.
fn has_entries(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Host for Counting {
        fn log(&self, _: LogLevel, _: &str, _: &str) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn place(root: &Path, own: bool) -> Place {
        let dir = root.join("home/layer");
        fs::create_dir_all(dir.join("diff")).unwrap();
        Place {
            dir,
            home: root.join("home"),
            own,
        }
    }

    #[test]
    fn the_directory_is_made_when_missing_and_replaced_after_use() {
        let root = tempfile::tempdir().unwrap();
        let (id, run) = (LayerId::new("layer").unwrap(), root.path().join("run"));
        let own = place(root.path(), true);
        let target = ready(&id, &own, &run).unwrap();
        assert_eq!(target, own.dir.join("merged"));
        let before = fs::metadata(&target).unwrap();
        assert_eq!(before.mode() & 0o7777, 0o700);
        fs::create_dir(own.dir.join("merged.1")).unwrap();
        renew(&id, &own, &run, &Counting::default()).unwrap();
        assert_ne!(fs::metadata(&target).unwrap().ino(), before.ino());
        assert!(!own.dir.join("merged.1").exists());
    }

    #[test]
    fn files_that_were_written_into_it_stay_and_stop_nothing() {
        let root = tempfile::tempdir().unwrap();
        let (id, run) = (LayerId::new("layer").unwrap(), root.path().join("run"));
        for own in [true, false] {
            let place = place(root.path(), own);
            let target = ready(&id, &place, &run).unwrap();
            fs::write(target.join("late"), "x").unwrap();
            let host = Counting::default();
            renew(&id, &place, &run, &host).unwrap();
            assert!(target.join("late").exists());
            assert!(!place.dir.join("merged.1").exists());
            assert_eq!(host.0.into_inner(), 1);
        }
    }

    #[test]
    fn nothing_is_made_in_an_image_store() {
        let root = tempfile::tempdir().unwrap();
        let (id, run) = (LayerId::new("layer").unwrap(), root.path().join("run"));
        let theirs = place(root.path(), false);
        assert_eq!(ready(&id, &theirs, &run).unwrap(), run.join("layer/merged"));
        assert!(!theirs.dir.join("merged").exists());
        renew(&id, &theirs, &run, &Counting::default()).unwrap();
        assert!(!run.join("layer").exists());
    }
}
