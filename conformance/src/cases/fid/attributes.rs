// SPDX-License-Identifier: Apache-2.0
//! Extended attributes, access control lists and file flags.

use std::{
    fs::{self, File},
    path::Path,
};

use rustix::{fs::IFlags, io::Errno};

use super::{kept, path, probe, takes};
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    manifest,
    ops::{Chain, Op},
};

const ACL_ACCESS: &str = "system.posix_acl_access";
const ACL_DEFAULT: &str = "system.posix_acl_default";

fn set(at: &str, name: &str, value: impl AsRef<[u8]>) -> Op {
    Op::SetXattr(path(at), name.to_owned(), value.as_ref().to_vec())
}

pub(super) fn user(target: &mut Target) -> Outcome {
    let largest = largest_value(target)?;
    demand!(
        largest >= 2000,
        "the scratch file system takes attribute values of {largest} bytes at most"
    );
    let mut ops = vec![Op::Mkdir(path("d"))];
    for name in ["file", "d/large", "d/many"] {
        ops.push(Op::Write(path(name), b"content".to_vec()));
    }
    ops.extend([
        set("file", "user.empty", b""),
        set("file", "user.binary", b"a\0b\xff\n=\0"),
        set("file", "user.long", [b'v'; 2000]),
        set("file", "user.\u{e4}", "name beyond ascii"),
        set("d", "user.directory", b"d"),
        set("d/large", "user.large", vec![0xa5; largest]),
    ]);
    ops.extend((0..50).map(|number| {
        let name = format!("user.number.{number}");
        set("d/many", &name, number.to_string())
    }));
    let mut chain = kept(target, &ops)?;
    target.step("change the mode in a child, which must keep them")?;
    chain.grow(target, "changed", &changed_modes())?;
    target.step("replace and remove some in a child")?;
    chain.grow(
        target,
        "replaced",
        &[
            set("file", "user.binary", b"other"),
            Op::RemoveXattr(path("file"), "user.empty".to_owned()),
            Op::RemoveXattr(path("d/many"), "user.number.7".to_owned()),
        ],
    )?;
    chain.check_all(target)
}

fn changed_modes() -> Vec<Op> {
    let names = ["file", "d", "d/large", "d/many"];
    names.map(|name| Op::Chmod(path(name), 0o700)).to_vec()
}

/// The largest value that the scratch file system takes, with room for what a driver adds.
fn largest_value(target: &Target) -> Result<usize, Failure> {
    let file = probe(target)?;
    let sizes = [65_536, 60_000, 16_000, 8000, 4000, 3500, 2000];
    for size in sizes {
        if takes(&file, "user.large", &vec![1; size])? {
            return Ok(size.min(size - 512));
        }
    }
    Ok(0)
}

pub(super) fn trusted(target: &mut Target) -> Outcome {
    let ops = [
        Op::Write(path("file"), b"content".to_vec()),
        Op::Mkdir(path("d")),
        set("file", "trusted.suite", b"file"),
        set("file", "trusted.suite.binary", b"\0\x01\x02"),
        set("d", "trusted.suite", b"directory"),
    ];
    let mut chain = kept(target, &ops)?;
    chain.grow(target, "changed", &[Op::Chmod(path("file"), 0o600)])?;
    chain.check_all(target)
}

pub(super) fn on_other_kinds(target: &mut Target) -> Outcome {
    let made = [
        Op::Mkdir(path("d")),
        Op::Symlink(path("link"), path("d")),
        Op::Fifo(path("pipe")),
        Op::Device(path("device"), 1, 3),
    ];
    let flat = target.scratch("kinds")?;
    crate::ops::apply(&flat, &made)?;
    let mut ops = made.to_vec();
    let mut taken = 0;
    for name in ["d", "link", "pipe", "device"] {
        for attribute in ["user.suite", "trusted.suite", "security.suite"] {
            if takes(&flat.join(name), attribute, b"value\0")? {
                ops.push(set(name, attribute, b"value\0"));
                taken += 1;
            }
        }
    }
    demand!(
        taken >= 4,
        "the scratch file system takes only {taken} attributes on what is no file"
    );
    let mut chain = kept(target, &ops)?;
    target.step("change the owner in a child, which must keep them")?;
    let changes = ["d", "link", "pipe", "device"].map(|name| Op::Chown(path(name), 7, 8));
    chain.grow(target, "changed", &changes)?;
    chain.check_all(target)
}

pub(super) fn capabilities(target: &mut Target) -> Outcome {
    // cap_net_raw, effective; version 3 adds the user namespace's root.
    let version_2 = *b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut version_3 = [0; 24];
    version_3[..20].copy_from_slice(&version_2);
    version_3[3] = 3;
    version_3[20..].copy_from_slice(&1000_u32.to_le_bytes());
    let name = "security.capability";
    let ops = [
        Op::Write(path("two"), b"program".to_vec()),
        Op::Write(path("three"), b"program".to_vec()),
        Op::Chmod(path("two"), 0o755),
        set("two", name, version_2),
        set("three", name, version_3),
    ];
    let mut chain = kept(target, &ops)?;
    for layer in ["base", "child"] {
        target.within(layer, |root| -> Outcome {
            same!(
                version_2.to_vec(),
                value(&root.join("two"), name)?,
                "the bytes of a version 2 capability in `{layer}`"
            );
            same!(
                version_3.to_vec(),
                value(&root.join("three"), name)?,
                "the bytes of a version 3 capability in `{layer}`"
            );
            Ok(())
        })?;
    }
    target.step("change the mode in a child, which must keep them")?;
    let changes = ["two", "three"].map(|name| Op::Chmod(path(name), 0o711));
    chain.grow(target, "changed", &changes)?;
    chain.check_all(target)
}

fn value(at: &Path, name: &str) -> Result<Vec<u8>, Failure> {
    let mut value = vec![0; 1024];
    let length = rustix::fs::lgetxattr(at, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

/// An access control list in the kernel's form: tag, permissions, id.
fn acl_value(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// `u::rwx,u:1000:rw-,g::r-x,g:2000:r--,m::rwx,o::r--`
pub(crate) fn sample_acl() -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    acl_value(&[
        (0x01, 7, NOBODY),
        (0x02, 6, 1000),
        (0x04, 5, NOBODY),
        (0x08, 4, 2000),
        (0x10, 7, NOBODY),
        (0x20, 4, NOBODY),
    ])
}

pub(super) fn acl(target: &mut Target) -> Outcome {
    let ops = [
        Op::Write(path("file"), b"content".to_vec()),
        Op::Mkdir(path("d")),
        set("file", ACL_ACCESS, sample_acl()),
        set("d", ACL_ACCESS, sample_acl()),
        set("d", ACL_DEFAULT, sample_acl()),
        Op::Write(path("d/before"), b"inherits".to_vec()),
        Op::Mkdir(path("d/sub")),
    ];
    let mut chain = kept(target, &ops)?;
    target.step("make new files in a child below the default list")?;
    chain.grow(
        target,
        "inherits",
        &[
            Op::Write(path("d/after"), b"inherits".to_vec()),
            Op::Mkdir(path("d/sub/deeper")),
            Op::Write(path("d/sub/deeper/file"), b"inherits".to_vec()),
        ],
    )?;
    target.within("inherits", |root| -> Outcome {
        let mut seen = [0; 256];
        let length = rustix::fs::lgetxattr(root.join("d/after"), ACL_ACCESS, &mut seen[..])?;
        demand!(
            length > 4 + 3 * 8,
            "a new file below a default list has no more than its mode"
        );
        Ok(())
    })?;
    target.step("change the mode in a child, which must keep the list")?;
    chain.grow(target, "changed", &[Op::Chmod(path("file"), 0o640)])?;
    chain.check_all(target)
}

pub(super) fn file_flags(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &[Op::Mkdir(path("d"))])?;
    let flags = [
        ("immutable", IFlags::IMMUTABLE),
        ("append", IFlags::APPEND),
        ("nodump", IFlags::NODUMP),
    ];
    for (name, flag) in flags {
        let flat = target.scratch("flags")?.join(name);
        let on_scratch = set_flag(&flat, flag)?;
        let in_layer = target.within("base", |root| set_flag(&root.join(name), flag))?;
        target.create_writable(&format!("child-{name}"), Some("base"))?;
        let in_child = target.within(&format!("child-{name}"), |root| {
            let set = has_flag(&root.join(name), flag)?;
            clear_flags(&root.join(name))?;
            Ok::<_, Failure>(set)
        })?;
        let known = |answer: bool| if answer { 1.0 } else { 0.0 };
        target.measure(
            &format!("{name} on the scratch file system"),
            known(on_scratch),
        )?;
        target.measure(&format!("{name} in a layer"), known(in_layer))?;
        target.measure(&format!("{name} in its child"), known(in_child))?;
        clear_flags(&flat)?;
        target.within("base", |root| clear_flags(&root.join(name)))?;
    }
    let left = target.within("base", |root| Ok::<_, Failure>(manifest::of(root)?))?;
    demand!(
        left.has("immutable"),
        "the files of the layer are gone: {left}"
    );
    Ok(())
}

/// Makes a file with the flag; whether it has it then.
fn set_flag(at: &Path, flag: IFlags) -> Result<bool, Failure> {
    let file = File::create(at)?;
    match rustix::fs::ioctl_setflags(&file, flag) {
        Ok(()) => has_flag(at, flag),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn has_flag(at: &Path, flag: IFlags) -> Result<bool, Failure> {
    match rustix::fs::ioctl_getflags(File::open(at)?) {
        Ok(flags) => Ok(flags.contains(flag)),
        Err(Errno::OPNOTSUPP | Errno::NOTTY) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What is immutable could not be removed after the case.
fn clear_flags(at: &Path) -> Result<(), Failure> {
    if fs::exists(at)? {
        match rustix::fs::ioctl_setflags(File::open(at)?, IFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOTTY) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
