// SPDX-License-Identifier: Apache-2.0
//! What nearly every driver asks of a request.

use super::options::{self, DriverOption};
use crate::{CreateRequest, DriverError, DriverErrorCode, OpenRequest, Result};

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
}
