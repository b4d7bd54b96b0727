// SPDX-License-Identifier: Apache-2.0
//! Directories in which callers keep their own files beside images and containers.

use std::path::{Path, PathBuf};

use super::{Store, make_dir, record_dir};
use crate::{
    Result,
    containers::{Lifetime, USER_DATA, read_file, write_file},
};

impl Store {
    /// A directory of the caller that goes with the image; made when it is missing.
    ///
    /// # Errors
    /// `ImageUnknown`, and what making the directory reports.
    ///
    /// # Compatibility
    /// It is named by the image's id; containers/storage takes the argument as it is.
    pub fn image_directory(&self, what: &str) -> Result<PathBuf> {
        self.directory_of_image(what, &self.graph_dir("images"))
    }

    /// The same, until the next restart of the host.
    ///
    /// # Errors
    /// As [`Store::image_directory`].
    pub fn image_run_directory(&self, what: &str) -> Result<PathBuf> {
        self.directory_of_image(what, &self.run_dir("images"))
    }

    fn directory_of_image(&self, what: &str, parent: &Path) -> Result<PathBuf> {
        self.with_images(|images| {
            let dir = record_dir(parent, &images.get(what)?.id)?.join(USER_DATA);
            make_dir(&dir)?;
            Ok(dir)
        })
    }

    /// A directory of the caller that goes with the container; made when it is missing.
    ///
    /// # Errors
    /// `ContainerUnknown`, and what making the directory reports.
    pub fn container_directory(&self, what: &str) -> Result<PathBuf> {
        self.with_containers(|containers| containers.directory(what, Lifetime::Container))
    }

    /// The same, until the next restart of the host.
    ///
    /// # Errors
    /// As [`Store::container_directory`].
    pub fn container_run_directory(&self, what: &str) -> Result<PathBuf> {
        self.with_containers(|containers| containers.directory(what, Lifetime::Boot))
    }

    /// Replaces a file in the container's directory.
    ///
    /// # Errors
    /// `ContainerUnknown`; `InvalidArgument` for a name that leads out of the directory.
    pub fn set_container_directory_file(&self, what: &str, file: &str, data: &[u8]) -> Result<()> {
        write_file(&self.container_directory(what)?, file, data)
    }

    /// Reads a file in the container's directory.
    ///
    /// # Errors
    /// As [`Store::set_container_directory_file`]; `BigDataMissing` when it is not there.
    pub fn container_directory_file(&self, what: &str, file: &str) -> Result<Vec<u8>> {
        read_file(&self.container_directory(what)?, file)
    }

    /// Replaces a file in the container's run directory.
    ///
    /// # Errors
    /// As [`Store::set_container_directory_file`].
    pub fn set_container_run_directory_file(
        &self,
        what: &str,
        file: &str,
        data: &[u8],
    ) -> Result<()> {
        write_file(&self.container_run_directory(what)?, file, data)
    }

    /// Reads a file in the container's run directory.
    ///
    /// # Errors
    /// As [`Store::container_directory_file`].
    pub fn container_run_directory_file(&self, what: &str, file: &str) -> Result<Vec<u8>> {
        read_file(&self.container_run_directory(what)?, file)
    }
}
