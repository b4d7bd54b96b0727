// SPDX-License-Identifier: Apache-2.0
//! What can be said about a shared object without giving it to the system's loader.
//!
//! The loader maps a truncated file without complaint and then dies of `SIGBUS`, so every segment
//! is checked against the file's length first.

use std::fs::File;

use object::{
    NativeEndian,
    elf::{self, FileHeader32, FileHeader64},
    read::{
        ReadCache, ReadRef,
        elf::{FileHeader, ProgramHeader},
    },
};

/// Why a file is no shared object that this program can load.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ElfProblem {
    /// There is nothing in it.
    #[error("the file is empty")]
    Empty,
    /// Something else.
    #[error("it is no ELF file")]
    NotElf,
    /// Made for a 32-bit or 64-bit program.
    #[error("it is built for another word size")]
    WordSize,
    /// Made for a machine with another byte order.
    #[error("it is built for another byte order")]
    ByteOrder,
    /// Made for another machine.
    #[error("it is built for another processor")]
    Machine,
    /// An object file, a core dump or a program.
    #[error("it is no shared object")]
    NotShared,
    /// The end is missing.
    #[error("it is truncated: its contents reach to byte {needed}, and it has {length}")]
    Truncated {
        /// Where the last segment or table ends.
        needed: u64,
        /// The file's length.
        length: u64,
    },
    /// A program that cannot be loaded dynamically, or a mutilated file.
    #[error("it has no dynamic section")]
    NotDynamic,
    /// The headers contradict each other.
    #[error("its headers are damaged")]
    Damaged,
}

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = elf::EM_X86_64;
#[cfg(target_arch = "x86")]
const MACHINE: u16 = elf::EM_386;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = elf::EM_AARCH64;
#[cfg(target_arch = "arm")]
const MACHINE: u16 = elf::EM_ARM;
#[cfg(any(target_arch = "riscv64", target_arch = "riscv32"))]
const MACHINE: u16 = elf::EM_RISCV;
#[cfg(target_arch = "s390x")]
const MACHINE: u16 = elf::EM_S390;
#[cfg(target_arch = "powerpc64")]
const MACHINE: u16 = elf::EM_PPC64;
#[cfg(target_arch = "loongarch64")]
const MACHINE: u16 = elf::EM_LOONGARCH;

const IDENT_LENGTH: u64 = 16;

/// Checks an open file of `length` bytes.
pub(super) fn check(file: &File, length: u64) -> Result<(), ElfProblem> {
    let cache = ReadCache::new(file);
    let (found_class, found_order) = read_ident(&cache, length)?;
    let class = if cfg!(target_pointer_width = "64") {
        elf::ELFCLASS64
    } else {
        elf::ELFCLASS32
    };
    if found_class != class {
        return Err(ElfProblem::WordSize);
    }
    let order = if cfg!(target_endian = "little") {
        elf::ELFDATA2LSB
    } else {
        elf::ELFDATA2MSB
    };
    if found_order != order {
        return Err(ElfProblem::ByteOrder);
    }
    if cfg!(target_pointer_width = "64") {
        check_headers::<FileHeader64<NativeEndian>>(&cache, length)
    } else {
        check_headers::<FileHeader32<NativeEndian>>(&cache, length)
    }
}

/// The class and the byte order.
fn read_ident<'a>(data: impl ReadRef<'a>, length: u64) -> Result<(u8, u8), ElfProblem> {
    if length == 0 {
        return Err(ElfProblem::Empty);
    }
    let magic = data.read_bytes_at(0, length.min(4)).unwrap_or_default();
    if magic.is_empty() || !elf::ELFMAG.starts_with(magic) {
        return Err(ElfProblem::NotElf);
    }
    match data.read_bytes_at(0, IDENT_LENGTH) {
        Ok([_, _, _, _, class, order, ..]) => Ok((*class, *order)),
        _ => Err(truncated(IDENT_LENGTH, length)),
    }
}

fn check_headers<'a, H: FileHeader<Endian = NativeEndian>>(
    data: impl ReadRef<'a>,
    length: u64,
) -> Result<(), ElfProblem> {
    let endian = NativeEndian;
    let header = data
        .read_at::<H>(0)
        .map_err(|()| truncated(size_of::<H>() as u64, length))?;
    if header.e_machine(endian) != MACHINE {
        return Err(ElfProblem::Machine);
    }
    if header.e_type(endian) != elf::ET_DYN {
        return Err(ElfProblem::NotShared);
    }
    let table = u64::from(header.e_phnum(endian)) * u64::from(header.e_phentsize(endian));
    let table_end = header.e_phoff(endian).into().checked_add(table);
    let table_end = table_end.ok_or(ElfProblem::Damaged)?;
    if table_end > length {
        return Err(truncated(table_end, length));
    }
    let segments = header
        .program_headers(endian, data)
        .map_err(|_| ElfProblem::Damaged)?;
    let mut dynamic = false;
    let mut end = 0;
    for segment in segments {
        dynamic |= segment.p_type(endian) == elf::PT_DYNAMIC;
        if matches!(segment.p_type(endian), elf::PT_LOAD | elf::PT_DYNAMIC) {
            let offset = segment.p_offset(endian).into();
            let last = offset.checked_add(segment.p_filesz(endian).into());
            end = last.ok_or(ElfProblem::Damaged)?.max(end);
        }
    }
    if end > length {
        return Err(truncated(end, length));
    }
    if !dynamic {
        return Err(ElfProblem::NotDynamic);
    }
    Ok(())
}

fn truncated(needed: u64, length: u64) -> ElfProblem {
    if needed > length {
        ElfProblem::Truncated { needed, length }
    } else {
        ElfProblem::Damaged
    }
}
