// SPDX-License-Identifier: Apache-2.0
//! What the driver and its layers can be told.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{
    DriverError, DriverErrorCode, Result,
    toolkit::{
        layer_store::StoresConfig,
        options::{self, DriverOption},
    },
};
use rustix::mount::MountFlags;

/// What a layer may hold beside what it starts with; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes.
    pub(super) size: Option<u64>,
    /// Files, directories and everything else that has an inode.
    pub(super) inodes: Option<u64>,
}

impl Limits {
    /// The limit that needs a file system of its own.
    pub(super) fn any(self) -> Option<&'static str> {
        let set = |limit: Option<u64>| limit.is_some_and(|limit| limit > 0);
        if set(self.size) {
            return Some("size");
        }
        set(self.inodes).then_some("inodes")
    }
}

/// Driver options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Config {
    /// Graph roots of read-only stores whose layers can be parents.
    pub(super) image_stores: Vec<PathBuf>,
    /// The limit of a writable layer that says nothing itself; 0 is none.
    pub(super) size: u64,
    /// Additional layer stores, and how long they are waited for.
    pub(super) layer_stores: StoresConfig,
}

fn invalid(message: String, option: &str) -> DriverError {
    DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message).object(option)
}

impl Config {
    /// Reads `given`; the options of the drivers in `known` are skipped, and the last of several
    /// counts.
    pub(super) fn parse(name: &str, given: &[String], known: &[String]) -> Result<Self> {
        let mut config = Self::default();
        for option in options::own(given, &[name], known)? {
            if config.layer_stores.take(&option, name)? {
                continue;
            }
            match option.key.as_str() {
                "imagestore" | "additionalimagestore" => {
                    let stores = option.value.split(',').filter(|store| !store.is_empty());
                    let stores = stores.map(|store| image_store(store, &option));
                    config.image_stores = stores.collect::<Result<_>>()?;
                }
                "size" => config.size = option.size()?,
                key => {
                    let message = format!("{name} does not know the option `{key}`");
                    return Err(option.refuse(message).remedy("use `size` or `imagestore`"));
                }
            }
        }
        Ok(config)
    }
}

fn image_store(store: &str, option: &DriverOption<'_>) -> Result<PathBuf> {
    let path = Path::new(store);
    if path.is_absolute() && path.is_dir() {
        return Ok(path.to_owned());
    }
    let message = format!("the image store `{store}` is not an absolute path of a directory");
    Err(option.refuse(message))
}

/// The limits that a layer's own options ask for.
pub(super) fn layer_limits(given: &BTreeMap<String, String>) -> Result<Limits> {
    let mut limits = Limits::default();
    for (key, value) in given {
        match key.as_str() {
            "size" => {
                let size = options::size(value).map_err(|message| invalid(message, key))?;
                limits.size = Some(size);
            }
            "inodes" => {
                let number = value.parse().map_err(|_| {
                    invalid(format!("`{value}` is not a number of files"), key)
                        .remedy("use `inodes=NUMBER`")
                })?;
                limits.inodes = Some(number);
            }
            key => {
                let message = format!("a layer has no option `{key}`");
                return Err(invalid(message, key).remedy("use `size` or `inodes`"));
            }
        }
    }
    Ok(limits)
}

/// The flags that mount options ask for.
pub(super) fn mount_flags(given: &[String]) -> Result<MountFlags> {
    let mut flags = MountFlags::empty();
    for option in given {
        flags |= match option.as_str() {
            "ro" => MountFlags::RDONLY,
            "nosuid" => MountFlags::NOSUID,
            "nodev" => MountFlags::NODEV,
            "noexec" => MountFlags::NOEXEC,
            "noatime" => MountFlags::NOATIME,
            "nodiratime" => MountFlags::NODIRATIME,
            _ => {
                let message = format!("a layer cannot be mounted with the option `{option}`");
                return Err(invalid(message, option)
                    .remedy("use ro, nosuid, nodev, noexec, noatime or nodiratime"));
            }
        };
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_options_are_named() {
        let known = ["other".to_owned()];
        let parse = |option: &str| Config::parse("me", &[option.to_owned()], &known);
        assert_eq!(parse("other.size=x"), Ok(Config::default()));
        assert_eq!(parse("me.size=1k").unwrap().size, 1024);
        for bad in [
            "size",
            "size=x",
            "color=red",
            "nobody.size=1",
            "imagestore=rel",
        ] {
            let error = parse(bad).unwrap_err();
            assert_eq!(error.code, DriverErrorCode::INVALID_ARGUMENT, "{bad}");
            assert_eq!(error.object.as_deref(), Some(bad));
        }
        assert!(mount_flags(&["nodev".into(), "bogus".into()]).is_err());
        let limits = |key: &str, value: &str| {
            layer_limits(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
        };
        assert_eq!(limits("inodes", "7").unwrap().inodes, Some(7));
        assert_eq!(limits("inodes", "0").unwrap().any(), None);
        for (key, value) in [("inodes", "many"), ("inodes", "-1"), ("blocks", "1")] {
            let error = limits(key, value).unwrap_err();
            assert_eq!(error.object.as_deref(), Some(key));
        }
    }
}
