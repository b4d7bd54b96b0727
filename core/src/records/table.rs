// SPDX-License-Identifier: Apache-2.0
//! A list of records in one or two files, with its indexes.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    MemberError, Members,
    json::{decode_text, for_each_record, to_go_json_sized},
    names,
};
use crate::{
    Error, ErrorKind, Result,
    durable::{self, Durability},
};

/// One kind of record.
pub(crate) trait Record: Serialize + Clone {
    /// What it is called in messages: `layer`, `image` or `container`.
    const WHAT: &'static str;

    /// Whether an empty file is what a new one may look like. Otherwise it is damage: programs
    /// write `[]`, and a power cut leaves nothing.
    const EMPTY_IS_VALID: bool = false;

    /// What helps when the file is damaged.
    const REMEDY: &'static str = "nothing was changed; repair the JSON at that place or restore \
        the file from a backup before any other tool writes to this store";

    /// Takes the known members and keeps the rest.
    fn read(members: Members<'_>) -> Result<Self, MemberError>;

    /// Its id.
    fn id(&self) -> &str;

    /// Its names.
    fn names(&self) -> &[String];

    /// Its names, to be changed by the table alone.
    fn names_mut(&mut self) -> &mut Vec<String>;

    /// Another text by which it is found (the layer of a container).
    fn alias(&self) -> Option<&str> {
        None
    }
}

/// The outcome of a search by id, name, alias or prefix.
#[derive(Debug)]
pub(crate) enum Lookup<'a, R> {
    /// Found.
    Found(&'a R),
    /// The text is a prefix of several ids; a few of them.
    Ambiguous(Vec<String>),
    /// Not there.
    Missing,
}

/// Why a record cannot be added.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Another record has the id.
    Id,
    /// Another record has the name.
    Name {
        /// The name.
        name: String,
        /// The id of its owner.
        owner: String,
    },
}

/// A file of a table.
#[derive(Clone, Debug)]
struct TableFile {
    path: PathBuf,
    durability: Durability,
    changed: bool,
    /// The bytes that it had when it was last read or written.
    size: usize,
}

/// A record and where it is kept.
#[derive(Clone, Debug)]
struct Kept<R> {
    record: R,
    file: usize,
}

/// Records in creation order, found by id, name, alias or unique id prefix.
///
/// # Behavior
/// - Files are given in order of precedence; of two records with one id the first counts.
/// - A file that cannot be understood is an error and is never written.
/// - Only files whose records changed are written by [`Table::save`].
#[derive(Clone, Debug)]
pub(crate) struct Table<R> {
    files: Vec<TableFile>,
    /// In order of creation; a removed record leaves its place empty.
    entries: Vec<Option<Box<Kept<R>>>>,
    ids: HashMap<String, usize>,
    names: HashMap<String, usize>,
    aliases: HashMap<String, usize>,
}

/// How many candidates an ambiguous prefix names.
const CANDIDATES: usize = 5;

impl<R: Record> Table<R> {
    /// Reads the files; one that is not there has no records.
    ///
    /// # Errors
    /// `Corrupt` names the file, line, column, record and member that is not understood.
    pub(crate) fn load(files: &[(PathBuf, Durability)]) -> Result<Self> {
        let mut table = Self {
            files: Vec::with_capacity(files.len()),
            entries: Vec::new(),
            ids: HashMap::new(),
            names: HashMap::new(),
            aliases: HashMap::new(),
        };
        for (number, (path, durability)) in files.iter().enumerate() {
            table.files.push(TableFile {
                path: path.clone(),
                durability: *durability,
                changed: false,
                size: 0,
            });
            table.files[number].size = read_records(path, *durability, |record| {
                table.add_loaded(record, number);
            })?;
        }
        Ok(table)
    }

    /// Adds a record of a file: a repeated id is dropped, a repeated name goes to the later one.
    fn add_loaded(&mut self, mut record: R, file: usize) {
        let number = self.entries.len();
        let Entry::Vacant(place) = self.ids.entry(record.id().to_owned()) else {
            tracing::warn!(
                file = %self.files[file].path.display(), id = record.id(),
                "two {} records have the same id; the first one counts", R::WHAT
            );
            return;
        };
        place.insert(number);
        if record.names().len() > 1 {
            let unique = names::deduplicate(record.names().iter().cloned());
            if unique.len() != record.names().len() {
                *record.names_mut() = unique;
                self.files[file].changed = true;
            }
        }
        for name in record.names() {
            if let Some(&owner) = self.names.get(name) {
                let entry = self.entries[owner].as_mut().expect("indexed");
                tracing::warn!(
                    name,
                    id = entry.record.id(),
                    "two {} records have the same name; the later one keeps it",
                    R::WHAT
                );
                entry.record.names_mut().retain(|other| other != name);
                self.files[entry.file].changed = true;
            }
        }
        self.put(record, file);
    }

    /// Adds a record whose id is in the index already.
    fn put(&mut self, record: R, file: usize) {
        let number = self.entries.len();
        for name in record.names() {
            self.names.insert(name.clone(), number);
        }
        if let Some(alias) = record.alias() {
            self.aliases.insert(alias.to_owned(), number);
        }
        self.entries.push(Some(Box::new(Kept { record, file })));
    }

    fn record(&self, number: usize) -> &R {
        let entry = self.entries[number].as_ref();
        &entry.expect("indexed").record
    }

    /// Whether something is to be saved: after [`Table::load`], because names were repeated.
    pub(crate) fn is_changed(&self) -> bool {
        self.files.iter().any(|file| file.changed)
    }

    /// All records in order of creation.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &R> {
        self.entries.iter().flatten().map(|entry| &entry.record)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The record with exactly this id.
    pub(crate) fn get(&self, id: &str) -> Option<&R> {
        self.ids.get(id).map(|number| self.record(*number))
    }

    /// The record that has the name.
    pub(crate) fn by_name(&self, name: &str) -> Option<&R> {
        self.names.get(name).map(|number| self.record(*number))
    }

    /// The record that has the alias.
    pub(crate) fn by_alias(&self, alias: &str) -> Option<&R> {
        self.aliases.get(alias).map(|number| self.record(*number))
    }

    /// Searches by id, then name, then alias, then unique id prefix.
    pub(crate) fn lookup(&self, what: &str) -> Lookup<'_, R> {
        let exact = self
            .get(what)
            .or_else(|| self.by_name(what))
            .or_else(|| self.by_alias(what));
        if let Some(record) = exact {
            return Lookup::Found(record);
        }
        if what.is_empty() {
            return Lookup::Missing;
        }
        let mut candidates = self
            .iter()
            .filter(|record| record.id().starts_with(what))
            .take(CANDIDATES);
        match (candidates.next(), candidates.next()) {
            (None, _) => Lookup::Missing,
            (Some(record), None) => Lookup::Found(record),
            (Some(first), Some(second)) => Lookup::Ambiguous(
                [first, second]
                    .into_iter()
                    .chain(candidates)
                    .map(|record| record.id().to_owned())
                    .collect(),
            ),
        }
    }

    /// Adds a record at the end, to be saved in the file with that number.
    pub(crate) fn insert(&mut self, record: R, file: usize) -> Result<(), Taken> {
        if self.ids.contains_key(record.id()) {
            return Err(Taken::Id);
        }
        if let Some((name, owner)) = record
            .names()
            .iter()
            .find_map(|name| self.by_name(name).map(|owner| (name, owner)))
        {
            return Err(Taken::Name {
                name: name.clone(),
                owner: owner.id().to_owned(),
            });
        }
        self.ids.insert(record.id().to_owned(), self.entries.len());
        self.put(record, file);
        self.files[file].changed = true;
        Ok(())
    }

    /// Removes a record; the order of the others stays.
    pub(crate) fn remove(&mut self, id: &str) -> Option<R> {
        let number = self.ids.remove(id)?;
        let entry = self.entries[number].take().expect("indexed");
        for name in entry.record.names() {
            if self.names.get(name) == Some(&number) {
                self.names.remove(name);
            }
        }
        if let Some(alias) = entry.record.alias()
            && self.aliases.get(alias) == Some(&number)
        {
            self.aliases.remove(alias);
        }
        self.files[entry.file].changed = true;
        Some(entry.record)
    }

    /// A record to be changed; not its id, names ([`Table::set_names`]) or alias.
    pub(crate) fn edit(&mut self, id: &str) -> Option<&mut R> {
        let number = *self.ids.get(id)?;
        let entry = self.entries[number].as_mut().expect("indexed");
        self.files[entry.file].changed = true;
        Some(&mut entry.record)
    }

    /// Gives a record its names; other records lose those among them that they have.
    ///
    /// `None` when there is no such record.
    pub(crate) fn set_names(&mut self, id: &str, new: Vec<String>) -> Option<()> {
        let number = *self.ids.get(id)?;
        let entry = self.entries[number].as_mut().expect("indexed");
        let old = std::mem::take(entry.record.names_mut());
        for name in &old {
            self.names.remove(name);
        }
        for name in &new {
            if let Some(owner) = self.names.insert(name.clone(), number) {
                let entry = self.entries[owner].as_mut().expect("indexed");
                entry.record.names_mut().retain(|other| other != name);
                self.files[entry.file].changed = true;
            }
        }
        let entry = self.entries[number].as_mut().expect("indexed");
        *entry.record.names_mut() = new;
        self.files[entry.file].changed = true;
        Some(())
    }

    /// Writes the files whose records changed.
    ///
    /// # Durability
    /// Each file is replaced atomically. After a failure the caller drops the table and loads it
    /// anew, since it is not known which files were replaced.
    pub(crate) fn save(&mut self) -> Result<()> {
        for number in 0..self.files.len() {
            if !self.files[number].changed {
                continue;
            }
            let text = self.encode(number)?;
            let file = &mut self.files[number];
            durable::write_file(&file.path, text.as_bytes(), file.durability)?;
            file.changed = false;
            file.size = text.len();
        }
        Ok(())
    }

    fn encode(&self, file: usize) -> Result<String> {
        let entries = self.entries.iter().flatten();
        let records: Vec<&R> = entries
            .filter(|entry| entry.file == file)
            .map(|entry| &entry.record)
            .collect();
        // A file rarely grows by more than this at a time.
        let expected = self.files[file].size + 4096;
        to_go_json_sized(&records, expected).map_err(|error| {
            Error::new(
                ErrorKind::Corrupt,
                format!("a {} record has no JSON form", R::WHAT),
            )
            .subject(self.files[file].path.display().to_string())
            .caused_by(error)
        })
    }
}

/// Reads the records of a file one by one; returns the bytes of the file.
fn read_records<R: Record>(
    path: &Path,
    durability: Durability,
    take: impl FnMut(R),
) -> Result<usize> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(Error::io("cannot read", path, error)),
    };
    let size = bytes.len();
    if size > 0 {
        parse_records(&decode_text(bytes), path, take)?;
    } else if !R::EMPTY_IS_VALID && durability == Durability::Full {
        // Volatile records are never synchronised, and are not missed after a power cut.
        return Err(emptied::<R>(path));
    }
    Ok(size)
}

/// Reads the records in `text`, the content of `path`.
pub(crate) fn parse_records<R: Record>(
    text: &str,
    path: &Path,
    mut take: impl FnMut(R),
) -> Result<()> {
    let mut wrong = None;
    let mut number = 0;
    let parsed = for_each_record(text, |members| {
        number += 1;
        match R::read(members) {
            Ok(record) => take(record),
            Err(error) => wrong = Some(error),
        }
        wrong.is_none()
    });
    if let Some(error) = wrong {
        let at = error
            .at
            .saturating_sub(text.as_ptr().addr())
            .min(text.len());
        let before = &text.as_bytes()[..at];
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        let column = at - memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1) + 1;
        let place = format!(
            "line {line}, column {column}: member `{}` of record {number}",
            error.member
        );
        return Err(damaged::<R>(path, &place).caused_by(error.source));
    }
    parsed.map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        damaged::<R>(path, &place).caused_by(error)
    })
}

fn damaged<R: Record>(path: &Path, place: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "loading primary {} store data: `{}` is damaged at {place}",
            R::WHAT,
            path.display()
        ),
    )
    .subject(path.display().to_string())
    .hint(R::REMEDY)
}

fn emptied<R: Record>(path: &Path) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "loading primary {} store data: `{}` is empty, likely since a power cut",
            R::WHAT,
            path.display()
        ),
    )
    .subject(path.display().to_string())
    .hint(
        "restore the file from a backup; or, if nothing in this store is to be kept, remove it \
         and run `gc`",
    )
}

#[cfg(test)]
#[path = "table/tests.rs"]
mod tests;
