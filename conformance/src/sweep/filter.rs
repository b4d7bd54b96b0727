// SPDX-License-Identifier: Apache-2.0
//! The seccomp program that stops a process at the calls of the table and nowhere else.

use libc::sock_filter;

use super::{
    calls::{self, TABLE},
    sys::AUDIT_ARCH,
};

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_SET: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// The program. A call of the table answers `SECCOMP_RET_TRACE` with its index as the data; an
/// `open` that makes nothing is let through, since a walk consists of them.
pub(super) fn program() -> Vec<sock_filter> {
    let mut program = vec![
        step(LOAD, ARCH),
        branch(IF_EQUAL, AUDIT_ARCH, 1, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW),
        step(LOAD, NUMBER),
    ];
    for (index, call) in (0_u32..).zip(TABLE) {
        let trace = step(RETURN, libc::SECCOMP_RET_TRACE | index);
        match call.tested_flags() {
            None => program.extend([branch(IF_EQUAL, call.number, 0, 1), trace]),
            Some((argument, mask)) => program.extend([
                branch(IF_EQUAL, call.number, 0, 4),
                step(LOAD, low_half(argument)),
                branch(IF_SET, mask, 0, 1),
                trace,
                step(RETURN, libc::SECCOMP_RET_ALLOW),
            ]),
        }
    }
    program.push(step(RETURN, libc::SECCOMP_RET_ALLOW));
    program
}

/// A program that answers every call that waits for the disk with success and does not do it.
pub(super) fn no_waiting() -> Vec<sock_filter> {
    const WAITING: [libc::c_long; 6] = [
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_syncfs,
        libc::SYS_sync,
        libc::SYS_sync_file_range,
        libc::SYS_msync,
    ];
    let mut program = vec![
        step(LOAD, ARCH),
        branch(IF_EQUAL, AUDIT_ARCH, 1, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW),
        step(LOAD, NUMBER),
    ];
    for number in WAITING {
        program.extend([
            branch(IF_EQUAL, calls::number(number), 0, 1),
            step(RETURN, libc::SECCOMP_RET_ERRNO),
        ]);
    }
    program.push(step(RETURN, libc::SECCOMP_RET_ALLOW));
    program
}

/// Where the lower 32 bits of an argument are.
fn low_half(argument: u32) -> u32 {
    ARGUMENTS + 8 * argument + if cfg!(target_endian = "big") { 4 } else { 0 }
}

fn step(code: u32, k: u32) -> sock_filter {
    branch(code, k, 0, 0)
}

fn branch(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        code: u16::try_from(code).expect("codes of the filter language have 16 bits"),
        jt,
        jf,
        k,
    }
}
