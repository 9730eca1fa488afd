//! The few system calls that have no safe wrapper: namespaces and capabilities of one thread, and a child's tie to its
//! parent.

#![allow(unsafe_code, reason = "unshare, setns, capset and prctl have no safe wrapper in the standard library")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// CAP_NET_BIND_SERVICE of linux/capability.h.
pub(super) const NET_BIND_SERVICE: u32 = 10;
/// CAP_NET_RAW.
pub(super) const NET_RAW: u32 = 13;

/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 capabilities.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Set {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn checked(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts this thread, and what it starts from now on, into a new network namespace.
pub(super) fn unshare_net() -> io::Result<()> {
    // SAFETY: the call takes flags only; CLONE_NEWNET changes what this thread's later sockets see, and no memory.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNET) }.into())
}

/// Puts this thread into the network namespace that `fd` stands for.
pub(super) fn enter_net(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as it is borrowed; the call changes no memory.
    checked(unsafe { libc::setns(fd.as_raw_fd(), libc::CLONE_NEWNET) }.into())
}

/// Takes a capability from this thread for good.
pub(super) fn give_up(capability: u32) -> io::Result<()> {
    let header = Header { version: VERSION, pid: 0 };
    let mut sets = [Set::default(); 2];
    // SAFETY: both pointers are to structures laid out as capget(2) has them for version 3, which writes two sets.
    checked(unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) })?;
    let Set { effective, permitted, .. } = &mut sets[capability as usize / 32];
    *effective &= !(1 << (capability % 32));
    *permitted &= !(1 << (capability % 32));
    // SAFETY: as above; capset(2) reads two sets. No pid names this thread alone.
    checked(unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) })
}
