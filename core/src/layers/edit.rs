// SPDX-License-Identifier: Apache-2.0
//! Changes of records that do not touch content.

use serde::Serialize;

use super::{
    access::LayersWrite,
    options::{Shared, driver_id},
    record::INCOMPLETE,
};
use crate::{
    Error, ErrorKind, Result, big_data,
    records::names::{self, NamesChange},
};

impl LayersWrite<'_> {
    /// Gives a layer exactly these names; other layers lose those that they have among them.
    ///
    /// # Errors
    /// `LayerUnknown`, and `StoreIsReadOnly` for a layer of a read-only store.
    pub fn set_names(&mut self, what: &str, given: &[String]) -> Result<()> {
        self.change_names(what, given, NamesChange::Set)
    }

    /// Puts names before those that a layer has; other layers lose them.
    ///
    /// # Errors
    /// As [`LayersWrite::set_names`].
    pub fn add_names(&mut self, what: &str, given: &[String]) -> Result<()> {
        self.change_names(what, given, NamesChange::Add)
    }

    /// Takes names from a layer.
    ///
    /// # Errors
    /// As [`LayersWrite::set_names`].
    pub fn remove_names(&mut self, what: &str, given: &[String]) -> Result<()> {
        self.change_names(what, given, NamesChange::Remove)
    }

    fn change_names(&mut self, what: &str, given: &[String], change: NamesChange) -> Result<()> {
        self.fresh()?;
        let id = self.own(what, "change layer name assignments")?;
        let old = &self.find(&id)?.layer.names;
        let new = names::changed(old, given, change);
        self.records().set_names(&id, new);
        self.save()
    }

    /// Replaces a layer's metadata.
    ///
    /// # Errors
    /// As [`LayersWrite::set_names`].
    pub fn set_metadata(&mut self, what: &str, metadata: &str) -> Result<()> {
        self.fresh()?;
        let id = self.own(what, "modify layer metadata")?;
        if let Some(layer) = self.records().edit(&id) {
            metadata.clone_into(&mut layer.metadata);
        }
        self.save()
    }

    /// Sets a flag of a layer.
    ///
    /// # Errors
    /// As [`LayersWrite::set_names`]; `InvalidArgument` for the flag that marks an incomplete layer,
    /// which nobody must see.
    pub fn set_flag<T: Serialize + ?Sized>(
        &mut self,
        what: &str,
        flag: &str,
        value: &T,
    ) -> Result<()> {
        self.fresh()?;
        let id = self.own(what, "set flags on layers")?;
        check_flag(flag)?;
        if let Some(layer) = self.records().edit(&id) {
            layer.flags.set(flag, value)?;
        }
        self.save()
    }

    /// Removes a flag of a layer.
    ///
    /// # Errors
    /// As [`LayersWrite::set_names`].
    pub fn clear_flag(&mut self, what: &str, flag: &str) -> Result<()> {
        self.fresh()?;
        let id = self.own(what, "clear flags on layers")?;
        check_flag(flag)?;
        if let Some(layer) = self.records().edit(&id) {
            layer.flags.remove(flag);
        }
        self.save()
    }

    /// Stores a big data item of a layer, replacing one with the same key.
    ///
    /// # Errors
    /// `LayerUnknown`, `StoreIsReadOnly`, `InvalidBigDataName`, and what writing reports.
    pub fn set_big_data(&mut self, what: &str, key: &str, data: &[u8]) -> Result<()> {
        self.fresh()?;
        let id = self.own(what, "save data items associated with layers")?;
        check_key(key)?;
        let dir = Shared::data_dir(&self.shared.dir, &driver_id(&id)?);
        big_data::write(&dir, key, data, self.shared.durability)?;
        let known = &self.find(&id)?.layer.big_data_names;
        if known.iter().any(|name| name == key) {
            return Ok(());
        }
        if let Some(layer) = self.records().edit(&id) {
            layer.big_data_names.push(key.to_owned());
        }
        self.save()
    }
}

pub(super) fn check_flag(flag: &str) -> Result<()> {
    if flag != INCOMPLETE {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("the flag `{flag}` belongs to the store itself"),
    )
    .subject(flag))
}

pub(super) fn check_key(key: &str) -> Result<()> {
    if !key.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidBigDataName,
        "can't set empty name for layer big data item: not a valid name for a big data item",
    ))
}
