// SPDX-License-Identifier: Apache-2.0
//! Layers whose content a layer source has.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use plywood_plugin_sdk::{
    DriverError, ExternalDirectory, SourceLayer,
    toolkit::{layer_store::LayerDirectory, patience::PatientFile},
};
use sha2::{Digest as _, Sha256};

use super::{
    access::LayersWrite,
    create::{Prepared, close},
    intent::Intent,
    options::{LayerStore, Shared, driver_id},
    put::PutOptions,
    read::Found,
    record::{INCOMPLETE, Layer, NewLayer},
};
use crate::{
    Digest, Error, ErrorKind, Result,
    archive::{Compression, codec::Decoder, detect::detect, encode, stream::output_error},
    locking::order::{Before, Held, Layers, RoLayers},
    records::{decode_text, parse_records},
};

/// The bytes that are handled at a time.
const CHUNK: usize = 256 * 1024;

/// The record that a source gives for a layer.
///
/// # Behavior
/// - What belongs to the place where the layer was is left out: id, parent, names, times, label, id
///   maps, keys of big data.
///
/// # Errors
/// `Corrupt` when it is no record.
pub(crate) fn record_of(found: &SourceLayer) -> Result<Layer> {
    let path = found.directory.join("info");
    let text = format!("[{}]", decode_text(found.info.clone()));
    let mut records = Vec::new();
    let parsed = parse_records(&text, &path, |record: Layer| records.push(record));
    let wrong = |error: Error| {
        let shown = path.display();
        Error::new(
            ErrorKind::Corrupt,
            format!("`{shown}` is no record of a layer"),
        )
        .subject(shown.to_string())
        .hint("the layer source gives a wrong answer; report it to its vendor")
        .caused_by(error)
    };
    parsed.map_err(wrong)?;
    let (Some(given), None) = (records.pop(), records.pop()) else {
        return Err(wrong(Error::new(
            ErrorKind::Corrupt,
            "it is not one object",
        )));
    };
    let mut flags = given.flags;
    flags.remove(INCOMPLETE);
    Ok(Layer {
        flags,
        metadata: given.metadata,
        compressed_digest: given.compressed_digest,
        compressed_size: given.compressed_size,
        diff_digest: given.diff_digest,
        toc_digest: given.toc_digest,
        diff_size: given.diff_size,
        compression_number: given.compression_number,
        uids: given.uids,
        gids: given.gids,
        unknown: given.unknown,
        ..Layer::default()
    })
}

impl LayerStore {
    /// Makes a layer of what a source has, for which it gave `record`.
    ///
    /// # Behavior
    /// - A driver that takes external directories gets the source's; for every other one, and when
    ///   the driver cannot take this one, the source's stream is unpacked.
    ///
    /// # Errors
    /// Those of [`LayersWrite::create`] and [`LayerStore::put`]; `NotSupported` when the driver
    /// cannot take the directory and the source has no stream.
    ///
    /// # Compatibility
    /// `PutAdditionalLayer` in `layers.go` of containers/storage, except that the names are
    /// recorded.
    pub(crate) fn put_external<B>(
        &self,
        held: &mut Held<'_, B>,
        new: &NewLayer,
        (found, record): (&SourceLayer, &Layer),
        options: PutOptions<'_>,
    ) -> Result<Layer>
    where
        B: Before<Layers> + Before<RoLayers>,
    {
        let driver = self.0.driver()?;
        if driver.capabilities().external_directory {
            let (mut write, mut inner) = self.write(held)?;
            options.check(&write, new, &mut inner)?;
            match write.create_external(new, found, record) {
                // For instance files that need other owners.
                Err(error) if error.kind() == ErrorKind::NotSupported && found.blob.is_some() => {
                    tracing::info!("{error}: its stream is unpacked instead");
                }
                done => return done,
            }
        }
        let Some(blob) = &found.blob else {
            let (name, path) = (driver.name(), found.directory.display());
            return Err(Error::new(
                ErrorKind::NotSupported,
                format!(
                    "driver `{name}` needs the stream of the layer in `{path}`, which has none"
                ),
            )
            .subject(path.to_string())
            .hint("pull the image from a registry instead"));
        };
        tracing::debug!(
            driver = driver.name(),
            "unpacking the stream of a layer source"
        );
        let stream = PatientFile::open(blob, found.timeout)?;
        // Other digests are not computed on the way.
        let known = |digest: &&Digest| digest.algorithm() == "sha256";
        let options = PutOptions {
            expected_diff: record.diff_digest.as_ref().filter(known),
            expected_compressed: record.compressed_digest.as_ref().filter(known),
            ..options
        };
        let new = NewLayer {
            toc_digest: record.toc_digest.clone(),
            ..new.clone()
        };
        self.put(held, &new, stream, options)
            .map(|(layer, _)| layer)
    }
}

impl LayersWrite<'_> {
    /// Makes a layer whose content is in a directory of a layer source.
    fn create_external(
        &mut self,
        new: &NewLayer,
        found: &SourceLayer,
        record: &Layer,
    ) -> Result<Layer> {
        self.fresh()?;
        // 1. Nothing is done to the disk before everything is known to be in order.
        let mut prepared = self.prepare(new)?;
        describe(&mut prepared.record, record);
        // 2. A note, by which the next writer finds what a crash leaves.
        let shared = Arc::clone(&self.shared);
        let mut intent = Intent::begin(&shared)?;
        intent.note(&prepared.id)?;
        intent.take_files(&shared, &prepared.id)?;
        step!("external.noted");
        // 3. The content.
        shared.create_external(&prepared, &ExternalDirectory::of(found))?;
        step!("external.content");
        // 4. The record.
        let layer = self.record(prepared)?;
        // 5. The note is no longer needed.
        close(intent);
        Ok(layer)
    }
}

/// Gives a new record what the source says about the layer; what the caller says counts more.
fn describe(new: &mut Layer, given: &Layer) {
    if new.metadata.is_empty() {
        new.metadata.clone_from(&given.metadata);
    }
    if new.flags.is_empty() {
        new.flags.clone_from(&given.flags);
    }
    new.compressed_digest.clone_from(&given.compressed_digest);
    new.compressed_size = given.compressed_size;
    new.diff_digest.clone_from(&given.diff_digest);
    new.toc_digest.clone_from(&given.toc_digest);
    new.diff_size = given.diff_size;
    new.compression_number = given.compression_number;
    new.uids.clone_from(&given.uids);
    new.gids.clone_from(&given.gids);
    new.unknown.clone_from(&given.unknown);
}

impl Shared {
    fn create_external(&self, prepared: &Prepared, external: &ExternalDirectory) -> Result<()> {
        let (driver, request) = (self.driver()?, &prepared.request);
        let created = match driver.create_external(request, external) {
            Err(error) if error.kind() == ErrorKind::DuplicateId => {
                tracing::warn!(layer = %request.id, "replacing a directory that has no record");
                driver.remove(&request.id)?;
                driver.create_external(request, external)
            }
            other => other,
        };
        let directory = external.directory.display();
        created.map_err(|error| {
            error.prefixed(format_args!(
                "creating layer with ID \"{}\" from `{directory}`",
                request.id
            ))
        })
    }

    /// The directory in a layer source that the layer refers to.
    pub(super) fn external_of(&self, found: Found<'_>) -> Result<Option<PathBuf>> {
        let driver = self.driver()?;
        if !driver.capabilities().external_directory {
            return Ok(None);
        }
        driver.external_layer(&driver_id(&found.layer.id)?)
    }
}

/// The stream of a layer in a layer source, and what it must be.
pub(super) struct Stream {
    directory: PathBuf,
    timeout: Duration,
    diff_digest: Option<Digest>,
}

impl Stream {
    /// The stream of the layer that refers to `directory`, whose source is waited for as long as
    /// `timeout`.
    pub(super) fn of(layer: &Layer, directory: PathBuf, timeout: Duration) -> Self {
        Self {
            directory,
            timeout,
            diff_digest: layer.diff_digest.clone(),
        }
    }

    /// Writes the stream with `compression`: as it is when it has that, and else decompressed and
    /// compressed again. Returns the bytes before compression.
    ///
    /// # Behavior
    /// - While it is read, the layer is in use for the source.
    ///
    /// # Errors
    /// What reading reports, a time-out included; `Corrupt` when it is another stream than the one
    /// that is recorded.
    ///
    /// # Compatibility
    /// `Diff` in `layers.go` of containers/storage, which does not check.
    pub(super) fn write(
        &self,
        compression: Compression,
        out: &mut (dyn Write + Send),
    ) -> Result<u64> {
        let directory = LayerDirectory::new(&self.directory, self.timeout);
        // A store that does not answer now would not give its stream either.
        directory.notify_use()?;
        let written = self.convert(&directory.blob(), compression, out);
        note_release(&directory);
        written
    }

    fn convert(
        &self,
        blob: &Path,
        wanted: Compression,
        out: &mut (dyn Write + Send),
    ) -> Result<u64> {
        let file = PatientFile::open(blob, self.timeout).map_err(|error| gone(error, blob))?;
        let mut input = BufReader::with_capacity(CHUNK, file);
        let start = input.fill_buf().map_err(|error| reading(blob, error))?;
        let found = detect(start);
        if found == wanted {
            let mut copied = Copied {
                input,
                out,
                failed: None,
            };
            let plain = self.decode(blob, found, &mut copied, &mut io::sink());
            // A failure to write looks like one to read.
            return match copied.failed.take() {
                Some(error) => Err(output_error(error)),
                None => plain,
            };
        }
        encode::encoded(wanted, out, |out| self.decode(blob, found, input, out))
    }

    fn decode(
        &self,
        blob: &Path,
        compression: Compression,
        input: impl BufRead,
        out: &mut dyn Write,
    ) -> Result<u64> {
        let mut decoder = Decoder::new(compression, input).map_err(|e| reading(blob, e))?;
        let mut buffer = vec![0; CHUNK];
        let (mut hash, mut size) = (Sha256::new(), 0_u64);
        loop {
            let length = match decoder.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(reading(blob, error)),
            };
            hash.update(&buffer[..length]);
            out.write_all(&buffer[..length]).map_err(output_error)?;
            size += length as u64;
        }
        decoder.expect_end().map_err(|e| reading(blob, e))?;
        let found = Digest::from_sha256(&hash.finalize());
        match &self.diff_digest {
            Some(expected) if expected.algorithm() == "sha256" && *expected != found => {
                Err(Error::new(
                    ErrorKind::Corrupt,
                    format!(
                        "the stream `{}` unpacks to {found}, and {expected} is recorded",
                        blob.display()
                    ),
                )
                .subject(blob.display().to_string())
                .hint("the layer source has changed the layer; delete it and pull it again"))
            }
            _ => Ok(size),
        }
    }
}

/// Hands on what is read, and writes it to `out`, too.
struct Copied<'a, R> {
    input: R,
    out: &'a mut (dyn Write + Send),
    failed: Option<io::Error>,
}

impl<R: BufRead> Read for Copied<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Copied<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.failed.is_some() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        // What was filled before is still there: nothing is read here.
        if amount > 0
            && let Ok(available) = self.input.fill_buf()
            && let Err(error) = self.out.write_all(&available[..amount])
        {
            self.failed.get_or_insert(error);
        }
        self.input.consume(amount);
    }
}

fn reading(blob: &Path, error: io::Error) -> Error {
    match error
        .get_ref()
        .and_then(|e| e.downcast_ref::<DriverError>())
    {
        Some(timed_out) => timed_out.clone().into(),
        None => Error::io("cannot read", blob, error),
    }
}

fn gone(error: DriverError, blob: &Path) -> Error {
    let error = Error::from(error);
    match error.remedy() {
        Some(_) => error,
        None => error.hint(format!(
            "start the layer source that serves `{}`, or delete the layer and pull it again",
            blob.display()
        )),
    }
}

fn note_release(directory: &LayerDirectory) {
    if let Err(error) = directory.notify_release() {
        tracing::warn!("a layer source was not told of the end of a use: {error}");
    }
}
