// SPDX-License-Identifier: Apache-2.0
use std::{fs, os::unix::fs::symlink, path::PathBuf, time::Duration};

use super::*;
use crate::{ErrorKind, Result, durable::Durability};

struct Host {
    root: tempfile::TempDir,
    uid: u32,
    variables: Vec<(&'static str, String)>,
}

impl Host {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("home").to_str().unwrap().to_owned();
        Self {
            root,
            uid: 0,
            variables: vec![("HOME", home)],
        }
    }

    fn user(uid: u32) -> Self {
        Self { uid, ..Self::new() }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn set(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    fn env(&self) -> Environment {
        let pairs: Vec<_> = self
            .variables
            .iter()
            .map(|(n, v)| (*n, v.as_str()))
            .collect();
        Environment::below(self.root.path(), self.uid, &pairs)
    }

    fn load_with(&self, overrides: &Overrides) -> Result<Loaded> {
        load(&self.env(), overrides)
    }

    fn load(&self) -> Loaded {
        self.load_with(&Overrides::default()).unwrap()
    }

    fn options(&self) -> StoreOptions {
        self.load().options
    }

    fn refused(&self) -> String {
        let error = self.load_with(&Overrides::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    }
}

fn main_file(driver: &str) -> String {
    format!("[storage]\ndriver = \"{driver}\"\n")
}

const DEBIAN: &str = r#"
[storage]
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
[storage.options]
additionalimagestores = [
]
pull_options = {enable_partial_images = "false", use_hard_links = "false", ostree_repos=""}
[storage.options.overlay]
mountopt = "nodev"
[storage.options.thinpool]
"#;

#[test]
fn the_report_of_debians_file_is_that_of_containers_storage() {
    let host = Host::new();
    host.file("usr/share/containers/storage.conf", DEBIAN);
    let loaded = host.load();
    assert_eq!(
        serde_json::to_string(&loaded.options.report()).unwrap(),
        r#"{"runroot":"/run/containers/storage","root":"/var/lib/containers/storage","driver":"overlay","driver-options":["overlay.mountopt=nodev"],"PullOptions":{"enable_partial_images":"false","ostree_repos":"","use_hard_links":"false"}}"#
    );
    assert_eq!(loaded.notes, []);
}

#[test]
fn the_first_main_file_is_taken() {
    let host = Host::new();
    assert_eq!(host.options().driver, None);
    for (n, name) in [
        "usr/share/containers/storage.conf",
        "etc/containers/storage.conf",
        "home/.config/containers/storage.conf",
    ]
    .iter()
    .enumerate()
    {
        let path = host.file(name, &main_file(&format!("d{n}")));
        let options = host.options();
        assert_eq!(options.driver, Some(format!("d{n}")));
        assert_eq!(options.driver_origin, Some(Origin::File { path, line: 2 }));
    }
    let xdg = host.root.path().join("xdg");
    let host = host.set("XDG_CONFIG_HOME", xdg.to_str().unwrap());
    assert_eq!(host.options().driver.as_deref(), Some("d1"));
    host.file("xdg/containers/storage.conf", &main_file("x"));
    assert_eq!(host.options().driver.as_deref(), Some("x"));
}

#[test]
fn drop_ins_hide_by_name_and_apply_by_name() {
    let host = Host::new();
    host.file("etc/containers/storage.conf", &main_file("main"));
    host.file(
        "usr/share/containers/storage.conf.d/90-last.conf",
        &main_file("vendor90"),
    );
    host.file(
        "etc/containers/storage.conf.d/10-first.conf",
        &main_file("etc10"),
    );
    host.file("etc/containers/storage.conf.d/99-no.txt", &main_file("no"));
    fs::create_dir(
        host.root
            .path()
            .join("etc/containers/storage.conf.d/95-dir.conf"),
    )
    .unwrap();
    assert_eq!(host.options().driver.as_deref(), Some("vendor90"));
    host.file("home/.config/containers/storage.conf.d/90-last.conf", "");
    assert_eq!(host.options().driver.as_deref(), Some("etc10"));
    host.file(
        "etc/containers/storage.rootless.conf.d/91.conf",
        &main_file("rootless"),
    );
    assert_eq!(host.options().driver.as_deref(), Some("etc10"));
    host.file(
        "etc/containers/storage.rootful.conf.d/91.conf",
        &main_file("rootful"),
    );
    assert_eq!(host.options().driver.as_deref(), Some("rootful"));
}

#[test]
fn users_have_drop_ins_of_their_own_and_not_the_roots_directories() {
    let host = Host::user(1000);
    host.file("etc/containers/storage.conf", DEBIAN);
    let home = host.root.path().join("home");
    let loaded = host.load();
    assert!(loaded.options.rootless);
    assert_eq!(
        loaded.options.graph_root,
        home.join(".local/share/containers/storage")
    );
    assert_eq!(
        loaded.options.run_root,
        PathBuf::from("/tmp/storage-run-1000/containers")
    );
    assert_eq!(loaded.notes.len(), 2, "{:?}", loaded.notes);

    host.file(
        "etc/containers/storage.rootful.conf.d/1.conf",
        &main_file("rootful"),
    );
    let dir = "usr/share/containers/storage.rootless.conf.d";
    host.file(
        &format!("{dir}/1.conf"),
        "[storage]\nrootless_storage_path = \"/p/$UID\"",
    );
    assert_eq!(host.options().graph_root, PathBuf::from("/p/1000"));
    host.file(
        &format!("{dir}/1000/1.conf"),
        "[storage]\ngraphroot = \"$HOME/../g\"",
    );
    host.file(
        &format!("{dir}/1001/1.conf"),
        "[storage]\ngraphroot = \"/no\"",
    );
    assert_eq!(host.options().graph_root, host.root.path().join("g"));
    let run = host.root.path().join("rt").to_str().unwrap().to_owned();
    let host = host.set("XDG_RUNTIME_DIR", run.clone());
    assert_eq!(
        host.options().run_root,
        PathBuf::from(run).join("containers")
    );
}

#[test]
fn the_environment_replaces_and_overrides_files() {
    let host = Host::new();
    host.file("etc/containers/storage.conf", &main_file("main"));
    host.file("etc/containers/storage.conf.d/1.conf", &main_file("drop"));
    let path = host.root.path().join("own.conf");
    let host = host.set("CONTAINERS_STORAGE_CONF", path.to_str().unwrap());
    let missing = format!("open {}: no such file or directory", path.display());
    assert_eq!(host.refused(), missing);
    host.file("own.conf", "[storage.options]\nsize = \"1G\"");
    assert_eq!(host.options().driver, None);
    let over = host.file("over.conf", "[storage.options.overlay]\nsize = \"2G\"");
    let host = host
        .set("CONTAINERS_STORAGE_CONF_OVERRIDE", over.to_str().unwrap())
        .set("STORAGE_DRIVER", "overlay2");
    let options = host.options();
    assert_eq!(options.driver.as_deref(), Some("overlay"));
    assert_eq!(options.driver_options, ["size=1G", "overlay.size=2G"]);
    let host = host.set("STORAGE_OPTS", "a=1,b=2");
    assert_eq!(host.options().driver_options, ["a=1", "b=2"]);
    let host = host.set("STORAGE_OPTS", "");
    assert_eq!(host.options().driver_options, [""; 0]);
}

#[test]
fn driver_options_come_in_the_order_of_containers_storage() {
    let host = Host::new();
    host.file(
        "etc/containers/storage.conf",
        r#"
[storage.options.zfs]
fsname = "pool/x"
[storage.options.overlay]
sync = "none"
force_mask = "shared"
mount_program = ""
[storage.options.btrfs]
size = "5"
[storage.options]
mountopt = "nodev"
force_mask = 493
skip_mount_home = "true"
additionallayerstores = ["/l:ref"]
AdditionalImageStores = ["/a", "/b"]
"#,
    );
    host.file(
        "etc/containers/storage.conf.d/1.conf",
        "[storage.options]\nadditionalimagestores = [\"/c\", {append=true}]",
    );
    let expected = [
        "imagestore=/a",
        "imagestore=/b",
        "imagestore=/c",
        "additionallayerstore=/l:ref",
        "skip_mount_home=true",
        "force_mask=755",
        "mountopt=nodev",
        "btrfs.size=5",
        "overlay.force_mask=shared",
        "overlay.sync=none",
        "zfs.fsname=pool/x",
    ];
    let loaded = host.load();
    assert_eq!(loaded.options.driver_options, expected);
    let image_store = loaded
        .values
        .iter()
        .find(|v| v.value == "imagestore=/c")
        .unwrap();
    let origins: Vec<_> = image_store
        .origins
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        origins[0].ends_with("etc/containers/storage.conf:15"),
        "{origins:?}"
    );
    assert!(
        origins[1].ends_with("storage.conf.d/1.conf:2"),
        "{origins:?}"
    );
}

#[test]
fn any_argument_for_the_store_switches_the_configuration_off() {
    let host = Host::new()
        .set("STORAGE_DRIVER", "vfs")
        .set("STORAGE_OPTS", "x=y");
    host.file("etc/containers/storage.conf", DEBIAN);
    let with = |overrides| host.load_with(&overrides).unwrap().options;
    let options = with(Overrides {
        graph_root: Some("/g/./a/..".into()),
        ..Overrides::default()
    });
    assert_eq!(options.graph_root, PathBuf::from("/g"));
    assert_eq!(options.run_root, PathBuf::from("/run/containers/storage"));
    assert_eq!((options.driver, options.driver_options.len()), (None, 0));
    assert!(options.pull_options.is_empty());

    let options = with(Overrides {
        driver_options: vec!["vfs.mountopt=x".to_owned()],
        ..Overrides::default()
    });
    assert_eq!(
        options.graph_root,
        PathBuf::from("/var/lib/containers/storage")
    );
    assert_eq!((options.driver, options.driver_options.len()), (None, 1));

    let options = with(Overrides {
        plugin_dirs: vec!["/p".into()],
        ..Overrides::default()
    });
    assert_eq!(options.driver.as_deref(), Some("vfs"));
    assert_eq!(options.plugins.directories, [PathBuf::from("/p")]);
}

#[test]
fn mistakes_are_reported_with_file_and_line() {
    let host = Host::new();
    for (text, message) in [
        ("[storage]\ndriver = \n", "toml: line 2: "),
        (
            "[storage]\ndriver = 3\n",
            "toml: line 2 (last key \"storage.driver\"): incompatible types: TOML value has type integer; destination has type string",
        ),
        (
            "[storage]\n\ntransient_store = \"x\"",
            "toml: line 3 (last key \"storage.transient_store\")",
        ),
        (
            "[storage]\ndriver_priority = [\"a\", 3]",
            "TOML value has type integer; destination has type string",
        ),
        (
            "[storage]\ndriver_priority = [{append=true}, \"a\"]",
            "TOML value has type table",
        ),
        (
            "[storage.options]\nforce_mask = -1",
            "destination has type uint32",
        ),
        ("[storage]\na = 1\na = 1", "toml: line 3: "),
    ] {
        let path = host.file("etc/containers/storage.conf", text);
        let error = host.refused();
        let start = format!("decode configuration \"{}\": ", path.display());
        assert!(
            error.starts_with(&start) && error.contains(message),
            "{text:?}: {error}"
        );
    }
    host.file(
        "etc/containers/storage.conf",
        "[storage]\nfoo = 1\n[storage.options.aufs]\nx = 1\n",
    );
    let notes: Vec<_> = host.load().notes.iter().map(ToString::to_string).collect();
    assert!(
        notes[0].ends_with("storage.conf:2: unknown key `storage.foo`"),
        "{notes:?}"
    );
    assert!(notes[1].ends_with("storage.conf:4: unknown key `storage.options.aufs.x`"));
}

#[test]
fn paths_are_resolved_when_they_exist() {
    let host = Host::new();
    let real = host.root.path().join("real");
    fs::create_dir(&real).unwrap();
    symlink("real", host.root.path().join("link")).unwrap();
    let root = host.root.path().display().to_string();
    let host = host.set("ROOT", root.clone());
    host.file(
        "etc/containers/storage.conf",
        "[storage]\ngraphroot = \"$ROOT/link\"\nrunroot = \"${ROOT}//link/no/../x/\"\nimagestore = \"$ROOT/real\"",
    );
    let refused = host.refused();
    assert!(
        refused.ends_with("must either be not set or be different than graphroot"),
        "{refused}"
    );
    let options = host.load_with(&Overrides {
        run_root: Some("/r".into()),
        ..Overrides::default()
    });
    let options = options.unwrap().options;
    assert_eq!(
        (options.graph_root, options.run_root),
        (real, PathBuf::from("/r"))
    );
}

#[test]
fn plywoods_own_file_names_plugins_and_limits() {
    let host = Host::new();
    let digest = "AB".repeat(32);
    host.file(
        "etc/plywood/plywood.conf",
        &format!("plugin_directories = [\"/a\"]\nlock_timeout = \"2m\"\n[plugin.overlay]\npath = \"/p.so\"\nsha256 = \"{digest}\"\n"),
    );
    host.file(
        "home/.config/plywood/plywood.conf",
        "plugin_directories = [\"/b\", {append=true}]\nsync = \"none\"\nlock_timeout = \"30s\"",
    );
    let host = host.set("PLYWOOD_PLUGIN_PATH", "/x::/y");
    let options = host.options();
    assert_eq!(options.lock_timeout, Some(Duration::from_secs(30)));
    assert_eq!(options.durability, Durability::None);
    let plugins = options.plugins;
    assert_eq!(
        plugins.directories,
        [PathBuf::from("/a"), PathBuf::from("/b")]
    );
    assert_eq!(plugins.environment, Some("/x::/y".into()));
    assert_eq!(plugins.configured.len(), 1);
    let overlay = &plugins.configured[0];
    assert_eq!(
        (overlay.name.as_str(), &overlay.path),
        ("overlay", &PathBuf::from("/p.so"))
    );
    assert_eq!(overlay.sha256, Some("ab".repeat(32)));

    let mut privileged = host.env();
    privileged.privileged_by_file = true;
    let options = load(&privileged, &Overrides::default()).unwrap().options;
    assert!(options.plugins.environment.is_none());
    assert_eq!(options.plugins.directories, [PathBuf::from("/a")]);
}

#[test]
fn layer_sources_are_named_and_waited_for_when_there_is_a_store() {
    let host = Host::new();
    host.file(
        "etc/plywood/plywood.conf",
        "layer_sources = [\"acme\", \"other\"]\nlayer_source_timeout = \"2m\"",
    );
    let options = host.options();
    assert_eq!(options.layer_sources, ["acme", "other"]);
    assert_eq!(options.driver_options, [""; 0], "no store needs the time");
    let host = host.set("STORAGE_OPTS", "overlay.additionallayerstore=/l:ref");
    let expected = [
        "overlay.additionallayerstore=/l:ref",
        "additionallayerstore_timeout=120",
    ];
    assert_eq!(host.options().driver_options, expected);
}

#[test]
fn plywoods_own_file_is_read_strictly() {
    let host = Host::new();
    let pin = format!("[plugin.x]\nsha256 = \"{}\"", "0".repeat(64));
    for (text, message) in [
        ("colour = 1", ":1: `colour`: unknown key"),
        (
            "\nplugin_directories = [\"a\"]",
            ":2: `plugin_directories`: not an absolute path",
        ),
        ("lock_timeout = \"3\"", "not a duration"),
        ("lock_timeout = \"99999999999999999999s\"", "not a duration"),
        ("sync = \"maybe\"", "neither `filesystem` nor `none`"),
        ("layer_sources = [\"A\"]", "not the name of a plugin"),
        ("layer_source_timeout = \"0s\"", "not a duration from `1s`"),
        (
            "layer_source_timeout = \"100ms\"",
            "not a duration from `1s`",
        ),
        (
            "[plugin.x]\nsha256 = \"abc\"",
            ":2: `plugin.x.sha256`: not a SHA-256",
        ),
        ("[plugin.x]\nverify = true", "unknown key"),
        (&pin, ":2: `plugin.x` has a `sha256` but no `path`"),
    ] {
        host.file("etc/plywood/plywood.conf", text);
        let error = host.refused();
        assert!(error.contains(message), "{text:?}: {error}");
    }
    fs::remove_file(host.root.path().join("etc/plywood/plywood.conf")).unwrap();
    let own = host.file("home/.config/plywood/plywood.conf", "sync = \"none\"");
    host.options();
    std::os::unix::fs::chown(&own, Some(4242), None).unwrap();
    let error = host.refused();
    assert!(
        error.contains("user 4242, who may not choose plugins"),
        "{error}"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_the_reader(text in "(\\PC|\n){0,80}", value in "[\\[\\]{}\"=a,1 \n.+-]{0,30}") {
        let host = Host::new();
        for text in [&text, &format!("[storage]\ndriver_priority = {value}\n"), &format!("{value}={text}")] {
            host.file("etc/containers/storage.conf", text);
            if let Err(error) = host.load_with(&Overrides::default()) {
                proptest::prop_assert!(error.to_string().starts_with("decode configuration"));
            }
            host.file("etc/plywood/plywood.conf", text);
            drop(host.load_with(&Overrides::default()));
        }
    }

    #[test]
    fn expansion_takes_any_text(text in "[$%{}aH\u{e4}_1*]{0,20}") {
        let env = Environment::below("/".as_ref(), 7, &[("H", "x"), ("a", "$H")]);
        let expanded = env.expand(&text);
        proptest::prop_assert!(text.contains('$') || expanded == text);
    }
}
