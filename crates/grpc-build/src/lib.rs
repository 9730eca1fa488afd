//! Typed gRPC clients from `.proto` files: messages by prost-build, services by this crate, parsed by protox, so that no
//! `protoc` need be installed.
//!
//! - **Port and TLS**: none; it runs in `build.rs`.
//! - **What works**: clients of all four kinds of call, with the comments of the `.proto` file; several files and packages;
//!   whatever prost-build can be told; the descriptor set, for dynamic calls, reflection and JSON transcoding, with all options;
//!   imports of `google/protobuf`, `google/api` (the HTTP annotations) and `google/rpc` without their files.
//! - **What is not done**: servers; editions (protox knows proto2 and proto3).
//! - **Tested against**: its own output, compiled and run in the tests of `portolan-grpc`.
//! - **Security**: what it writes is made of the `.proto` files that the caller names and of nothing else.
//!
//! In `build.rs`:
//!
//! ```no_run
//! # fn main() -> portolan_core::Result<()> {
//! portolan_grpc_build::configure().compile(&["proto/greeter.proto"], &["proto"])
//! # }
//! ```
//!
//! and in the crate, for `package hello; service Greeter { rpc SayHello(HelloRequest) returns (HelloReply); }`:
//!
//! ```ignore
//! mod hello {
//!     include!(concat!(env!("OUT_DIR"), "/hello.rs"));
//! }
//!
//! let client = portolan_grpc::Client::connect(&connector, "https://greeter.example").await?;
//! let greeter = hello::GreeterClient::new(client);
//! let reply = greeter.say_hello(&hello::HelloRequest { name: "Ada".into() }).metadata("x-tenant", "a").await?;
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

use portolan_core::{Error, Result};
use prost::Message;
use prost_types::FileDescriptorSet;

mod bundled;
mod service;

use service::Clients;

/// Begins to say what is to be made.
pub fn configure() -> Builder {
    Builder { config: prost_build::Config::new(), clients: Clients::default(), descriptors: None, rerun: true }
}

/// What is to be made of the `.proto` files.
#[must_use]
pub struct Builder {
    config: prost_build::Config,
    clients: Clients,
    descriptors: Option<PathBuf>,
    rerun: bool,
}

impl Builder {
    /// The folder that is written to. Default `OUT_DIR`, as cargo sets it for `build.rs`.
    pub fn out_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.config.out_dir(folder);
        self
    }

    /// A file, in that folder, that includes all others as the modules of their packages.
    pub fn include_file(mut self, name: impl Into<PathBuf>) -> Self {
        self.config.include_file(name);
        self
    }

    /// Whether clients are written. Default yes; otherwise messages alone.
    pub fn clients(mut self, on: bool) -> Self {
        self.clients.on = on;
        self
    }

    /// The path by which generated code reaches `portolan-grpc`. Default `::portolan_grpc`.
    pub fn runtime_path(mut self, path: impl Into<String>) -> Self {
        self.clients.runtime = path.into();
        self
    }

    /// Writes the descriptor set to this file too: what dynamic calls are made from.
    pub fn descriptor_set(mut self, file: impl Into<PathBuf>) -> Self {
        self.descriptors = Some(file.into());
        self
    }

    /// A type that is defined elsewhere, such as `.google.protobuf.Timestamp` at `::my_crate::Timestamp`.
    pub fn extern_path(mut self, proto: impl Into<String>, rust: impl Into<String>) -> Self {
        self.config.extern_path(proto, rust);
        self
    }

    /// An attribute for the types that `path` matches, such as `#[derive(serde::Serialize)]` for `.hello`.
    pub fn type_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.config.type_attribute(path, attribute);
        self
    }

    /// An attribute for the fields that `path` matches.
    pub fn field_attribute(mut self, path: impl AsRef<str>, attribute: impl AsRef<str>) -> Self {
        self.config.field_attribute(path, attribute);
        self
    }

    /// `bytes` fields that `path` matches become [`Bytes`](https://docs.rs/bytes), which are not copied out of a message.
    pub fn bytes(mut self, paths: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        self.config.bytes(paths);
        self
    }

    /// Whatever else prost-build can be told. Its service generator is set by [`compile`](Self::compile).
    pub fn prost(mut self, change: impl FnOnce(&mut prost_build::Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Whether cargo is told to run the build again when the files change. Default yes.
    pub fn emit_rerun_if_changed(mut self, on: bool) -> Self {
        self.rerun = on;
        self
    }

    /// Parses `files`, looking for what they import in `includes`, and writes the code.
    pub fn compile(self, files: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> Result<()> {
        if self.rerun {
            let mut lines = String::new();
            for path in files.iter().map(AsRef::as_ref).chain(includes.iter().map(AsRef::as_ref)) {
                lines.push_str(&format!("cargo:rerun-if-changed={}\n", path.display()));
            }
            say(&lines);
        }
        let mut compiler = protox::Compiler::with_file_resolver(bundled::resolver(includes));
        compiler.include_imports(true).include_source_info(true);
        // Its own words name the file, the line and the reason.
        let opened = compiler.open_files(files);
        opened.map_err(|error| Error::usage(format!("the .proto files can't be compiled: {error:?}")))?;
        // As bytes it holds the options that are extensions too.
        self.write_descriptors(&compiler.encode_file_descriptor_set())?;
        self.generate(compiler.file_descriptor_set())
    }

    /// The same from a descriptor set, however it was made.
    pub fn compile_set(self, set: FileDescriptorSet) -> Result<()> {
        self.write_descriptors(&set.encode_to_vec())?;
        self.generate(set)
    }

    fn write_descriptors(&self, set: &[u8]) -> Result<()> {
        let Some(file) = &self.descriptors else { return Ok(()) };
        std::fs::write(file, set)
            .map_err(|error| Error::usage(format!("{} can't be written", file.display())).with_source(error))
    }

    fn generate(mut self, set: FileDescriptorSet) -> Result<()> {
        self.config.service_generator(Box::new(self.clients));
        let written = self.config.compile_fds(set);
        written.map_err(|error| Error::usage(format!("the code can't be written: {error}")).with_source(error))
    }
}

/// What cargo reads from a build script is what it prints.
#[allow(clippy::print_stdout, reason = "a build script speaks to cargo by its standard output")]
fn say(lines: &str) {
    print!("{lines}");
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("clients", &self.clients).finish_non_exhaustive()
    }
}
