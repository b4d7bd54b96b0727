// SPDX-License-Identifier: Apache-2.0
//! Open files that are kept back for tidying up.

use std::os::fd::OwnedFd;

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

/// How many files removing a layer's directory and what is in it may have open at once.
const KEPT: usize = 6;

/// Places in the process's table of open files, so that what fails because the table is full can
/// still be taken back.
///
/// Drop it before tidying up. Another thread may be faster then; what it leaves no files for stays
/// to be recovered.
#[derive(Debug)]
#[must_use = "dropping it gives the places back"]
pub struct Reserve(#[expect(dead_code, reason = "the files are there to be closed")] Vec<OwnedFd>);

impl Reserve {
    /// Takes the places.
    ///
    /// # Errors
    /// `EMFILE` or `ENFILE`: there are not as many. Nothing is taken then.
    pub fn new() -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let files = (0..KEPT).map(|_| rustix::fs::open("/", flags, Mode::empty()));
        files.collect::<Result<_, _>>().map(Self)
    }
}
