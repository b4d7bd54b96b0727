// SPDX-License-Identifier: Apache-2.0
//! Compresses a tar stream on its way out.

use std::io::Write;

use super::Compression;
use crate::{Error, ErrorKind, Result};

/// Runs `produce` with a writer whose bytes arrive in `out` compressed.
///
/// # Errors
/// [`ErrorKind::NotSupported`] for bzip2 and xz, before `produce` runs.
pub fn encoded<T>(
    compression: Compression,
    out: &mut (dyn Write + Send),
    produce: impl FnOnce(&mut (dyn Write + Send)) -> Result<T>,
) -> Result<T> {
    if compression == Compression::None {
        return produce(out);
    }
    Err(Error::new(
        ErrorKind::NotSupported,
        format!("unsupported compression format {}", compression.extension()),
    ))
}
