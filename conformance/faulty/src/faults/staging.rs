// SPDX-License-Identifier: Apache-2.0
//! Places that show, stay, or go too early.

use plywood_plugin_sdk::{
    CreateRequest, Driver as _, DriverError, DriverErrorCode, LayerId, Result, Staged, toolkit,
};

use super::{
    AdoptReplaces, DiscardsNothing, RecoversNothing, RecoversTheLiving, StagesInSight,
    TrashesNothing,
};
use crate::wrapper::{Fault, Wrapper as _};

impl Fault for StagesInSight {
    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        let staged = self.driver().stage(request)?;
        self.driver().create(request)?;
        Ok(staged)
    }

    fn adopt(&self, token: &str, request: &CreateRequest) -> Result<()> {
        self.driver().remove(&request.id)?;
        self.driver().adopt(token, request)
    }
}

impl Fault for DiscardsNothing {
    fn discard(&self, _: &str) -> Result<()> {
        Ok(())
    }
}

impl Fault for AdoptReplaces {
    fn adopt(&self, token: &str, request: &CreateRequest) -> Result<()> {
        self.driver().remove(&request.id)?;
        self.driver().adopt(token, request)
    }
}

impl Fault for TrashesNothing {
    fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        Ok(self.driver().exists(id)?.then(|| id.to_string()))
    }

    fn reap(&self, token: &str) -> Result<()> {
        let id = LayerId::new(token).map_err(|error| {
            DriverError::new(DriverErrorCode::INVALID_ARGUMENT, error.to_string())
        })?;
        self.driver().remove(&id).map(drop)
    }
}

impl Fault for RecoversTheLiving {
    fn recover(&self) -> Result<Vec<String>> {
        toolkit::remove_tree(&self.driver().places())?;
        Ok(Vec::new())
    }
}

impl Fault for RecoversNothing {
    fn recover(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}
