// SPDX-License-Identifier: Apache-2.0
//! A small virtual machine with Debian's kernel, for what the kernel here lacks: `OpenZFS`.
//!
//! The guest sees this machine's whole file system read-only with a throw-away layer on top, so that
//! every tool, the checkout and what was built are there under their own paths. The command runs as
//! root in the workspace's folder, which `/share` shows a folder of writable.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use crate::run;

/// What is done with the machine.
#[derive(Subcommand)]
pub(crate) enum Task {
    /// Installs qemu and a Debian kernel, and builds OpenZFS for it (about 7 minutes, once).
    Setup,
    /// Runs a command in the machine and passes its output and exit status on.
    Run(Options),
}

/// How a command is run.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// An image file that becomes /dev/vda, the next one /dev/vdb, and so on; it keeps what is
    /// written to it.
    #[arg(short, long = "disk", value_name = "FILE")]
    disks: Vec<PathBuf>,
    /// Memory in MiB.
    #[arg(short, long, default_value_t = 4096)]
    pub(crate) memory: u32,
    /// How long it may take, in seconds.
    #[arg(short, long, default_value_t = 3600, value_name = "SECONDS")]
    limit: u64,
    /// A folder that the machine may write to, at /share.
    #[arg(long, value_name = "FOLDER")]
    share: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

impl Options {
    /// Runs `command` with a folder to leave results in.
    pub(crate) fn of(command: &[&str], share: &Path, limit: u64) -> Self {
        Self {
            disks: Vec::new(),
            memory: 4096,
            limit,
            share: Some(share.to_owned()),
            command: command.iter().map(|&word| word.to_owned()).collect(),
        }
    }
}

/// Where the commands of zfs are kept out of this machine's own system, which has no zfs.
const ZFS: &str = "/opt/vm-zfs";
/// Their packages.
const ZFS_PACKAGES: &[&str] = &[
    "zfsutils-linux",
    "libzfs4linux",
    "libzpool5linux",
    "libnvpair3linux",
    "libuutil3linux",
];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The modules that the machine needs before it sees the file system.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_rng",
    "9pnet_virtio",
    "9p",
    "overlay",
];

const INIT: &str = r#"#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /sys /dev /ro /rw /new
$b mount -t proc proc /proc; $b mount -t sysfs sys /sys; $b mount -t devtmpfs dev /dev
for m in /lib/modules/*.ko; do $b insmod "$m" 2>/dev/null; done
o=trans=virtio,version=9p2000.L,msize=512000
$b mount -t 9p -o ro,cache=loose,$o hostroot /ro || $b poweroff -f
$b mount -t tmpfs -o size=60% tmpfs /rw; $b mkdir -p /rw/u /rw/w
$b mount -t overlay -o lowerdir=/ro,upperdir=/rw/u,workdir=/rw/w overlay /new || $b poweroff -f
for d in proc sys dev; do $b mount --move /$d /new/$d; done
$b mkdir -p /new/share /new/job
$b mount -t 9p -o rw,cache=none,access=any,$o job /new/job
$b mount -t 9p -o rw,cache=none,access=any,$o share /new/share
for d in tmp run var/tmp dev/shm; do $b mkdir -p /new/$d; $b mount -t tmpfs tmpfs /new/$d; done
$b ln -s /proc/self/fd /new/dev/fd; $b mkdir -p /new/dev/pts; $b mount -t devpts devpts /new/dev/pts
$b mkdir -p /new/sys/fs/cgroup; $b mount -t cgroup2 cgroup2 /new/sys/fs/cgroup
$b chmod 1777 /new/tmp /new/var/tmp /new/dev/shm
exec $b switch_root /new /bin/bash /job/start
"#;

/// Does what the command line asks for.
pub(crate) fn task(task: &Task) -> Result<()> {
    match task {
        Task::Setup => setup(),
        Task::Run(options) => run(options),
    }
}

/// Installs what the machine needs; what is there already costs nothing.
pub(crate) fn setup() -> Result<()> {
    if is_ready() {
        return Ok(());
    }
    if !run::is_root() || !run::on_path("apt-get") {
        bail!(
            "the virtual machine is not installed\nhint: run `cargo xtask vm setup` as root on Debian"
        );
    }
    println!("installing the virtual machine, and building zfs for it: about 7 minutes");
    apt(&["update", "-qq"])?;
    let tools = ["busybox-static", "cpio", "kmod"];
    if install(&["qemu-system-x86"]).is_err() {
        // A machine that has newer qemu tools takes qemu from where these came from.
        let suite = format!("{}-backports", codename()?);
        add_source("plywood-vm-backports", &suite, "main")?;
        install(&["-t", &suite, "qemu-system-x86"])?;
    }
    install(&tools)?;
    install(&["linux-image-amd64"])?;
    add_source("plywood-vm-contrib", &codename()?, "contrib")?;
    if !module()?.is_file() {
        install(&["linux-headers-amd64", "zfs-dkms"])?;
    }
    if !Path::new(ZFS).join("sbin/zfs").is_file() {
        unpack_commands()?;
    }
    if !is_ready() {
        bail!("the module of zfs was not built: `dkms status` says why");
    }
    Ok(())
}

fn is_ready() -> bool {
    let tools = ["qemu-system-x86_64", "busybox", "cpio", "modprobe"];
    tools.into_iter().all(run::on_path)
        && module().is_ok_and(|module| module.is_file())
        && Path::new(ZFS).join("sbin/zfs").is_file()
}

/// The newest kernel, and its version.
fn kernel() -> Result<(PathBuf, String)> {
    let mut found: Vec<(Vec<u64>, PathBuf, String)> = Vec::new();
    for entry in fs::read_dir("/boot").context("cannot read `/boot`")? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if let Some(version) = name
            .strip_prefix("vmlinuz-")
            .filter(|it| it.ends_with("-amd64"))
        {
            let numbers = version.split(|c: char| !c.is_ascii_digit());
            let order = numbers.filter_map(|number| number.parse().ok()).collect();
            let version = version.to_owned();
            found.push((order, path, version));
        }
    }
    found.sort();
    let newest = found
        .pop()
        .context("there is no Debian kernel: run `cargo xtask vm setup`")?;
    Ok((newest.1, newest.2))
}

fn module() -> Result<PathBuf> {
    let (_, version) = kernel()?;
    Ok(PathBuf::from(format!(
        "/lib/modules/{version}/updates/dkms/zfs.ko"
    )))
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = run::command("apt-get", arguments);
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(Stdio::null());
    run::check(command)
}

fn install(packages: &[&str]) -> Result<()> {
    apt(&[
        &["install", "-y", "-qq", "--no-install-recommends"],
        packages,
    ]
    .concat())
}

fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read `/etc/os-release`")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(line
        .context("`/etc/os-release` names no release")?
        .to_owned())
}

/// Adds a component or suite of the Debian archive that this machine already uses.
fn add_source(file: &str, suite: &str, component: &str) -> Result<()> {
    let release = format!("Codename: {}", codename()?);
    let listed = run::output(run::command(
        "apt-get",
        ["indextargets", "--format", "$(REPO_URI)", &release],
    ))?;
    let archive = listed
        .lines()
        .find(|line| line.trim_end_matches('/').ends_with("/debian"))
        .context("no Debian archive is among apt's sources")?;
    let path = format!("/etc/apt/sources.list.d/{file}.list");
    let line = format!("deb [signed-by={KEYRING}] {archive} {suite} {component}\n");
    fs::write(&path, line).with_context(|| format!("cannot write `{path}`"))?;
    apt(&["update", "-qq"])
}

/// Unpacks the commands of zfs beside the system.
fn unpack_commands() -> Result<()> {
    let place = tempfile::tempdir().context("cannot make a temporary directory")?;
    let mut download = run::command("apt-get", ["download", "-qq"]);
    download.args(ZFS_PACKAGES).current_dir(place.path());
    run::check(download)?;
    fs::create_dir_all(ZFS).with_context(|| format!("cannot create `{ZFS}`"))?;
    for entry in fs::read_dir(place.path())? {
        let mut unpack = run::command("dpkg", ["-x"]);
        unpack.arg(entry?.path()).arg(ZFS);
        run::check(unpack)?;
    }
    Ok(())
}

/// The first files of the machine, made anew when this program is newer.
fn initramfs(version: &str) -> Result<PathBuf> {
    let place = run::target_dir().join("vm");
    fs::create_dir_all(&place).with_context(|| format!("cannot create `{}`", place.display()))?;
    let made = place.join(format!("init-{version}.cpio"));
    let tree = tempfile::tempdir().context("cannot make a temporary directory")?;
    let root = tree.path();
    for directory in ["bin", "lib/modules"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).context("cannot copy busybox")?;
    let mut seen = Vec::new();
    for module in MODULES {
        let mut command = run::command("modprobe", ["-S", version, "--show-depends", module]);
        command.stderr(Stdio::null());
        // What is built into the kernel has no file.
        let Ok(listed) = run::output(command) else {
            continue;
        };
        for file in listed
            .lines()
            .filter_map(|line| line.strip_prefix("insmod "))
        {
            let file = file.trim().to_owned();
            if seen.contains(&file) {
                continue;
            }
            let name = Path::new(&file)
                .file_name()
                .unwrap_or_default()
                .to_string_lossy();
            let copy = root.join(format!("lib/modules/{:03}-{name}", seen.len()));
            fs::copy(&file, copy).with_context(|| format!("cannot copy `{file}`"))?;
            seen.push(file);
        }
    }
    let init = root.join("init");
    fs::write(&init, INIT)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let mut pack = run::command("sh", ["-c", "find . | cpio -o -H newc --quiet >\"$0\""]);
    pack.arg(&made).current_dir(root);
    run::check(pack)?;
    Ok(made)
}

/// A word for a shell.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What the machine runs.
///
/// # Behavior
/// - The libraries that its short commands load lie in its memory: on the file system that it shares
///   with the host each of them is asked for over and over, and starting `zfs` takes three times as
///   long.
fn script(options: &Options) -> Result<String> {
    let folder = run::workspace();
    let folder = folder.to_str().context("the workspace's path is no text")?;
    let mut text = format!(
        "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
         for d in sbin lib/x86_64-linux-gnu; do\n\
         for f in {ZFS}/$d/* {ZFS}/usr/$d/*; do [ ! -f $f ] || ln -sf $f /usr/$d/; done; done\n\
         mkdir /run/libraries\n\
         ldd /usr/sbin/zfs /usr/sbin/zpool /bin/mount /bin/bash | grep -o '/[^ ]*[.]so[^ ]*' |\n\
         sort -u | xargs cp -Lt /run/libraries\n\
         export LD_LIBRARY_PATH=/run/libraries\n\
         export HOME=/root TERM=dumb\nip link set lo up 2>/dev/null\nulimit -n 65536\ncd {}\n",
        quoted(folder)
    );
    for word in &options.command {
        write!(text, "{} ", quoted(word))?;
    }
    text.push_str(
        ">/job/out 2>&1 </dev/null; echo $? >/job/rc; sync; echo o >/proc/sysrq-trigger; sleep 5\n",
    );
    Ok(text)
}

/// Runs a command in the machine.
pub(crate) fn run(options: &Options) -> Result<()> {
    let (image, version) = kernel()?;
    let init = initramfs(&version)?;
    let job = tempfile::tempdir().context("cannot make a temporary directory")?;
    let out = job.path().join("out");
    fs::write(job.path().join("start"), script(options)?)?;
    fs::write(&out, "")?;
    let mut machine = machine(options, job.path());
    machine.arg("-kernel").arg(image).arg("-initrd").arg(init);
    if hardware_helps()? {
        machine.args(HARDWARE);
    } else {
        machine.args(EMULATED);
    }
    let mut child = machine
        .spawn()
        .with_context(|| format!("cannot start `{}`", run::shown(&machine)))?;
    watch(&mut child, &out, Duration::from_secs(options.limit))?;
    let Ok(status) = fs::read_to_string(job.path().join("rc")) else {
        let console = fs::read(job.path().join("console")).unwrap_or_default();
        let console =
            String::from_utf8_lossy(&console[console.len().saturating_sub(2000)..]).into_owned();
        bail!("the machine ended without a result; its console:\n{console}");
    };
    if status.trim() != "0" {
        bail!(
            "`{}` failed in the machine: exit status {}",
            options.command.join(" "),
            status.trim()
        );
    }
    Ok(())
}

/// No defence against what cannot happen here: each of them makes emulated code slower. Programs
/// that always lie at the same addresses are translated once: `zfs` takes a quarter less time.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 loglevel=4 mitigations=off audit=0 \
                            apparmor=0 init_on_alloc=0 norandmaps";
const EMULATED: [&str; 4] = [
    "-machine",
    "q35,accel=tcg",
    "-cpu",
    "max,la57=off,smap=off,smep=off,umip=off",
];
/// How the processor's own help for virtual machines is asked for.
const HARDWARE: [&str; 4] = ["-machine", "q35,accel=kvm", "-cpu", "host"];

/// How long the processor's own help may take to show that it works.
const PROBE: Duration = Duration::from_secs(30);

/// Whether it works: inside some virtual machines it is there and a machine that uses it dies at once.
fn hardware_helps() -> Result<bool> {
    let device = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm");
    if device.is_err() {
        return Ok(false);
    }
    let mut probe = Command::new("qemu-system-x86_64");
    probe
        .args(HARDWARE)
        .args(["-nodefaults", "-display", "none", "-S", "-monitor", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = probe.spawn().context("cannot start `qemu-system-x86_64`")?;
    // It reads this when its processors are set up, or has died before.
    if let Some(mut monitor) = child.stdin.take() {
        let _dead = monitor.write_all(b"quit\n");
    }
    let end = Instant::now() + PROBE;
    while Instant::now() < end {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        thread::sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    Ok(false)
}

fn machine(options: &Options, job: &Path) -> Command {
    let share = options.share.clone().unwrap_or_else(|| job.to_owned());
    let shown = |path: &Path, tag: &str, more: &str| {
        format!(
            "local,path={},mount_tag={tag},security_model=none{more}",
            path.display()
        )
    };
    // The machine ends with this process, however that ends.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
        .args([
            "-nodefaults",
            "-no-reboot",
            "-display",
            "none",
            "-smp",
            "2",
            "-m",
        ])
        .arg(options.memory.to_string())
        .arg("-serial")
        .arg(format!("file:{}", job.join("console").display()))
        .args(["-append", COMMAND_LINE])
        .args(["-device", "virtio-rng-pci", "-virtfs"])
        .arg(shown(
            Path::new("/"),
            "hostroot",
            ",readonly=on,multidevs=remap",
        ))
        .arg("-virtfs")
        .arg(shown(job, "job", ""))
        .arg("-virtfs")
        .arg(shown(&share, "share", ""))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    for disk in &options.disks {
        let disk = disk.display();
        command.arg("-drive").arg(format!(
            "file={disk},if=virtio,format=raw,cache=writeback,discard=unmap"
        ));
    }
    command
}

/// Prints what the command prints until the machine ends; ends it when it takes too long.
fn watch(child: &mut Child, out: &Path, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    let mut log = fs::File::open(out)?;
    loop {
        let ended = child.try_wait()?.is_some();
        let mut text = Vec::new();
        log.read_to_end(&mut text)?;
        print!("{}", String::from_utf8_lossy(&text));
        if ended {
            return Ok(());
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            bail!("the machine took more than {} s", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(200));
    }
}
