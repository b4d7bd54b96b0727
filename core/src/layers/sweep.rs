// SPDX-License-Identifier: Apache-2.0
//! Cleaning up what crashes of this program and of others left.

use std::{collections::BTreeSet, sync::Arc};

use super::{access::LayersWrite, options::LayerStore};
use crate::Result;

impl LayersWrite<'_> {
    /// Removes incomplete layers, resolves repeated names, reclaims staging and trash.
    ///
    /// # Errors
    /// Only that the records cannot be read any more; everything else is logged, and tried again
    /// by the next writer.
    pub(super) fn sweep(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let mut reclaimed = Vec::new();
        self.sweep_records(&mut reclaimed);
        self.fresh()?;
        // What could not be resolved is tried again when somebody has changed the records.
        Arc::make_mut(&mut self.view.table).untidy = false;
        if let Some(driver) = &shared.driver {
            match shared.recover_intents(self) {
                Ok(found) => reclaimed.extend(found),
                Err(error) => tracing::warn!(?error, "leftovers cannot be reclaimed"),
            }
            match driver.recover() {
                Ok(found) => reclaimed.extend(found),
                Err(error) => tracing::warn!(?error, "the driver's leftovers cannot be reclaimed"),
            }
        }
        for what in &reclaimed {
            tracing::info!(what, "reclaimed what a crash left");
        }
        shared.state().reclaimed.append(&mut reclaimed);
        Ok(())
    }

    fn sweep_records(&mut self, reclaimed: &mut Vec<String>) {
        let incomplete: BTreeSet<String> = self.table.incomplete().into_iter().collect();
        if incomplete.is_empty() {
            if self.table.is_changed()
                && let Err(error) = self.save()
            {
                tracing::warn!(?error, "names that two layers had cannot be resolved");
            }
            return;
        }
        match self.remove(&incomplete) {
            Ok(reaper) => {
                reclaimed.extend(incomplete.iter().map(|id| format!("incomplete layer {id}")));
                self.reapers.push(reaper);
            }
            Err(error) => tracing::warn!(?error, ?incomplete, "incomplete layers stay"),
        }
    }
}

impl LayerStore {
    /// What was reclaimed since this was last asked, for people.
    pub fn take_reclaimed(&self) -> Vec<String> {
        std::mem::take(&mut self.0.state().reclaimed)
    }
}
