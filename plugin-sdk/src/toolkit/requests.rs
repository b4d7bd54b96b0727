// SPDX-License-Identifier: Apache-2.0
//! What nearly every driver asks of a request.

use std::{
    fs::{DirBuilder, Permissions, set_permissions},
    os::unix::fs::{DirBuilderExt, PermissionsExt, chown},
    path::Path,
};

use super::options::{self, DriverOption};
use crate::{
    Capabilities, CreateRequest, DriverError, DriverErrorCode, IoContext, MountRequest,
    OpenRequest, Result,
};

impl OpenRequest {
    /// The options that are meant for the driver called `name`, in order; when a key occurs twice,
    /// the later one is to win.
    ///
    /// # Errors
    /// As [`options::own`].
    pub fn options_of(&self, name: &str) -> Result<Vec<DriverOption<'_>>> {
        options::own(&self.options, &[name], &self.known_drivers)
    }

    /// Refuses every option that is meant for the driver called `name`, which has none.
    ///
    /// # Errors
    /// As [`options::own`], and for every option that is meant for the driver.
    pub fn refuse_options(&self, name: &str) -> Result<()> {
        match self.options_of(name)?.first() {
            Some(option) => Err(option.unknown()),
            None => Ok(()),
        }
    }
}

impl DriverOption<'_> {
    /// The refusal of an option that the driver does not have.
    pub fn unknown(&self) -> DriverError {
        self.refuse(format!("unknown option \"{}\"", self.given_key))
    }

    /// The refusal of a value; `expected` says what it could be.
    pub fn invalid(&self, expected: &str) -> DriverError {
        let (key, value) = (self.given_key, self.value);
        self.refuse(format!(
            "`{value}` is no value for `{key}`: it must be {expected}"
        ))
    }
}

impl CreateRequest {
    /// Refuses every option of the layer: for a driver whose layers have none.
    ///
    /// # Errors
    /// [`INVALID_ARGUMENT`](DriverErrorCode::INVALID_ARGUMENT) that names the option.
    pub fn refuse_options(&self) -> Result<()> {
        let Some(key) = self.storage_options.keys().next() else {
            return Ok(());
        };
        let message = format!("layers of this driver have no option `{key}`");
        Err(DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message).object(key))
    }

    /// Refuses a template: for a driver that does not declare that it can start from one.
    ///
    /// # Errors
    /// [`NOT_SUPPORTED`](DriverErrorCode::NOT_SUPPORTED).
    pub fn refuse_template(&self) -> Result<()> {
        match &self.template {
            Some(template) => {
                Err(DriverError::not_supported("templates").object(template.as_str()))
            }
            None => Ok(()),
        }
    }

    /// Makes `directory`, the root of a layer without a parent: empty, with the mode 0555, whatever
    /// the umask, and the owner that the id maps give to root.
    ///
    /// # Errors
    /// As [`CreateRequest::root_owner`], and what the file system reports.
    ///
    /// # Compatibility
    /// The mode is that of containers/storage under the umask that podman sets.
    pub fn make_root(&self, directory: &Path) -> Result<()> {
        let (uid, gid) = self.root_owner()?;
        let made = DirBuilder::new().mode(0o555).create(directory);
        made.at("cannot create", directory)?;
        let mode = Permissions::from_mode(0o555);
        set_permissions(directory, mode).at("cannot change the mode of", directory)?;
        chown(directory, Some(uid), Some(gid)).at("cannot change the owner of", directory)
    }

    /// The host's user and group id of the layer's root directory.
    ///
    /// # Errors
    /// [`INVALID_ARGUMENT`](DriverErrorCode::INVALID_ARGUMENT) when the id maps leave root out.
    pub fn root_owner(&self) -> Result<(u32, u32)> {
        self.id_maps.root().ok_or_else(|| {
            let message = "the id maps have no entry for the root user";
            DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message).object(self.id.as_str())
        })
    }
}

impl MountRequest {
    /// Refuses everything that needs a declaration and has none in `can`.
    ///
    /// # Behavior
    /// - `volatile` is a permission, so nothing is refused because of it.
    ///
    /// # Errors
    /// [`NOT_SUPPORTED`](DriverErrorCode::NOT_SUPPORTED) that names what was asked for.
    pub fn refuse_undeclared(&self, can: &Capabilities) -> Result<()> {
        let refuse = |what: &str, object: &str| {
            Err(DriverError::not_supported(what).object(object.to_owned()))
        };
        if self.read_only && !can.read_only_mounts {
            return refuse("read-only mounts", "ro");
        }
        match (self.options.first(), &self.label) {
            (Some(option), _) if !can.mount_options => refuse("mount options", option),
            (_, Some(label)) if !can.mount_labels => refuse("mount labels", label),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Host, LayerId, LogLevel};

    struct Quiet;

    impl Host for Quiet {
        fn log(&self, _: LogLevel, _: &str, _: &str) {}
    }

    #[test]
    fn a_driver_without_options_names_the_one_it_refuses() {
        let mut request = OpenRequest::new("/home", "/run", Arc::new(Quiet));
        request.known_drivers = vec!["other".into()];
        request.options = vec!["other.x=1".into()];
        request.refuse_options("mine").unwrap();
        request.options.push("mine.x=1".into());
        let error = request.refuse_options("mine").unwrap_err();
        assert_eq!(error.message, "unknown option \"mine.x\"");
        assert_eq!(error.object.as_deref(), Some("mine.x=1"));
        let options = request.options_of("mine").unwrap();
        let error = options[0].invalid("2");
        assert_eq!(error.message, "`1` is no value for `mine.x`: it must be 2");
    }

    #[test]
    fn a_layer_without_a_mapped_root_or_with_options_is_refused() {
        let mut request = CreateRequest::new(LayerId::new("a").unwrap(), None);
        assert_eq!(request.root_owner(), Ok((0, 0)));
        request.refuse_options().unwrap();
        request.storage_options.insert("size".into(), "1".into());
        let error = request.refuse_options().unwrap_err();
        assert_eq!(error.object.as_deref(), Some("size"));
        request.id_maps.uids = vec![crate::IdMap {
            container_id: 1,
            host_id: 1,
            size: 1,
        }];
        assert!(request.root_owner().is_err());
    }
    #[test]
    fn a_root_has_its_mode_and_its_owner() {
        use std::os::unix::fs::MetadataExt;
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("root");
        let mut request = CreateRequest::new(LayerId::new("a").unwrap(), None);
        let (uid, gid) = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        let to = |host_id| crate::IdMap {
            container_id: 0,
            host_id,
            size: 1,
        };
        (request.id_maps.uids, request.id_maps.gids) = (vec![to(uid)], vec![to(gid)]);
        request.make_root(&path).unwrap();
        let found = std::fs::metadata(&path).unwrap();
        assert_eq!(found.mode() & 0o7777 & !0o555, 0, "nobody may write");
        assert_eq!((found.uid(), found.gid()), (uid, gid));
        assert!(request.make_root(&path).is_err());
        request.refuse_template().unwrap();
        request.template = Some(request.id.clone());
        let code = request.refuse_template().unwrap_err().code;
        assert_eq!(code, DriverErrorCode::NOT_SUPPORTED);
    }

    #[test]
    fn a_mount_that_asks_for_more_than_is_declared_is_refused() {
        let mut can = Capabilities::default();
        let mut request = MountRequest {
            volatile: true,
            ..MountRequest::default()
        };
        request.refuse_undeclared(&can).unwrap();
        request.read_only = true;
        request.options = vec!["nodev".into()];
        request.label = Some("label".into());
        let object = |can: &Capabilities| {
            let error = request.refuse_undeclared(can).err()?;
            assert_eq!(error.code, DriverErrorCode::NOT_SUPPORTED);
            error.object
        };
        assert_eq!(object(&can).as_deref(), Some("ro"));
        can.read_only_mounts = true;
        assert_eq!(object(&can).as_deref(), Some("nodev"));
        can.mount_options = true;
        assert_eq!(object(&can).as_deref(), Some("label"));
        can.mount_labels = true;
        assert_eq!(object(&can), None);
    }
}
