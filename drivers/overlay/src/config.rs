// SPDX-License-Identifier: Apache-2.0
//! The driver options of overlay.
//!
//! # Compatibility
//! The names, the values and the texts of errors are those of containers/storage,
//! `drivers/overlay/overlay.go`, `parseOptions`.

use std::path::{Component, Path, PathBuf};

use plywood_plugin_sdk::{
    DriverError, DriverErrorCode, Result,
    toolkit::{
        layer_store::StoresConfig,
        options::{self, DriverOption},
    },
};

mod values;

/// What the options ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// `mountopt` as it was given: it is part of the names of cached probes.
    pub(crate) mount_options: String,
    /// A FUSE program that mounts instead of the kernel.
    pub(crate) mount_program: Option<PathBuf>,
    /// The home is not mounted on itself.
    pub(crate) skip_mount_home: bool,
    /// Failures to change an owner are not errors.
    pub(crate) ignore_chown_errors: bool,
    /// Files are stored with this mode.
    pub(crate) force_mask: Option<u32>,
    /// Graph roots of read-only stores whose layers can be parents.
    pub(crate) image_stores: Vec<PathBuf>,
    /// Additional layer stores: where layers may refer to, and how long they are waited for.
    pub(crate) layer_stores: StoresConfig,
    /// The default limit of a writable layer in bytes; 0 is none.
    pub(crate) size: u64,
    /// The default limit of a writable layer in inodes; 0 is none.
    pub(crate) inodes: u64,
    /// Layers are made durable before they are recorded.
    pub(crate) sync: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mount_options: String::new(),
            mount_program: None,
            skip_mount_home: false,
            ignore_chown_errors: false,
            force_mask: None,
            image_stores: Vec::new(),
            layer_stores: StoresConfig::default(),
            size: 0,
            inodes: 0,
            sync: true,
        }
    }
}

/// A refusal of `option`.
pub(crate) fn invalid(message: impl Into<String>, option: &str) -> DriverError {
    DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message).object(option)
}

impl Config {
    /// Reads the options of the driver called `name` in `options`, later ones over earlier ones; those of the drivers in `known` are skipped.
    pub(crate) fn parse(name: &str, options: &[String], known: &[String]) -> Result<Self> {
        let mut config = Self::default();
        for option in options::own(options, &[name, "overlay", "overlay2"], known)? {
            if !config.set(&option)? {
                let key = option.given_key;
                return Err(
                    option.refuse(format!("unknown option \"{key}\" (\"{}\")", option.text))
                );
            }
        }
        Ok(config)
    }

    /// The options of `mountopt`, one by one.
    pub(crate) fn mount_option_list(&self) -> impl Iterator<Item = &str> {
        let options = self.mount_options.split(',').map(str::trim);
        options.filter(|option| !option.is_empty())
    }

    /// Takes one option; `false` when there is none of that name.
    fn set(&mut self, given: &DriverOption<'_>) -> Result<bool> {
        let (value, option) = (given.value, given.text);
        match given.key.as_str() {
            // Kernels that would need it are older than any that is supported.
            "override_kernel_check" => {}
            "mountopt" => self.mount_options = mount_options(value, option)?,
            "size" => self.size = given.size()?,
            "inodes" => self.inodes = given.count()?,
            "imagestore" | "additionalimagestore" => {
                for store in value.split(',').filter(|store| !store.is_empty()) {
                    self.image_stores.push(image_store(store, option)?);
                }
            }
            "mount_program" => self.mount_program = mount_program(value, option)?,
            "skip_mount_home" => self.skip_mount_home = given.boolean()?,
            "ignore_chown_errors" => self.ignore_chown_errors = given.boolean()?,
            "force_mask" => {
                let mask = values::mask(value).map_err(|text| invalid(text, option))?;
                self.force_mask = Some(mask);
            }
            "use_composefs" => {
                if given.boolean()? {
                    return Err(invalid("overlay: composefs is not supported", option)
                        .remedy("remove `use_composefs` from the configuration"));
                }
            }
            "sync" => self.sync = given.sync("overlay")?,
            _ => return self.layer_stores.take(given, "overlay"),
        }
        Ok(true)
    }
}

/// The options that name directories are the driver's own.
fn mount_options(value: &str, option: &str) -> Result<String> {
    for one in value.split(',') {
        let key = one.split('=').next().unwrap_or_default().trim();
        if let "lowerdir" | "lowerdir+" | "datadir+" | "upperdir" | "workdir" = key {
            let message = format!("overlay: mount option \"{key}\" is set by the driver");
            return Err(invalid(message, option));
        }
    }
    Ok(value.to_owned())
}

fn cleaned(path: &str) -> PathBuf {
    Path::new(path)
        .components()
        .filter(|part| *part != Component::CurDir)
        .collect()
}

/// The system's words for the failure, as Go prints them.
fn reason(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => {
            let text = rustix::io::Errno::from_raw_os_error(number).to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            text.to_lowercase()
        }
        None => error.to_string(),
    }
}

fn image_store(store: &str, option: &str) -> Result<PathBuf> {
    let path = cleaned(store);
    let shown = path.display();
    if !path.is_absolute() {
        let message =
            format!("overlay: image path \"{shown}\" is not absolute.  Can not be relative");
        return Err(invalid(message, option));
    }
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => Ok(path),
        Ok(_) => {
            let message = format!("overlay: image path \"{shown}\" must be a directory");
            Err(invalid(message, option))
        }
        Err(error) => {
            let message = format!(
                "overlay: can't stat imageStore dir {shown}: stat {shown}: {}",
                reason(&error)
            );
            Err(invalid(message, option))
        }
    }
}

fn mount_program(value: &str, option: &str) -> Result<Option<PathBuf>> {
    if value.is_empty() {
        return Ok(None);
    }
    match std::fs::metadata(value) {
        Ok(_) => Ok(Some(value.into())),
        Err(error) => {
            let message = format!(
                "overlay: can't stat program \"{value}\": stat {value}: {}",
                reason(&error)
            );
            Err(invalid(message, option)
                .remedy("install the program or correct `mount_program` in storage.conf"))
        }
    }
}

#[cfg(test)]
mod tests;
