// SPDX-License-Identifier: Apache-2.0
//! What the sweep needs from the kernel and no crate offers safely.
#![expect(
    unsafe_code,
    reason = "seccomp and two requests of ptrace have no safe wrapper"
)]

use std::{io, ptr};

use nix::{sys::ptrace, unistd::Pid};

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("crash sweeps know the registers of x86_64 and aarch64 only");

/// `AUDIT_ARCH_X86_64` or `AUDIT_ARCH_AARCH64`.
pub(super) const AUDIT_ARCH: u32 = if cfg!(target_arch = "x86_64") {
    0xc000_003e
} else {
    0xc000_00b7
};

/// The registers of a stopped thread.
#[derive(Debug)]
pub(super) struct Registers(libc::user_regs_struct);

impl Registers {
    pub(super) fn of(thread: i32) -> io::Result<Self> {
        Ok(Self(ptrace::getregs(Pid::from_raw(thread))?))
    }

    /// The arguments of the system call at whose entry the thread is stopped.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn arguments(&self) -> [u64; 6] {
        let Self(regs) = self;
        [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9]
    }

    /// The arguments of the system call at whose entry the thread is stopped.
    #[cfg(target_arch = "aarch64")]
    pub(super) fn arguments(&self) -> [u64; 6] {
        let regs = &self.0.regs;
        [regs[0], regs[1], regs[2], regs[3], regs[4], regs[5]]
    }

    /// Makes the call fail with `errno` instead of being done.
    ///
    /// At a seccomp stop the kernel skips a call whose number became -1 and returns what the
    /// tracer left in the result register.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn refuse(mut self, thread: i32, errno: i32) -> io::Result<()> {
        self.0.orig_rax = u64::MAX;
        self.0.rax = i64::from(-errno).cast_unsigned();
        Ok(ptrace::setregs(Pid::from_raw(thread), self.0)?)
    }

    /// Makes the call fail with `errno` instead of being done.
    #[cfg(target_arch = "aarch64")]
    pub(super) fn refuse(mut self, thread: i32, errno: i32) -> io::Result<()> {
        // The number is in a register set of its own; x8 is only a copy.
        const NT_ARM_SYSTEM_CALL: usize = 0x404;
        self.0.regs[0] = i64::from(-errno).cast_unsigned();
        ptrace::setregs(Pid::from_raw(thread), self.0)?;
        let mut number: libc::c_int = -1;
        let mut vector = libc::iovec {
            iov_base: (&raw mut number).cast(),
            iov_len: size_of_val(&number),
        };
        // SAFETY: the vector names `number`, which lives until the call returns.
        let done = unsafe {
            libc::ptrace(
                libc::PTRACE_SETREGSET,
                thread,
                ptr::without_provenance_mut::<libc::c_void>(NT_ARM_SYSTEM_CALL),
                (&raw mut vector).cast::<libc::c_void>(),
            )
        };
        check(done)
    }
}

/// Lets a stopped thread go on, with a signal or (0) without one.
///
/// The signal is a number since real-time signals, which the C library uses between threads, have
/// no name in the wrappers.
pub(super) fn resume(thread: i32, signal: i32) -> io::Result<()> {
    let signal = usize::try_from(signal).map_err(io::Error::other)?;
    // SAFETY: PTRACE_CONT reads no memory of this process; the last argument is a number.
    let done = unsafe {
        libc::ptrace(
            libc::PTRACE_CONT,
            thread,
            ptr::null_mut::<libc::c_void>(),
            ptr::without_provenance_mut::<libc::c_void>(signal),
        )
    };
    check(done)
}

/// Puts `program` before every system call of all threads of this process.
pub(super) fn install(program: &mut [libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let fprog = libc::sock_fprog {
        len,
        filter: program.as_mut_ptr(),
    };
    let set = || {
        // SAFETY: the program outlives the call, which copies it; nothing else is touched.
        let done = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_TSYNC,
                &raw const fprog,
            )
        };
        check(done)
    };
    match set() {
        // Without CAP_SYS_ADMIN a filter needs this; with it, programs with the set-user-id bit
        // go on to work.
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            nix::sys::prctl::set_no_new_privs()?;
            set()
        }
        done => done,
    }
}

fn check(done: libc::c_long) -> io::Result<()> {
    match done {
        0 => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        thread => Err(io::Error::other(format!(
            "thread {thread} has a filter of its own"
        ))),
    }
}
