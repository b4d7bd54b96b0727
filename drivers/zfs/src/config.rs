// SPDX-License-Identifier: Apache-2.0
//! The driver options of zfs, and the options of one layer.

use std::{collections::BTreeMap, path::PathBuf};

use plywood_plugin_sdk::{
    DriverError, DriverErrorCode, Result,
    toolkit::options::{self, DriverOption},
};

/// What the options ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// The dataset below which layers are made; found by the home's mount when it is not given.
    pub(crate) parent: Option<String>,
    /// Mount options of every layer.
    pub(crate) mount_options: Vec<String>,
    /// Graph roots of read-only stores whose layers can be parents.
    pub(crate) image_stores: Vec<PathBuf>,
}

impl Config {
    /// Reads `options`, later ones over earlier ones; those of the drivers in `known` are skipped.
    pub(crate) fn parse(options: &[String], known: &[String]) -> Result<Self> {
        let mut config = Self::default();
        for option in options::own(options, &["zfs"], known)? {
            config.set(&option)?;
        }
        Ok(config)
    }

    fn set(&mut self, option: &DriverOption<'_>) -> Result<()> {
        match option.key.as_str() {
            "fsname" => {
                let name = option.value;
                if !is_dataset(name) {
                    return Err(option.invalid("the name of a dataset, such as `tank/containers`"));
                }
                self.parent = Some(name.to_owned());
            }
            "mountopt" => {
                self.mount_options = split(option.value);
                for given in &self.mount_options {
                    check_mount_option(given)?;
                }
            }
            "imagestore" | "additionalimagestore" => {
                self.image_stores.extend(option.image_stores("zfs")?);
            }
            // The text of containers/storage, which has no other option either.
            _ => return Err(option.refuse(format!("unknown option {}", option.given_key))),
        }
        Ok(())
    }
}

/// Options that are joined by commas.
fn split(text: &str) -> Vec<String> {
    let options = text.split(',').filter(|option| !option.is_empty());
    options.map(str::to_owned).collect()
}

/// Whether `name` has the form of a dataset's name, with nothing that a program would take for an
/// option, a snapshot or a path. The characters are those of zfs(8).
fn is_dataset(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.: ".contains(&byte);
    let part =
        |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(allowed);
    name.split('/').all(part) && name.as_bytes()[0].is_ascii_alphabetic() && name.len() <= 200
}

/// What the kernel or OpenZFS understands. OpenZFS passes over every word that it does not know, so
/// what is meant otherwise would be lost.
const MOUNT_OPTIONS: &[&str] = &[
    "defaults",
    "ro",
    "rw",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
    "noatime",
    "atime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "nodiratime",
    "diratime",
    "nosymfollow",
    "symfollow",
    "sync",
    "async",
    "dirsync",
    "lazytime",
    "nolazytime",
    "setuid",
    "nosetuid",
    "devices",
    "nodevices",
    "xattr",
    "noxattr",
    "saxattr",
    "dirxattr",
    "nbmand",
    "nonbmand",
];

/// What mount(8) takes for the propagation of a mount.
const PROPAGATION: &[&str] = &[
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
];

/// Whether an option says where mounts inside of a mount are seen.
pub(crate) fn is_propagation(option: &str) -> bool {
    PROPAGATION.contains(&option)
}

/// Refuses an option that would have no effect.
pub(crate) fn check_mount_option(option: &str) -> Result<()> {
    if MOUNT_OPTIONS.contains(&option) || is_propagation(option) {
        return Ok(());
    }
    let message = format!("zfs knows no mount option `{option}`");
    Err(DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message)
        .object(option)
        .remedy(
            "use options of mount(8) that every file system has, or set a property with zfs(8)",
        ))
}

/// The limit that the options of one layer ask for in bytes; `0` is none.
pub(crate) fn limit(options: &BTreeMap<String, String>) -> Result<Option<u64>> {
    let mut limit = None;
    for (key, value) in options {
        let refuse = |message: String| {
            DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message).object(key)
        };
        let key = key.to_lowercase();
        if key != "size" {
            return Err(refuse(format!("unknown option {key}")));
        }
        let size = options::size(value).map_err(refuse)?;
        limit = Some(size).filter(|size| *size > 0);
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<Config> {
        let options: Vec<String> = options.iter().map(|&text| text.to_owned()).collect();
        Config::parse(&options, &["overlay".to_owned(), "zfs".to_owned()])
    }

    #[test]
    fn options_of_zfs_are_read_and_those_of_other_drivers_skipped() {
        assert_eq!(parse(&[]).unwrap(), Config::default());
        let config = parse(&[
            "overlay.mountopt=metacopy=on",
            "zfs.fsname=tank/a b",
            ".mountopt=nodev,,noatime",
            "imagestore=/usr,/var",
        ]);
        let expected = Config {
            parent: Some("tank/a b".to_owned()),
            mount_options: vec!["nodev".to_owned(), "noatime".to_owned()],
            image_stores: vec!["/usr".into(), "/var".into()],
        };
        assert_eq!(config.unwrap(), expected);
        assert_eq!(parse(&["fsname=tank"]).unwrap().parent.unwrap(), "tank");
    }

    #[test]
    fn refused_options_are_named() {
        for (option, text) in [
            ("zfs.size=1g", "unknown option zfs.size"),
            (
                "mountopt=nodev,volatile",
                "zfs knows no mount option `volatile`",
            ),
            ("zfs.fsname=/tank", "`/tank` is no value for `zfs.fsname`"),
            ("fsname=tank@x", "`tank@x` is no value for `fsname`"),
            ("fsname=-r", "`-r` is no value for `fsname`"),
            ("fsname=tank/..", "`tank/..` is no value for `fsname`"),
            ("fsname=", "`` is no value for `fsname`"),
            ("imagestore=rel", "zfs: image path \"rel\" is not absolute"),
        ] {
            let error = parse(&[option]).unwrap_err();
            assert_eq!(error.code, DriverErrorCode::INVALID_ARGUMENT);
            assert!(error.message.starts_with(text), "{option}: {error}");
        }
    }

    #[test]
    fn a_layer_has_a_limit_or_none() {
        let limit =
            |key: &str, value: &str| limit(&BTreeMap::from([(key.to_owned(), value.to_owned())]));
        assert_eq!(super::limit(&BTreeMap::new()), Ok(None));
        assert_eq!(limit("size", "1m"), Ok(Some(1 << 20)));
        assert_eq!(limit("Size", "0"), Ok(None));
        for (key, value, text) in [
            ("size", "-1", "invalid size: '-1'"),
            ("Inodes", "7", "unknown option inodes"),
        ] {
            let error = limit(key, value).unwrap_err();
            assert_eq!(error.code, DriverErrorCode::INVALID_ARGUMENT);
            assert_eq!(error.message, text);
        }
    }
}
