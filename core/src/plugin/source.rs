// SPDX-License-Identifier: Apache-2.0
//! What stands between core and every layer source, linked in or loaded.

use std::{
    fmt,
    path::Path,
    sync::{Arc, OnceLock},
};

use plywood_plugin_sdk::{DriverErrorCode, LayerQuery, LayerSource, SourceLayer, abi::contain};

use super::Origin;
use crate::{Error, ErrorKind, Result};

/// An open layer source behind core's checks; cheap to clone.
///
/// # Behavior
/// - Failures arrive as [`Error`] and name the source.
/// - A panic of the source becomes an error. From then on it is asked for nothing more.
/// - An answer with a path that is not absolute is an error.
#[derive(Clone)]
pub struct SourceHandle(Arc<Guarded>);

struct Guarded {
    name: String,
    origin: Origin,
    poison: OnceLock<String>,
    /// Taken out only by `drop`.
    source: Option<Box<dyn LayerSource>>,
}

impl SourceHandle {
    /// Guards a source that the program made itself.
    pub fn from_source(name: impl Into<String>, source: Box<dyn LayerSource>) -> Self {
        Self::new(name.into(), Origin::Given, source)
    }

    pub(super) fn new(name: String, origin: Origin, source: Box<dyn LayerSource>) -> Self {
        Self(Arc::new(Guarded {
            name,
            origin,
            poison: OnceLock::new(),
            source: Some(source),
        }))
    }

    /// The source's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Where the source came from.
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// Pairs for people, for instance the directories that are searched.
    pub fn status(&self) -> Result<Vec<(String, String)>> {
        self.call("status", |source| source.status())
    }

    /// Finds a layer, which is in use until [`SourceHandle::release`]; `None` when the source does
    /// not have it.
    pub fn lookup(&self, query: &LayerQuery) -> Result<Option<SourceLayer>> {
        let found = self.call("lookup", |source| source.lookup(query))?;
        if let Some(layer) = &found {
            let paths = [&layer.directory, &layer.diff];
            for path in paths.into_iter().chain(&layer.blob) {
                self.absolute(path)?;
            }
        }
        Ok(found)
    }

    /// Ends one use of the layer in `directory`.
    pub fn release(&self, directory: &Path) -> Result<()> {
        self.call("release", |source| source.release(directory))
    }

    fn absolute(&self, path: &Path) -> Result<()> {
        if path.is_absolute() {
            return Ok(());
        }
        let (name, shown) = (&self.0.name, path.display());
        Err(Error::new(
            ErrorKind::Driver,
            format!("layer source `{name}` gave a path that is not absolute: `{shown}`"),
        )
        .subject(name))
    }

    fn call<T>(
        &self,
        operation: &'static str,
        run: impl FnOnce(&dyn LayerSource) -> plywood_plugin_sdk::Result<T>,
    ) -> Result<T> {
        let name = &self.0.name;
        if let Some(text) = self.0.poison.get() {
            return Err(Error::new(
                ErrorKind::DriverPoisoned,
                format!("layer source `{name}` is refused for {operation} since it {text}"),
            )
            .subject(name)
            .hint("report the panic to the source's vendor, then start the program again"));
        }
        let source = self.0.source.as_deref();
        let source = source.expect("the source is taken out only when the handle is gone");
        contain(operation, || run(source)).map_err(|error| {
            if error.code == DriverErrorCode::PANICKED {
                tracing::error!(source = name, operation, "{error}");
                self.0.poison.get_or_init(|| error.message.clone());
            }
            Error::from(error).prefixed(format_args!("layer source `{name}`"))
        })
    }
}

impl fmt::Debug for SourceHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceHandle")
            .field("name", &self.0.name)
            .field("origin", &self.0.origin)
            .finish_non_exhaustive()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let source = self.source.take();
        let dropped = contain("drop", || {
            drop(source);
            Ok(())
        });
        if let Err(error) = dropped {
            tracing::error!(source = self.name, "{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use plywood_plugin_sdk as sdk;

    use super::*;

    struct Odd;

    impl LayerSource for Odd {
        fn status(&self) -> sdk::Result<Vec<(String, String)>> {
            Ok(Vec::new())
        }

        fn lookup(&self, query: &LayerQuery) -> sdk::Result<Option<SourceLayer>> {
            match query.reference.as_deref() {
                Some("panic") => panic!("as asked"),
                Some(path) => {
                    let timeout = std::time::Duration::from_secs(1);
                    Ok(Some(SourceLayer::new(path, Vec::new(), timeout)))
                }
                None => Ok(None),
            }
        }

        fn release(&self, _: &Path) -> sdk::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_source_does_wrong_ends_here() {
        let source = SourceHandle::from_source("odd", Box::new(Odd));
        let lookup = |reference: Option<&str>| {
            let mut query = LayerQuery::default();
            query.reference = reference.map(str::to_owned);
            source.lookup(&query)
        };
        assert_eq!(lookup(None).unwrap(), None);
        assert!(lookup(Some("/layer")).unwrap().is_some());
        let error = lookup(Some("relative")).unwrap_err();
        assert!(error.to_string().contains("not absolute"), "{error}");
        let error = lookup(Some("panic")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DriverPoisoned);
        let error = lookup(None).unwrap_err();
        assert!(error.to_string().contains("refused for lookup"), "{error}");
        assert!(error.remedy().is_some());
    }
}
