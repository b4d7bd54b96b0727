// SPDX-License-Identifier: Apache-2.0
//! Read access to the files of an image: a directory or the entries of a tar file.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use plywood::archive::{Compression, codec::Decoder, detect::detect};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use sha2::{Digest as _, Sha256};

use super::ImageError;

/// How many symbolic links inside an archive are followed.
const MAX_LINKS: usize = 8;

/// The files of an image, by paths such as `blobs/sha256/...`.
pub(crate) enum Files {
    /// A directory, which nothing that is read can leave.
    Dir { root: File, path: PathBuf },
    /// A tar file: where each entry's bytes are.
    Tar {
        file: Arc<File>,
        path: PathBuf,
        entries: HashMap<String, Entry>,
    },
}

/// An entry of a tar file.
pub(crate) enum Entry {
    Bytes { at: u64, size: u64 },
    Link(String),
}

impl Files {
    /// The files below `path`.
    pub(crate) fn directory(path: &Path) -> Result<Self, ImageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|e| ImageError::io("open", path.to_string_lossy())(e.into()))?;
        Ok(Self::Dir {
            root: root.into(),
            path: path.to_owned(),
        })
    }

    /// The entries of the tar file at `path`; `-` is standard input. A compressed file is
    /// decompressed into an unnamed temporary file first.
    pub(crate) fn archive(path: &Path) -> Result<Self, ImageError> {
        let name = path.to_string_lossy().into_owned();
        let file = if name == "-" {
            spool(io::stdin().lock()).map_err(ImageError::io("read", "standard input"))?
        } else {
            File::open(path).map_err(ImageError::io("open", &name))?
        };
        let file = plain(file).map_err(ImageError::io("decompress", &name))?;
        let entries = index(&file).map_err(ImageError::io("read", &name))?;
        Ok(Self::Tar {
            file: Arc::new(file),
            path: path.to_owned(),
            entries,
        })
    }

    /// Where the image is, for messages.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Dir { path, .. } | Self::Tar { path, .. } => path,
        }
    }

    /// Whether there is a file called `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.open(name).is_ok()
    }

    /// Opens the file called `name`; also says its size.
    pub(crate) fn open(&self, name: &str) -> Result<(Box<dyn Read + Send>, u64), ImageError> {
        let clean = clean(name).ok_or_else(|| ImageError::Escapes(name.to_owned()))?;
        match self {
            Self::Dir { root, .. } => open_beneath(root, &clean),
            Self::Tar { file, entries, .. } => {
                let (at, size) = find(entries, &clean)?;
                let part = Part {
                    file: Arc::clone(file),
                    at,
                    end: at + size,
                };
                Ok((Box::new(part), size))
            }
        }
    }

    /// Reads a whole small file.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let (mut reader, size) = self.open(name)?;
        if size > limit {
            return Err(ImageError::TooLarge {
                path: name.to_owned(),
                limit,
            });
        }
        let mut bytes = Vec::new();
        reader
            .by_ref()
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(ImageError::io("read", name))?;
        // The file may have grown since it was opened.
        if bytes.len() as u64 > limit {
            return Err(ImageError::TooLarge {
                path: name.to_owned(),
                limit,
            });
        }
        Ok(bytes)
    }
}

/// `name` without `./`; none when it is absolute or goes up.
fn clean(name: &str) -> Option<String> {
    let mut parts = Vec::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            _ => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn open_beneath(root: &File, name: &str) -> Result<(Box<dyn Read + Send>, u64), ImageError> {
    let opened = rustix::fs::openat2(
        root,
        name,
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    );
    let file: File = match opened {
        Ok(fd) => fd.into(),
        Err(rustix::io::Errno::NOENT) => return Err(ImageError::Missing(name.to_owned())),
        Err(rustix::io::Errno::XDEV) => return Err(ImageError::Escapes(name.to_owned())),
        Err(error) => return Err(ImageError::io("open", name)(error.into())),
    };
    let meta = file.metadata().map_err(ImageError::io("inspect", name))?;
    if !meta.is_file() {
        return Err(ImageError::io("read", name)(io::Error::other(
            "it is not a regular file",
        )));
    }
    Ok((Box::new(file), meta.len()))
}

fn find(entries: &HashMap<String, Entry>, name: &str) -> Result<(u64, u64), ImageError> {
    let mut name = name.to_owned();
    for _ in 0..=MAX_LINKS {
        match entries.get(&name) {
            Some(Entry::Bytes { at, size }) => return Ok((*at, *size)),
            Some(Entry::Link(target)) => name.clone_from(target),
            None => return Err(ImageError::Missing(name)),
        }
    }
    Err(ImageError::Missing(name))
}

/// Bytes of the archive from `at` to `end`.
struct Part {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        if want == 0 {
            return Ok(0);
        }
        let read = self.file.read_at(&mut buffer[..want], self.at)?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        self.at += read as u64;
        Ok(read)
    }
}

/// Copies a stream that cannot be rewound into an unnamed file.
fn spool(mut from: impl Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(&mut from, &mut file)?;
    file.rewind()?;
    Ok(file)
}

/// The file itself, or its decompressed content; a pipe is spooled.
fn plain(mut file: File) -> io::Result<File> {
    if !file.metadata()?.is_file() {
        file = spool(file)?;
    }
    let mut start = [0; 512];
    let length = file.read_at(&mut start, 0)?;
    file.seek(SeekFrom::Start(0))?;
    if detect(&start[..length]) == Compression::None {
        return Ok(file);
    }
    spool(decompressed(Box::new(file))?)
}

/// The plain bytes of a stream that may be compressed.
pub(crate) fn decompressed(from: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    let mut input = BufReader::with_capacity(1 << 16, from);
    let compression = detect(input.fill_buf()?);
    Ok(Box::new(Decoder::new(compression, input)?))
}

fn index(file: &File) -> io::Result<HashMap<String, Entry>> {
    let mut entries = HashMap::new();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let Some(name) = clean(&path) else { continue };
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let at = entry.raw_file_position();
            let size = entry.size();
            entries.insert(name, Entry::Bytes { at, size });
        } else if (kind.is_symlink() || kind.is_hard_link())
            && let Some(target) = entry.link_name()?
        {
            let target = if kind.is_symlink() {
                Path::new(&name)
                    .parent()
                    .unwrap_or(Path::new(""))
                    .join(target)
            } else {
                target.into_owned()
            };
            if let Some(target) = lexical(&target) {
                entries.insert(name, Entry::Link(target));
            }
        }
    }
    Ok(entries)
}

/// Resolves `..` in a link's target; none when it leaves the archive.
fn lexical(path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop()?;
            }
            _ => return None,
        }
    }
    Some(parts.join("/"))
}

/// A reader that fails at its end when what passed is not what was announced.
pub(crate) struct Verified<R> {
    inner: R,
    hash: Sha256,
    seen: u64,
    path: String,
    digest: plywood::Digest,
    size: u64,
    done: bool,
}

impl<R: Read> Verified<R> {
    /// Expects `size` bytes of `digest` from `inner`, which is the file `path`.
    pub(crate) fn new(inner: R, path: &str, digest: plywood::Digest, size: u64) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            seen: 0,
            path: path.to_owned(),
            digest,
            size,
            done: false,
        }
    }

    fn check(&mut self) -> Result<(), ImageError> {
        let actual = plywood::Digest::from_sha256(&std::mem::take(&mut self.hash).finalize());
        check(&self.path, (&self.digest, self.size), (actual, self.seen))
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.seen += read as u64;
        if read == 0 && !buffer.is_empty() && !self.done {
            self.done = true;
            self.check().map_err(io::Error::other)?;
        }
        Ok(read)
    }
}

/// Compares a digest and a size with what was announced.
pub(crate) fn check(
    path: &str,
    expected: (&plywood::Digest, u64),
    actual: (plywood::Digest, u64),
) -> Result<(), ImageError> {
    if actual.1 != expected.1 {
        return Err(ImageError::WrongSize {
            path: path.to_owned(),
            size: actual.1,
            expected: expected.1,
        });
    }
    if actual.0 != *expected.0 {
        return Err(ImageError::WrongDigest {
            path: path.to_owned(),
            expected: expected.0.clone(),
            actual: actual.0,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_cannot_be_left() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        let inside = dir.path().join("image");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(inside.join("a"), "abc").unwrap();
        std::os::unix::fs::symlink("../secret", inside.join("up")).unwrap();
        std::os::unix::fs::symlink("a", inside.join("same")).unwrap();
        let files = Files::directory(&inside).unwrap();
        assert_eq!(files.read("./a", 10).unwrap(), b"abc");
        assert_eq!(files.read("same", 10).unwrap(), b"abc");
        for name in ["../secret", "/etc/passwd", "up", "x/../../secret", ""] {
            let error = files.read(name, 10).unwrap_err();
            assert!(matches!(error, ImageError::Escapes(_)), "{name}: {error:?}");
        }
        assert!(matches!(
            files.read("a", 2),
            Err(ImageError::TooLarge { .. })
        ));
        assert!(matches!(files.read("b", 2), Err(ImageError::Missing(_))));
    }

    #[test]
    fn links_in_archives_stay_inside_and_end() {
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |name: &str, link: Option<&str>, data: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            match link {
                Some(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    tar.append_link(&mut header, name, target).unwrap();
                }
                None => tar.append_data(&mut header, name, data).unwrap(),
            }
        };
        add("layer.tar", None, b"data");
        add("id/layer.tar", Some("../layer.tar"), b"");
        add("out", Some("../../etc/passwd"), b"");
        add("loop", Some("loop"), b"");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), tar.into_inner().unwrap()).unwrap();
        let files = Files::archive(file.path()).unwrap();
        assert_eq!(files.read("id/layer.tar", 9).unwrap(), b"data");
        for name in ["out", "loop", "id"] {
            assert!(
                matches!(files.read(name, 9), Err(ImageError::Missing(_))),
                "{name}"
            );
        }
    }

    #[test]
    fn damage_is_found_at_the_end() {
        let digest = plywood::Digest::sha256(b"abc");
        let read = |bytes: &'static [u8]| {
            let mut sink = Vec::new();
            Verified::new(bytes, "p", digest.clone(), 3).read_to_end(&mut sink)
        };
        assert_eq!(read(b"abc").unwrap(), 3);
        assert!(read(b"abd").unwrap_err().to_string().contains("has digest"));
        assert!(read(b"ab").unwrap_err().to_string().contains("2 bytes"));
    }
}
