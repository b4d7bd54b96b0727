// SPDX-License-Identifier: Apache-2.0
//! Mount options in the form of `mount(8)`.

use rustix::mount::{MountAttrFlags, MountFlags, MountPropagationFlags};

use crate::{Error, ErrorKind, Result};

/// Options by who understands them.
#[derive(Debug)]
pub(super) struct Options {
    /// What every file system understands, in the form of `mount(2)`.
    pub(super) flags: MountFlags,
    /// What is done after mounting.
    pub(super) propagation: Option<MountPropagationFlags>,
    /// What the file system understands: a key, or a key and a value.
    pub(super) data: Vec<(String, Option<String>)>,
    /// The mount is read-only, whatever the file system is: that may be mounted elsewhere as well,
    /// and the kernel lets it be either writable or not.
    pub(super) shown_read_only: bool,
}

enum Meaning {
    Set(MountFlags),
    Clear(MountFlags),
    Propagation(MountPropagationFlags),
    Nothing,
    Refused,
    Data,
}

impl Options {
    /// Sorts options; a later one wins.
    pub(super) fn parse(options: &[String], read_only: bool) -> Result<Self> {
        let mut parsed = Self {
            flags: MountFlags::empty(),
            propagation: None,
            data: Vec::new(),
            shown_read_only: false,
        };
        for option in options.iter().filter(|option| !option.is_empty()) {
            match meaning(option) {
                Meaning::Set(flags) => {
                    // They exclude each other.
                    let times =
                        MountFlags::NOATIME | MountFlags::STRICTATIME | MountFlags::RELATIME;
                    if flags.intersects(times) {
                        parsed.flags -= times;
                    }
                    parsed.flags |= flags;
                }
                Meaning::Clear(flags) => parsed.flags -= flags,
                Meaning::Propagation(kind) => parsed.propagation = Some(kind),
                Meaning::Nothing => {}
                Meaning::Refused => {
                    return Err(Error::new(
                        ErrorKind::InvalidArgument,
                        format!("a layer cannot be mounted with the option `{option}`"),
                    )
                    .subject(option));
                }
                Meaning::Data => parsed.data.push(match option.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (option.clone(), None),
                }),
            }
        }
        if read_only {
            parsed.flags |= MountFlags::RDONLY;
        }
        Ok(parsed)
    }

    /// The same, with a mount that is read-only if `so`.
    pub(super) fn shown_read_only(mut self, so: bool) -> Self {
        self.shown_read_only = so;
        self
    }

    /// The flags that belong to the mount, in the new form.
    pub(super) fn attributes(&self) -> MountAttrFlags {
        let pairs = [
            (MountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
            (MountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
            (MountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
            (MountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
            (MountFlags::NOATIME, MountAttrFlags::MOUNT_ATTR_NOATIME),
            (
                MountFlags::STRICTATIME,
                MountAttrFlags::MOUNT_ATTR_STRICTATIME,
            ),
            (
                MountFlags::NODIRATIME,
                MountAttrFlags::MOUNT_ATTR_NODIRATIME,
            ),
            (
                MountFlags::NOSYMFOLLOW,
                MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW,
            ),
        ];
        let shown = if self.shown_read_only {
            MountAttrFlags::MOUNT_ATTR_RDONLY
        } else {
            MountAttrFlags::empty()
        };
        let flags = pairs
            .into_iter()
            .filter(|(flag, _)| self.flags.contains(*flag));
        flags.fold(shown, |all, (_, attribute)| all | attribute)
    }

    /// The flags that belong to the file system, in the new form.
    pub(super) fn filesystem_flags(&self) -> impl Iterator<Item = &'static str> {
        let pairs = [
            (MountFlags::RDONLY, "ro"),
            (MountFlags::SYNCHRONOUS, "sync"),
            (MountFlags::DIRSYNC, "dirsync"),
            (MountFlags::LAZYTIME, "lazytime"),
            (MountFlags::PERMIT_MANDATORY_FILE_LOCKING, "mand"),
        ];
        let flags = self.flags;
        pairs
            .into_iter()
            .filter(move |(flag, _)| flags.contains(*flag))
            .map(|(_, name)| name)
    }
}

fn meaning(option: &str) -> Meaning {
    use Meaning::{Clear, Data, Nothing, Propagation, Refused, Set};
    use MountPropagationFlags as P;
    match option {
        "defaults" | "relatime" | "norelatime" | "nostrictatime" | "silent" | "loud" => Nothing,
        "ro" => Set(MountFlags::RDONLY),
        "rw" => Clear(MountFlags::RDONLY),
        "nosuid" => Set(MountFlags::NOSUID),
        "suid" => Clear(MountFlags::NOSUID),
        "nodev" => Set(MountFlags::NODEV),
        "dev" => Clear(MountFlags::NODEV),
        "noexec" => Set(MountFlags::NOEXEC),
        "exec" => Clear(MountFlags::NOEXEC),
        "noatime" => Set(MountFlags::NOATIME),
        "atime" => Clear(MountFlags::NOATIME),
        "strictatime" => Set(MountFlags::STRICTATIME),
        "nodiratime" => Set(MountFlags::NODIRATIME),
        "diratime" => Clear(MountFlags::NODIRATIME),
        "nosymfollow" => Set(MountFlags::NOSYMFOLLOW),
        "symfollow" => Clear(MountFlags::NOSYMFOLLOW),
        "sync" => Set(MountFlags::SYNCHRONOUS),
        "async" => Clear(MountFlags::SYNCHRONOUS),
        "dirsync" => Set(MountFlags::DIRSYNC),
        "lazytime" => Set(MountFlags::LAZYTIME),
        "nolazytime" => Clear(MountFlags::LAZYTIME),
        "mand" => Set(MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
        "nomand" => Clear(MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
        "private" => Propagation(P::PRIVATE),
        "rprivate" => Propagation(P::PRIVATE | P::REC),
        "shared" => Propagation(P::SHARED),
        "rshared" => Propagation(P::SHARED | P::REC),
        "slave" => Propagation(P::DOWNSTREAM),
        "rslave" => Propagation(P::DOWNSTREAM | P::REC),
        "unbindable" => Propagation(P::UNBINDABLE),
        "runbindable" => Propagation(P::UNBINDABLE | P::REC),
        "bind" | "rbind" | "move" | "remount" => Refused,
        _ => Data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str], read_only: bool) -> Options {
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        Options::parse(&options, read_only).unwrap()
    }

    #[test]
    fn options_go_to_whom_they_concern_and_the_last_wins() {
        let parsed = parse(
            &[
                "nodev",
                "metacopy=on",
                "volatile",
                "",
                "dev",
                "noexec",
                "sync",
            ],
            true,
        );
        assert_eq!(
            parsed.flags,
            MountFlags::NOEXEC | MountFlags::SYNCHRONOUS | MountFlags::RDONLY
        );
        let attributes = MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_RDONLY;
        assert_eq!(parsed.attributes(), attributes);
        assert_eq!(
            parsed.filesystem_flags().collect::<Vec<_>>(),
            ["ro", "sync"]
        );
        assert_eq!(
            parsed.data,
            [
                ("metacopy".to_owned(), Some("on".to_owned())),
                ("volatile".to_owned(), None)
            ]
        );
        let times = parse(&["noatime", "strictatime", "rprivate"], false);
        assert_eq!(times.flags, MountFlags::STRICTATIME);
        let recursively = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        assert_eq!(times.propagation, Some(recursively));
    }

    #[test]
    fn other_operations_are_refused() {
        for option in ["bind", "remount"] {
            let error = Options::parse(&[option.to_owned()], false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
    }
}
