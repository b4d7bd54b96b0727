// SPDX-License-Identifier: Apache-2.0
use std::{fs as std_fs, os::unix::fs::MetadataExt};

use super::*;

fn tree() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let (from, to) = (root.path().join("from"), root.path().join("to"));
    std_fs::create_dir(&from).unwrap();
    std_fs::create_dir(&to).unwrap();
    (root, from, to)
}

#[test]
fn names_content_links_modes_and_times_are_kept() {
    let (_root, from, to) = tree();
    for n in 0..40 {
        let dir = from.join(format!("d{n}/e"));
        std_fs::create_dir_all(&dir).unwrap();
        std_fs::write(dir.join("file"), vec![n; 3000 * usize::from(n)]).unwrap();
        std_fs::hard_link(dir.join("file"), from.join(format!("link{n}"))).unwrap();
        std::os::unix::fs::symlink("../x", dir.join("symlink")).unwrap();
    }
    fs::chmod(from.join("d1"), Mode::from_raw_mode(0o1751)).unwrap();
    fs::chmod(from.join("link2"), Mode::from_raw_mode(0o4711)).unwrap();
    fs::setxattr(from.join("d3"), "user.a", b"b", fs::XattrFlags::empty()).unwrap();
    let time = Timespec {
        tv_sec: 1_000_000_001,
        tv_nsec: 123_456_789,
    };
    let both = Timestamps {
        last_access: time,
        last_modification: time,
    };
    for path in ["d4", "link5", "d6/e/symlink", "."] {
        fs::utimensat(CWD, from.join(path), &both, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }

    copy_tree(&from, &to, CopyOptions::default()).unwrap();

    for n in 0..40_u8 {
        let (link, file) = (to.join(format!("link{n}")), to.join(format!("d{n}/e/file")));
        assert_eq!(
            std_fs::read(&file).unwrap(),
            vec![n; 3000 * usize::from(n)],
            "{n}"
        );
        let (link, file) = (link.metadata().unwrap(), file.metadata().unwrap());
        assert_eq!((link.ino(), link.nlink()), (file.ino(), 2), "{n}");
        let symlink = to.join(format!("d{n}/e/symlink"));
        assert_eq!(std_fs::read_link(symlink).unwrap(), Path::new("../x"));
    }
    assert_eq!(to.join("d1").metadata().unwrap().mode() & 0o7777, 0o1751);
    assert_eq!(to.join("link2").metadata().unwrap().mode() & 0o7777, 0o4711);
    let mut value = [0; 8];
    assert_eq!(fs::getxattr(to.join("d3"), "user.a", &mut value), Ok(1));
    for path in ["d4", "link5", "d6/e/symlink", "."] {
        let found = to.join(path).symlink_metadata().unwrap();
        assert_eq!(
            (found.mtime(), found.mtime_nsec()),
            (time.tv_sec, time.tv_nsec),
            "{path}"
        );
    }
}

#[test]
fn holes_are_kept() {
    let (_root, from, to) = tree();
    let file = std_fs::File::create(from.join("sparse")).unwrap();
    rustix::io::pwrite(&file, b"first", 0).unwrap();
    rustix::io::pwrite(&file, b"middle", 40 << 20).unwrap();
    file.set_len(100 << 20).unwrap();
    copy_tree(&from, &to, CopyOptions::default()).unwrap();
    let copy = to.join("sparse").metadata().unwrap();
    assert_eq!(copy.len(), 100 << 20);
    assert!(copy.blocks() * 512 < 1 << 20, "{} blocks", copy.blocks());
    assert!(std_fs::read(from.join("sparse")).unwrap() == std_fs::read(to.join("sparse")).unwrap());
}

#[test]
fn a_failure_names_the_file() {
    let (_root, from, to) = tree();
    std_fs::create_dir(from.join("d")).unwrap();
    std_fs::write(from.join("d/file"), b"x").unwrap();
    std_fs::create_dir_all(to.join("d/file")).unwrap();
    let error = copy_tree(&from, &to, CopyOptions::default()).unwrap_err();
    assert!(
        error.message.contains(&to.join("d").display().to_string()),
        "{error}"
    );
    assert_eq!(error.errno, Some(Errno::EXIST.raw_os_error()));
}

#[test]
fn root_every_attribute_of_everything_is_kept_when_asked_for() {
    let (_root, from, to) = tree();
    std::os::unix::fs::symlink("x", from.join("symlink")).unwrap();
    fs::mknodat(CWD, from.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    std_fs::write(from.join("file"), b"x").unwrap();
    let names = ["symlink", "fifo", "file", "."];
    for name in names {
        let set = fs::lsetxattr(from.join(name), "trusted.a", b"b", fs::XattrFlags::empty());
        if set == Err(Errno::PERM) {
            return;
        }
        set.unwrap();
    }
    copy_tree(&from, &to, CopyOptions::default()).unwrap();
    let value = |name: &str, buffer: &mut [u8]| fs::lgetxattr(to.join(name), "trusted.a", buffer);
    for name in names {
        assert_eq!(value(name, &mut [0; 8]), Err(Errno::NODATA), "{name}");
    }
    for name in ["symlink", "fifo", "file"] {
        std_fs::remove_file(to.join(name)).unwrap();
    }
    let options = CopyOptions {
        xattrs: CopiedXattrs::All,
        ..CopyOptions::default()
    };
    copy_tree(&from, &to, options).unwrap();
    for name in names {
        assert_eq!(value(name, &mut [0; 8]), Ok(1), "{name}");
    }
}

#[test]
fn a_symbolic_link_with_two_names_stays_one() {
    let (_root, from, to) = tree();
    std::os::unix::fs::symlink("x", from.join("first")).unwrap();
    std_fs::hard_link(from.join("first"), from.join("second")).unwrap();
    copy_tree(&from, &to, CopyOptions::default()).unwrap();
    let inode = |name: &str| to.join(name).symlink_metadata().unwrap().ino();
    assert_eq!(inode("first"), inode("second"));
}

#[test]
fn links_below_a_path_that_is_too_long_stay_links() {
    let (_root, from, to) = tree();
    let name = "n".repeat(250);
    let mut here = open_dir(CWD, from.as_os_str()).unwrap();
    for _ in 0..20 {
        fs::mkdirat(&here, &name, Mode::RWXU).unwrap();
        here = open_dir(here.as_fd(), OsStr::new(&name)).unwrap();
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    fs::openat(&here, "first", flags, Mode::RUSR).unwrap();
    fs::linkat(&here, "first", &here, "second", AtFlags::empty()).unwrap();
    copy_tree(&from, &to, CopyOptions::default()).unwrap();
    let mut here = open_dir(CWD, to.as_os_str()).unwrap();
    for _ in 0..20 {
        here = open_dir(here.as_fd(), OsStr::new(&name)).unwrap();
    }
    let stat = fs::statat(&here, "second", AtFlags::empty()).unwrap();
    assert_eq!(stat.st_nlink, 2);
}

#[test]
fn overlay_marks_and_labels_are_not_everything() {
    let wanted = |which: CopiedXattrs, name: &str| which.includes(name.as_bytes());
    for which in [CopiedXattrs::All, CopiedXattrs::AllButOverlay] {
        assert!(!wanted(which, "security.selinux"));
        assert!(wanted(which, "trusted.a") && wanted(which, "system.posix_acl_access"));
    }
    assert!(wanted(CopiedXattrs::All, "trusted.overlay.opaque"));
    assert!(!wanted(
        CopiedXattrs::AllButOverlay,
        "trusted.overlay.opaque"
    ));
    assert!(!wanted(CopiedXattrs::AllButOverlay, "user.overlay.opaque"));
}
