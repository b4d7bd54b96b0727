// SPDX-License-Identifier: Apache-2.0
//! Layers that a layer source has, and that need not be pulled.

use std::{fmt, path::Path, sync::PoisonError};

use plywood_plugin_sdk::{
    LayerQuery, OpenRequest, SourceLayer,
    toolkit::{layer_store::StoresConfig, patience::PatientFile},
};

use super::{Layer, NewLayer, Store};
use crate::{
    Digest, Error, ErrorKind, Result,
    layers::{LayersView, PutOptions, record_of},
    locking::order::{Held, RoLayers},
    plugin::{DEFAULT_LAYER_SOURCE, SourceHandle, tracing_host},
};

/// A layer that a layer source has, found and not yet in the store.
///
/// # Behavior
/// - The source counts it as used until it is dropped.
pub struct AdditionalLayer<'s> {
    store: &'s Store,
    source: SourceHandle,
    found: SourceLayer,
    record: Layer,
}

impl Store {
    /// Looks a layer up in the layer sources: by the digest of its stream, or by that of its
    /// stream's table of contents, which is tried first.
    ///
    /// # Behavior
    /// - Sources are asked in the order of the configuration; the first that has the layer counts.
    ///
    /// # Errors
    /// `LayerUnknown` when none has it, or there is none; `InvalidArgument` without a digest;
    /// `TimedOut` for a source that does not answer; `Corrupt` when what a source says about the
    /// layer cannot be understood.
    ///
    /// # Locking
    /// None: a source may take its time.
    ///
    /// # Compatibility
    /// `LookupAdditionalLayer` in `store.go` of containers/storage.
    pub fn lookup_additional_layer(
        &self,
        digest: Option<&Digest>,
        toc_digest: Option<&Digest>,
        image_reference: Option<&str>,
    ) -> Result<AdditionalLayer<'_>> {
        let mut query = LayerQuery::default();
        query.digest = digest.map(|digest| digest.as_str().to_owned());
        query.toc_digest = toc_digest.map(|digest| digest.as_str().to_owned());
        query.reference = image_reference.map(str::to_owned);
        let Some(asked) = toc_digest.or(digest) else {
            let message = "a layer is looked up by the digest of its stream or of its contents";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        };
        for source in self.layer_sources()? {
            let Some(found) = source.lookup(&query)? else {
                continue;
            };
            let mut layer = AdditionalLayer {
                store: self,
                source,
                found,
                record: Layer::default(),
            };
            // On failure the drop ends the use.
            layer.record = record_of(&layer.found)?;
            return Ok(layer);
        }
        Err(Error::new(ErrorKind::LayerUnknown, "layer not known").subject(asked.as_str()))
    }

    /// The layer sources, opened when they are first needed.
    ///
    /// # Errors
    /// One that is not there, is refused, or does not understand its options.
    pub fn layer_sources(&self) -> Result<Vec<SourceHandle>> {
        let mut opened = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sources) = &*opened {
            return Ok(sources.clone());
        }
        let names = self.layer_source_names().into_iter();
        let sources = names.map(|name| {
            let run_dir = self.options.run_root.join(&name);
            // Nothing of it is in the graph root, where a directory means a driver.
            let mut request = OpenRequest::new(run_dir.clone(), run_dir, tracing_host());
            request.options.clone_from(&self.options.driver_options);
            request.known_drivers = self.registry.names();
            request.rootless = self.options.rootless;
            self.registry.open_source(&name, request)
        });
        let sources: Vec<_> = sources.collect::<Result<_>>()?;
        *opened = Some(sources.clone());
        Ok(sources)
    }

    /// Adds a source that the program made itself, which is asked after all others.
    ///
    /// # Errors
    /// As [`Store::layer_sources`].
    pub fn add_layer_source(&self, source: SourceHandle) -> Result<()> {
        let mut sources = self.layer_sources()?;
        sources.push(source);
        let mut opened = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        *opened = Some(sources);
        Ok(())
    }

    /// The names of the layer sources that the options ask for, in order.
    pub fn layer_source_names(&self) -> Vec<String> {
        let options = &self.options;
        if !options.layer_sources.is_empty() {
            return options.layer_sources.clone();
        }
        let names_a_store = |option: &String| {
            option.split_once('=').is_some_and(|(key, value)| {
                let key = key.trim().to_ascii_lowercase();
                key.rsplit('.').next() == Some("additionallayerstore") && !value.trim().is_empty()
            })
        };
        if options.driver_options.iter().any(names_a_store) {
            return vec![DEFAULT_LAYER_SOURCE.to_owned()];
        }
        Vec::new()
    }

    /// How long layer sources are waited for by what needs no source to be open.
    pub(super) fn source_timeout(&self) -> std::time::Duration {
        // Options that cannot be understood are refused by the driver or the source.
        let options = self.options.driver_options.iter();
        let only: Vec<String> = options
            .filter(|option| option.contains("additionallayerstore_timeout"))
            .cloned()
            .collect();
        StoresConfig::read(&only, self.driver_name())
            .unwrap_or_default()
            .timeout
    }
}

impl AdditionalLayer<'_> {
    /// What the source says about the layer: digests, sizes and the like, without an id.
    pub fn info(&self) -> &Layer {
        &self.record
    }

    /// The digest of the table of contents of the layer's stream.
    pub fn toc_digest(&self) -> Option<&Digest> {
        self.record.toc_digest.as_ref()
    }

    /// The bytes of the layer's stream as it came.
    pub fn compressed_size(&self) -> Option<i64> {
        self.record.compressed_size
    }

    /// The source that has it.
    pub fn source(&self) -> &SourceHandle {
        &self.source
    }

    /// The layer's directory in the source.
    pub fn directory(&self) -> &Path {
        &self.found.directory
    }

    /// The layer's stream as it came; a read that takes too long fails.
    ///
    /// # Errors
    /// `NotSupported` when the source has no streams, `TimedOut`, and what opening reports.
    pub fn blob(&self) -> Result<PatientFile> {
        let Some(blob) = &self.found.blob else {
            let shown = self.found.directory.display().to_string();
            let message = format!("the layer in `{shown}` has no stream");
            return Err(Error::new(ErrorKind::NotSupported, message).subject(shown));
        };
        Ok(PatientFile::open(blob, self.found.timeout)?)
    }

    /// Makes a layer of it in the store; without an id, one is drawn.
    ///
    /// # Behavior
    /// - A driver that takes directories of others keeps a reference; for every other one the
    ///   stream is unpacked.
    ///
    /// # Errors
    /// As [`Store::create_layer`]; `TimedOut`; `InvalidDigest` when the stream is not the one that
    /// the source describes; `NotSupported` when the driver needs a stream and there is none.
    ///
    /// # Durability
    /// The layer appears whole or not at all.
    pub fn put_as(
        &self,
        id: Option<&str>,
        parent: Option<&str>,
        names: &[String],
    ) -> Result<Layer> {
        let mut new = NewLayer {
            names: names.to_vec(),
            ..NewLayer::default()
        };
        new.id = id.filter(|id| !id.is_empty()).map(str::to_owned);
        new.parent = parent.filter(|id| !id.is_empty()).map(str::to_owned);
        self.put(new, PutOptions::default())
    }

    /// As [`AdditionalLayer::put_as`], with everything else that a new layer may have, with limits,
    /// progress and a way to stop.
    ///
    /// # Errors
    /// As [`AdditionalLayer::put_as`].
    pub fn put(&self, new: NewLayer, options: PutOptions<'_>) -> Result<Layer> {
        let store = self.store;
        let new = store.with_default_maps(new);
        let callers = options.check;
        let check =
            |layers: &LayersView<'_>, parent: Option<&str>, held: &mut Held<'_, RoLayers>| {
                store.check_parent(parent, held)?;
                callers.map_or(Ok(()), |check| check(layers, parent, held))
            };
        let options = PutOptions {
            check: Some(&check),
            ..options
        };
        let mut held = Held::nothing();
        let content = (&self.found, &self.record);
        store
            .layer_store()?
            .put_external(&mut held, &new, content, options)
    }
}

impl fmt::Debug for AdditionalLayer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdditionalLayer")
            .field("directory", &self.found.directory)
            .finish_non_exhaustive()
    }
}

impl Drop for AdditionalLayer<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.source.release(&self.found.directory) {
            tracing::warn!(?error, "a layer source was not told of the end of a use");
        }
    }
}
