// SPDX-License-Identifier: Apache-2.0
//! Changes to containers; each saves the records once.

use std::path::{Path, PathBuf};

use super::{
    Container, MOUNT_LABEL, MOUNT_OPTS, NewContainer, PROCESS_LABEL, VOLATILE,
    access::{ContainersWrite, unknown},
    table::STABLE,
};
use crate::{
    Digest, Error, ErrorKind, Result, big_data,
    durable::Durability,
    images::BigDataItem,
    records::{
        Flags, Lookup, Taken, Timestamp, check_new_id,
        names::{self, NamesChange},
        new_id,
    },
    store::{clear_leftovers, record_dir, remove_tree},
};

impl NewContainer {
    /// The flags to record: those given, the labels (also when empty), and the options.
    pub(crate) fn recorded_flags(&self) -> Result<Flags> {
        let mut flags = self.flags.clone();
        let label = |flags: &Flags, given: &Option<String>, name| {
            given.clone().unwrap_or_else(|| flags.text(name))
        };
        let mount = label(&flags, &self.mount_label, MOUNT_LABEL);
        let process = label(&flags, &self.process_label, PROCESS_LABEL);
        if mount.is_empty() != process.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "ProcessLabel and Mountlabel must either not be specified or both specified",
            ));
        }
        flags.set(MOUNT_LABEL, &mount)?;
        flags.set(PROCESS_LABEL, &process)?;
        if !self.mount_options.is_empty() {
            flags.set(MOUNT_OPTS, &self.mount_options)?;
        }
        if self.volatile {
            flags.set(VOLATILE, &true)?;
        }
        Ok(flags)
    }
}

impl ContainersWrite<'_> {
    /// Checks that a container with the id and the names could be made.
    ///
    /// # Errors
    /// `DuplicateId`, `DuplicateName`, `InvalidArgument`.
    pub(crate) fn check_free(&mut self, new: &NewContainer) -> Result<()> {
        if let Some(id) = &new.id {
            check_new_id(id)?;
            record_dir(&self.shared.dir, id)?;
            if self.edit()?.get(id).is_some() {
                return Err(id_taken(id));
            }
        }
        let records = self.edit()?;
        for name in &new.names {
            if let Some(owner) = records.by_name(name) {
                return Err(name_taken(name, &owner.id));
            }
        }
        Ok(())
    }

    /// Makes a container; `new.image` and `layer` are ids.
    ///
    /// # Errors
    /// `DuplicateId`, `DuplicateName`, `InvalidArgument`, `InvalidBigDataName`. Nothing is left
    /// behind.
    ///
    /// # Durability
    /// The items are written first, the record last.
    pub fn create(&mut self, new: NewContainer, layer: &str) -> Result<Container> {
        self.check_free(&new)?;
        let flags = new.recorded_flags()?;
        let id = match new.id {
            Some(id) => id,
            None => new_id()?,
        };
        let mut container = Container {
            id,
            names: names::deduplicate(new.names),
            image: new.image,
            layer: layer.to_owned(),
            metadata: new.metadata,
            created: Timestamp::now(),
            id_maps: new.id_maps,
            flags,
            ..Container::default()
        };
        let dir = record_dir(&self.shared.dir, &container.id)?;
        clear_leftovers(&dir)?;
        let done = store_items(&mut container, &dir, new.big_data, self.shared.durability)
            .and_then(|()| self.add(container.clone()));
        if let Err(error) = done {
            if !self.may_be_recorded(layer)
                && let Err(cleanup) = clear_leftovers(&dir)
            {
                tracing::warn!(
                    ?cleanup,
                    "data of a container that was not made stays behind"
                );
            }
            return Err(error);
        }
        Ok(container)
    }

    /// Whether a container with that layer is recorded on disk, or that cannot be found out: a save
    /// may fail after records were replaced (when the directory cannot be synchronised).
    pub(crate) fn may_be_recorded(&mut self, layer: &str) -> bool {
        self.edit()
            .map_or(true, |table| table.by_alias(layer).is_some())
    }

    fn add(&mut self, container: Container) -> Result<()> {
        let id = container.id.clone();
        let added = self.edit()?.insert(container, STABLE);
        added.map_err(|taken| match taken {
            Taken::Id => id_taken(&id),
            Taken::Name { name, owner } => name_taken(&name, &owner),
        })?;
        self.commit()
    }

    /// Changes the names; those that another container has move here.
    ///
    /// # Errors
    /// `ContainerUnknown`.
    pub(crate) fn change_names(
        &mut self,
        what: &str,
        given: &[String],
        change: NamesChange,
    ) -> Result<()> {
        let id = self.id_of(what)?;
        let records = self.edit()?;
        let old = &records.get(&id).expect("found above").names;
        let new = names::changed(old, given, change);
        records.set_names(&id, new).expect("found above");
        self.commit()
    }

    /// Replaces the metadata.
    ///
    /// # Errors
    /// `ContainerUnknown`.
    pub fn set_metadata(&mut self, what: &str, metadata: &str) -> Result<()> {
        metadata.clone_into(&mut self.record(what)?.metadata);
        self.commit()
    }

    /// Stores a big data item.
    ///
    /// # Behavior
    /// - The records are saved only when size, digest or the list of keys changed.
    ///
    /// # Errors
    /// `ContainerUnknown`, `InvalidBigDataName`.
    pub fn set_big_data(&mut self, what: &str, key: &str, data: &[u8]) -> Result<()> {
        let id = self.id_of(what)?;
        let dir = record_dir(&self.shared.dir, &id)?;
        check_key(key)?;
        big_data::write(&dir, key, data, self.shared.durability)?;
        let mut container = self.get(&id)?.clone();
        if !note(&mut container, key, data.len(), &Digest::sha256(data)) {
            return Ok(());
        }
        *self.record(&id)? = container;
        self.commit()
    }

    /// Removes the directories of a container, then the record.
    ///
    /// # Behavior
    /// - The record stays when a directory cannot be removed (something is still mounted in it).
    ///
    /// # Errors
    /// `ContainerUnknown`, and what removing the directories reports.
    pub fn delete(&mut self, what: &str) -> Result<()> {
        let id = self.id_of(what)?;
        self.delete_all(&[id])
    }

    /// Removes every container.
    ///
    /// # Errors
    /// As [`ContainersWrite::delete`].
    pub fn wipe(&mut self) -> Result<()> {
        let ids: Vec<String> = self.list().map(|container| container.id.clone()).collect();
        self.delete_all(&ids)
    }

    fn delete_all(&mut self, ids: &[String]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut failure = None;
        for id in ids {
            match self.remove_directories(id) {
                Ok(()) => {
                    self.edit()?.remove(id);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if self.table.is_changed() {
            self.commit()?;
        }
        failure.map_or(Ok(()), Err)
    }

    fn remove_directories(&self, id: &str) -> Result<()> {
        for dir in [&self.shared.dir, &self.shared.run_dir] {
            // A record of another tool may have an id that leads out of the directory.
            match record_dir(dir, id) {
                Ok(dir) => remove_tree(&dir)?,
                Err(error) => tracing::warn!(?error, id, "the container's data is left alone"),
            }
        }
        Ok(())
    }

    /// Directories that look like a container's data but belong to no record.
    pub(crate) fn orphans(&self) -> Result<Vec<PathBuf>> {
        crate::store::orphans(&self.shared.dir, |id| self.table.get(id).is_some())
    }

    fn record(&mut self, what: &str) -> Result<&mut Container> {
        let id = self.id_of(what)?;
        let record = self.edit()?.edit(&id);
        record.ok_or_else(|| unknown(what, &[]))
    }

    fn id_of(&mut self, what: &str) -> Result<String> {
        match self.edit()?.lookup(what) {
            Lookup::Found(container) => Ok(container.id.clone()),
            Lookup::Ambiguous(candidates) => Err(unknown(what, &candidates)),
            Lookup::Missing => Err(unknown(what, &[])),
        }
    }
}

fn store_items(
    container: &mut Container,
    dir: &Path,
    items: Vec<BigDataItem>,
    durability: Durability,
) -> Result<()> {
    for item in items {
        check_key(&item.key)?;
        big_data::write(dir, &item.key, &item.data, durability)?;
        let digest = item.digest.unwrap_or_else(|| Digest::sha256(&item.data));
        note(container, &item.key, item.data.len(), &digest);
    }
    Ok(())
}

/// Notes an item in the record; says whether anything changed.
fn note(container: &mut Container, key: &str, size: usize, digest: &Digest) -> bool {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    big_data::note(
        &mut container.big_data_names,
        &mut container.big_data_sizes,
        &mut container.big_data_digests,
        (key, size, digest),
    )
}

fn check_key(key: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidBigDataName,
            "can't set empty name for container big data item: not a valid name for a big data \
             item",
        ));
    }
    Ok(())
}

fn id_taken(id: &str) -> Error {
    Error::new(ErrorKind::DuplicateId, "that ID is already in use").subject(id)
}

fn name_taken(name: &str, owner: &str) -> Error {
    Error::new(
        ErrorKind::DuplicateName,
        format!(
            "the container name {name:?} is already in use by {owner}. You have to remove that \
             container to be able to reuse that name: that name is already in use"
        ),
    )
    .subject(name)
}
