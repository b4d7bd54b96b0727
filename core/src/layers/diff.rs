// SPDX-License-Identifier: Apache-2.0
//! A layer's content as a tar stream.

use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
};

use super::{
    external::Stream,
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

/// Where a layer's stream comes from, found while the lock was held.
enum Origin {
    /// It is rebuilt as it was.
    Recorded {
        record: File,
        roots: Vec<PathBuf>,
        looking: Looking,
    },
    /// A layer source has it.
    Elsewhere(Stream),
    /// It is made of what differs.
    Tree,
}

impl LayerStore {
    /// Writes the changes of `to` against `from` (its parent, when not given) as a tar stream;
    /// returns the bytes before compression.
    ///
    /// # Behavior
    /// - Against its own parent, a layer that was filled from a stream gives that stream back; a
    ///   layer that refers to a layer source gives the source's.
    ///
    /// # Errors
    /// `LayerUnknown`, also for a layer that is deleted while it is read; `TimedOut` for a source
    /// that does not answer; `NotSupported` for a compression that cannot be written; `Corrupt`
    /// when a file of the layer no longer is what the stream had.
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
        let (origin, compression) = {
            let (read, _inner) = self.read(held)?;
            let layer = read.find(to)?;
            let from = from.map(|from| read.lookup(from)).transpose()?;
            let is_own = from.is_none() || from == layer.layer.parent;
            let origin = if is_own {
                self.0.origin(layer)?
            } else {
                Origin::Tree
            };
            (origin, compression_of(layer, options)?)
        };
        if let Origin::Elsewhere(stream) = origin {
            return stream.write(compression, out);
        }
        let written = encode::encoded(compression, out, |out| match origin {
            Origin::Recorded {
                record,
                roots,
                looking: _looking,
            } => assemble(record, &roots, out),
            _ => self.compare(held, from, to, |comparison| comparison.export(out)),
        });
        written.map_err(|error| match self.read(held) {
            // What another process removes meanwhile looks like damage.
            Ok((read, _inner)) => read.find(to).err().unwrap_or(error),
            Err(_) => error,
        })
    }
}

impl Shared {
    fn origin(&self, found: Found<'_>) -> Result<Origin> {
        let id = driver_id(&found.layer.id)?;
        if let Some(directory) = self.external_of(found)? {
            let timeout = self.source_timeout;
            return Ok(Origin::Elsewhere(Stream::of(
                found.layer,
                directory,
                timeout,
            )));
        }
        let path = Self::tar_split(found.dir, &id);
        let record = match File::open(&path) {
            Ok(record) => record,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Origin::Tree),
            Err(error) => return Err(Error::io("cannot read", &path, error)),
        };
        let mut looking = Looking::with(self.driver()?);
        let roots = looking.content_roots(&id)?;
        Ok(Origin::Recorded {
            record,
            roots,
            looking,
        })
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
