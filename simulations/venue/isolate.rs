//! Namespaces for the whole run: this program starts itself again in network, mount and process namespaces of its own.
//!
//! Invariant: the second process is the first of its process namespace, so everything it starts ends with it, and it
//! ends with the pipe that its parent holds. Where namespaces are not allowed, that is told, with the next step, before
//! anything is touched. Callers: `main`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::host::{is_root, tool};
use super::network::ip;
use super::outcome::Trouble;

/// `unshare` with all that a run needs.
fn unshare() -> Result<Command, Trouble> {
    let mut command = Command::new(tool("unshare", "util-linux")?);
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    if !is_root() {
        command.arg("--map-root-user");
    }
    Ok(command)
}

/// Whether this machine lets a run be made; the tools are there, and a namespace too.
fn allowed() -> Result<(), Trouble> {
    for (program, package) in [("ip", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux")] {
        tool(program, package)?;
    }
    let probe = "mount -t tmpfs none /run && mkdir /run/netns && ip netns add probe && \
                 ip link add name v type veth peer name w netns probe && ip link add name b type bridge && \
                 nsenter --net=/run/netns/probe nft add table inet probe";
    let output = unshare()?.args(["sh", "-c", probe]).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Trouble::cannot(
        format!("this machine allows no network namespaces ({said})"),
        "run it as root, or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1",
    ))
}

/// Starts this program again inside, with the same arguments and `--inside SCRATCH`; its exit code.
pub fn again(scratch: &Path) -> Result<u8, Trouble> {
    allowed()?;
    let mut command = unshare()?;
    command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).arg("--inside").arg(scratch);
    // Held open until it has ended: its end is the order to stop.
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let _held = child.stdin.take();
    let status = child.wait()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// The inside: what the commands expect of it, and the end with the parent.
pub fn prepare() -> Result<(), Trouble> {
    std::thread::spawn(|| {
        // Ends with the parent, however that ended.
        let _ = std::io::Read::read_to_end(&mut std::io::stdin(), &mut Vec::new());
        std::process::exit(1);
    });
    super::host::run(&tool("mount", "mount")?, &["-t", "tmpfs", "none", "/run"])?;
    std::fs::create_dir(PathBuf::from("/run/netns"))?;
    ip("link set lo up").map(drop)
}
