//! Bodies out of what `std` reads.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use portolan_core::blocking::reader;
use portolan_core::{Error, Result};

use crate::body::Body;
use crate::multipart::Part;

impl Body {
    /// Whatever a reader of `std` gives, to its end. Sent once, and its length is not known beforehand.
    pub fn from_read(read: impl Read + Send + Unpin + 'static) -> Self {
        Self::from_reader(reader(read))
    }

    /// What a reader of `std` gives, which must be `length` bytes: fewer or more is an error while it is sent.
    pub fn from_read_with_length(read: impl Read + Send + Unpin + 'static, length: u64) -> Self {
        Self::from_reader_with_length(reader(read), length)
    }

    /// A file. Its length is known, and it is opened again each time the request is sent.
    pub fn from_path(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        open(&path)?;
        Ok(Self::from_fn(move || match open(&path) {
            Ok((file, length)) => Self::from_read_with_length(file, length),
            Err(error) => Self::from_read(Gone(Some(error))),
        }))
    }
}

impl Part {
    /// A file under its own name, sent as it is read. Say [`with_content_type`](Self::with_content_type) where it has one.
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (file, length) = open(path)?;
        let part = Self::reader_with_length(reader(file), length);
        Ok(match path.file_name() {
            Some(name) => part.with_file_name(name.to_string_lossy()),
            None => part,
        })
    }
}

fn open(path: &Path) -> Result<(File, u64)> {
    let open = || {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    };
    open().map_err(|error: io::Error| Error::usage(format!("{} can't be read", path.display())).with_source(error))
}

/// What was there when the request was made, and is no more.
struct Gone(Option<Error>);

impl Read for Gone {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), |error| Err(error.into()))
    }
}
