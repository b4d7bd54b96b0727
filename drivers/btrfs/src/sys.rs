// SPDX-License-Identifier: Apache-2.0
//! The ioctls of btrfs (`linux/btrfs.h`); the only unsafe code of the driver.
#![expect(unsafe_code, reason = "no library wraps these ioctls")]

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::ffi::OsStrExt,
    },
};

/// The inode number of the root directory of every subvolume.
pub(crate) const FIRST_INODE: u64 = 256;
/// The tree of subvolumes.
pub(crate) const ROOT_TREE: u64 = 1;
/// The tree of quota groups.
pub(crate) const QUOTA_TREE: u64 = 8;
/// The tree that finds subvolumes by UUID.
pub(crate) const UUID_TREE: u64 = 9;

const NAME_LIMIT: usize = 255;

/// A structure that the kernel reads and writes.
///
/// # Safety
/// Implementors are `repr(C)`, without padding, and made of integers only, so that every bit
/// pattern is a value.
unsafe trait Argument {
    /// The request, which says how many bytes the kernel takes.
    const REQUEST: u32;
}

const fn request(direction: u32, number: u32, size: u32) -> u32 {
    direction << 30 | size << 16 | 0x94 << 8 | number
}

const WRITE: u32 = 1;
const READ: u32 = 2;

macro_rules! arguments {
    ($($name:ident = $direction:expr, $number:literal, $size:literal { $($field:ident: $type:ty,)* })*) => {
        $(
            #[repr(C)]
            #[derive(Clone, Copy)]
            struct $name { $($field: $type,)* }
            const _: () = assert!(size_of::<$name>() == $size);
            // SAFETY: `repr(C)`, integers only; the size above is the sum of the fields.
            unsafe impl Argument for $name {
                const REQUEST: u32 = request($direction, $number, $size);
            }
        )*
    };
}

arguments! {
    CreateSubvolume = WRITE, 14, 4096 { fd: i64, name: [u8; 4088], }
    DestroyByName = WRITE, 15, 4096 { fd: i64, name: [u8; 4088], }
    CreateSnapshot = WRITE, 23, 4096 {
        fd: i64, transaction: u64, flags: u64, unused: [u64; 4], name: [u8; 4040],
    }
    StartSync = READ, 24, 8 { transaction: u64, }
    GetFlags = READ, 25, 8 { flags: u64, }
    SetFlags = WRITE, 26, 8 { flags: u64, }
    QuotaControl = READ | WRITE, 40, 16 { command: u64, status: u64, }
    CreateGroup = WRITE, 42, 16 { create: u64, group: u64, }
    LimitGroup = READ, 43, 48 {
        group: u64, flags: u64, referenced: u64, exclusive: u64, reserved: [u64; 2],
    }
    GetInfo = READ, 60, 504 {
        id: u64, name: [u8; 256], parent: u64, directory: u64, generation: u64, flags: u64,
        uuid: [u8; 16], parent_uuid: [u8; 16], received_uuid: [u8; 16],
        changed: u64, created: u64, sent: u64, received: u64, times: [u64; 8], reserved: [u64; 8],
    }
    GetChildren = READ | WRITE, 61, 4096 {
        least: u64, found: [[u64; 2]; 255], count: u8, reserved: [u8; 7],
    }
    LookUpChild = READ | WRITE, 62, 4096 {
        directory: u64, child: u64, name: [u8; 256], path: [u8; 3824],
    }
}

fn call<T: Argument>(file: impl AsFd, argument: &mut T) -> io::Result<()> {
    // SAFETY: the kernel reads and writes as many bytes as the request says, which is the size of
    // the argument, and whatever it writes is a value of its type.
    let result = unsafe {
        libc::ioctl(
            file.as_fd().as_raw_fd(),
            libc::Ioctl::from(T::REQUEST),
            std::ptr::from_mut(argument),
        )
    };
    checked(result)
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn field<const N: usize>(name: &OsStr) -> io::Result<[u8; N]> {
    let bytes = name.as_bytes();
    if bytes.len() > NAME_LIMIT {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    if bytes.is_empty() || bytes.contains(&b'/') || bytes.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut field = [0; N];
    field[..bytes.len()].copy_from_slice(bytes);
    Ok(field)
}

/// Makes an empty subvolume `name` in an open directory.
pub(crate) fn create_subvolume(directory: impl AsFd, name: &OsStr) -> io::Result<()> {
    let name = field(name)?;
    call(directory, &mut CreateSubvolume { fd: 0, name })
}

/// Whether a subvolume can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
}

/// Makes a snapshot `name` of the subvolume whose root is `source`.
pub(crate) fn create_snapshot(
    source: impl AsFd,
    directory: impl AsFd,
    name: &OsStr,
    access: Access,
) -> io::Result<()> {
    let mut argument = CreateSnapshot {
        fd: source.as_fd().as_raw_fd().into(),
        transaction: 0,
        flags: match access {
            Access::ReadOnly => FLAG_READ_ONLY,
            Access::ReadWrite => 0,
        },
        unused: [0; 4],
        name: field(name)?,
    };
    call(directory, &mut argument)
}

/// Removes the subvolume `name`, with what is in it, from an open directory.
pub(crate) fn destroy(directory: impl AsFd, name: &OsStr) -> io::Result<()> {
    let name = field(name)?;
    call(directory, &mut DestroyByName { fd: 0, name })
}

/// Starts a commit, and does not wait for it.
pub(crate) fn start_commit(file: impl AsFd) -> io::Result<()> {
    call(file, &mut StartSync { transaction: 0 })
}

const FLAG_READ_ONLY: u64 = 1 << 1;

/// Lets a subvolume be written to, or not.
pub(crate) fn set_access(subvolume: impl AsFd, access: Access) -> io::Result<()> {
    let mut found = GetFlags { flags: 0 };
    call(&subvolume, &mut found)?;
    let flags = match access {
        Access::ReadOnly => found.flags | FLAG_READ_ONLY,
        Access::ReadWrite => found.flags & !FLAG_READ_ONLY,
    };
    if flags == found.flags {
        return Ok(());
    }
    call(subvolume, &mut SetFlags { flags })
}

/// A UUID of a subvolume; zeros for none.
pub(crate) type Uuid = [u8; 16];

/// What the file system records about a subvolume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Info {
    pub(crate) id: u64,
    pub(crate) uuid: Uuid,
    /// Of what it is a snapshot of.
    pub(crate) parent_uuid: Uuid,
    /// The transaction that changed it last, as far as it is committed.
    pub(crate) generation: u64,
    /// The transaction that made it.
    pub(crate) created: u64,
    /// When that was, in seconds since 1970.
    pub(crate) created_at: u64,
}

/// Describes the subvolume that `file` is in.
pub(crate) fn info(file: impl AsFd) -> io::Result<Info> {
    let mut found = GetInfo {
        id: 0,
        name: [0; 256],
        parent: 0,
        directory: 0,
        generation: 0,
        flags: 0,
        uuid: [0; 16],
        parent_uuid: [0; 16],
        received_uuid: [0; 16],
        changed: 0,
        created: 0,
        sent: 0,
        received: 0,
        times: [0; 8],
        reserved: [0; 8],
    };
    call(file, &mut found)?;
    Ok(Info {
        id: found.id,
        uuid: found.uuid,
        parent_uuid: found.parent_uuid,
        generation: found.generation,
        created: found.created,
        // Seconds and nanoseconds of the last change come before.
        created_at: found.times[2],
    })
}

/// A subvolume inside another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) id: u64,
    /// The directory of the outer one that it is in.
    pub(crate) directory: u64,
}

/// The subvolumes directly inside the one whose root is `subvolume`.
pub(crate) fn children(subvolume: impl AsFd) -> io::Result<Vec<Child>> {
    let mut children = Vec::new();
    let mut least = 0;
    loop {
        let mut batch = GetChildren {
            least,
            found: [[0; 2]; 255],
            count: 0,
            reserved: [0; 7],
        };
        let outcome = call(&subvolume, &mut batch);
        let found = batch.found.iter().take(batch.count.into());
        children.extend(found.map(|&[id, directory]| Child { id, directory }));
        match outcome {
            // There are more, from `least` on.
            Err(error) if error.raw_os_error() == Some(libc::EOVERFLOW) && batch.least > least => {
                least = batch.least;
            }
            other => return other.map(|()| children),
        }
    }
}

/// Where an inner subvolume is, relative to the root of the outer one.
pub(crate) fn child_path(subvolume: impl AsFd, child: &Child) -> io::Result<Vec<u8>> {
    let mut answer = LookUpChild {
        directory: child.directory,
        child: child.id,
        name: [0; 256],
        path: [0; 3824],
    };
    call(subvolume, &mut answer)?;
    let mut path = terminated(&answer.path).to_vec();
    path.extend_from_slice(terminated(&answer.name));
    Ok(path)
}

fn terminated(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0);
    &bytes[..end.unwrap_or(bytes.len())]
}

/// A part of a tree; from the first to the last key, in the order of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The tree; 0 is that of the subvolume that is asked.
    pub(crate) tree: u64,
    pub(crate) first: Key,
    pub(crate) last: Key,
    /// Blocks that no transaction since this one has written are left out.
    pub(crate) since: u64,
}

/// Names an item of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) object: u64,
    pub(crate) kind: u8,
    pub(crate) offset: u64,
}

impl Key {
    /// The first key of an object.
    pub(crate) const fn first(object: u64) -> Self {
        Self {
            object,
            kind: 0,
            offset: 0,
        }
    }

    /// The last key of an object.
    pub(crate) const fn last(object: u64) -> Self {
        Self {
            object,
            kind: u8::MAX,
            offset: u64::MAX,
        }
    }
}

/// `btrfs_ioctl_search_args_v2` with `btrfs_ioctl_search_key`; the buffer follows.
#[repr(C)]
#[derive(Clone, Copy)]
struct Search {
    tree: u64,
    object: [u64; 2],
    offset: [u64; 2],
    transaction: [u64; 2],
    kind: [u32; 2],
    count: u32,
    unused: [u32; 9],
    size: u64,
}

/// The head of [`Search`] in a buffer of words.
const HEAD: usize = size_of::<Search>() / 8;
const _: () = assert!(size_of::<Search>() == 112);

const SEARCH: u32 = request(READ | WRITE, 17, 112);

/// Room for the items of one object; the kernel touches all of it, so more costs time.
const SMALL: usize = 16 << 10;
/// Room for many items, and for any item.
const LARGE: usize = 256 << 10;

/// Reads one batch of a range into `room`, and returns the number of items.
fn search_batch(file: impl AsFd, search: &Search, room: &mut [u64]) -> io::Result<u32> {
    assert!(room.len() > HEAD, "the caller gives room for the head");
    let size = (room.len() - HEAD) * 8;
    let head = Search {
        size: size as u64,
        ..*search
    };
    let start = room.as_mut_ptr().cast::<Search>();
    // SAFETY: there is room for the head, as was just checked, and words are aligned as it is.
    unsafe { start.write(head) };
    let file = file.as_fd().as_raw_fd();
    // SAFETY: behind the head are as many bytes as the head says; the kernel writes no further.
    let result = unsafe { libc::ioctl(file, libc::Ioctl::from(SEARCH), start) };
    checked(result)?;
    // SAFETY: the head was written above and by the kernel, and integers have any bits.
    Ok(unsafe { start.read() }.count)
}

/// The items of a batch as bytes.
fn bytes(room: &[u64]) -> &[u8] {
    let items = &room[HEAD..];
    // SAFETY: any words are bytes, and the slice covers just them.
    unsafe { std::slice::from_raw_parts(items.as_ptr().cast(), items.len() * 8) }
}

/// Hands the items of a range to `item`, in the order of their keys.
///
/// # Errors
/// `EPERM` for whoever is not the host's root; `EIO` when the answer makes no sense.
pub(crate) fn search(
    file: impl AsFd,
    range: &Range,
    mut item: impl FnMut(Key, &[u8]),
) -> io::Result<()> {
    let one = range.first.object == range.last.object;
    let mut room = vec![0; HEAD + if one { SMALL } else { LARGE } / 8];
    let mut next = range.first;
    loop {
        let search = Search {
            tree: range.tree,
            object: [next.object, range.last.object],
            offset: [next.offset, range.last.offset],
            transaction: [range.since, u64::MAX],
            kind: [next.kind.into(), range.last.kind.into()],
            count: u32::MAX,
            unused: [0; 9],
            size: 0,
        };
        let count = match search_batch(&file, &search, &mut room) {
            Err(error)
                if error.raw_os_error() == Some(libc::EOVERFLOW) && room.len() < LARGE / 8 =>
            {
                room = vec![0; HEAD + LARGE / 8];
                continue;
            }
            other => other?,
        };
        let mut seen = None;
        for found in Items::new(bytes(&room), count) {
            let (key, data) = found?;
            item(key, data);
            seen = Some(key);
        }
        match seen.and_then(following) {
            Some(key) if key <= range.last => next = key,
            _ => return Ok(()),
        }
    }
}

fn following(key: Key) -> Option<Key> {
    let Key {
        object,
        kind,
        offset,
    } = key;
    if let Some(offset) = offset.checked_add(1) {
        return Some(Key {
            object,
            kind,
            offset,
        });
    }
    if let Some(kind) = kind.checked_add(1) {
        return Some(Key {
            object,
            kind,
            offset: 0,
        });
    }
    object.checked_add(1).map(Key::first)
}

/// The items of one answer: a header of 32 bytes and the data, one after the other.
struct Items<'a> {
    rest: &'a [u8],
    count: u32,
}

impl<'a> Items<'a> {
    fn new(rest: &'a [u8], count: u32) -> Self {
        Self { rest, count }
    }

    fn parse(&mut self) -> Option<(Key, &'a [u8])> {
        let (header, rest) = self.rest.split_at_checked(32)?;
        let word = |at: usize| {
            header
                .get(at..at + 8)?
                .try_into()
                .ok()
                .map(u64::from_ne_bytes)
        };
        let half = |at: usize| {
            header
                .get(at..at + 4)?
                .try_into()
                .ok()
                .map(u32::from_ne_bytes)
        };
        let key = Key {
            object: word(8)?,
            offset: word(16)?,
            kind: half(24)?.try_into().ok()?,
        };
        let (data, rest) = rest.split_at_checked(half(28)?.try_into().ok()?)?;
        self.rest = rest;
        Some((key, data))
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = io::Result<(Key, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let parsed = self.parse();
        if parsed.is_none() {
            self.count = 0;
        }
        Some(parsed.ok_or_else(|| io::Error::from_raw_os_error(libc::EIO)))
    }
}

/// Starts the accounting of whole trees, which counts what is shared at every place.
pub(crate) fn enable_quota(file: impl AsFd) -> io::Result<()> {
    let mut argument = QuotaControl {
        command: 1,
        status: 0,
    };
    call(file, &mut argument)
}

/// How much a quota group may hold; `None` is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// What it refers to, shared or not.
    pub(crate) referenced: Option<u64>,
    /// What nobody else refers to.
    pub(crate) exclusive: Option<u64>,
}

/// Limits a quota group; those of subvolumes have their id.
pub(crate) fn limit_group(file: impl AsFd, group: u64, limits: Limits) -> io::Result<()> {
    let mut argument = LimitGroup {
        group,
        flags: 0b11,
        // All bits set takes a limit away.
        referenced: limits.referenced.unwrap_or(u64::MAX),
        exclusive: limits.exclusive.unwrap_or(u64::MAX),
        reserved: [0; 2],
    };
    call(file, &mut argument)
}

/// Removes a quota group.
pub(crate) fn remove_group(file: impl AsFd, group: u64) -> io::Result<()> {
    call(file, &mut CreateGroup { create: 0, group })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(key: Key, data: &[u8]) -> Vec<u8> {
        let mut bytes = 7_u64.to_ne_bytes().to_vec();
        bytes.extend(key.object.to_ne_bytes());
        bytes.extend(key.offset.to_ne_bytes());
        bytes.extend(u32::from(key.kind).to_ne_bytes());
        bytes.extend(u32::try_from(data.len()).unwrap().to_ne_bytes());
        bytes.extend(data);
        bytes
    }

    fn key(object: u64, kind: u8, offset: u64) -> Key {
        Key {
            object,
            kind,
            offset,
        }
    }

    #[test]
    fn answers_are_read_item_by_item() {
        let mut answer = item(key(256, 1, 0), b"inode");
        answer.extend(item(key(u64::MAX, 255, 9), b""));
        answer.extend([0; 40]);
        let found: io::Result<Vec<_>> = Items::new(&answer, 2).collect();
        let expected: [(Key, &[u8]); 2] =
            [(key(256, 1, 0), b"inode"), (key(u64::MAX, 255, 9), b"")];
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn answers_that_end_too_early_are_errors() {
        let whole = item(key(256, 1, 0), b"inode");
        for length in 0..whole.len() {
            let found: Vec<_> = Items::new(&whole[..length], 3).collect();
            assert_eq!(found.len(), 1, "{length}");
            assert!(found[0].is_err(), "{length}");
        }
        let strange = item(key(1, 1, 1), b"");
        let mut strange: Vec<u8> = strange;
        strange[24..28].copy_from_slice(&300_u32.to_ne_bytes());
        assert!(Items::new(&strange, 1).any(|found| found.is_err()));
    }

    #[test]
    fn the_key_after_the_last_of_its_kind_is_the_next_kind() {
        assert_eq!(following(key(5, 1, 0)), Some(key(5, 1, 1)));
        assert_eq!(following(key(5, 1, u64::MAX)), Some(key(5, 2, 0)));
        assert_eq!(following(Key::last(5)), Some(Key::first(6)));
        assert_eq!(following(Key::last(u64::MAX)), None);
    }

    #[test]
    fn names_are_one_component() {
        for (name, error) in [
            ("", libc::EINVAL),
            ("a/b", libc::EINVAL),
            ("a\0b", libc::EINVAL),
            (&"x".repeat(256), libc::ENAMETOOLONG),
        ] {
            let refused = field::<4088>(OsStr::new(name)).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(error), "{name:?}");
        }
        assert_eq!(&field::<4040>(OsStr::new("ab")).unwrap()[..3], b"ab\0");
    }

    #[test]
    fn another_file_system_does_not_know_the_calls() {
        let file = std::fs::File::open("/proc").unwrap();
        let number = info(&file).unwrap_err().raw_os_error();
        assert_eq!(number, Some(libc::ENOTTY));
    }
}
