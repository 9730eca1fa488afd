//! What ends a server whose test was killed.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Waits for the end of its input, which comes with the end of the test process however that ends; then ends the group and
/// removes the folder. PR_SET_PDEATHSIG would not do: it goes by thread, not by process, is lost when a server changes its
/// user, and doesn't reach the server's own children.
const SCRIPT: &str = r#"
read _
kill -TERM -"$1" 2>/dev/null
i=0
while kill -0 -"$1" 2>/dev/null && [ $i -lt 30 ]; do sleep 0.1; i=$((i+1)); done
kill -KILL -"$1" 2>/dev/null
rm -rf -- "$2"
"#;

/// A shell that outlives the test, in a process group of its own so that no Ctrl-C reaches it.
#[derive(Debug)]
pub(crate) struct Guard(Option<Child>);

impl Guard {
    /// Guards this process group and this folder.
    pub(crate) fn new(group: u32, dir: &Path) -> Self {
        let child = Command::new("sh")
            .args(["-c", SCRIPT, "guard", &group.to_string()])
            .arg(dir)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("there is a shell");
        Self(Some(child))
    }

    /// Ends the guard before the server is ended in good order: a group's number may be given to others later.
    pub(crate) fn dismiss(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Sends a signal to a process group; one that is gone already is fine.
pub(crate) fn signal(name: &str, group: u32) {
    let script = format!("kill -{name} -{group}");
    let _ = Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status();
}
