// SPDX-License-Identifier: Apache-2.0
//! Mounts through `mount(2)`.

use std::{
    ffi::CString,
    fs::File,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
    thread,
};

use nix::sched::{CloneFlags, unshare};
use plywood_plugin_sdk::OverlayMount;
use rustix::{
    fs::StatVfsMountFlags,
    io::Errno,
    mount::{MountFlags, mount, mount_bind, mount_remount},
};

use super::{failure::Failure, options::Options};

const TOO_LONG: &str = "Linux 6.8 or newer has no such limit";

/// Mounts an overlay whose options fit into one page.
///
/// The paths are relative to `base`, which makes them short. If that is not enough, they are
/// reached through symbolic links with yet shorter names, in a directory that lives for the length
/// of the call.
pub(super) fn overlay(overlay: &OverlayMount, options: &Options) -> Result<(), Failure> {
    let data = data(overlay, &overlay.lowers, options)?;
    if fits(&data) {
        return mount_from(&overlay.base, data, overlay, options);
    }
    let links = directory_for_links()?;
    let mut names = Vec::with_capacity(overlay.lowers.len());
    for (n, lower) in overlay.lowers.iter().enumerate() {
        let name = PathBuf::from(n.to_string());
        symlink(overlay.base.join(lower), links.path().join(&name))
            .map_err(|error| Failure::new("making a short name for a layer", errno(&error)))?;
        names.push(name);
    }
    let absolute = OverlayMount {
        base: links.path().to_owned(),
        upper: overlay.upper.as_ref().map(|path| overlay.base.join(path)),
        work: overlay.work.as_ref().map(|path| overlay.base.join(path)),
        ..overlay.clone()
    };
    let data = self::data(&absolute, &names, options)?;
    if !fits(&data) {
        let doing = format!(
            "{} directories need {} bytes of options, the kernel takes {}",
            overlay.lowers.len(),
            data.len(),
            rustix::param::page_size() - 1
        );
        return Err(Failure::new(doing, Errno::TOOBIG).hint(TOO_LONG));
    }
    mount_from(links.path(), data, overlay, options)
}

/// A private directory, in memory if possible: on a busy disk 500 links take half a second.
fn directory_for_links() -> Result<tempfile::TempDir, Failure> {
    let make = |parent| {
        tempfile::Builder::new()
            .prefix("plywood-mount-")
            .tempdir_in(parent)
    };
    make("/dev/shm")
        .or_else(|_| make("/run"))
        .or_else(|_| make("/tmp"))
        .map_err(|error| Failure::new("making a directory in `/tmp`", errno(&error)))
}

/// The kernel takes one page with the final zero, and cuts the rest off without a word.
fn fits(data: &[u8]) -> bool {
    data.len() < rustix::param::page_size()
}

/// The option string. The upper directory stands before the lower ones, as far from a cut as can
/// be.
fn data(overlay: &OverlayMount, lowers: &[PathBuf], options: &Options) -> Result<Vec<u8>, Failure> {
    let short = |path: &Path| -> PathBuf {
        let relative = path.strip_prefix(&overlay.base).unwrap_or(path);
        if relative.as_os_str().is_empty() {
            ".".into()
        } else {
            relative.to_owned()
        }
    };
    let mut data = Vec::new();
    if let (Some(upper), Some(work)) = (&overlay.upper, &overlay.work) {
        data.extend(b"upperdir=");
        escape(&mut data, &short(upper), b"\\,");
        data.extend(b",workdir=");
        escape(&mut data, &short(work), b"\\,");
        data.push(b',');
    }
    data.extend(b"lowerdir=");
    for (n, lower) in lowers.iter().enumerate() {
        if n > 0 {
            data.push(b':');
        }
        escape(&mut data, &short(lower), b"\\,:");
    }
    for (key, value) in &options.data {
        let text = match value {
            Some(value) => format!("{key}={value}"),
            None => key.clone(),
        };
        if text.contains(',') {
            let doing = format!("the option cannot be passed on: `{text}`");
            return Err(Failure::new(doing, Errno::INVAL));
        }
        data.push(b',');
        data.extend(text.as_bytes());
    }
    if let Some(label) = &overlay.label {
        // A label contains commas; the security module understands quotes.
        data.extend(format!(",context=\"{label}\"").as_bytes());
    }
    Ok(data)
}

fn escape(out: &mut Vec<u8>, path: &Path, special: &[u8]) {
    for &byte in path.as_os_str().as_bytes() {
        if special.contains(&byte) {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

/// Mounts with `directory` as the working directory of a thread of its own; that of the process
/// stays as it is.
fn mount_from(
    directory: &Path,
    data: Vec<u8>,
    overlay: &OverlayMount,
    options: &Options,
) -> Result<(), Failure> {
    let failed = |doing: &'static str| move |errno| Failure::new(doing, errno);
    let data = CString::new(data)
        .map_err(|_| Failure::new("a path or option contains a zero byte", Errno::INVAL))?;
    let directory = File::open(directory).map_err(|error| {
        Failure::new(format!("opening `{}`", directory.display()), errno(&error))
    })?;
    let work = || {
        unshare(CloneFlags::CLONE_FS).map_err(|error| {
            Failure::new(
                "giving a thread a working directory of its own",
                Errno::from_raw_os_error(error as i32),
            )
        })?;
        rustix::process::fchdir(&directory).map_err(failed("entering the driver's directory"))?;
        mount(
            "overlay",
            &overlay.target,
            "overlay",
            options.flags,
            data.as_c_str(),
        )
        .map_err(failed("mounting"))
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("plywood-mount".to_owned());
        match thread.spawn_scoped(scope, work) {
            Ok(handle) => handle
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => Err(Failure::new("starting a thread", errno(&error))),
        }
    })
}

pub(super) fn filesystem(
    fstype: &str,
    source: &str,
    target: &Path,
    options: &Options,
) -> Result<(), Failure> {
    let words = options.data.iter().map(|(key, value)| match value {
        // A label contains commas; the security module understands quotes.
        Some(value) if value.contains(',') => format!("{key}=\"{value}\""),
        Some(value) => format!("{key}={value}"),
        None => key.clone(),
    });
    let data = words.collect::<Vec<_>>().join(",");
    if !fits(data.as_bytes()) {
        return Err(Failure::new("too many options", Errno::TOOBIG));
    }
    let data = CString::new(data)
        .map_err(|_| Failure::new("an option contains a zero byte", Errno::INVAL))?;
    mount(source, target, fstype, options.flags, data.as_c_str())
        .map_err(|errno| Failure::new(format!("mounting `{source}`"), errno))?;
    if !options.shown_read_only {
        return Ok(());
    }
    let flags = MountFlags::BIND | MountFlags::RDONLY | options.flags;
    mount_remount(target, flags, c"").map_err(|errno| {
        drop(super::unmount_once(target));
        Failure::new("making the mount read-only", errno)
    })
}

pub(super) fn bind(source: &Path, target: &Path, options: &Options) -> Result<(), Failure> {
    mount_bind(source, target)
        .map_err(|errno| Failure::new(format!("mounting `{}`", source.display()), errno))?;
    if options.flags.is_empty() {
        return Ok(());
    }
    // Flags that the mount has inherited may be locked: it is not allowed to drop them.
    let outcome = inherited(target)
        .and_then(|flags| mount_remount(target, MountFlags::BIND | options.flags | flags, c""));
    outcome.map_err(|errno| {
        drop(super::unmount_once(target));
        Failure::new("setting the attributes of the mount", errno)
    })
}

fn inherited(target: &Path) -> Result<MountFlags, Errno> {
    let found = rustix::fs::statvfs(target)?.f_flag;
    let pairs = [
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
    ];
    let kept = pairs.into_iter().filter(|(flag, _)| found.contains(*flag));
    Ok(kept.fold(MountFlags::empty(), |all, (_, flag)| all | flag))
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(base: &str, lowers: &[&str]) -> OverlayMount {
        OverlayMount {
            base: base.into(),
            lowers: lowers.iter().map(PathBuf::from).collect(),
            upper: Some(Path::new(base).join("x\\y,z/diff")),
            work: Some("x/work".into()),
            target: "/t".into(),
            options: Vec::new(),
            label: Some("system_u:object_r:container_file_t:s0:c1,c2".to_owned()),
        }
    }

    #[test]
    fn paths_are_relative_and_escaped() {
        let overlay = plan("/home", &["l/A", "/home/l/b:c", "/home", "/else/d,e\\"]);
        let options = Options::parse(&["nodev".into(), "metacopy=on".into()], false).unwrap();
        let data = data(&overlay, &overlay.lowers, &options).unwrap();
        assert_eq!(
            String::from_utf8(data).unwrap(),
            "upperdir=x\\\\y\\,z/diff,workdir=x/work,lowerdir=l/A:l/b\\:c:.:/else/d\\,e\\\\,metacopy=on,\
             context=\"system_u:object_r:container_file_t:s0:c1,c2\""
        );
    }

    #[test]
    fn a_comma_in_an_option_is_not_passed_on() {
        let overlay = plan("/home", &["a"]);
        let options = Options::parse(&["a=1,upperdir=/etc".into()], false).unwrap();
        assert!(data(&overlay, &overlay.lowers, &options).is_err());
    }
}
