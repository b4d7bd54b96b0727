// SPDX-License-Identifier: Apache-2.0
//! A layer source that uses everything that came with version 1.1, for the test of its promise.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use plywood_plugin_sdk::{
    DriverError, DriverErrorCode, ExternalDirectory, IoContext, LayerQuery, LayerSource,
    OpenRequest, Result, SourceLayer, SourcePlugin,
    toolkit::layer_store::{LayerDirectory, StoresConfig},
};

struct Second;

impl SourcePlugin for Second {
    const NAME: &'static str = "second";
    const VENDOR: &'static str = "Plywood tests";
    const VERSION: &'static str = "1.0.0";

    fn open(request: OpenRequest) -> Result<Box<dyn LayerSource>> {
        request.log(Self::NAME).info("opening");
        if request.options.iter().any(|option| option == "refuse") {
            return Err(
                DriverError::new(DriverErrorCode::PREREQUISITES, "asked to refuse")
                    .remedy("do not ask"),
            );
        }
        let config = StoresConfig::read(&request.options, Self::NAME)?;
        fs::create_dir_all(&request.run_dir).at("cannot create", &request.run_dir)?;
        Ok(Box::new(Open {
            stores: config.stores.into_iter().map(|store| store.path).collect(),
            timeout: config.timeout,
            used: Mutex::default(),
        }))
    }
}

plywood_plugin_sdk::export_layer_source!(Second);

struct Open {
    stores: Vec<PathBuf>,
    timeout: Duration,
    used: Mutex<Vec<PathBuf>>,
}

impl LayerSource for Open {
    fn status(&self) -> Result<Vec<(String, String)>> {
        let used = self.used.lock().map_err(|_| broken())?;
        let used = used.iter().map(|path| path.display().to_string());
        Ok(used.map(|path| ("In use".to_owned(), path)).collect())
    }

    fn lookup(&self, query: &LayerQuery) -> Result<Option<SourceLayer>> {
        if query.reference.as_deref() == Some("panic") {
            panic!("asked to panic");
        }
        for name in [&query.toc_digest, &query.digest].into_iter().flatten() {
            for store in &self.stores {
                let directory = LayerDirectory::new(store.join(name), self.timeout);
                if !directory.path().join("diff").is_dir() {
                    continue;
                }
                let info = directory.info()?;
                let mut layer = SourceLayer::new(directory.path(), info, self.timeout);
                if directory.blob().exists() {
                    layer.blob = Some(directory.blob());
                }
                assert_eq!(ExternalDirectory::of(&layer).diff, directory.diff());
                let mut used = self.used.lock().map_err(|_| broken())?;
                used.push(layer.directory.clone());
                return Ok(Some(layer));
            }
        }
        Ok(None)
    }

    fn release(&self, directory: &Path) -> Result<()> {
        let mut used = self.used.lock().map_err(|_| broken())?;
        let at = used.iter().position(|path| path == directory);
        let at = at.ok_or_else(|| {
            let text = format!("`{}` is not in use", directory.display());
            DriverError::new(DriverErrorCode::INVALID_ARGUMENT, text)
        })?;
        used.remove(at);
        Ok(())
    }
}

fn broken() -> DriverError {
    DriverError::new(DriverErrorCode::OTHER, "somebody panicked")
}
