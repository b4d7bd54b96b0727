// SPDX-License-Identifier: Apache-2.0
//! A layer's content as a tar stream.

use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
};

use super::{
    looking::Looking,
    options::{LayerStore, Shared, driver_id},
    read::Found,
};
use crate::{
    Error, ErrorKind, Result,
    archive::{Compression, encode},
    locking::order::{Before, Held, Layers, RoLayers},
    tar_split::assemble::assemble,
};

/// How a diff is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiffOptions {
    /// The compression; without one, that of the stream which the layer was filled from.
    pub compression: Option<Compression>,
}

/// What is needed to rebuild the original stream, found while the lock was held.
struct Original {
    record: File,
    roots: Vec<PathBuf>,
    _looking: Looking,
}

impl LayerStore {
    /// Writes the changes of `to` against `from` (its parent, when not given) as a tar stream;
    /// returns the bytes before compression.
    ///
    /// # Behavior
    /// - Against its own parent, a layer that was filled from a stream gives that stream back.
    ///
    /// # Errors
    /// `LayerUnknown`; `NotSupported` for a compression that cannot be written; `Corrupt` when a
    /// file of the layer no longer is what the stream had.
    ///
    /// # Locking
    /// The layers lock is held only to find out where things are.
    pub fn diff<B>(
        &self,
        held: &mut Held<'_, B>,
        from: Option<&str>,
        to: &str,
        options: DiffOptions,
        out: &mut (dyn Write + Send),
    ) -> Result<u64>
    where
        B: Before<Layers> + Before<RoLayers>,
    {
        let (original, compression) = {
            let (read, _inner) = self.read(held)?;
            let layer = read.find(to)?;
            let from = from.map(|from| read.lookup(from)).transpose()?;
            let is_own = from.is_none() || from == layer.layer.parent;
            let original = if is_own {
                self.0.original(layer)?
            } else {
                None
            };
            (original, compression_of(layer, options)?)
        };
        encode::encoded(compression, out, |out| match original {
            Some(original) => assemble(original.record, &original.roots, out),
            None => self.compare(held, from, to, |comparison| comparison.export(out)),
        })
    }
}

impl Shared {
    fn original(&self, found: Found<'_>) -> Result<Option<Original>> {
        let id = driver_id(&found.layer.id)?;
        let path = Self::tar_split(found.dir, &id);
        let record = match File::open(&path) {
            Ok(record) => record,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("cannot read", &path, error)),
        };
        let mut looking = Looking::with(self.driver()?);
        let roots = looking.content_roots(&id)?;
        Ok(Some(Original {
            record,
            roots,
            _looking: looking,
        }))
    }
}

fn compression_of(found: Found<'_>, options: DiffOptions) -> Result<Compression> {
    let recorded = || {
        found.layer.compression().ok_or_else(|| {
            Error::new(
                ErrorKind::NotSupported,
                format!(
                    "the layer's recorded compression has an unknown number: {}",
                    found.layer.compression_number
                ),
            )
            .subject(&*found.layer.id)
            .hint("ask for a compression, or for none")
        })
    };
    options.compression.map_or_else(recorded, Ok)
}
