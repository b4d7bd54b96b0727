// SPDX-License-Identifier: Apache-2.0
//! The private places that a driver instance holds.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::TempDir;
use crate::{DriverError, DriverErrorCode, Result};

/// Places by the tokens that core knows them by.
#[derive(Debug, Default)]
pub struct Places(Mutex<HashMap<String, Held>>);

/// A place, and what is in it.
#[derive(Debug)]
pub struct Held {
    /// The place.
    pub place: TempDir,
    /// What was staged or thrown away there.
    pub content: PathBuf,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        // Each operation on the map is one step, so a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a place; returns its token.
    pub fn hold(&self, held: Held) -> String {
        let token = held.place.name();
        self.lock().insert(token.clone(), held);
        token
    }

    /// What the place of `token` contains.
    ///
    /// # Errors
    /// [`NOT_FOUND`](DriverErrorCode::NOT_FOUND) when it is not held here.
    pub fn content(&self, token: &str) -> Result<PathBuf> {
        let places = self.lock();
        let held = places.get(token).ok_or_else(|| unknown(token))?;
        Ok(held.content.clone())
    }

    /// Gives the place of `token` to the caller.
    ///
    /// # Errors
    /// [`NOT_FOUND`](DriverErrorCode::NOT_FOUND) when it is not held here.
    pub fn take(&self, token: &str) -> Result<Held> {
        self.lock().remove(token).ok_or_else(|| unknown(token))
    }

    /// Deletes the place of `token` with everything in it; one that is not held here is gone
    /// already, so that doing it again is harmless.
    ///
    /// # Errors
    /// What cannot be deleted, which the next recovery tries again.
    pub fn discard(&self, token: &str) -> Result<()> {
        let held = self.lock().remove(token);
        held.map_or(Ok(()), |held| held.place.close())
    }
}

fn unknown(token: &str) -> DriverError {
    let message = format!("nothing is staged or in the trash as `{token}`");
    DriverError::new(DriverErrorCode::NOT_FOUND, message).object(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_by_its_token_until_it_is_discarded() {
        let root = tempfile::tempdir().unwrap();
        let places = Places::default();
        let mut place = TempDir::create(&root.path().join("tempdirs")).unwrap();
        let content = place.addition();
        std::fs::create_dir(&content).unwrap();
        let token = places.hold(Held {
            place,
            content: content.clone(),
        });
        assert_eq!(places.content(&token), Ok(content.clone()));
        places.discard(&token).unwrap();
        assert!(!content.exists());
        let code = DriverErrorCode::NOT_FOUND;
        assert_eq!(places.discard(&token), Ok(()), "twice is harmless");
        assert_eq!(places.content(&token).unwrap_err().code, code);
    }
}
