// SPDX-License-Identifier: Apache-2.0
use super::*;

fn parse(options: &[&str]) -> Result<Config> {
    let options: Vec<String> = options.iter().map(|&text| text.to_owned()).collect();
    let known = ["overlay", "overlay2", "btrfs", "zfs", "vfs"].map(str::to_owned);
    Config::parse("overlay", &options, &known)
}

#[test]
fn nothing_given_is_the_default() {
    let config = parse(&[]).unwrap();
    assert_eq!(config, Config::default());
    assert!(config.sync, "durable unless asked otherwise");
}

#[test]
fn every_option_is_read_with_any_of_its_prefixes() {
    let config = parse(&[
        "overlay.override_kernel_check=true",
        "OVERLAY2.MountOpt = nodev,metacopy=on",
        ".skip_mount_home=1",
        "ignore_chown_errors=true",
        "overlay.force_mask=shared",
        "overlay.mount_program=/bin/sh",
        "overlay.imagestore=/usr,/tmp/",
        "additionalimagestore=/etc",
        "overlay.size=1k",
        "overlay.inodes=7",
        "overlay.sync=none",
        "overlay.use_composefs=false",
        "overlay.additionallayerstore=",
        "btrfs.min_space=1",
        "vfs.nonsense=1",
    ])
    .unwrap();
    let expected = Config {
        layer_stores: StoresConfig::default(),
        mount_options: "nodev,metacopy=on".to_owned(),
        mount_program: Some("/bin/sh".into()),
        skip_mount_home: true,
        ignore_chown_errors: true,
        force_mask: Some(0o755),
        image_stores: ["/usr", "/tmp", "/etc"].map(PathBuf::from).to_vec(),
        size: 1024,
        inodes: 7,
        sync: false,
    };
    assert_eq!(config, expected);
    let list: Vec<&str> = config.mount_option_list().collect();
    assert_eq!(list, ["nodev", "metacopy=on"]);
}

#[test]
fn the_last_of_equal_options_wins() {
    let config = parse(&[
        "overlay.mountopt=nodev",
        "mountopt=",
        "sync=none",
        "sync=filesystem",
    ]);
    assert_eq!(config.unwrap(), Config::default());
}

#[test]
fn refused_options_are_named_with_the_texts_of_containers_storage() {
    for (option, text) in [
        ("zz", "unable to parse key/value option: zz"),
        ("zz=1", "unknown option \"zz\" (\"zz=1\")"),
        (
            "overlay.color=red",
            "unknown option \"overlay.color\" (\"overlay.color=red\")",
        ),
        ("foo.x=1", "unknown driver \"foo\" in option \"foo.x=1\""),
        ("overlay.size=10x", "invalid size: '10x'"),
        (
            "overlay.inodes=z",
            "strconv.ParseUint: parsing \"z\": invalid syntax",
        ),
        (
            "force_mask=9",
            "strconv.ParseInt: parsing \"9\": invalid syntax",
        ),
        (
            "skip_mount_home=maybe",
            "strconv.ParseBool: parsing \"maybe\": invalid syntax",
        ),
        (
            "mount_program=/nonex",
            "overlay: can't stat program \"/nonex\": stat /nonex: no such file or directory",
        ),
        (
            "imagestore=rel",
            "overlay: image path \"rel\" is not absolute.  Can not be relative",
        ),
        (
            "imagestore=/nonex",
            "overlay: can't stat imageStore dir /nonex: stat /nonex: no such file or directory",
        ),
        (
            "imagestore=/etc/passwd",
            "overlay: image path \"/etc/passwd\" must be a directory",
        ),
        (
            "additionallayerstore=rel:ref",
            "overlay: additionallayerstore path \"rel\" is not absolute.  Can not be relative",
        ),
        (
            "additionallayerstore=/nonex",
            "overlay: can't stat additionallayerstore dir: stat /nonex: no such file or directory",
        ),
        (
            "additionallayerstore=/usr:x",
            "overlay: additionallayerstore config \"/usr\" contains unknown option \"x\"",
        ),
        (
            "overlay.sync=always",
            "invalid mode for overlay driver: \"always\"",
        ),
        (
            "mountopt=nodev,lowerdir=/",
            "overlay: mount option \"lowerdir\" is set by the driver",
        ),
    ] {
        let error = parse(&[option]).unwrap_err();
        assert_eq!(error.message, text, "{option}");
        assert_eq!(error.code, DriverErrorCode::INVALID_ARGUMENT, "{option}");
        assert_eq!(error.object.as_deref(), Some(option));
    }
}

#[test]
fn what_this_release_lacks_is_refused_with_a_remedy() {
    let error = parse(&["use_composefs=true"]).unwrap_err();
    // Another driver must not be tried instead.
    assert!(!error.means_unsuitable());
    assert!(error.remedy.is_some());
}
