// SPDX-License-Identifier: Apache-2.0
//! Changes to images; each saves the records once.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    BigDataItem, Image, NewImage,
    access::{ImagesWrite, unknown},
    history,
};
use crate::{
    Digest, Error, ErrorKind, Result, big_data,
    durable::Durability,
    records::{
        Lookup, Taken, Timestamp, Unknown, check_new_id,
        names::{self, NamesChange},
        new_id,
    },
    store::{clear_leftovers, record_dir, remove_tree},
};

impl ImagesWrite<'_> {
    /// Makes an image; `new.layer` is the id of a layer.
    ///
    /// # Errors
    /// `DuplicateId`, `DuplicateName`, `InvalidArgument` for an id that cannot be used,
    /// `InvalidBigDataName`. Nothing is left behind.
    ///
    /// # Durability
    /// The items are written first, the record last.
    pub fn create(&mut self, new: NewImage) -> Result<Image> {
        let id = match new.id {
            Some(id) => id,
            None => new_id()?,
        };
        check_new_id(&id)?;
        let names = names::deduplicate(new.names);
        self.check_free(&id, &names)?;
        let mut image = Image {
            id,
            digest: new.digest,
            names,
            names_history: new.names_history,
            top_layer: new.layer,
            metadata: new.metadata,
            created: new.created.unwrap_or_else(Timestamp::now),
            flags: new.flags,
            ..Image::default()
        };
        let dir = record_dir(&self.shared.dir, &image.id)?;
        clear_leftovers(&dir)?;
        let done = store_items(&mut image, &dir, new.big_data, self.shared.durability)
            .and_then(|()| self.add(&image));
        if let Err(error) = done {
            if !self.may_be_recorded(&image.id)
                && let Err(cleanup) = clear_leftovers(&dir)
            {
                tracing::warn!(?cleanup, "data of an image that was not made stays behind");
            }
            return Err(error);
        }
        Ok(image)
    }

    fn add(&mut self, image: &Image) -> Result<()> {
        let records = self.edit()?.records_mut();
        records
            .insert(image.clone(), 0)
            .map_err(|taken| match taken {
                Taken::Id => id_taken(&image.id),
                Taken::Name { name, owner } => name_taken(&name, &owner),
            })?;
        self.commit()
    }

    fn check_free(&mut self, id: &str, names: &[String]) -> Result<()> {
        let records = self.edit()?.records();
        if records.get(id).is_some() {
            return Err(id_taken(id));
        }
        for name in names {
            if let Some(owner) = records.by_name(name) {
                return Err(name_taken(name, &owner.id));
            }
        }
        Ok(())
    }

    /// Copies the record and data of an image in a read-only store, so that it can be changed.
    ///
    /// # Errors
    /// As [`ImagesWrite::create`].
    pub(crate) fn pull_up(&mut self, image: &Image) -> Result<()> {
        let mut items = Vec::with_capacity(image.big_data_names.len());
        for key in &image.big_data_names {
            items.push(BigDataItem {
                key: key.clone(),
                data: self.big_data(&image.id, key)?,
                digest: image.big_data_digests.get(key).cloned(),
            });
        }
        // Names that an own image has in the meantime stay with that one.
        let free = |name: &&String| self.table.records().by_name(name).is_none();
        let names = image.names.iter().filter(free).cloned().collect();
        let dir = record_dir(&self.shared.dir, &image.id)?;
        let mut copy = Image {
            names,
            mapped_layers: Vec::new(),
            big_data_names: Vec::new(),
            big_data_sizes: BTreeMap::new(),
            big_data_digests: BTreeMap::new(),
            unknown: Unknown::default(),
            read_only: false,
            ..image.clone()
        };
        let done = store_items(&mut copy, &dir, items, self.shared.durability)
            .and_then(|()| self.add(&copy));
        if done.is_err()
            && !self.may_be_recorded(&copy.id)
            && let Err(cleanup) = clear_leftovers(&dir)
        {
            tracing::warn!(
                ?cleanup,
                "data of an image that was not copied stays behind"
            );
        }
        done
    }

    /// Changes the names; those that another image has move here.
    ///
    /// # Errors
    /// `ImageUnknown`.
    pub(crate) fn change_names(
        &mut self,
        what: &str,
        given: &[String],
        change: NamesChange,
    ) -> Result<()> {
        let id = self.own_id(what)?;
        let records = self.edit()?.records_mut();
        let image = records.edit(&id).expect("found above");
        let new = names::changed(&image.names, given, change);
        history::record(&mut image.names_history, &new);
        records.set_names(&id, new).expect("found above");
        self.commit()
    }

    /// Replaces the metadata.
    ///
    /// # Errors
    /// `ImageUnknown`.
    pub fn set_metadata(&mut self, what: &str, metadata: &str) -> Result<()> {
        metadata.clone_into(&mut self.record(what)?.metadata);
        self.commit()
    }

    /// Sets a flag.
    ///
    /// # Errors
    /// `ImageUnknown`, `InvalidArgument`.
    pub fn set_flag<T: Serialize + ?Sized>(
        &mut self,
        what: &str,
        flag: &str,
        value: &T,
    ) -> Result<()> {
        self.record(what)?.flags.set(flag, value)?;
        self.commit()
    }

    /// Removes a flag.
    ///
    /// # Errors
    /// `ImageUnknown`.
    pub fn clear_flag(&mut self, what: &str, flag: &str) -> Result<()> {
        self.record(what)?.flags.remove(flag);
        self.commit()
    }

    /// Notes a copy of the top layer with other id maps.
    ///
    /// # Errors
    /// `ImageUnknown`.
    pub fn add_mapped_layer(&mut self, what: &str, layer: &str) -> Result<()> {
        self.record(what)?.mapped_layers.push(layer.to_owned());
        self.commit()
    }

    /// Forgets mapped copies of top layers, in whichever images they are noted.
    ///
    /// # Errors
    /// What saving reports.
    pub(crate) fn forget_mapped_layers(&mut self, layers: &[String]) -> Result<()> {
        let affected: Vec<String> = self
            .own()
            .filter(|image| image.mapped_layers.iter().any(|id| layers.contains(id)))
            .map(|image| image.id.clone())
            .collect();
        if affected.is_empty() {
            return Ok(());
        }
        for id in affected {
            let image = self.record(&id)?;
            image.mapped_layers.retain(|layer| !layers.contains(layer));
        }
        self.commit()
    }

    /// Stores a big data item; without `digest`, SHA-256 of the data is recorded.
    ///
    /// # Behavior
    /// - The records are saved only when size, digest or the list of keys changed.
    ///
    /// # Errors
    /// `ImageUnknown`, `InvalidBigDataName`.
    pub fn set_big_data(
        &mut self,
        what: &str,
        key: &str,
        data: &[u8],
        digest: Option<Digest>,
    ) -> Result<()> {
        let id = self.own_id(what)?;
        let dir = record_dir(&self.shared.dir, &id)?;
        check_key(key)?;
        big_data::write(&dir, key, data, self.shared.durability)?;
        let digest = digest.unwrap_or_else(|| Digest::sha256(data));
        let mut image = self.get(&id)?;
        if !note(&mut image, key, data.len(), &digest) {
            return Ok(());
        }
        *self.record(&id)? = image;
        self.commit()
    }

    /// Removes the record, then the data.
    ///
    /// # Errors
    /// `ImageUnknown`, and what removing the data reports: the record is gone then.
    pub fn delete(&mut self, what: &str) -> Result<()> {
        let id = self.own_id(what)?;
        self.delete_all(&[id])
    }

    /// Removes every image that can be changed.
    ///
    /// # Errors
    /// As [`ImagesWrite::delete`].
    pub fn wipe(&mut self) -> Result<()> {
        let ids: Vec<String> = self.own().map(|image| image.id.clone()).collect();
        self.delete_all(&ids)
    }

    fn delete_all(&mut self, ids: &[String]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let records = self.edit()?.records_mut();
        for id in ids {
            records.remove(id);
        }
        self.commit()?;
        let mut outcome = Ok(());
        for id in ids {
            // A record of another tool may have an id that leads out of the directory.
            match record_dir(&self.shared.dir, id) {
                Ok(dir) => outcome = outcome.and(remove_tree(&dir)),
                Err(error) => tracing::warn!(?error, id, "the image's data is left alone"),
            }
        }
        outcome
    }

    /// Whether the image is recorded on disk, or that cannot be found out: a save may fail after
    /// the records were replaced (when the directory cannot be synchronised).
    pub(crate) fn may_be_recorded(&mut self, id: &str) -> bool {
        self.edit()
            .map_or(true, |table| table.records().get(id).is_some())
    }

    /// Directories that look like an image's data but belong to no record.
    pub(crate) fn orphans(&self) -> Result<Vec<PathBuf>> {
        crate::store::orphans(&self.shared.dir, |id| {
            self.table.records().get(id).is_some()
        })
    }

    fn record(&mut self, what: &str) -> Result<&mut Image> {
        let id = self.own_id(what)?;
        let record = self.edit()?.records_mut().edit(&id);
        record.ok_or_else(|| unknown(what, &[]))
    }

    fn own_id(&mut self, what: &str) -> Result<String> {
        self.edit()?;
        match self.table.records().lookup(what) {
            Lookup::Found(image) => Ok(image.id.clone()),
            Lookup::Ambiguous(candidates) => Err(unknown(what, &candidates)),
            Lookup::Missing if self.find(what).is_some() => Err(Error::new(
                ErrorKind::StoreIsReadOnly,
                format!("image {what:?}: called a write method on a read-only store"),
            )
            .subject(what)
            .hint("give it a name first: that copies its record into this store")),
            Lookup::Missing => Err(unknown(what, &[])),
        }
    }
}

fn store_items(
    image: &mut Image,
    dir: &Path,
    items: Vec<BigDataItem>,
    durability: Durability,
) -> Result<()> {
    for item in items {
        check_key(&item.key)?;
        big_data::write(dir, &item.key, &item.data, durability)?;
        let digest = item.digest.unwrap_or_else(|| Digest::sha256(&item.data));
        note(image, &item.key, item.data.len(), &digest);
    }
    image.find_digests();
    Ok(())
}

/// Notes an item in the record; says whether anything changed.
fn note(image: &mut Image, key: &str, size: usize, digest: &Digest) -> bool {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    let changed = big_data::note(
        &mut image.big_data_names,
        &mut image.big_data_sizes,
        &mut image.big_data_digests,
        (key, size, digest),
    );
    let had_digest = image.digest.is_some();
    image.find_digests();
    changed || image.digest.is_some() != had_digest
}

fn check_key(key: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidBigDataName,
            "can't set empty name for image big data item: not a valid name for a big data item",
        ));
    }
    Ok(())
}

fn id_taken(id: &str) -> Error {
    Error::new(
        ErrorKind::DuplicateId,
        format!("an image with ID {id:?} already exists: that ID is already in use"),
    )
    .subject(id)
}

fn name_taken(name: &str, owner: &str) -> Error {
    Error::new(
        ErrorKind::DuplicateName,
        format!(
            "image name {name:?} is already associated with image {owner:?}: that name is already \
             in use"
        ),
    )
    .subject(name)
    .hint("choose another name, or move it with set-names or add-names")
}
