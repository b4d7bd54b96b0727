// SPDX-License-Identifier: Apache-2.0
//! Limits.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use plywood_plugin_sdk::{DriverErrorCode, MountRequest};

use crate::support::{Store, btrfs, container, id, layer, run, sized};

/// Writes until that fails; the bytes that went in, in blocks.
fn fill(path: &Path) -> u64 {
    let mut file = File::create(path).unwrap();
    let block: Vec<u8> = (0..1_u32 << 16)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let mut written = 0;
    loop {
        if let Err(error) = file.write_all(&block).and_then(|()| file.sync_data()) {
            let number = error.raw_os_error();
            assert_eq!(number, Some(libc::EDQUOT), "{error}");
            return written;
        }
        written += block.len() as u64;
        assert!(written < 200 << 20, "there is no limit");
    }
}

fn assert_about(written: u64, limit: u64) {
    assert!(
        written <= limit && written >= limit * 95 / 100,
        "{written} of {limit}"
    );
}

fn works_with(store: &Store) {
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    fs::write(store.tree("base/big"), vec![7; 40 << 20]).unwrap();
    let limit = 20 << 20;
    driver
        .create(&sized(container("full", Some("base")), "20m"))
        .unwrap();
    driver
        .create(&sized(container("other", Some("base")), "20m"))
        .unwrap();
    assert_eq!(
        fs::read_to_string(store.home().join("quotas/full")).unwrap(),
        "20971520"
    );
    assert_about(fill(&store.tree("full/file")), limit);
    assert_about(fill(&store.tree("other/file")), limit);
    let facts = driver.metadata(&id("full")).unwrap();
    assert_eq!(facts["SizeLimit"], "20971520");
    let used: u64 = facts["SizeUsed"].parse().unwrap();
    assert!(used > limit * 9 / 10 && used <= limit, "{used}");

    // After a restart, and after somebody has lifted the limit.
    let driver = store.open();
    btrfs(&["qgroup", "limit", "none"], &store.tree("full"));
    driver
        .mount_plan(&id("full"), &MountRequest::default())
        .unwrap();
    fs::remove_file(store.tree("full/file")).unwrap();
    rustix::fs::syncfs(File::open(store.mounted()).unwrap()).unwrap();
    assert_about(fill(&store.tree("full/again")), limit);

    for name in ["full", "other"] {
        driver.remove(&id(name)).unwrap();
        assert!(!store.home().join("quotas").join(name).exists());
    }
    btrfs(&["subvolume", "sync"], &store.mounted());
    // The kernel removes a group once the numbers of the commit are in.
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let shown = btrfs(&["qgroup", "show", "--raw"], &store.mounted());
        let groups = shown.lines().filter(|line| line.starts_with("0/")).count();
        if groups == 2 {
            break;
        }
        let seen = format!("not just the file system's and the base's: {shown}");
        assert!(Instant::now() < end, "{seen}");
        rustix::fs::syncfs(File::open(store.mounted()).unwrap()).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn root_limits_hold_with_full_accounting_which_is_enabled_when_needed() {
    let Some(store) = Store::new() else { return };
    let quotas = |driver: &dyn plywood_plugin_sdk::Driver| driver.status().unwrap()[1].1.clone();
    assert_eq!(quotas(&*store.open()), "off");
    works_with(&store);
    assert_eq!(quotas(&*store.open()), "full");
}

#[test]
fn root_limits_hold_with_simple_accounting() {
    let Some(store) = Store::new() else { return };
    // btrfs-progs before 6.8 cannot do that.
    let enable =
        "my $a = pack('QQ', 4, 0); sysopen(F, $ARGV[0], 0) && ioctl(F, 0xc0109428, $a) || die $!";
    run(Command::new("perl")
        .args(["-e", enable])
        .arg(store.mounted()));
    works_with(&store);
}

#[test]
fn root_only_writable_layers_have_the_default_limit() {
    let Some(store) = Store::new() else { return };
    let driver = store
        .open_with(&["btrfs.size=30m", "btrfs.min_space=10m"])
        .unwrap();
    driver.create(&layer("base", None)).unwrap();
    driver.create(&container("top", Some("base"))).unwrap();
    assert!(!store.home().join("quotas/base").exists());
    assert_eq!(
        fs::read_to_string(store.home().join("quotas/top")).unwrap(),
        "31457280"
    );
    let error = driver
        .create(&sized(container("small", None), "9m"))
        .unwrap_err();
    assert_eq!(error.code, DriverErrorCode::INVALID_ARGUMENT);
    store.assert_only(&["base", "top"]);
}

#[test]
fn root_a_staged_layer_has_its_limit_already() {
    let Some(store) = Store::new() else { return };
    let driver = store.open();
    let request = sized(container("top", None), "10m");
    let staged = driver.stage(&request).unwrap();
    assert_about(fill(&staged.target.directory.join("file")), 10 << 20);
    driver.adopt(&staged.token, &request).unwrap();
    assert!(store.home().join("quotas/top").exists());
}
