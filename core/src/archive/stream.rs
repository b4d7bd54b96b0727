// SPDX-License-Identifier: Apache-2.0
//! The bytes of a tar on their way out, in large writes.

use std::{io, io::Write, os::fd::OwnedFd, path::Path};

use rustix::io::Errno;

use super::gotar::BLOCK;
use crate::{Error, ErrorKind, Result};

const BUFFER: usize = 256 << 10;

/// Collects entries and writes them in pieces of [`BUFFER`] bytes.
pub(super) struct Stream<'a> {
    out: &'a mut (dyn Write + Send),
    buffer: Box<[u8]>,
    used: usize,
    total: u64,
}

impl<'a> Stream<'a> {
    pub(super) fn new(out: &'a mut (dyn Write + Send)) -> Self {
        Self {
            out,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            used: 0,
            total: 0,
        }
    }

    pub(super) fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = self.room()?;
            let count = bytes.len().min(room.len());
            room[..count].copy_from_slice(&bytes[..count]);
            self.used += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    pub(super) fn zeros(&mut self, mut count: usize) -> Result<()> {
        while count > 0 {
            let room = self.room()?;
            let step = count.min(room.len());
            room[..step].fill(0);
            self.used += step;
            count -= step;
        }
        Ok(())
    }

    /// Writes the first `size` bytes of a file and fills the last block.
    pub(super) fn copy(&mut self, file: &OwnedFd, size: u64, path: &Path) -> Result<()> {
        let mut left = size;
        while left > 0 {
            let room = self.room()?;
            let count = usize::try_from(left).map_or(room.len(), |left| left.min(room.len()));
            match rustix::io::read(file, &mut room[..count]) {
                Ok(0) => return Err(shrunk(path)),
                Ok(read) => {
                    self.used += read;
                    left -= read as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::io("cannot read", path, errno.into())),
            }
        }
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        self.zeros(usize::try_from(padding).unwrap_or(0))
    }

    /// Writes what is left; the number of all bytes.
    pub(super) fn finish(mut self) -> Result<u64> {
        self.write()?;
        self.out.flush().map_err(output_error)?;
        Ok(self.total)
    }

    /// Gives the output back when nothing has been put.
    pub(super) fn into_inner(self) -> &'a mut (dyn Write + Send) {
        debug_assert_eq!((self.total, self.used), (0, 0));
        self.out
    }

    fn room(&mut self) -> Result<&mut [u8]> {
        if self.used == self.buffer.len() {
            self.write()?;
        }
        Ok(&mut self.buffer[self.used..])
    }

    fn write(&mut self) -> Result<()> {
        self.out
            .write_all(&self.buffer[..self.used])
            .map_err(output_error)?;
        self.total += self.used as u64;
        self.used = 0;
        Ok(())
    }
}

/// A failure of whoever takes the stream.
pub(crate) fn output_error(source: io::Error) -> Error {
    Error::new(ErrorKind::Io, "cannot write the tar stream").caused_by(source)
}

fn shrunk(path: &Path) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!("`{}` became shorter while it was read", path.display()),
    )
    .subject(path.display().to_string())
    .hint("stop or pause what writes to the layer, then retry")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::OwnedFd};

    use super::*;

    fn copied(content: &[u8], size: u64) -> Result<Vec<u8>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, content).unwrap();
        let file = OwnedFd::from(fs::File::open(&path).unwrap());
        let mut out = Vec::new();
        let mut stream = Stream::new(&mut out);
        stream.copy(&file, size, &path)?;
        let total = stream.finish()?;
        assert_eq!(total, out.len() as u64);
        Ok(out)
    }

    #[test]
    fn contents_fill_whole_blocks() {
        for size in [
            0,
            1,
            511,
            512,
            513,
            BUFFER - 1,
            BUFFER,
            BUFFER + 1,
            3 * BUFFER,
        ] {
            let content = vec![7; size];
            let out = copied(&content, size as u64).unwrap();
            assert_eq!(out.len(), size.next_multiple_of(BLOCK));
            assert!(out[..size] == content && out[size..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_file_that_grew_is_cut_and_one_that_shrank_is_named() {
        assert_eq!(copied(&[7; 600], 512).unwrap(), [7; 512]);
        let error = copied(&[7; 511], 512).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.about().unwrap().ends_with("/file"));
        assert!(
            error
                .to_string()
                .ends_with("became shorter while it was read")
        );
    }
}
