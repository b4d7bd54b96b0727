// SPDX-License-Identifier: Apache-2.0
//! The driver options of vfs.

use std::path::PathBuf;

use plywood_plugin_sdk::{
    Result,
    toolkit::options::{self, DriverOption},
};

/// What the options ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// Graph roots of read-only stores whose layers can be parents.
    pub(crate) image_stores: Vec<PathBuf>,
    /// Failures to change an owner are not errors.
    pub(crate) ignore_chown_errors: bool,
    /// Layers are made durable before they are recorded.
    pub(crate) sync: bool,
}

impl Config {
    /// Reads `options`; those of the drivers in `known` are skipped.
    pub(crate) fn parse(options: &[String], known: &[String]) -> Result<Self> {
        let mut config = Self {
            sync: true,
            ..Self::default()
        };
        for option in options::own(options, &["vfs"], known)? {
            config.set(&option)?;
        }
        Ok(config)
    }

    fn set(&mut self, option: &DriverOption<'_>) -> Result<()> {
        match option.key.as_str() {
            "imagestore" | "additionalimagestore" => {
                self.image_stores.extend(option.image_stores("vfs")?);
            }
            "ignore_chown_errors" => self.ignore_chown_errors = option.boolean()?,
            "sync" => self.sync = option.sync("vfs")?,
            "mountopt" => {
                return Err(option.refuse("vfs driver does not support mount options"));
            }
            key => {
                return Err(option.refuse(format!("vfs driver does not support {key} options")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<Config> {
        let options: Vec<String> = options.iter().map(|&text| text.to_owned()).collect();
        Config::parse(&options, &["overlay".to_owned(), "vfs".to_owned()])
    }

    #[test]
    fn options_of_vfs_are_read_and_those_of_other_drivers_skipped() {
        let config = parse(&[
            "overlay.mountopt=nodev",
            "vfs.ignore_chown_errors=true",
            "VFS.sync = none",
            "imagestore=/usr,/var/../tmp",
            ".imagestore=",
        ])
        .unwrap();
        assert!(config.ignore_chown_errors);
        assert!(!config.sync);
        assert_eq!(
            config.image_stores,
            [PathBuf::from("/usr"), PathBuf::from("/var/../tmp")]
        );
    }

    #[test]
    fn refused_options_are_named() {
        for (option, text) in [
            ("zz", "unable to parse key/value option: zz"),
            (
                "mountopt=nodev",
                "vfs driver does not support mount options",
            ),
            ("vfs.color=red", "vfs driver does not support color options"),
            ("foo.x=1", "unknown driver \"foo\" in option \"foo.x=1\""),
            ("vfs.sync=maybe", "invalid mode for vfs driver: \"maybe\""),
            (
                "ignore_chown_errors=yes",
                "strconv.ParseBool: parsing \"yes\": invalid syntax",
            ),
            (
                "imagestore=rel",
                "vfs: image path \"rel\" is not absolute.  Can not be relative",
            ),
        ] {
            let error = parse(&[option]).unwrap_err();
            assert_eq!(error.message, text, "{option}");
            assert_eq!(error.object.as_deref(), Some(option));
        }
    }
}
