// SPDX-License-Identifier: Apache-2.0
use std::{fs, os::unix::fs::MetadataExt};

use plywood_plugin_sdk::MountSteps;

use super::*;

/// Layers on a tmpfs of their own, unmounted when it is dropped.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("plywood-mount-test-")
            .tempdir_in("/dev/shm")
            .unwrap();
        for name in ["l", "diff", "work", "merged"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A layer with a file of its name.
    fn layer(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        let file = Path::new(name).file_name().unwrap();
        fs::write(path.join(file), name).unwrap();
        PathBuf::from(name)
    }

    /// Layers as podman's stores name them.
    fn layers(&self, count: usize) -> Vec<PathBuf> {
        (0..count)
            .map(|n| self.layer(&format!("l/{n:026}")))
            .collect()
    }

    fn overlay(&self, lowers: Vec<PathBuf>, writable: bool) -> OverlayMount {
        OverlayMount {
            base: self.dir.path().to_owned(),
            lowers,
            upper: writable.then(|| "diff".into()),
            work: writable.then(|| "work".into()),
            target: self.path("merged"),
            options: Vec::new(),
            label: None,
        }
    }

    fn mounts(&self) -> usize {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let home = self.dir.path().to_str().unwrap();
        table.lines().filter(|line| line.contains(home)).count()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        unmount(&self.path("merged")).unwrap();
    }
}

fn plan(overlay: OverlayMount) -> MountPlan {
    MountPlan::Mounts(MountSteps {
        target: overlay.target.clone(),
        steps: vec![MountStep::Overlay(overlay)],
    })
}

fn both(test: impl Fn(Mounter)) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for interface in [Interface::Best, Interface::Classic] {
        test(Mounter::new(interface));
    }
}

fn options_at(path: &Path) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let path = path.to_str().unwrap();
    let line = table
        .lines()
        .find(|line| line.split(' ').nth(4) == Some(path));
    line.unwrap().to_owned()
}

#[test]
fn root_every_lower_directory_is_seen_up_to_the_kernels_limit() {
    both(|mounter| {
        for count in [1, 2, 128, 499, 500] {
            let home = Home::new();
            let lowers = home.layers(count);
            let plan = plan(home.overlay(lowers, true));
            let seen = mounter.execute(&plan).unwrap();
            assert_eq!(seen, home.path("merged"));
            assert!(is_mounted(&seen).unwrap());
            assert_eq!(fs::read_dir(&seen).unwrap().count(), count, "{mounter:?}");
            fs::write(seen.join("new"), "x").unwrap();
            assert!(home.path("diff/new").exists());
            undo(&plan, &seen).unwrap();
            assert!(!is_mounted(&seen).unwrap());
            undo(&plan, &seen).unwrap();
            assert_eq!(home.mounts(), 0);
        }
    });
    let home = Home::new();
    let error = execute(&plan(home.overlay(vec!["l".into(); 501], true))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn root_the_nearest_layer_wins_and_without_an_upper_nothing_is_written() {
    both(|mounter| {
        for count in [1, 2, 3] {
            let home = Home::new();
            let lowers = home.layers(count);
            for (n, lower) in lowers.iter().enumerate() {
                fs::write(
                    home.path(lower.to_str().unwrap()).join("same"),
                    n.to_string(),
                )
                .unwrap();
            }
            let mut overlay = home.overlay(lowers, false);
            overlay.options = ["nodev", "nosuid", "noexec"].map(str::to_owned).to_vec();
            let seen = mounter.execute(&plan(overlay)).unwrap();
            assert_eq!(fs::read_to_string(seen.join("same")).unwrap(), "0");
            let error = fs::write(seen.join("new"), "x").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EROFS));
            let line = options_at(&seen);
            assert!(
                line.contains(" ro,nosuid,nodev,noexec,"),
                "{mounter:?} {line}"
            );
        }
    });
}

#[test]
fn root_names_of_directories_may_contain_anything() {
    let long = "n".repeat(120);
    let long = format!("{long}/{long}/{long}/{long}");
    for name in [
        "a:b",
        ":",
        "a,b",
        "a\\b",
        "a\\:b",
        "a b\n\"='",
        "\\134",
        &long,
    ] {
        both(|mounter| {
            let home = Home::new();
            let base = home.path(name);
            fs::create_dir_all(&base).unwrap();
            let inner = |part: &str| PathBuf::from(name).join(part);
            // What a wrong escape would find.
            fs::create_dir_all(home.path("a/b/upper")).unwrap();
            let lowers = ["one", "two"].map(|part| home.layer(inner(part).to_str().unwrap()));
            for part in ["upper", "work"] {
                fs::create_dir(base.join(part)).unwrap();
            }
            let overlay = OverlayMount {
                upper: Some(inner("upper")),
                work: Some(inner("work")),
                ..home.overlay(lowers.to_vec(), true)
            };
            let seen = mounter
                .execute(&plan(overlay))
                .unwrap_or_else(|error| panic!("{mounter:?} {name:?}: {error:?}"));
            assert!(seen.join("one").exists() && seen.join("two").exists());
            fs::write(seen.join("new"), "x").unwrap();
            assert!(base.join("upper/new").exists(), "{mounter:?} {name:?}");
        });
    }
}

#[test]
fn root_failures_are_in_the_kernels_words_and_leave_nothing_mounted() {
    both(|mounter| {
        let home = Home::new();
        let lowers = home.layers(2);
        let refused = |change: &dyn Fn(&mut OverlayMount)| {
            let mut overlay = home.overlay(lowers.clone(), true);
            change(&mut overlay);
            let error = mounter.execute(&plan(overlay)).unwrap_err();
            assert_eq!(home.mounts(), 0, "{error}");
            error
        };
        let missing = refused(&|overlay| overlay.lowers[1] = "l/gone".into());
        let source = std::error::Error::source(&missing).unwrap();
        assert!(source.to_string().contains("No such file"), "{missing:?}");
        let unknown = refused(&|overlay| overlay.options = vec!["bogus=1".to_owned()]);
        let spoken = unknown
            .to_string()
            .contains("overlay: Unknown parameter 'bogus'");
        assert!(
            spoken || mounter.interface == Interface::Classic || !modern::has_single_lowers(),
            "{unknown}"
        );
        refused(&|overlay| overlay.target = home.path("nowhere"));
        refused(&|overlay| overlay.work = Some("diff/inside".into()));
        assert_eq!(
            refused(&|overlay| overlay.work = None).kind(),
            ErrorKind::InvalidArgument
        );
        assert_eq!(
            refused(&|overlay| overlay.lowers.clear()).kind(),
            ErrorKind::InvalidArgument
        );
    });
}

#[test]
fn root_a_plan_that_fails_late_is_undone() {
    both(|mounter| {
        let home = Home::new();
        for name in ["ds", "target"] {
            fs::create_dir(home.path(name)).unwrap();
        }
        let filesystem = MountStep::Filesystem {
            fstype: "tmpfs".to_owned(),
            source: "plywood".to_owned(),
            target: home.path("ds"),
            options: vec![
                "size=1m".to_owned(),
                "mode=0750".to_owned(),
                "nodev".to_owned(),
            ],
            read_only: false,
        };
        let bind = |target: &str, read_only| MountStep::Bind {
            source: home.path("ds"),
            target: home.path(target),
            read_only,
        };
        let plan = |target: &str, read_only| {
            MountPlan::Mounts(MountSteps {
                target: home.path(target),
                steps: vec![filesystem.clone(), bind(target, read_only)],
            })
        };
        let error = mounter.execute(&plan("nowhere", false)).unwrap_err();
        assert_eq!(home.mounts(), 0, "{error}");

        for read_only in [false, true] {
            let seen = mounter.execute(&plan("target", read_only)).unwrap();
            assert_eq!(fs::metadata(&seen).unwrap().mode() & 0o777, 0o750);
            let written = fs::write(seen.join("x"), "");
            assert_eq!(written.is_err(), read_only, "{mounter:?}");
            assert!(
                options_at(&seen).contains("nodev"),
                "{mounter:?} {}",
                options_at(&seen)
            );
            undo(&plan("target", read_only), &seen).unwrap();
            assert_eq!(home.mounts(), 0);
        }
    });
}

#[test]
fn root_a_read_only_mount_leaves_the_file_system_writable_for_others() {
    both(|mounter| {
        let home = Home::new();
        let target = home.path("merged");
        let step = MountStep::Filesystem {
            fstype: "tmpfs".to_owned(),
            source: "plywood".to_owned(),
            target: target.clone(),
            options: vec!["nosuid".to_owned()],
            read_only: true,
        };
        let plan = MountPlan::Mounts(MountSteps {
            target: target.clone(),
            steps: vec![step],
        });
        mounter.execute(&plan).unwrap();
        let mounts = mountinfo::mounts().unwrap();
        let found = mountinfo::at(&mounts, &target).unwrap();
        assert!(
            found.options.starts_with("ro,nosuid"),
            "{mounter:?} {found:?}"
        );
        assert!(
            found.super_options.starts_with("rw"),
            "{mounter:?} {found:?}"
        );
        assert!(fs::write(target.join("x"), "").is_err());
        undo(&plan, &target).unwrap();
        assert_eq!(home.mounts(), 0);
    });
}

#[test]
fn root_stacked_mounts_are_all_removed_and_links_are_not_followed() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let home = Home::new();
    let plan = plan(home.overlay(home.layers(2), false));
    execute(&plan).unwrap();
    execute(&plan).unwrap();
    let link = home.path("link");
    std::os::unix::fs::symlink("merged", &link).unwrap();
    assert!(!is_mounted(&link).unwrap());
    unmount(&link).unwrap();
    assert!(is_mounted(&home.path("merged")).unwrap());
    assert!(in_table(&home.path("merged")).unwrap());
    unmount(&home.path("merged")).unwrap();
    assert!(!in_table(&home.path("merged")).unwrap());
    assert!(!is_mounted(&home.path("merged")).unwrap());
    assert!(!is_mounted(&home.path("nothing/here")).unwrap());
    unmount(&home.path("nothing")).unwrap();
}

#[test]
fn too_many_bytes_for_the_classic_call_are_refused_and_not_cut() {
    let home = Home::new();
    // Names that cannot be shortened: the options themselves.
    let mut overlay = home.overlay(home.layers(2), true);
    overlay.options = vec![format!("redirect_dir={}", "x".repeat(5000))];
    let error = Mounter::new(Interface::Classic)
        .execute(&plan(overlay))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotSupported, "{error:?}");
    assert!(
        error.to_string().contains("the kernel takes 4095"),
        "{error}"
    );
    assert_eq!(home.mounts(), 0);
}

#[test]
fn directories_need_no_mount_and_drivers_mount_by_themselves() {
    let directory = MountPlan::Directory("/x/y".into());
    assert_eq!(execute(&directory).unwrap(), Path::new("/x/y"));
    undo(&directory, Path::new("/x/y")).unwrap();
    let own = MountPlan::ByDriver {
        target: "/x".into(),
    };
    assert_eq!(execute(&own).unwrap_err().kind(), ErrorKind::NotSupported);
}
