//! The few questions to the operating system that the standard library does not ask.

#![allow(unsafe_code, reason = "if_nametoindex has no safe wrapper in the standard library")]

/// The index of the interface called `name`.
pub(crate) fn interface_index(name: &str) -> Option<u32> {
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: `name` is a NUL-terminated string that lives through the call; the function keeps no pointer.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}
