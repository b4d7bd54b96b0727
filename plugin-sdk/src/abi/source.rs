// SPDX-License-Identifier: Apache-2.0
//! Both sides of a layer source at the boundary.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use abi_stable::{
    erased_types::TD_Opaque,
    std_types::{ROption, RString, RVec, Tuple2},
};

use super::{
    convert::{
        maybe_path, maybe_path_buf, maybe_string, maybe_text, pairs, received, sent, string_pairs,
    },
    export::RemoteHost,
    panic_log::{self, contain_and_log},
    types::{AbiExternal, AbiOpen, AbiPath, AbiQuery, AbiResult, AbiSourceLayer, Extra},
    vtable::{HostBox, SourceBox, SourceV, SourceV_TO},
};
use crate::{
    DriverError, ExternalDirectory, Host, LayerQuery, LayerSource, Result, SourceLayer,
    SourcePlugin,
};

impl From<&LayerQuery> for AbiQuery {
    fn from(query: &LayerQuery) -> Self {
        Self {
            digest: maybe_text(query.digest.as_ref()),
            toc_digest: maybe_text(query.toc_digest.as_ref()),
            reference: maybe_text(query.reference.as_ref()),
            extra: Extra::new(),
        }
    }
}

impl From<AbiQuery> for LayerQuery {
    fn from(query: AbiQuery) -> Self {
        Self {
            digest: maybe_string(query.digest),
            toc_digest: maybe_string(query.toc_digest),
            reference: maybe_string(query.reference),
        }
    }
}

fn millis(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
}

impl From<SourceLayer> for AbiSourceLayer {
    fn from(layer: SourceLayer) -> Self {
        Self {
            directory: layer.directory.as_path().into(),
            diff: layer.diff.as_path().into(),
            info: layer.info.into(),
            blob: maybe_path(layer.blob.as_ref()),
            timeout_millis: millis(layer.timeout),
            extra: Extra::new(),
        }
    }
}

impl From<AbiSourceLayer> for SourceLayer {
    fn from(layer: AbiSourceLayer) -> Self {
        Self {
            directory: layer.directory.into(),
            diff: layer.diff.into(),
            info: layer.info.into_vec(),
            blob: maybe_path_buf(layer.blob),
            timeout: Duration::from_millis(layer.timeout_millis),
        }
    }
}

impl From<&ExternalDirectory> for AbiExternal {
    fn from(external: &ExternalDirectory) -> Self {
        Self {
            directory: external.directory.as_path().into(),
            diff: external.diff.as_path().into(),
            timeout_millis: millis(external.timeout),
            extra: Extra::new(),
        }
    }
}

impl From<AbiExternal> for ExternalDirectory {
    fn from(external: AbiExternal) -> Self {
        Self {
            directory: external.directory.into(),
            diff: external.diff.into(),
            timeout: Duration::from_millis(external.timeout_millis),
        }
    }
}

pub(super) extern "C" fn open<S: SourcePlugin>(
    request: AbiOpen,
    host: HostBox,
) -> AbiResult<SourceBox> {
    let host: Arc<dyn Host> = Arc::new(RemoteHost(host));
    panic_log::install(S::NAME, &host);
    sent(contain_and_log(S::NAME, &*host, "open", || {
        let source = S::open(request.into_request(Arc::clone(&host))?)?;
        let adapter = Adapter {
            name: S::NAME,
            source: Some(source),
            host: Arc::clone(&host),
        };
        Ok(SourceV_TO::from_value(adapter, TD_Opaque))
    }))
}

/// What a plugin without a source exports in its place.
pub(super) extern "C" fn none(_: AbiOpen, _: HostBox) -> AbiResult<SourceBox> {
    sent(Err(DriverError::not_supported("giving layers")))
}

/// A source that cannot let a panic out.
struct Adapter {
    /// Taken out only by `drop`.
    source: Option<Box<dyn LayerSource>>,
    host: Arc<dyn Host>,
    name: &'static str,
}

impl Adapter {
    fn guard<T>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&dyn LayerSource) -> Result<T>,
    ) -> AbiResult<T> {
        sent(contain_and_log(self.name, &*self.host, operation, || {
            let source = self.source.as_deref();
            call(source.expect("the source is taken out only when the adapter is gone"))
        }))
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let source = self.source.take();
        let _already_logged = contain_and_log(self.name, &*self.host, "drop", || {
            drop(source);
            Ok(())
        });
    }
}

impl SourceV for Adapter {
    fn status(&self) -> AbiResult<RVec<Tuple2<RString, RString>>> {
        self.guard("status", |source| {
            let status = source.status()?;
            Ok(pairs(status.iter().map(|(key, value)| (key, value))))
        })
    }

    fn lookup(&self, query: AbiQuery) -> AbiResult<ROption<AbiSourceLayer>> {
        self.guard("lookup", |source| {
            Ok(source.lookup(&query.into())?.map(Into::into).into())
        })
    }

    fn release(&self, directory: AbiPath) -> AbiResult<()> {
        self.guard("release", |source| {
            source.release(&std::path::PathBuf::from(directory))
        })
    }
}

/// A layer source in a plugin, as core sees it.
pub struct RemoteSource(SourceBox);

impl RemoteSource {
    pub(super) fn new(source: SourceBox) -> Self {
        Self(source)
    }
}

impl fmt::Debug for RemoteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteSource").finish_non_exhaustive()
    }
}

impl LayerSource for RemoteSource {
    fn status(&self) -> Result<Vec<(String, String)>> {
        received(self.0.status()).map(string_pairs)
    }

    fn lookup(&self, query: &LayerQuery) -> Result<Option<SourceLayer>> {
        let found = received(self.0.lookup(query.into()))?;
        Ok(found.into_option().map(Into::into))
    }

    fn release(&self, directory: &Path) -> Result<()> {
        received(self.0.release(directory.into()))
    }
}
