//! `cargo xtask testbed`: the real servers that the suites start, as packages of Debian, of the Python index and of npm.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Outcome;
use crate::run::{exists, run};
use crate::table::Table;

/// What marks packages of the Python index in `install`: they share an environment named after the first, and if that has a
/// command of its name, it is linked to where the suites look.
const PIP: &str = "pip:";
/// What marks packages of npm; all share one folder.
const NPM: &str = "npm:";
/// Where the environments live.
const VENVS: &str = "/opt/portolan-testbed";
/// Where the modules of node live.
const NODE: &str = "/opt/portolan-testbed/npm";
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
        println!("{state:<8} {version:<32} {package} ({})", users.join(", "));
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
    let of = |mark: &str| missing.iter().filter_map(|package| package.strip_prefix(mark)).collect::<Vec<_>>();
    let (python, node) = (of(PIP), of(NPM));
    let mut debian: Vec<&str> = missing.iter().copied().filter(|package| !package.contains(':')).collect();
    if !python.is_empty() && !installed("python3-venv") {
        debian.push("python3-venv");
    }
    // Some builds of nodejs hold npm, and refuse Debian's package of it.
    if !node.is_empty() && !exists("npm", &["--version"]) {
        debian.push("npm");
    }
    if missing.is_empty() {
        println!("the servers are installed");
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    if !debian.is_empty() {
        install_debian(&debian)?;
    }
    python.iter().try_for_each(|packages| install_python(packages))?;
    if node.is_empty() { Ok(()) } else { install_node(&node) }
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

/// Python packages in an environment of their own.
fn install_python(packages: &str) -> Outcome {
    let name = first(packages);
    let venv = format!("{VENVS}/{name}");
    run(Command::new("/usr/bin/python3").args(["-m", "venv", &venv]))?;
    let quiet = ["install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(format!("{venv}/bin/pip")).args(quiet).args(packages.split(' ')))?;
    let command = format!("{venv}/bin/{name}");
    if !Path::new(&command).exists() {
        return Ok(());
    }
    let link = Path::new("/usr/local/bin").join(name);
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(command, &link).map_err(|error| format!("{}: {error}", link.display()))
}

/// Packages of npm, all in one folder.
fn install_node(packages: &[&str]) -> Outcome {
    std::fs::create_dir_all(NODE).map_err(|error| format!("{NODE}: {error}"))?;
    let mut command = Command::new("npm");
    command.args(["install", "--prefix", NODE, "--silent", "--no-audit", "--no-fund", "--no-update-notifier"]);
    run(command.args(packages.iter().flat_map(|packages| packages.split(' '))).stdin(Stdio::null()))
}

/// The first of several packages, without the version that is asked of it.
fn first(packages: &str) -> &str {
    packages.split([' ', '=', '[']).next().unwrap_or_default()
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
    if let Some(packages) = package.strip_prefix(PIP) {
        return pip_version(packages);
    }
    if let Some(packages) = package.strip_prefix(NPM) {
        return npm_version(packages);
    }
    let mut query = Command::new("dpkg-query");
    let query = query.args(["-W", "-f=${Status} ${Version}", package]).stderr(Stdio::null()).output().ok()?;
    String::from_utf8_lossy(&query.stdout).strip_prefix("install ok installed ").map(str::to_owned)
}

/// The versions of Python packages, if their environment has them all.
fn pip_version(packages: &str) -> Option<String> {
    let names = packages.split(' ').map(|package| package.split(['=', '[']).next().unwrap_or_default());
    let program = "import importlib.metadata as m, sys; print(', '.join(m.version(name) for name in sys.argv[1:]))";
    let python = format!("{VENVS}/{}/bin/python", first(packages));
    said(Command::new(python).args(["-c", program]).args(names))
}

/// The same of npm's.
fn npm_version(packages: &str) -> Option<String> {
    let program = "const { readFileSync } = require('fs'); console.log(process.argv.slice(2).map(name => \
                   JSON.parse(readFileSync(`${process.argv[1]}/node_modules/${name}/package.json`)).version).join(', '))";
    said(Command::new("node").args(["-e", program, NODE]).args(packages.split(' ')))
}

/// What a command that succeeds prints.
fn said(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_named_after_its_first_package() {
        assert_eq!(first("grpcio grpcio-tools"), "grpcio");
        assert_eq!(first("autobahn[twisted]==21.3.1 twisted"), "autobahn");
        assert_eq!(first("uwhoisd"), "uwhoisd");
    }
}
