// SPDX-License-Identifier: Apache-2.0
//! Mounts through `fsopen`, `fsconfig`, `fsmount` and `move_mount`.

use std::{
    ffi::OsString,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::Path,
    sync::OnceLock,
};

use plywood_plugin_sdk::{OverlayMount, sys::mount_attr};
use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_fd,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};

use super::{failure::Failure, options::Options};

/// The longest value of a string parameter. The kernel answers a longer one with a bare EINVAL.
const LONGEST: usize = 255;

/// Whether the kernel takes the lower directories of an overlay one by one.
///
/// # Behavior
/// - Linux 6.5 to 6.7 refuse the parameter. Before, the kernel collects every parameter, also a
///   meaningless one, and only refuses to make the mount, without saying why.
pub(super) fn has_single_lowers() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    if let Some(answer) = ANSWER.get() {
        return *answer;
    }
    let answer = match fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(context) => {
            fsconfig_set_string(&context, "lowerdir+", "/").is_ok()
                && fsconfig_set_string(&context, "plywood-probe", "1").is_err()
        }
        Err(Errno::NOSYS | Errno::PERM | Errno::NODEV) => false,
        // Nothing is learned from a lack of descriptors or memory; the mount itself will say so.
        Err(_) => return true,
    };
    *ANSWER.get_or_init(|| answer)
}

/// A file system in the making.
struct Context {
    fd: OwnedFd,
    /// Directories that are named by descriptor: they stay open until the mount is made.
    directories: Vec<OwnedFd>,
}

impl Context {
    fn open(fstype: &str) -> Result<Self, Failure> {
        let fd = fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| {
            Failure::new(format!("opening the file system type {fstype}"), errno)
        })?;
        Ok(Self {
            fd,
            directories: Vec::new(),
        })
    }

    /// Adds the kernel's words to a failure.
    fn check(
        &self,
        doing: impl FnOnce() -> String,
        result: Result<(), Errno>,
    ) -> Result<(), Failure> {
        result.map_err(|errno| Failure::new(doing(), errno).words(self.words()))
    }

    /// The messages that the kernel keeps for this context, one per read.
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = rustix::io::read(&self.fd, &mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            // `e `, `w ` or `i ` says how much it matters.
            let text = text.trim_end();
            words.push(text.get(2..).unwrap_or(text).to_owned());
        }
        words
    }

    fn flag(&self, key: &str) -> Result<(), Failure> {
        let result = fsconfig_set_flag(&self.fd, key);
        self.check(|| format!("setting `{key}`"), result)
    }

    fn text(&self, key: &str, value: &str) -> Result<(), Failure> {
        let result = fsconfig_set_string(&self.fd, key, value);
        self.check(|| format!("setting `{key}={value}`"), result)
    }

    /// Names a directory; `escaped` undoes backslashes, as the kernel does for some parameters.
    fn directory(&mut self, key: &str, path: &Path, escaped: bool) -> Result<(), Failure> {
        let doing = || format!("setting `{key}={}`", path.display());
        let value = if escaped { escape(path) } else { path.into() };
        if value.len() <= LONGEST {
            let result = fsconfig_set_string(&self.fd, key, &value);
            return self.check(doing, result);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| Failure::new(doing(), errno))?;
        // Linux 6.13 takes descriptors here.
        if fsconfig_set_fd(&self.fd, key, &directory).is_err() {
            drop(self.words());
            let by_number = format!("/proc/self/fd/{}", directory.as_raw_fd());
            let result = fsconfig_set_string(&self.fd, key, by_number);
            self.check(doing, result)?;
        }
        self.directories.push(directory);
        Ok(())
    }

    fn options(&self, options: &Options) -> Result<(), Failure> {
        for flag in options.filesystem_flags() {
            self.flag(flag)?;
        }
        for (key, value) in &options.data {
            match value {
                Some(value) => self.text(key, value)?,
                None => self.flag(key)?,
            }
        }
        Ok(())
    }

    fn attach(self, target: &Path, options: &Options) -> Result<(), Failure> {
        let created = fsconfig_create(&self.fd);
        self.check(|| "making the file system".to_owned(), created)?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        let mount = fsmount(&self.fd, flags, options.attributes());
        let mount =
            mount.map_err(|errno| Failure::new("making the mount", errno).words(self.words()))?;
        attach(&mount, target)
    }
}

/// Attaches a mount; a symbolic link at `target` is not followed.
fn attach(mount: &OwnedFd, target: &Path) -> Result<(), Failure> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mount, c"", CWD, target, flags)
        .map_err(|errno| Failure::new("attaching the mount", errno))
}

pub(super) fn overlay(overlay: &OverlayMount, options: &Options) -> Result<(), Failure> {
    let mut context = Context::open("overlay")?;
    context.text("source", "overlay")?;
    for lower in &overlay.lowers {
        context.directory("lowerdir+", &overlay.base.join(lower), false)?;
    }
    if let (Some(upper), Some(work)) = (&overlay.upper, &overlay.work) {
        context.directory("upperdir", &overlay.base.join(upper), true)?;
        context.directory("workdir", &overlay.base.join(work), true)?;
    }
    context.options(options)?;
    if let Some(label) = &overlay.label {
        context.text("context", label)?;
    }
    context.attach(&overlay.target, options)
}

pub(super) fn filesystem(
    fstype: &str,
    source: &str,
    target: &Path,
    options: &Options,
) -> Result<(), Failure> {
    let context = Context::open(fstype)?;
    context.text("source", source)?;
    context.options(options)?;
    context.attach(target, options)
}

/// Shows `source` at `target`; with its attributes from the first moment on.
pub(super) fn bind(source: &Path, target: &Path, options: &Options) -> Result<(), Failure> {
    bind_as(source, target, options, None)
}

/// The same, with the ids that a user namespace gives to those on disk.
pub(super) fn bind_as(
    source: &Path,
    target: &Path,
    options: &Options,
    namespace: Option<&OwnedFd>,
) -> Result<(), Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, source, flags)
        .map_err(|errno| Failure::new(format!("opening `{}`", source.display()), errno))?;
    let failed = |doing: &'static str| {
        move |error: std::io::Error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Failure::new(doing, errno)
        }
    };
    if let Some(namespace) = namespace {
        mount_attr::map_ids(&mount, namespace).map_err(failed("mapping the ids of the mount"))?;
    }
    let attributes = options.attributes();
    if !attributes.is_empty() {
        mount_attr::add(&mount, attributes)
            .map_err(failed("setting the attributes of the mount"))?;
    }
    attach(&mount, target)
}

/// `upperdir` and `workdir` take a backslash for an escape, and nothing else.
fn escape(path: &Path) -> OsString {
    let bytes = path.as_os_str().as_bytes();
    let mut escaped = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        if byte == b'\\' {
            escaped.push(byte);
        }
        escaped.push(byte);
    }
    OsString::from_vec(escaped)
}
