//! `cargo xtask new-protocol FAMILY NAME [--small]`: a protocol that compiles, passes its tests, and says where to go on.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::record::target;
use crate::run::{cargo, output, run as execute};
use crate::table::{Table, folder};
use crate::{Outcome, check, read, sync};

/// What a new protocol uses; a family that has it as optional gets it switched on by the feature.
const USES: &[&str] = &["bytes", "portolan-wire", "tokio"];

/// Writes the row, the module, the tests, the seeds, the example, and then what follows from the row.
pub(crate) fn run(root: &Path, family: &str, name: &str, small: bool) -> Outcome {
    let table = Table::load(root)?;
    let Some((_, package)) = table.family_crates().find(|(name, _)| *name == family) else {
        let known: Vec<&str> = table.family_crates().map(|(name, _)| name.as_str()).collect();
        return Err(format!(
            "no family {family}: {} (docs/ADDING-A-PROTOCOL.md says how to begin a new one)",
            known.join(", ")
        ));
    };
    if !name.starts_with(|c: char| c.is_ascii_lowercase())
        || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        return Err(format!("{name:?} is no name: lower-case letters, digits, hyphens"));
    }
    if table.protocols.iter().any(|row| row.name == name) {
        return Err(format!("{name} has a row already"));
    }
    let new = New { root, family, package, path: folder(package), name, module: name.replace('-', "_") };
    new.sources(small)?;
    new.manifest()?;
    new.suite()?;
    new.example()?;
    new.seeds()?;
    new.row()?;
    sync::run(root, false)?;
    execute(&mut cargo(root, &["fmt", "-p", new.package, "-p", "portolan-tests", "-p", "portolan-examples"]))?;
    println!(
        "\nnow: cargo test -p {} --features {name}; then replace every FILL IN (cargo xtask check lists them)",
        new.package
    );
    Ok(())
}

/// Follows docs/ADDING-A-PROTOCOL.md in a copy of the workspace: both shapes compile and pass, and what is left to write is found.
pub(crate) fn trial(root: &Path) -> Outcome {
    let copy = target(root).join("scaffold");
    let _ = std::fs::remove_dir_all(&copy);
    let files = output(Command::new("git").args(["ls-files", "-co", "--exclude-standard"]).current_dir(root))?;
    for file in files.lines().filter(|file| root.join(file).is_file()) {
        let to = copy.join(file);
        let folder = to.parent().unwrap_or(&copy);
        let done = std::fs::create_dir_all(folder).and_then(|()| std::fs::copy(root.join(file), &to));
        done.map_err(|error| format!("{}: {error}", to.display()))?;
    }
    run(&copy, "mail", "trial-turns", false)?;
    run(&copy, "classic", "trial", true)?;
    if check::run(&copy).is_ok() {
        return Err("what new-protocol leaves to be written is not found by check".to_owned());
    }
    let dir = target(root);
    let features = ["-p", "portolan-mail", "-p", "portolan-classic", "--features", "trial-turns,trial"];
    let test = [&["test", "--lib"][..], &features, &["trial"]].concat();
    let lint =
        [&["clippy", "--all-targets"][..], &features, &["-p", "portolan-tests", "-p", "portolan-examples"]].concat();
    execute(cargo(&copy, &test).env("CARGO_TARGET_DIR", &dir))?;
    execute(cargo(&copy, &[&lint[..], &["--", "-D", "warnings"]].concat()).env("CARGO_TARGET_DIR", &dir))
}

struct New<'a> {
    root: &'a Path,
    family: &'a str,
    package: &'a str,
    path: String,
    name: &'a str,
    module: String,
}

impl New<'_> {
    /// A template with its words replaced.
    fn fill(&self, template: &str) -> String {
        let pascal: String = self
            .name
            .split('-')
            .map(|part| {
                part.chars().take(1).map(|c| c.to_ascii_uppercase()).chain(part.chars().skip(1)).collect::<String>()
            })
            .collect();
        template
            .replace("PASCAL", &pascal)
            .replace("LIBRARY", &self.package.replace('-', "_"))
            .replace("MODULE", &self.module)
            .replace("TARGET", &self.module)
            .replace("TITLE", &pascal)
            .replace("NAME", self.name)
    }

    fn create(&self, path: PathBuf, template: &str) -> Outcome {
        if path.exists() {
            return Err(format!("{} is there already", path.display()));
        }
        write(&path, &self.fill(template))?;
        println!("wrote {}", path.strip_prefix(self.root).unwrap_or(&path).display());
        Ok(())
    }

    fn change(&self, path: &str, edit: impl FnOnce(String) -> Outcome<String>) -> Outcome {
        let path = self.root.join(path);
        write(&path, &edit(read(&path)?)?)
    }

    fn sources(&self, small: bool) -> Outcome {
        let header = include_str!("../templates/mod.rs.txt");
        let (codec, options, client, tests) = (
            include_str!("../templates/codec_body.txt"),
            include_str!("../templates/options_body.txt"),
            include_str!("../templates/client_body.txt"),
            include_str!("../templates/tests_body.txt"),
        );
        let src = self.root.join(&self.path).join("src");
        if small {
            let header: String =
                header.lines().take_while(|line| line.starts_with("//!")).flat_map(|line| [line, "\n"]).collect();
            let lints =
                "#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]";
            // One file: the imports stand together at its head.
            let body: String = [codec, options, client].concat();
            let body: String =
                body.lines().filter(|line| !line.starts_with("use ")).flat_map(|line| [line, "\n"]).collect();
            let body = body.replace("super::PROTOCOL", "PROTOCOL").replace("pub(CRATE_OR_SUPER) ", "");
            let tests = tests
                .replace("use bytes::BytesMut;\n", "")
                .replace("use portolan_wire::{Codec, DecodeError, laws};", "use portolan_wire::laws;");
            let tests = tests.replace(
                "use portolan_core::{Delivery, Endpoint, Kind, Stream};",
                "use portolan_core::{Delivery, Kind};",
            );
            let head = include_str!("../templates/small.rs.txt");
            let text = format!("{header}\n{lints}\n\n{head}\n{body}\n#[cfg(test)]\nmod tests {{\n{tests}}}\n");
            return self.create(src.join(format!("{}.rs", self.module)), &text);
        }
        let folder = src.join(&self.module);
        self.create(folder.join("mod.rs"), header)?;
        self.create(
            folder.join("codec.rs"),
            &include_str!("../templates/codec.rs.txt").replace("CODEC_BODY\n", codec),
        )?;
        let options = options.replace("CRATE_OR_SUPER", "super");
        self.create(
            folder.join("options.rs"),
            &include_str!("../templates/options.rs.txt").replace("OPTIONS_BODY\n", &options),
        )?;
        self.create(
            folder.join("client.rs"),
            &include_str!("../templates/client.rs.txt").replace("CLIENT_BODY\n", client),
        )?;
        self.create(folder.join("tests.rs"), &include_str!("../templates/tests.rs.txt").replace("TESTS_BODY\n", tests))
    }

    /// The family's crate gets what the module uses.
    fn manifest(&self) -> Outcome {
        self.change(&format!("{}/Cargo.toml", self.path), |text| {
            let mut text = text;
            for used in USES {
                if !has_dependency(&text, used) {
                    text = text.replacen("[dependencies]\n", &format!("[dependencies]\n{used}.workspace = true\n"), 1);
                }
            }
            if !text.contains("features = [\"laws\"]") {
                let laws = "[dev-dependencies]\nportolan-wire = { workspace = true, features = [\"laws\"] }\n";
                text = text.replacen("[dev-dependencies]\n", laws, 1);
            }
            Ok(text)
        })?;
        self.change(&format!("{}/src/lib.rs", self.path), |text| {
            if text.contains("laws::install!") {
                Ok(text)
            } else {
                Ok(format!("{text}\n#[cfg(test)]\nportolan_wire::laws::install!();\n"))
            }
        })
    }

    fn suite(&self) -> Outcome {
        self.create(
            self.root.join(format!("tests/{}/{}.rs", self.family, self.module)),
            include_str!("../templates/peer.rs.txt"),
        )?;
        self.change(&format!("tests/{}/main.rs", self.family), |text| Ok(format!("{text}mod {};\n", self.module)))?;
        self.change("tests/Cargo.toml", |text| self.with_feature(&text))
    }

    fn example(&self) -> Outcome {
        self.create(self.root.join(format!("examples/{}.rs", self.name)), include_str!("../templates/example.rs.txt"))?;
        self.change("examples/Cargo.toml", |text| {
            let entry = format!("[[example]]\nname = \"{0}\"\npath = \"{0}.rs\"\n\n[dev-dependencies]\n", self.name);
            self.with_feature(&text.replacen("[dev-dependencies]\n", &entry, 1))
        })
    }

    fn seeds(&self) -> Outcome {
        self.create(self.root.join(format!("fuzz/seeds/{}/hello", self.module)), "hello\r\n")
    }

    fn row(&self) -> Outcome {
        let family_manifest = read(&self.root.join(&self.path).join("Cargo.toml"))?;
        let optional = USES.iter().filter(|used| {
            family_manifest
                .lines()
                .any(|line| line.starts_with(&format!("{used} = ")) && line.contains("optional = true"))
        });
        let needs: Vec<String> = optional.map(|used| format!("\"dep:{used}\"")).collect();
        self.change("protocols.toml", |mut text| {
            let at = text.find("\n[[decoder]]\n").map_or(text.len(), |at| at + 1);
            let row = self.fill(&format!(
                "[[protocol]]\nname = \"NAME\"\ntitle = \"TITLE\"\nfamily = \"{}\"\nschemes = [\"NAME\"]\nport = 7\ntransport = \"tcp\"\n\
                 tls = \"never\"\nspec = \"FILL IN\"\nneeds = [{}]\nexample = \"NAME\"\nstatus = \"works\"\ninstall = []\n\n",
                self.family,
                needs.join(", ")
            ));
            text.insert_str(at, &row);
            let _ = write!(
                text,
                "{}",
                self.fill(&format!(
                    "\n[[decoder]]\nname = \"MODULE\"\ncrate = \"{}\"\nkind = \"codec\"\nentry = \"MODULE::PASCALCodec::default\"\n",
                    self.package
                ))
            );
            Ok(text)
        })
    }

    /// The line of the family's crate in a manifest, with one feature more.
    fn with_feature(&self, text: &str) -> Outcome<String> {
        let start = format!("{} = {{ workspace = true, features = [", self.package);
        if let Some(at) = text.find(&start) {
            let (head, tail) = text.split_at(at + start.len());
            return Ok(format!("{head}\"{}\", {tail}", self.name));
        }
        let line = format!("[dev-dependencies]\n{start}\"{}\"] }}\n", self.name);
        Ok(text.replacen("[dev-dependencies]\n", &line, 1))
    }
}

fn has_dependency(manifest: &str, name: &str) -> bool {
    let section = manifest.split("[dependencies]\n").nth(1).unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    section.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '.'])))
}

fn write(path: &Path, text: &str) -> Outcome {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
