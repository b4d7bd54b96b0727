// SPDX-License-Identifier: Apache-2.0
//! Looking layers up in directories.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use data_encoding::BASE64;
use plywood_plugin_sdk::{
    DriverError, DriverErrorCode, Host, LayerQuery, LayerSource, LogLevel, OpenRequest, Result,
    SourceLayer,
    toolkit::layer_store::{LayerDirectory, NamedStore, Notified, StoresConfig},
};

use crate::NAME;

/// The stores that the options name.
pub(crate) struct DirectorySource {
    config: StoresConfig,
    host: Arc<dyn Host>,
}

impl DirectorySource {
    pub(crate) fn open(request: OpenRequest) -> Result<Self> {
        Ok(Self {
            config: StoresConfig::read(&request.options, NAME)?,
            host: request.host,
        })
    }

    /// The layer in `store`, in use; `None` when the store does not have it.
    fn find(
        &self,
        store: &NamedStore,
        digest: &str,
        reference: Option<&str>,
    ) -> Result<Option<SourceLayer>> {
        let path = directory(store, digest, reference);
        let layer = LayerDirectory::new(path, self.config.timeout);
        if !layer.is_complete()? {
            return Ok(None);
        }
        self.told(&layer, layer.notify_use()?);
        let info = layer.info().or_else(|error| {
            self.release(layer.path())?;
            Err(error)
        })?;
        let mut found = SourceLayer::new(layer.path(), info, self.config.timeout);
        found.blob = Some(layer.blob());
        Ok(Some(found))
    }

    fn told(&self, layer: &LayerDirectory, answer: Notified) {
        if let Notified::NotCounted(why) = answer {
            let shown = layer.path().display();
            let text = format!("the store does not count uses of `{shown}`: {why}");
            self.host.log(LogLevel::Debug, NAME, &text);
        }
    }
}

impl LayerSource for DirectorySource {
    fn status(&self) -> Result<Vec<(String, String)>> {
        let mut pairs = Vec::new();
        for store in &self.config.stores {
            let mut value = store.path.display().to_string();
            if store.by_reference {
                value.push_str(" (by reference)");
            }
            pairs.push(("Additional layer store".to_owned(), value));
        }
        let timeout = format!("{} s", self.config.timeout.as_secs());
        pairs.push(("Time-out".to_owned(), timeout));
        Ok(pairs)
    }

    fn lookup(&self, query: &LayerQuery) -> Result<Option<SourceLayer>> {
        let reference = query.reference.as_deref();
        for digest in [&query.toc_digest, &query.digest].into_iter().flatten() {
            check(digest)?;
            for store in &self.config.stores {
                if let Some(found) = self.find(store, digest, reference)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    fn release(&self, directory: &Path) -> Result<()> {
        let layer = LayerDirectory::new(directory, self.config.timeout);
        self.told(&layer, layer.notify_release()?);
        Ok(())
    }
}

/// Where a store has the layer, if it has it.
///
/// # Compatibility
/// `getAdditionalLayerPath` in `drivers/overlay/overlay.go`: the alphabet of base64 has a `/`,
/// which makes a directory more, and an empty reference makes none.
fn directory(store: &NamedStore, digest: &str, reference: Option<&str>) -> PathBuf {
    let reference = reference.filter(|_| store.by_reference).unwrap_or_default();
    let mut path = store.path.clone();
    for part in BASE64.encode(reference.as_bytes()).split('/') {
        if !part.is_empty() {
            path.push(part);
        }
    }
    path.push(digest);
    path
}

/// Refuses what would be more than one component of a path.
fn check(digest: &str) -> Result<()> {
    let harmless = digest.split_once(':').is_some_and(|(algorithm, hex)| {
        let word = |text: &str, also: &[u8]| {
            let mut bytes = text.bytes();
            !text.is_empty() && bytes.all(|b| b.is_ascii_alphanumeric() || also.contains(&b))
        };
        word(algorithm, b"+._-") && word(hex, b"=_-")
    });
    if harmless {
        return Ok(());
    }
    let message = format!("`{digest}` is no digest");
    Err(DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message).object(digest))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Quiet;

    impl Host for Quiet {
        fn log(&self, _: LogLevel, _: &str, _: &str) {}
    }

    fn open(root: &Path, options: &[String]) -> Result<DirectorySource> {
        let mut request = OpenRequest::new(root.join("home"), root.join("run"), Arc::new(Quiet));
        request.options = options.to_vec();
        DirectorySource::open(request)
    }

    fn layer(directory: &Path) {
        fs::create_dir_all(directory.join("diff")).unwrap();
        fs::write(directory.join("info"), "{\"id\":\"x\"}").unwrap();
        fs::write(directory.join("blob"), "stream").unwrap();
    }

    fn query(digest: &str, toc: Option<&str>, reference: Option<&str>) -> LayerQuery {
        let mut query = LayerQuery::default();
        query.digest = Some(digest.to_owned());
        query.toc_digest = toc.map(str::to_owned);
        query.reference = reference.map(str::to_owned);
        query
    }

    #[test]
    fn layers_are_found_by_both_digests_and_by_reference() {
        let root = tempfile::tempdir().unwrap();
        let (plain, named) = (root.path().join("plain"), root.path().join("named"));
        layer(&plain.join("sha256:aa"));
        layer(&plain.join("sha256:bb"));
        // `subjects?_d` in base64 has a slash.
        layer(&named.join("c3ViamVjdHM/X2Q=/sha256:cc"));
        let options = [
            format!("additionallayerstore={}", plain.display()),
            format!("overlay.additionallayerstore={}:ref", named.display()),
            "additionallayerstore_timeout=5".to_owned(),
            "vfs.nonsense=1".to_owned(),
        ];
        let source = open(root.path(), &options).unwrap();
        let found = |query: LayerQuery| {
            let found = source.lookup(&query).unwrap();
            found.map(|found| {
                let below = found.directory.strip_prefix(root.path()).unwrap();
                assert_eq!(found.diff, found.directory.join("diff"));
                assert_eq!(found.blob, Some(found.directory.join("blob")));
                assert_eq!(found.info, b"{\"id\":\"x\"}");
                source.release(&found.directory).unwrap();
                below.to_str().unwrap().to_owned()
            })
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            found(query("sha256:aa", None, None)),
            some("plain/sha256:aa")
        );
        let both = query("sha256:aa", Some("sha256:bb"), Some("x"));
        assert_eq!(
            found(both),
            some("plain/sha256:bb"),
            "the table of contents is tried first"
        );
        let fallen = query("sha256:aa", Some("sha256:00"), None);
        assert_eq!(found(fallen), some("plain/sha256:aa"));
        let by_name = query("sha256:cc", None, Some("subjects?_d"));
        assert_eq!(found(by_name), some("named/c3ViamVjdHM/X2Q=/sha256:cc"));
        assert_eq!(found(query("sha256:cc", None, Some("other"))), None);
        assert_eq!(found(query("sha256:cc", None, None)), None);
        let status = source.status().unwrap();
        assert!(status[1].1.ends_with("named (by reference)"), "{status:?}");
        for wrong in ["", "sha256", "sha256:", ":aa", "sha256:../aa", "../x:aa"] {
            let error = source.lookup(&query(wrong, None, None)).unwrap_err();
            assert_eq!(error.code, DriverErrorCode::INVALID_ARGUMENT, "{wrong}");
        }
    }

    #[test]
    fn wrong_options_are_refused_and_incomplete_layers_are_not_found() {
        let root = tempfile::tempdir().unwrap();
        let shown = root.path().display();
        for wrong in [
            "relative".to_owned(),
            format!("{shown}:ref:ref"),
            format!("{shown}:x"),
        ] {
            let options = [format!("additionallayerstore={wrong}")];
            let error = open(root.path(), &options).err().unwrap();
            assert_eq!(error.code, DriverErrorCode::INVALID_ARGUMENT, "{wrong}");
        }
        layer(&root.path().join("sha256:aa"));
        fs::remove_file(root.path().join("sha256:aa/blob")).unwrap();
        let source = open(root.path(), &[format!("additionallayerstore={shown}")]).unwrap();
        assert_eq!(
            source.lookup(&query("sha256:aa", None, None)).unwrap(),
            None
        );
    }
}
