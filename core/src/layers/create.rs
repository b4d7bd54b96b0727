// SPDX-License-Identifier: Apache-2.0
//! Making layers.

use std::{fs, io};

use plywood_plugin_sdk::{CreateRequest, IdMaps, LayerId, LayerKind};

use super::{
    access::{LayersView, LayersWrite},
    edit::{check_flag, check_key},
    intent::Intent,
    options::{Shared, driver_id, is_reserved},
    read::Found,
    record::{Layer, NewLayer},
    state::STABLE,
};
use crate::{
    Error, ErrorKind, Result, big_data, durable,
    records::{Timestamp, check_new_id, names, new_id},
};

/// A new layer after all checks, ready to be made.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) id: LayerId,
    pub(super) record: Layer,
    pub(super) request: CreateRequest,
    big_data: Vec<(String, Vec<u8>)>,
    tar_split: Option<Vec<u8>>,
}

impl LayersWrite<'_> {
    /// Makes an empty layer, or a copy of a template.
    ///
    /// # Behavior
    /// - What an interrupted creation left under the id is replaced.
    ///
    /// # Errors
    /// `LayerUnknown` for the parent or template, `DuplicateId`, `DuplicateName`,
    /// `InvalidArgument`, and what the driver reports. The layer does not exist then.
    ///
    /// # Durability
    /// The record appears after everything that belongs to it; the records are written once.
    pub fn create(&mut self, new: &NewLayer) -> Result<Layer> {
        self.fresh()?;
        // 1. Nothing is done to the disk before everything is known to be in order.
        let prepared = self.prepare(new)?;
        // 2. A note, by which the next writer finds what a crash leaves.
        let shared = std::sync::Arc::clone(&self.shared);
        let mut intent = Intent::begin(&shared)?;
        intent.note(&prepared.id)?;
        intent.take_files(&shared, &prepared.id)?;
        step!("create.noted");
        // 3. The content.
        shared.create_content(&prepared)?;
        step!("create.content");
        // 4. The record.
        let layer = self.record(prepared)?;
        // 5. The note is no longer needed.
        close(intent);
        Ok(layer)
    }

    /// Writes what stands beside the record, then the record. On failure the content is removed.
    pub(super) fn record(&mut self, prepared: Prepared) -> Result<Layer> {
        let Prepared { id, record, .. } = &prepared;
        let done = self.shared.write_files(&prepared).and_then(|()| {
            step!("record.files");
            let added = self.records().insert(record.clone(), STABLE);
            debug_assert_eq!(added, Ok(()), "checked while the lock was held");
            self.save()
        });
        match done {
            Ok(()) => {
                step!("record.saved");
                Ok(prepared.record)
            }
            Err(error) => {
                // A save may fail after the records were replaced (when the directory cannot be
                // synchronised). What is recorded keeps its content.
                if self.fresh().is_ok() && self.table.get(id.as_str()).is_none() {
                    self.shared.discard_unrecorded(id);
                }
                Err(error)
            }
        }
    }
}

impl LayersView<'_> {
    /// Checks a new layer in the order in which containers/storage does it.
    pub(super) fn prepare(&self, new: &NewLayer) -> Result<Prepared> {
        let parent = new
            .parent
            .as_deref()
            .map(|parent| self.find(parent))
            .transpose()?;
        let id = self.new_id(new.id.as_deref())?;
        let names = names::deduplicate(new.names.iter().cloned());
        for name in &names {
            if let Some(owner) = self.table.by_name(name) {
                return Err(
                    Error::new(ErrorKind::DuplicateName, "that name is already in use")
                        .subject(name)
                        .hint(format!("layer `{}` has the name `{name}`", owner.id)),
                );
            }
        }
        let template = new.template.as_deref().map(|t| self.find(t)).transpose()?;
        for (key, _) in &new.big_data {
            check_key(key)?;
        }
        for (flag, _) in new.flags.iter() {
            check_flag(flag)?;
        }
        let id_maps = match parent {
            Some(found) if new.id_maps.is_empty() => found.layer.id_maps.clone(),
            _ => new.id_maps.clone(),
        };
        if let Some(problem) = new.id_maps.problem() {
            return Err(Error::new(ErrorKind::InvalidArgument, problem).subject(id.as_str()));
        }
        self.check_parent(&id_maps, template, parent)?;
        let mut request = CreateRequest::new(
            id.clone(),
            parent.map(|found| driver_id(&found.layer.id)).transpose()?,
        );
        request.kind = new.kind;
        request.mount_label.clone_from(&new.mount_label);
        request.storage_options.clone_from(&new.storage_options);
        request.id_maps.clone_from(&id_maps);
        request.template = template
            .map(|found| driver_id(&found.layer.id))
            .transpose()?;
        let mut record = template.map_or_else(Layer::default, |found| from_template(found.layer));
        record.id = id.to_string();
        record.names = names;
        record.parent = parent.map(|found| found.layer.id.clone());
        record.mount_label = new.mount_label.clone().unwrap_or_default();
        record.created = Timestamp::now();
        record.flags.clone_from(&new.flags);
        record.id_maps = id_maps;
        record.big_data_names = names::deduplicate(new.big_data.iter().map(|(key, _)| key.clone()));
        Ok(Prepared {
            id,
            record,
            request,
            big_data: new.big_data.clone(),
            tar_split: template.map(read_tar_split).transpose()?.flatten(),
        })
    }

    fn new_id(&self, given: Option<&str>) -> Result<LayerId> {
        if let Some(given) = given {
            check_new_id(given)?;
            if is_reserved(given) {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    format!("`{given}` is no id for a layer: the store has a file of that name"),
                )
                .subject(given));
            }
            if self.table.get(given).is_some() {
                return Err(
                    Error::new(ErrorKind::DuplicateId, "that ID is already in use").subject(given),
                );
            }
            return driver_id(given);
        }
        loop {
            let id = new_id()?;
            if self.find_exact(&id).is_none() {
                return driver_id(&id);
            }
        }
    }

    fn check_parent(
        &self,
        id_maps: &IdMaps,
        template: Option<Found<'_>>,
        parent: Option<Found<'_>>,
    ) -> Result<()> {
        let Some(found) = parent else { return Ok(()) };
        let parent = &found.layer.id;
        if found.layer.is_incomplete() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("layer `{parent}` is incomplete, no layer can stand on it"),
            )
            .subject(parent));
        }
        if found.layer.id_maps != *id_maps && template.is_none() {
            return Err(Error::new(
                ErrorKind::NotSupported,
                format!("a layer with other id maps than those of its parent `{parent}`"),
            )
            .subject(parent));
        }
        let limit = self.shared.driver()?.capabilities().depth_limit;
        if let Some(limit) = limit {
            let depth = self.chain(parent)?.len();
            if u32::try_from(depth).is_ok_and(|depth| depth <= limit) {
                return Ok(());
            }
            return Err(Error::new(
                ErrorKind::NotSupported,
                format!("the layer would stand on {depth} layers, and the driver allows {limit}"),
            )
            .subject(parent)
            .hint("join some of the layers below it into one"));
        }
        Ok(())
    }
}

impl Shared {
    /// Has the driver make a layer. What is there without a record is replaced.
    pub(super) fn create_content(&self, prepared: &Prepared) -> Result<()> {
        let (driver, request) = (self.driver()?, &prepared.request);
        let created = match driver.create(request) {
            Err(error) if error.kind() == ErrorKind::DuplicateId => {
                tracing::warn!(layer = %request.id, "replacing a directory that has no record");
                driver.remove(&request.id)?;
                driver.create(request)
            }
            other => other,
        };
        created.map_err(|error| {
            let kind = match (&request.template, request.kind) {
                (Some(template), _) => {
                    return error.prefixed(format_args!(
                        "creating copy of template layer \"{template}\" with ID \"{}\"",
                        request.id
                    ));
                }
                (None, LayerKind::ReadOnly) => "read-only",
                (None, LayerKind::ReadWrite) => "read-write",
            };
            error.prefixed(format_args!(
                "creating {kind} layer with ID \"{}\"",
                request.id
            ))
        })?;
        // An empty layer has no content that could be lost; a copy has.
        if request.template.is_some()
            && let Err(error) = self.sync_layer(driver, &request.id)
        {
            self.discard_unrecorded(&request.id);
            return Err(error);
        }
        Ok(())
    }

    fn write_files(&self, prepared: &Prepared) -> Result<()> {
        let dir = Self::data_dir(&self.dir, &prepared.id);
        for (key, data) in &prepared.big_data {
            big_data::write(&dir, key, data, self.durability)?;
        }
        match &prepared.tar_split {
            Some(bytes) => durable::write_file(
                &Self::tar_split(&self.dir, &prepared.id),
                bytes,
                self.durability,
            ),
            None => Ok(()),
        }
    }
}

fn from_template(template: &Layer) -> Layer {
    Layer {
        metadata: template.metadata.clone(),
        compressed_digest: template.compressed_digest.clone(),
        compressed_size: template.compressed_size,
        diff_digest: template.diff_digest.clone(),
        toc_digest: template.toc_digest.clone(),
        diff_size: template.diff_size,
        compression_number: template.compression_number,
        uids: template.uids.clone(),
        gids: template.gids.clone(),
        ..Layer::default()
    }
}

fn read_tar_split(template: Found<'_>) -> Result<Option<Vec<u8>>> {
    let path = Shared::tar_split(template.dir, &driver_id(&template.layer.id)?);
    match fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("cannot read", &path, error)),
    }
}

/// Removes notes; what cannot be removed is left for the next writer.
pub(super) fn close(intent: Intent) {
    if let Err(error) = intent.close() {
        tracing::warn!(?error, "a temporary directory stays");
    }
}
