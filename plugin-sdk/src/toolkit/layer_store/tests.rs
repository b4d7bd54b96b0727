// SPDX-License-Identifier: Apache-2.0
//! Tests with plain directories, which count no uses.

use super::*;
use crate::toolkit::options;

fn layer(root: &Path) -> LayerDirectory {
    fs::create_dir_all(root.join("diff")).unwrap();
    fs::write(root.join("info"), "{}").unwrap();
    fs::write(root.join("blob"), "bytes").unwrap();
    LayerDirectory::new(root, DEFAULT_TIMEOUT)
}

#[test]
fn a_layer_is_complete_with_its_three_parts() {
    let root = tempfile::tempdir().unwrap();
    let layer = layer(root.path());
    assert!(layer.is_complete().unwrap());
    layer.check().unwrap();
    assert_eq!(layer.info().unwrap(), b"{}");
    for part in ["blob", "info"] {
        fs::remove_file(root.path().join(part)).unwrap();
        assert!(!layer.is_complete().unwrap(), "{part}");
    }
    fs::remove_dir(root.path().join("diff")).unwrap();
    let error = layer.check().unwrap_err();
    assert!(error.message.contains("/diff"), "{error}");
    assert!(error.remedy.is_some());
}

#[test]
fn a_plain_directory_is_left_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    let layer = layer(root.path());
    for told in [layer.notify_use(), layer.notify_release()] {
        assert!(matches!(told.unwrap(), Notified::NotCounted(_)));
    }
    assert!(layer.is_complete().unwrap());
    assert!(!root.path().join("use").exists());
    // What a counting store answers.
    let gone = LayerDirectory::new(root.path().join("gone"), DEFAULT_TIMEOUT);
    assert_eq!(gone.notify_use().unwrap(), Notified::Counted);
    assert_eq!(gone.notify_release().unwrap(), Notified::Counted);
    let relative = LayerDirectory::new("relative", DEFAULT_TIMEOUT);
    assert!(matches!(
        relative.notify_release().unwrap(),
        Notified::NotCounted(_)
    ));
}

fn parse(text: &str) -> Result<StoresConfig> {
    let given = [text.to_owned()];
    let mut config = StoresConfig::default();
    for option in options::own(&given, &["x"], &[])? {
        assert!(config.take(&option, "x")?, "{text}");
    }
    Ok(config)
}

#[test]
fn the_option_is_read_as_containers_storage_reads_it() {
    let root = tempfile::tempdir().unwrap();
    let (dir, file) = (root.path().display().to_string(), root.path().join("f"));
    fs::write(&file, "").unwrap();
    let store = |by_reference| NamedStore {
        path: root.path().to_owned(),
        by_reference,
    };
    let config = parse(&format!("additionallayerstore={dir},{dir}/:ref")).unwrap();
    assert_eq!(config.stores, [store(false), store(true)]);
    assert_eq!(config.timeout, DEFAULT_TIMEOUT);
    assert!(parse("additionallayerstore=").unwrap().stores.is_empty());
    let config = parse("additionallayerstore_timeout=7").unwrap();
    assert_eq!(config.timeout, Duration::from_secs(7));
    for (value, part) in [
        ("relative".to_owned(), "is not absolute"),
        (format!("{dir}/none"), "can't stat"),
        (file.display().to_string(), "must be a directory"),
        (format!("{dir}:ref:ref"), "contains \"ref\" option twice"),
        (format!("{dir}:x"), "contains unknown option \"x\""),
        (format!("{dir}:"), "contains unknown option \"\""),
    ] {
        let error = parse(&format!("additionallayerstore={value}")).unwrap_err();
        assert!(error.message.contains(part), "{value}: {error}");
        assert_eq!(error.code, DriverErrorCode::INVALID_ARGUMENT);
    }
    for wrong in ["0", "86401", "x"] {
        let error = parse(&format!("additionallayerstore_timeout={wrong}"));
        assert_eq!(error.unwrap_err().code, DriverErrorCode::INVALID_ARGUMENT);
    }
}
