// SPDX-License-Identifier: Apache-2.0
//! Reads one 512-byte header block: V7, USTAR, STAR and GNU.
//!
//! It is as lenient as Go's `archive/tar` (`reader.go`, `readHeader`, and `strconv.go`), since a
//! layer that one of the two accepts must be accepted by the other: either checksum, octal numbers
//! padded with blanks or NULs, base-256 numbers, a missing magic.

/// The size of a block.
pub const BLOCK: usize = 512;

/// A header block.
pub type Block = [u8; BLOCK];

/// A block of NULs.
pub const ZERO_BLOCK: Block = [0; BLOCK];

/// The type byte of an entry, with the meaning that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryType {
    /// A regular file.
    File,
    /// A second name for a file.
    HardLink,
    /// A symbolic link.
    SymbolicLink,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// A PAX header for all that follow.
    GlobalHeader,
    /// Anything else: its byte.
    Other(u8),
}

impl EntryType {
    /// The type of a `flag` in the header of an entry called `name`.
    pub fn new(flag: u8, name: &[u8]) -> Self {
        match flag {
            // The V7 format marks directories by the name alone.
            0 if name.ends_with(b"/") => Self::Directory,
            0 | b'0' => Self::File,
            b'1' => Self::HardLink,
            b'2' => Self::SymbolicLink,
            b'3' => Self::CharacterDevice,
            b'4' => Self::BlockDevice,
            b'5' => Self::Directory,
            b'6' => Self::Fifo,
            b'g' => Self::GlobalHeader,
            other => Self::Other(other),
        }
    }

    /// Whether no content follows the header, whatever size it claims.
    pub fn is_header_only(self) -> bool {
        match self {
            Self::HardLink
            | Self::SymbolicLink
            | Self::CharacterDevice
            | Self::BlockDevice
            | Self::Directory
            | Self::Fifo => true,
            Self::File | Self::GlobalHeader | Self::Other(_) => false,
        }
    }
}

/// A point in time: seconds since 1970 and nanoseconds after that second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since the epoch, also negative.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// The fields of one header block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawHeader<'a> {
    /// The type byte.
    pub type_flag: u8,
    /// What precedes the name.
    pub prefix: &'a [u8],
    /// The name.
    pub name: &'a [u8],
    /// The target of a link.
    pub link: &'a [u8],
    /// The size of the content.
    pub size: i64,
    /// Permissions; only the lower 12 bits are meaningful.
    pub mode: i64,
    /// The owner.
    pub uid: i64,
    /// The owning group.
    pub gid: i64,
    /// Seconds of the last modification.
    pub mtime: i64,
    /// Seconds of the last access, where the format has it.
    pub atime: Option<i64>,
    /// The device's major number.
    pub major: i64,
    /// The device's minor number.
    pub minor: i64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// The block is no header, or a number in it does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidBlock;

/// Reads the fields of `block`.
///
/// # Errors
/// When the checksum is wrong, or a number is malformed.
pub fn parse(block: &Block) -> Result<RawHeader<'_>, InvalidBlock> {
    if !has_valid_checksum(block) {
        return Err(InvalidBlock);
    }
    let format = format_of(block);
    let mut header = RawHeader {
        type_flag: block[156],
        prefix: &[],
        name: text(&block[0..100]),
        link: text(&block[157..257]),
        size: number(&block[124..136])?,
        mode: number(&block[100..108])?,
        uid: number(&block[108..116])?,
        gid: number(&block[116..124])?,
        mtime: number(&block[136..148])?,
        atime: None,
        major: 0,
        minor: 0,
    };
    if format != Format::V7 {
        header.major = number(&block[329..337])?;
        header.minor = number(&block[337..345])?;
    }
    match format {
        Format::V7 => {}
        Format::Ustar => header.prefix = text(&block[345..500]),
        Format::Star => {
            header.prefix = text(&block[345..476]);
            header.atime = Some(number(&block[476..488])?);
            number(&block[488..500])?;
        }
        Format::Gnu => gnu_times(block, &mut header),
    }
    Ok(header)
}

/// Go before 1.8 wrote a USTAR prefix into GNU headers, over the two times: what does not parse as
/// times is taken for a prefix if it is ASCII.
fn gnu_times<'a>(block: &'a Block, header: &mut RawHeader<'a>) {
    let time = |field: &[u8]| match field[0] {
        0 => Ok(None),
        _ => number(field).map(Some),
    };
    if let (Ok(atime), Ok(_)) = (time(&block[345..357]), time(&block[357..369])) {
        header.atime = atime;
        return;
    }
    let prefix = text(&block[345..500]);
    if prefix.is_ascii() {
        header.prefix = prefix;
    }
}

fn format_of(block: &Block) -> Format {
    if &block[257..265] == b"ustar  \0" {
        Format::Gnu
    } else if &block[257..263] != b"ustar\0" {
        Format::V7
    } else if &block[508..512] == b"tar\0" {
        Format::Star
    } else {
        Format::Ustar
    }
}

/// Old writers summed signed bytes, so both sums count.
fn has_valid_checksum(block: &Block) -> bool {
    let Ok(expected) = octal(&block[148..156]) else {
        return false;
    };
    let blanks = 8 * i64::from(b' ');
    let outside = || block[..148].iter().chain(&block[156..]);
    let unsigned: i64 = outside().map(|b| i64::from(*b)).sum();
    if unsigned + blanks == expected {
        return true;
    }
    let signed: i64 = outside().map(|b| i64::from(b.cast_signed())).sum();
    signed + blanks == expected
}

/// The bytes before the first NUL.
pub(crate) fn text(field: &[u8]) -> &[u8] {
    memchr::memchr(0, field).map_or(field, |end| &field[..end])
}

fn number(field: &[u8]) -> Result<i64, InvalidBlock> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base_256(field),
        _ => octal(field),
    }
}

/// Big-endian two's complement below the mark bit.
fn base_256(field: &[u8]) -> Result<i64, InvalidBlock> {
    let invert = if field[0] & 0x40 == 0 { 0x00 } else { 0xff };
    let mut value: u64 = 0;
    for (index, byte) in field.iter().enumerate() {
        let mut byte = byte ^ invert;
        if index == 0 {
            byte &= 0x7f;
        }
        if value >> 56 > 0 {
            return Err(InvalidBlock);
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).map_err(|_| InvalidBlock)?;
    Ok(if invert == 0 { value } else { !value })
}

fn octal(field: &[u8]) -> Result<i64, InvalidBlock> {
    let is_padding = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(start) = field.iter().position(|b| !is_padding(b)) else {
        return Ok(0);
    };
    let digits = text(&field[start..]);
    let end = digits.iter().rposition(|b| !is_padding(b)).unwrap_or(0);
    let mut value: u64 = 0;
    for digit in &digits[..=end] {
        if !(b'0'..=b'7').contains(digit) || value >> 61 > 0 {
            return Err(InvalidBlock);
        }
        value = value << 3 | u64::from(digit - b'0');
    }
    Ok(value.cast_signed())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ustar(edit: impl Fn(&mut Block)) -> Block {
        let mut block = ZERO_BLOCK;
        block[..5].copy_from_slice(b"dir/f");
        block[100..108].copy_from_slice(b"0004755\0");
        block[108..116].copy_from_slice(b"   17 \0 ");
        block[124..136].copy_from_slice(b"00000000006\0");
        block[156] = b'0';
        block[257..265].copy_from_slice(b"ustar\x0000");
        edit(&mut block);
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    #[test]
    fn fields_are_read() {
        let block = ustar(|b| b[345..349].copy_from_slice(b"a/b/"));
        let header = parse(&block).unwrap();
        assert_eq!(header.name, b"dir/f");
        assert_eq!(header.prefix, b"a/b/");
        assert_eq!((header.mode, header.uid, header.size), (0o4755, 0o17, 6));
        assert_eq!(header.atime, None);
    }

    #[test]
    fn numbers_in_base_256() {
        let large = ustar(|b| {
            b[124..136].fill(0);
            b[124] = 0x80;
            b[130] = 2;
        });
        assert_eq!(parse(&large).unwrap().size, 2 << 40);
    }

    #[test]
    fn negative_and_overflowing_numbers() {
        assert_eq!(number(&[0xff; 12]), Ok(-1));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 5]), Ok(5));
        assert_eq!(number(&[0x8f; 12]), Err(InvalidBlock));
        assert_eq!(number(b"12345678"), Err(InvalidBlock));
        assert_eq!(number(b"7777777 "), Ok(0o777_7777));
        assert_eq!(number(b"\0\0 12\0 9"), Ok(0o12));
        assert_eq!(number(b"        "), Ok(0));
        assert_eq!(number(b"-1      "), Err(InvalidBlock));
    }

    #[test]
    fn a_damaged_block_is_refused() {
        let mut block = ustar(|_| {});
        block[3] ^= 1;
        assert_eq!(parse(&block), Err(InvalidBlock));
    }

    #[test]
    fn old_go_prefix_in_a_gnu_header() {
        let gnu = |edit: &dyn Fn(&mut Block)| {
            ustar(|b| {
                b[257..265].copy_from_slice(b"ustar  \0");
                edit(b);
            })
        };
        let times = gnu(&|b| b[345..357].copy_from_slice(b"00000000017\0"));
        assert_eq!(parse(&times).unwrap().atime, Some(15));
        let prefix = gnu(&|b| b[345..351].copy_from_slice(b"prefix"));
        let header = parse(&prefix).unwrap();
        assert_eq!((header.atime, header.prefix), (None, &b"prefix"[..]));
    }

    proptest! {
        #[test]
        fn any_block_is_answered(bytes in proptest::collection::vec(any::<u8>(), BLOCK)) {
            let block: Block = bytes.try_into().unwrap();
            let fixed = ustar(|b| *b = block);
            let _answer = (parse(&block).is_ok(), parse(&fixed).is_ok());
        }
    }
}
