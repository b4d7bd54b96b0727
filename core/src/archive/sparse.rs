// SPDX-License-Identifier: Apache-2.0
//! The maps of sparse files in PAX form: 0.0, 0.1 and 1.0.

use super::pax::{InvalidRecords, Records, decimal};

/// The most numbers that a map may have; far beyond what any file needs.
pub(super) const MAX_NUMBERS: usize = 1 << 17;

/// Which form an entry's map has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In the extended header.
    InHeader,
    /// In front of the content, in whole blocks.
    InContent,
}

/// A run of data in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// The form that `records` announce; unknown versions are no sparse files.
pub(super) fn form(records: &Records) -> Option<Form> {
    let major = records.get("GNU.sparse.major");
    let minor = records.get("GNU.sparse.minor");
    match (major, minor) {
        (Some(b"0"), Some(b"0" | b"1")) => Some(Form::InHeader),
        (Some(b"1"), Some(b"0")) => Some(Form::InContent),
        (None, None) => records.get("GNU.sparse.map").map(|_| Form::InHeader),
        _ => None,
    }
}

/// The size of the file when expanded, if `records` say.
pub(super) fn real_size(records: &Records) -> Result<Option<i64>, InvalidRecords> {
    match records.number("GNU.sparse.size")? {
        Some(size) => Ok(Some(size)),
        None => records.number("GNU.sparse.realsize"),
    }
}

/// The map in an extended header.
pub(super) fn map_in_header(records: &Records) -> Result<Vec<Fragment>, InvalidRecords> {
    let count = records
        .number("GNU.sparse.numblocks")?
        .ok_or(InvalidRecords)?;
    let map = records.get("GNU.sparse.map").unwrap_or_default();
    let mut numbers = Vec::new();
    if !map.is_empty() {
        for text in map.split(|byte| *byte == b',') {
            numbers.push(decimal(text)?);
        }
    }
    if usize::try_from(count).ok() != Some(numbers.len() / 2) || numbers.len() % 2 != 0 {
        return Err(InvalidRecords);
    }
    fragments(&numbers)
}

/// Pairs of offset and length.
pub(super) fn fragments(numbers: &[i64]) -> Result<Vec<Fragment>, InvalidRecords> {
    let pairs = numbers.chunks_exact(2).map(|pair| {
        Ok(Fragment {
            offset: u64::try_from(pair[0]).map_err(|_| InvalidRecords)?,
            length: u64::try_from(pair[1]).map_err(|_| InvalidRecords)?,
        })
    });
    pairs.collect()
}

/// Checks that the fragments are in order, inside `size`, and hold exactly `stored` bytes.
pub(super) fn check(map: &[Fragment], size: u64, stored: u64) -> Result<(), InvalidRecords> {
    let mut end = 0;
    let mut sum = 0_u64;
    for fragment in map {
        let next = fragment.offset.checked_add(fragment.length);
        let next = next.filter(|next| *next <= size).ok_or(InvalidRecords)?;
        if fragment.offset < end {
            return Err(InvalidRecords);
        }
        end = next;
        sum += fragment.length;
    }
    if sum == stored {
        Ok(())
    } else {
        Err(InvalidRecords)
    }
}

/// Collects the decimal lines of a map in front of the content, block by block.
#[derive(Debug, Default)]
pub(super) struct Lines {
    numbers: Vec<i64>,
    line: Vec<u8>,
    wanted: Option<usize>,
}

impl Lines {
    /// Takes a block; answers whether the map is complete.
    pub(super) fn add(&mut self, block: &[u8]) -> Result<bool, InvalidRecords> {
        for byte in block {
            if self.is_complete() {
                break;
            }
            match byte {
                b'\n' => self.end_line()?,
                _ if self.line.len() > 20 => return Err(InvalidRecords),
                digit => self.line.push(*digit),
            }
        }
        Ok(self.is_complete())
    }

    fn is_complete(&self) -> bool {
        self.wanted == Some(self.numbers.len())
    }

    fn end_line(&mut self) -> Result<(), InvalidRecords> {
        let number = decimal(&self.line)?;
        self.line.clear();
        if self.wanted.is_some() {
            self.numbers.push(number);
            return Ok(());
        }
        let wanted = usize::try_from(number).ok().and_then(|n| n.checked_mul(2));
        self.wanted = wanted.filter(|wanted| *wanted <= MAX_NUMBERS);
        self.wanted.map(|_| ()).ok_or(InvalidRecords)
    }

    /// The finished map.
    pub(super) fn finish(&self) -> Result<Vec<Fragment>, InvalidRecords> {
        fragments(&self.numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(offset: u64, length: u64) -> Fragment {
        Fragment { offset, length }
    }

    #[test]
    fn maps_must_fit() {
        let map = [fragment(0, 5), fragment(5, 1), fragment(10, 0)];
        assert_eq!(check(&map, 10, 6), Ok(()));
        assert_eq!(check(&map, 9, 6), Err(InvalidRecords));
        assert_eq!(check(&map, 10, 7), Err(InvalidRecords));
        assert!(check(&[fragment(5, 5), fragment(9, 2)], 20, 7).is_err());
        assert!(check(&[fragment(u64::MAX, 2)], u64::MAX, 2).is_err());
    }

    #[test]
    fn lines_span_blocks() {
        let mut lines = Lines::default();
        assert_eq!(lines.add(b"1\n51"), Ok(false));
        assert_eq!(lines.add(b"2\n7\n\0\0rest"), Ok(true));
        assert_eq!(lines.finish(), Ok(vec![fragment(512, 7)]));
        assert!(Lines::default().add(b"99999999\n").is_err());
        assert!(Lines::default().add(b"-1\n").is_err());
        assert_eq!(Lines::default().add(b"0\n"), Ok(true));
    }
}
