// SPDX-License-Identifier: Apache-2.0
//! The driver options of btrfs, and the options of one layer.

use std::{collections::BTreeMap, path::PathBuf};

use plywood_plugin_sdk::{
    DriverError, DriverErrorCode, Result,
    toolkit::options::{self, DriverOption},
};

/// What the options ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Graph roots of read-only stores whose layers can be parents.
    pub(crate) image_stores: Vec<PathBuf>,
    /// The least limit that a layer may have in bytes.
    pub(crate) min_space: u64,
    /// The limit of a writable layer that has none of its own; 0 is none.
    pub(crate) size: u64,
    /// Layers are made durable before they are recorded.
    pub(crate) sync: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image_stores: Vec::new(),
            min_space: 0,
            size: 0,
            sync: true,
        }
    }
}

impl Config {
    /// Reads `options`, later ones over earlier ones; those of the drivers in `known` are skipped.
    pub(crate) fn parse(options: &[String], known: &[String]) -> Result<Self> {
        let mut config = Self::default();
        for option in options::own(options, &["btrfs"], known)? {
            config.set(&option)?;
        }
        Ok(config)
    }

    fn set(&mut self, option: &DriverOption<'_>) -> Result<()> {
        match option.key.as_str() {
            "imagestore" | "additionalimagestore" => {
                self.image_stores.extend(option.image_stores("btrfs")?);
            }
            "min_space" => self.min_space = option.size()?,
            "size" => self.size = option.size()?,
            "sync" => self.sync = option.sync("btrfs")?,
            "mountopt" => {
                return Err(option.refuse("btrfs driver does not support mount options"));
            }
            _ => {
                let (key, text) = (option.given_key, option.text);
                return Err(option.refuse(format!("unknown option {key} (\"{text}\")")));
            }
        }
        Ok(())
    }

    /// The limit that the options of one layer ask for in bytes.
    pub(crate) fn limit(&self, options: &BTreeMap<String, String>) -> Result<Option<u64>> {
        let mut limit = None;
        for (key, value) in options {
            let refuse = |message: String| {
                DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message).object(key)
            };
            if !key.eq_ignore_ascii_case("size") {
                return Err(refuse(format!("unknown option {key} (\"{key}={value}\")")));
            }
            let size = options::size(value).map_err(refuse)?;
            if size == 0 {
                return Err(refuse("btrfs: invalid storage size: 0B".to_owned()));
            }
            if size < self.min_space {
                let message = format!(
                    "btrfs: storage size cannot be less than {} bytes",
                    self.min_space
                );
                return Err(refuse(message).remedy("ask for more, or lower `btrfs.min_space`"));
            }
            limit = Some(size);
        }
        Ok(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<Config> {
        let options: Vec<String> = options.iter().map(|&text| text.to_owned()).collect();
        Config::parse(&options, &["overlay".to_owned(), "btrfs".to_owned()])
    }

    #[test]
    fn options_of_btrfs_are_read_and_those_of_other_drivers_skipped() {
        assert_eq!(parse(&[]).unwrap(), Config::default());
        let config = parse(&[
            "overlay.mountopt=nodev",
            "btrfs.min_space=10m",
            "size = 1g",
            "BTRFS.sync=none",
            "imagestore=/usr,/var",
        ]);
        let expected = Config {
            image_stores: vec!["/usr".into(), "/var".into()],
            min_space: 10 << 20,
            size: 1 << 30,
            sync: false,
        };
        assert_eq!(config.unwrap(), expected);
    }

    #[test]
    fn refused_options_are_named() {
        for (option, text) in [
            (
                "mountopt=nodev",
                "btrfs driver does not support mount options",
            ),
            (
                "btrfs.color=red",
                "unknown option btrfs.color (\"btrfs.color=red\")",
            ),
            (
                "btrfs.sync=maybe",
                "invalid mode for btrfs driver: \"maybe\"",
            ),
            ("btrfs.min_space=x", "invalid size: 'x'"),
        ] {
            let error = parse(&[option]).unwrap_err();
            assert_eq!(error.message, text, "{option}");
            assert_eq!(error.object.as_deref(), Some(option));
        }
    }

    #[test]
    fn a_layer_has_a_limit_that_is_not_below_the_least_one() {
        let config = parse(&["min_space=1m"]).unwrap();
        let limit = |key: &str, value: &str| {
            config.limit(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
        };
        assert_eq!(config.limit(&BTreeMap::new()), Ok(None));
        assert_eq!(limit("size", "1m"), Ok(Some(1 << 20)));
        assert_eq!(limit("Size", "2M"), Ok(Some(2 << 20)));
        for (key, value, text) in [
            ("size", "1023k", "cannot be less than 1048576 bytes"),
            ("size", "0", "invalid storage size"),
            ("size", "-1", "invalid size"),
            ("inodes", "7", "unknown option inodes (\"inodes=7\")"),
        ] {
            let error = limit(key, value).unwrap_err();
            assert_eq!(error.code, DriverErrorCode::INVALID_ARGUMENT);
            assert!(error.message.contains(text), "{key}={value}: {error}");
        }
    }
}
