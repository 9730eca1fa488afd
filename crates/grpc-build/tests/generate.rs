//! What is generated: kept beside the tests that compile and run it, and compared with what is generated now.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::path::Path;

use portolan_core::Kind;
use portolan_testbed::folder;

/// Writes what differs instead of failing.
const BLESS: &str = "PORTOLAN_BLESS";

#[test]
fn the_code_that_the_tests_compile_is_what_is_generated_now() {
    let out = folder("grpc-build");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (grpc, own) = (here.join("../grpc/tests"), here.join("tests/protos"));
    let build = || portolan_grpc_build::configure().out_dir(&out).emit_rerun_if_changed(false);
    let protos = grpc.join("protos");
    build().descriptor_set(out.join("interop.bin")).compile(&[protos.join("interop.proto")], &[&protos]).unwrap();
    build().descriptor_set(out.join("library.bin")).compile(&[protos.join("library.proto")], &[protos]).unwrap();
    build().compile(&[own.join("odd.proto")], &[own]).unwrap();
    for (name, kept) in [
        ("grpc.testing.rs", "generated/grpc.testing.rs"),
        ("interop.bin", "generated/interop.bin"),
        ("portolan.library.v1.rs", "generated/portolan.library.v1.rs"),
        ("google.api.rs", "generated/google.api.rs"),
        ("google.rpc.rs", "generated/google.rpc.rs"),
        ("library.bin", "generated/library.bin"),
        ("odd.v1.rs", "generated/odd.v1.rs"),
        ("other.rs", "generated/other.rs"),
    ] {
        let now = std::fs::read(out.join(name)).unwrap();
        let kept = grpc.join(kept);
        if std::env::var_os(BLESS).is_some() {
            std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
            std::fs::write(&kept, &now).unwrap();
        }
        assert!(std::fs::read(&kept).unwrap() == now, "{name} differs: run with {BLESS}=1 and look at the change");
    }
    std::fs::remove_dir_all(out).unwrap();
}

/// What the crate that calls keeps of the standard error details, to read them as JSON.
#[test]
fn the_error_details_that_are_kept_are_those_of_here() {
    let folder = folder("grpc-build-details");
    let set = folder.join("details.bin");
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("protos");
    let build = portolan_grpc_build::configure().out_dir(&folder).emit_rerun_if_changed(false).clients(false);
    build.descriptor_set(&set).compile(&[protos.join("google/rpc/error_details.proto")], &[protos]).unwrap();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../grpc/src/transcode/error_details.bin");
    let now = std::fs::read(set).unwrap();
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&kept, &now).unwrap();
    }
    assert!(std::fs::read(kept).unwrap() == now, "they differ: run with {BLESS}=1 and look at the change");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn imports_of_googles_files_need_no_files_and_options_are_kept() {
    let folder = folder("grpc-build-google");
    let (set, own) = (folder.join("set.bin"), Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/protos"));
    let build = portolan_grpc_build::configure().out_dir(&folder).emit_rerun_if_changed(false);
    build.descriptor_set(&set).compile(&[own.join("transcoded.proto")], &[own]).unwrap();
    let code = std::fs::read_to_string(folder.join("transcoded.v1.rs")).unwrap();
    assert!(code.contains("super::super::google::rpc::Status") && code.contains("google::api::HttpBody"));
    let set = std::fs::read(set).unwrap();
    let rule = b"\x12\x13/v1/{name=things/*}";
    assert!(set.windows(rule.len()).any(|window| window == rule), "the mapping to HTTP is in the descriptor set");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn comments_names_and_kinds_come_through() {
    let code = include_str!("../../grpc/tests/generated/odd.v1.rs");
    for text in [
        "/// Says **odd** things:",
        "/// ```text\n/// let x = broken",
        "///   code, it seems",
        "pub struct OdditiesClient<T>",
        "pub fn new_(",
        "pub fn r#type(",
        "#[deprecated]",
        "super::super::other::Thing",
        "\"/odd.v1.Oddities/OldOne\"",
    ] {
        assert!(code.contains(text), "{text}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_place() {
    let folder = folder("grpc-build-bad");
    std::fs::write(folder.join("bad.proto"), "syntax = \"proto3\";\nmessage A { Missing b = 1; }\n").unwrap();
    let build = portolan_grpc_build::configure().out_dir(&folder).emit_rerun_if_changed(false);
    let error = build.compile(&[folder.join("bad.proto")], &[&folder]).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.to_string().contains("Missing") && error.to_string().contains("bad.proto"), "{error}");
    std::fs::remove_dir_all(folder).unwrap();
}
