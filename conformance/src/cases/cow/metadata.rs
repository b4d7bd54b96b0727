// SPDX-License-Identifier: Apache-2.0
//! Attributes, and what goes with them.

use std::{fs, path::Path};

use rustix::{
    fs::{IFlags, ioctl_getflags, ioctl_setflags},
    io::Errno,
};

use super::{base, bytes, p};
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    ops::{Chain, Op},
};

/// `cap_net_bind_service=ep` as it is stored.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

pub(super) fn copy_up(target: &mut Target) -> Outcome {
    let names = ["mode", "owner", "time", "set", "remove", "replace", "acl"];
    let mut ops = base();
    for name in names {
        ops.extend([
            Op::Write(p(name), bytes(11, 20_000)),
            Op::Chown(p(name), 1000, 2000),
            Op::Chmod(p(name), 0o751),
            Op::SetXattr(p(name), "user.one".into(), b"1".to_vec()),
            Op::SetXattr(p(name), "user.two".into(), vec![0, 1, 2, 0xff]),
            Op::SetXattr(p(name), "trusted.kept".into(), b"t".to_vec()),
            Op::Mtime(p(name), 1_234_567_890, 123_456_789),
        ]);
    }
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &ops)?;
    // Version 2; entries of owner, a user, group, mask and others.
    let mut acl = vec![2, 0, 0, 0];
    for (tag, bits, id) in [
        (1_u16, 7_u16, u32::MAX),
        (2, 6, 4321),
        (4, 5, u32::MAX),
        (16, 7, u32::MAX),
        (32, 1, u32::MAX),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(bits.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    let changes = [
        Op::Chmod(p("mode"), 0o400),
        Op::Chown(p("owner"), 7, 8),
        Op::Mtime(p("time"), 987_654_321, 987_654_321),
        Op::SetXattr(p("set"), "user.three".into(), b"3".to_vec()),
        Op::RemoveXattr(p("remove"), "user.one".into()),
        Op::SetXattr(p("replace"), "user.two".into(), b"other".to_vec()),
        Op::SetXattr(p("acl"), "system.posix_acl_access".into(), acl),
        Op::Chmod(p("d/e"), 0o1777),
        Op::Chown(p("d"), 9, 10),
        Op::SetXattr(p("d"), "user.more".into(), b"m".to_vec()),
        Op::Chown(p("soft"), 77, 88),
        Op::Mtime(p("soft"), 5, 6),
        Op::Chmod(p("pipe"), 0o600),
        Op::Chown(p("null"), 1, 2),
    ];
    chain.grow(target, "child", &changes)?;
    chain.grow(target, "grandchild", &[Op::Chmod(p("mode"), 0o4755)])?;
    chain.check_all(target)
}

pub(super) fn privileges(target: &mut Target) -> Outcome {
    const USER: u32 = 1000;
    let names = [
        "kept-by-time",
        "kept-by-xattr",
        "kept-by-chmod",
        "root-writes",
        "user-writes",
        "chown",
        "cut",
    ];
    let mut ops = Vec::new();
    for name in names {
        ops.extend([
            Op::Write(p(name), b"#!".to_vec()),
            Op::Chown(p(name), USER, USER),
            Op::Chmod(p(name), 0o6777),
            Op::SetXattr(p(name), "security.capability".into(), CAPABILITY.to_vec()),
        ]);
    }
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &ops)?;
    let changes = [
        Op::Mtime(p("kept-by-time"), 1, 1),
        Op::SetXattr(p("kept-by-xattr"), "user.x".into(), b"x".to_vec()),
        Op::Chmod(p("kept-by-chmod"), 0o6711),
        Op::Append(p("root-writes"), b"more".to_vec()),
        Op::AppendAs(p("user-writes"), USER, b"more".to_vec()),
        Op::Chown(p("chown"), 7, 7),
        Op::Truncate(p("cut"), 1),
    ];
    chain.grow(target, "child", &changes)?;
    // The flat tree says what is right; these say that it was worth comparing.
    target.within("child", |path| {
        let mode = |name: &str| -> Result<u32, Failure> {
            use std::os::unix::fs::MetadataExt as _;
            Ok(fs::metadata(path.join(name))?.mode() & 0o7777)
        };
        same!(0o6777, mode("kept-by-time")?, "the mode after utimens");
        same!(0o6777, mode("kept-by-xattr")?, "the mode after setxattr");
        same!(0o777, mode("user-writes")?, "the mode after a user's write");
        let mut value = [0; 64];
        let kept = path.join("kept-by-chmod");
        let length = rustix::fs::getxattr(kept, "security.capability", &mut value)?;
        same!(
            CAPABILITY,
            value[..length],
            "the file's capability after chmod"
        );
        Ok::<_, Failure>(())
    })?;
    chain.grow(target, "grandchild", &[Op::Mtime(p("chown"), 3, 3)])?;
    chain.check_all(target)
}

fn set_flags(path: &Path, flags: IFlags) -> Result<(), Errno> {
    let file = fs::File::open(path).map_err(|error| {
        let number = error.raw_os_error().unwrap_or(libc::EIO);
        Errno::from_raw_os_error(number)
    })?;
    ioctl_setflags(&file, flags)
}

fn flags_of(path: &Path) -> Result<IFlags, Failure> {
    let interesting = IFlags::IMMUTABLE | IFlags::APPEND | IFlags::NOATIME | IFlags::NODUMP;
    match ioctl_getflags(fs::File::open(path)?) {
        Ok(flags) => Ok(flags & interesting),
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(IFlags::empty()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn flags(target: &mut Target) -> Outcome {
    let names = ["immutable", "append", "no-time"];
    let wanted = [IFlags::IMMUTABLE, IFlags::APPEND, IFlags::NOATIME];
    let mut chain = Chain::new(target)?;
    let ops = names.map(|name| Op::Write(p(name), b"data".to_vec()));
    chain.grow(target, "base", &ops)?;
    target.create_writable("child", Some("base"))?;
    target.create_writable("sibling", Some("base"))?;
    let answers = target.within("child", |path| {
        let mut answers = Vec::new();
        for (name, flag) in names.into_iter().zip(wanted) {
            let file = path.join(name);
            let set = set_flags(&file, flag);
            let refused = fs::write(&file, "changed").map_err(|error| error.raw_os_error());
            answers.push((name, flag, set, refused));
        }
        Ok::<_, Failure>(answers)
    })?;
    let seen = |id: &str| {
        target.within(id, |path| {
            let flags = names.map(|name| flags_of(&path.join(name)));
            flags.into_iter().collect::<Result<Vec<_>, _>>()
        })
    };
    let (base, sibling) = (seen("base")?, seen("sibling")?);
    target.within("child", |path| -> Outcome {
        for name in names {
            // Where they cannot be set there is nothing to be cleared.
            let _cleared = set_flags(&path.join(name), IFlags::empty());
        }
        Ok(())
    })?;
    let none = vec![IFlags::empty(); names.len()];
    same!(none, base, "flags of the parent's files");
    same!(none, sibling, "flags of the sibling's files");
    for (name, flag, set, refused) in answers {
        target.measure(
            &format!("flag_{name}_can_be_set"),
            f64::from(u8::from(set.is_ok())),
        )?;
        if set.is_ok() && flag != IFlags::NOATIME {
            same!(
                Err(Some(libc::EPERM)),
                refused,
                "the answer to writing the {name} file"
            );
        }
    }
    chain.check(target, "base")?;
    target.within("base", |path| {
        for name in names {
            let written = fs::write(path.join(name), "still writable");
            demand!(
                written.is_ok(),
                "after the child set flags the parent's file `{name}` answers {written:?}"
            );
        }
        Ok(())
    })
}
