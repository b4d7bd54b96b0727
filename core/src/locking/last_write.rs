// SPDX-License-Identifier: Apache-2.0
//! The mark that the last writer leaves in a lock file.

use std::{
    fmt,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// The length of a token.
pub const LENGTH: usize = 64;

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Who wrote last: opaque bytes that are compared as a whole.
///
/// # Compatibility
/// 64 bytes at the start of the lock file: time in nanoseconds and a counter of the process (both
/// u64), pid (u32), all little-endian, then 44 random bytes. A file that nobody has written to
/// holds none.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Token(Vec<u8>);

impl Token {
    /// A token that no other writer makes.
    pub(super) fn new() -> io::Result<Self> {
        let mut bytes = vec![0; LENGTH];
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |passed| {
                u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX)
            });
        bytes[..8].copy_from_slice(&now.to_le_bytes());
        let count = COUNTER.fetch_add(1, Ordering::Relaxed) + 1;
        bytes[8..16].copy_from_slice(&count.to_le_bytes());
        bytes[16..20].copy_from_slice(&std::process::id().to_le_bytes());
        getrandom::fill(&mut bytes[20..]).map_err(io::Error::other)?;
        Ok(Self(bytes))
    }

    /// What is in the lock file now; at most 64 bytes, also none.
    pub(super) fn read(file: &File) -> io::Result<Self> {
        let mut bytes = vec![0; LENGTH];
        let mut length = 0;
        while length < LENGTH {
            match file.read_at(&mut bytes[length..], length as u64) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(length);
        Ok(Self(bytes))
    }

    /// Puts the token into the lock file, without changing its length or synchronising it.
    pub(super) fn write(&self, file: &File) -> io::Result<()> {
        file.write_all_at(&self.0, 0)
    }

    /// Whether nobody has written yet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(20)];
        write!(f, "Token({})", data_encoding::HEXLOWER.encode(shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_have_the_layout_of_the_format() {
        let (a, b) = (Token::new().unwrap(), Token::new().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.as_bytes().len(), 64);
        let count = |t: &Token| u64::from_le_bytes(t.as_bytes()[8..16].try_into().unwrap());
        assert!(count(&b) > count(&a));
        let pid = u32::from_le_bytes(a.as_bytes()[16..20].try_into().unwrap());
        assert_eq!(pid, std::process::id());
    }

    #[test]
    fn what_was_written_is_read_and_a_longer_file_keeps_its_rest() {
        let file = tempfile::tempfile().unwrap();
        assert!(Token::read(&file).unwrap().is_empty());
        file.write_all_at(&[7; 100], 0).unwrap();
        assert_eq!(Token::read(&file).unwrap().as_bytes(), [7; 64]);
        let token = Token::new().unwrap();
        token.write(&file).unwrap();
        assert_eq!(Token::read(&file).unwrap(), token);
        assert_eq!(file.metadata().unwrap().len(), 100);
    }
}
