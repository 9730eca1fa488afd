//! The HTTP client: three versions with one face.

mod civil;
pub mod cookie;
pub mod decode;
pub mod multipart;
