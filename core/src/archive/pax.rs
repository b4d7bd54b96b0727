// SPDX-License-Identifier: Apache-2.0
//! Reads the records of PAX extended headers.

use std::collections::BTreeMap;

use super::header::Time;

/// Extended attributes by name.
pub type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

/// The records are malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidRecords;

const SPARSE_OFFSET: &[u8] = b"GNU.sparse.offset";
const SPARSE_BYTES: &[u8] = b"GNU.sparse.numbytes";
const SPARSE_MAP: &[u8] = b"GNU.sparse.map";

/// The records of one extended header, in order; the last one of a key counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Records {
    /// Reads the content of an extended header.
    ///
    /// The offsets and lengths of the sparse format 0.0 become the map of 0.1.
    ///
    /// # Errors
    /// When a record is malformed, as Go's `parsePAX` has it.
    pub fn parse(mut content: &[u8]) -> Result<Self, InvalidRecords> {
        let mut this = Self::default();
        let mut map: Vec<u8> = Vec::new();
        let mut numbers = 0_usize;
        while !content.is_empty() {
            let (key, value, rest) = record(content)?;
            content = rest;
            if key != SPARSE_OFFSET && key != SPARSE_BYTES {
                this.set(key, value);
                continue;
            }
            let expected = if numbers.is_multiple_of(2) {
                SPARSE_OFFSET
            } else {
                SPARSE_BYTES
            };
            if key != expected || value.contains(&b',') {
                return Err(InvalidRecords);
            }
            if numbers > 0 {
                map.push(b',');
            }
            map.extend_from_slice(value);
            numbers += 1;
        }
        if numbers > 0 {
            this.set(SPARSE_MAP, &map);
        }
        Ok(this)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.records.push((key.to_vec(), value.to_vec()));
    }

    /// The value of `key`; `None` also when it is empty, which means the default.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.records
            .iter()
            .rev()
            .find(|(name, _)| name == key.as_bytes())
            .map(|(_, value)| value.as_slice())
            .filter(|value| !value.is_empty())
    }

    /// The number under `key`.
    ///
    /// # Errors
    /// When it is none.
    pub fn number(&self, key: &str) -> Result<Option<i64>, InvalidRecords> {
        self.get(key).map(decimal).transpose()
    }

    /// The time under `key`.
    ///
    /// # Errors
    /// When it is none.
    pub fn time(&self, key: &str) -> Result<Option<Time>, InvalidRecords> {
        self.get(key).map(time).transpose()
    }

    /// The extended attributes, the last value of each.
    pub fn attributes(&self) -> Attributes {
        let named = self.records.iter().filter_map(|(key, value)| {
            let name = key.strip_prefix(b"SCHILY.xattr.")?;
            Some((name.to_vec(), value.clone()))
        });
        named.collect()
    }
}

/// Key, value and what follows.
type Split<'c> = (&'c [u8], &'c [u8], &'c [u8]);

/// Splits `LENGTH KEY=VALUE\n` off `content`.
fn record(content: &[u8]) -> Result<Split<'_>, InvalidRecords> {
    let blank = memchr::memchr(b' ', content).ok_or(InvalidRecords)?;
    let length = decimal(&content[..blank])?;
    let length = usize::try_from(length)
        .ok()
        .filter(|length| (5..=content.len()).contains(length) && *length > blank + 1)
        .ok_or(InvalidRecords)?;
    let (record, rest) = content.split_at(length);
    let record = record[blank + 1..]
        .strip_suffix(b"\n")
        .ok_or(InvalidRecords)?;
    let equals = memchr::memchr(b'=', record).ok_or(InvalidRecords)?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    let searched = match key {
        b"path" | b"linkpath" | b"uname" | b"gname" => value,
        _ => key,
    };
    if key.is_empty() || searched.contains(&0) {
        return Err(InvalidRecords);
    }
    Ok((key, value, rest))
}

/// A decimal number with an optional sign, as Go's `strconv.ParseInt` reads it.
pub(crate) fn decimal(text: &[u8]) -> Result<i64, InvalidRecords> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(InvalidRecords)
}

/// `SECONDS[.FRACTION]`; digits beyond nanoseconds are cut.
fn time(text: &[u8]) -> Result<Time, InvalidRecords> {
    let (whole, fraction) = match memchr::memchr(b'.', text) {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &[][..]),
    };
    let seconds = decimal(whole)?;
    let mut nanoseconds = 0_u32;
    let mut unit = 100_000_000;
    for digit in fraction {
        if !digit.is_ascii_digit() {
            return Err(InvalidRecords);
        }
        nanoseconds += unit * u32::from(digit - b'0');
        unit /= 10;
    }
    if whole.starts_with(b"-") && nanoseconds > 0 {
        return Ok(Time {
            seconds: seconds.checked_sub(1).ok_or(InvalidRecords)?,
            nanoseconds: 1_000_000_000 - nanoseconds,
        });
    }
    Ok(Time {
        seconds,
        nanoseconds,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(content: &[u8]) -> Result<Records, InvalidRecords> {
        Records::parse(content)
    }

    #[test]
    fn the_last_record_of_a_key_counts() {
        let records = parse(b"10 path=a\n10 path=b\n12 size=017\n").unwrap();
        assert_eq!(records.get("path"), Some(&b"b"[..]));
        assert_eq!(records.number("size"), Ok(Some(17)));
        assert_eq!(records.get("uid"), None);
    }

    #[test]
    fn malformed_records_are_refused() {
        let table: [&[u8]; 10] = [
            b"10 path=ab",
            b"10 path=a\nx",
            b"4 a=\n",
            b"99 path=a\n",
            b"9 path\0=\n",
            b"6 =ab\n",
            b"7 abcd\n",
            b"path=a\n",
            b"11 path=\0a\n",
            b"-1 path=a\n",
        ];
        for content in table {
            assert_eq!(parse(content), Err(InvalidRecords), "{content:?}");
        }
        assert!(parse(b"12 a=\0\x01\n\xff\xff\x02\n").is_ok());
    }

    #[test]
    fn times() {
        let table: [(&str, Option<(i64, u32)>); 8] = [
            ("12", Some((12, 0))),
            ("12.5", Some((12, 500_000_000))),
            ("12.0000000019", Some((12, 1))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-1", Some((-1, 0))),
            ("1.x", None),
            (".5", None),
            ("1e3", None),
        ];
        for (text, expected) in table {
            let expected = expected.map(|(seconds, nanoseconds)| Time {
                seconds,
                nanoseconds,
            });
            assert_eq!(time(text.as_bytes()).ok(), expected, "{text}");
        }
    }

    #[test]
    fn sparse_pairs_become_a_map() {
        let records = parse(
            b"23 GNU.sparse.offset=0\n25 GNU.sparse.numbytes=5\n\
              24 GNU.sparse.offset=99\n25 GNU.sparse.numbytes=1\n",
        );
        assert_eq!(
            records.unwrap().get("GNU.sparse.map"),
            Some(&b"0,5,99,1"[..])
        );
        assert!(parse(b"25 GNU.sparse.numbytes=5\n").is_err());
    }

    proptest! {
        #[test]
        fn any_content_is_answered(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _answer = parse(&content).is_ok();
        }

        #[test]
        fn what_is_written_is_read(value in proptest::collection::vec(any::<u8>(), 1..300)) {
            let body = [&b"SCHILY.xattr.user.x="[..], &value, b"\n"].concat();
            let mut length = body.len() + 1;
            while length != body.len() + 1 + length.to_string().len() {
                length = body.len() + 1 + length.to_string().len();
            }
            let content = [format!("{length} ").as_bytes(), &body].concat();
            let records = parse(&content).unwrap();
            prop_assert_eq!(records.attributes(), BTreeMap::from([(b"user.x".to_vec(), value)]));
        }
    }
}
