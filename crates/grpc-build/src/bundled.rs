//! Where imports are found: in the caller's folders, among the files that come with protobuf, and among those kept here.

use std::path::Path;

use protox::Error;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};

macro_rules! bundled {
    ($($name:literal,)*) => {
        /// Files that services import and no machine has by itself.
        const FILES: &[(&str, &str)] = &[$(($name, include_str!(concat!("../protos/", $name)))),*];
    };
}

bundled! {
    "google/api/annotations.proto",
    "google/api/http.proto",
    "google/api/httpbody.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
}

/// The caller's own files come first.
pub(crate) fn resolver(includes: &[impl AsRef<Path>]) -> impl FileResolver + 'static {
    let mut chain = ChainFileResolver::new();
    for include in includes {
        chain.add(IncludeFileResolver::new(include.as_ref().to_owned()));
    }
    chain.add(GoogleFileResolver::new());
    chain.add(Bundled);
    chain
}

struct Bundled;

impl FileResolver for Bundled {
    fn open_file(&self, name: &str) -> Result<File, Error> {
        let found = FILES.iter().find(|(known, _)| *known == name);
        let (name, source) = found.ok_or_else(|| Error::file_not_found(name))?;
        File::from_source(name, source)
    }
}
