//! `cargo xtask testbed`: the real servers that the suites start, as Debian packages.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Outcome;
use crate::run::{exists, run};
use crate::table::Table;

/// What marks a program of the Python index in `install`; the command has the package's name.
const PIP: &str = "pip:";
/// Where those live.
const VENVS: &str = "/opt/portolan-testbed";
/// What Debian asks before it starts a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Prints each package that the suites need, whether it is there, in which version, and what it is for.
pub(crate) fn list(root: &Path) -> Outcome {
    let table = Table::load(root)?;
    let mut uses: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in table.ordered() {
        row.install.iter().for_each(|package| uses.entry(package).or_default().push(&row.name));
    }
    table.also.iter().for_each(|package| uses.entry(package).or_default().push("other suites"));
    for (package, users) in uses {
        let found = version(package);
        let (state, version) = found.as_deref().map_or(("missing", "-"), |version| ("found", version));
        println!("{package:<20} {state:<8} {version:<28} {}", users.join(", "));
    }
    Ok(())
}

/// Installs what is missing, of one family or of all.
pub(crate) fn install(root: &Path, family: Option<&str>) -> Outcome {
    let table = Table::load(root)?;
    let rows = table.protocols.iter().filter(|row| family.is_none_or(|family| row.family == family));
    let also = table.also.iter().filter(|_| family.is_none());
    let wanted: BTreeSet<&str> = rows.flat_map(|row| &row.install).chain(also).map(String::as_str).collect();
    let missing: Vec<&str> = wanted.into_iter().filter(|package| !installed(package)).collect();
    let (python, debian): (Vec<&str>, Vec<&str>) = missing.iter().partition(|package| package.starts_with(PIP));
    let mut debian = debian;
    if !python.is_empty() && !installed("python3-venv") {
        debian.push("python3-venv");
    }
    if missing.is_empty() {
        println!("the servers are installed");
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    if !debian.is_empty() {
        install_debian(&debian)?;
    }
    python.iter().try_for_each(|package| install_python(package.trim_start_matches(PIP)))
}

fn install_debian(packages: &[&str]) -> Outcome {
    if !exists("apt-get", &["--version"]) {
        return Err(format!(
            "no apt-get here: install by hand what these Debian packages hold: {}",
            packages.join(" ")
        ));
    }
    run(&mut apt(&["update", "-qq"]))?;
    let quiet = Quiet::new()?;
    let mut args = vec!["install", "-y", "-qq", "--no-install-recommends"];
    args.extend(packages);
    let result = run(apt(&args).stdout(Stdio::null()));
    drop(quiet);
    result
}

/// A Python program in an environment of its own, its command linked to where the suites look.
fn install_python(package: &str) -> Outcome {
    let venv = format!("{VENVS}/{package}");
    run(Command::new("/usr/bin/python3").args(["-m", "venv", &venv]))?;
    run(Command::new(format!("{venv}/bin/pip")).args(["install", "--quiet", "--disable-pip-version-check", package]))?;
    let link = Path::new("/usr/local/bin").join(package);
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(format!("{venv}/bin/{package}"), &link)
        .map_err(|error| format!("{}: {error}", link.display()))
}

/// While it lives, no package starts its service: the suites start servers of their own.
struct Quiet {
    written: bool,
}

impl Quiet {
    fn new() -> Outcome<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { written: false });
        }
        let write = || {
            std::fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
            std::fs::set_permissions(POLICY, std::fs::Permissions::from_mode(0o755))
        };
        write().map_err(|error| format!("{POLICY}: {error} (--install needs root)"))?;
        Ok(Self { written: true })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if self.written {
            let _ = std::fs::remove_file(POLICY);
        }
    }
}

fn apt(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    command
}

fn installed(package: &str) -> bool {
    version(package).is_some()
}

/// The version of an installed package.
fn version(package: &str) -> Option<String> {
    if let Some(command) = package.strip_prefix(PIP) {
        return Path::new("/usr/local/bin").join(command).exists().then(|| pip_version(command));
    }
    let mut query = Command::new("dpkg-query");
    let query = query.args(["-W", "-f=${Status} ${Version}", package]).stderr(Stdio::null()).output().ok()?;
    String::from_utf8_lossy(&query.stdout).strip_prefix("install ok installed ").map(str::to_owned)
}

/// What the environment of a Python program says of it; one that was put there in another way has no known version.
fn pip_version(package: &str) -> String {
    let program = format!("import importlib.metadata as m; print(m.version('{package}'))");
    let said = Command::new(format!("{VENVS}/{package}/bin/python")).args(["-c", &program]).output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    if said.is_empty() { "?".to_owned() } else { said }
}
