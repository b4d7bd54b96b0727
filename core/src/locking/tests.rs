// SPDX-License-Identifier: Apache-2.0
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::{
    order::{Containers, Layers},
    *,
};

struct Scratch {
    _dir: tempfile::TempDir,
    path: std::path::PathBuf,
}

fn scratch() -> Scratch {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layers.lock");
    Scratch { _dir: dir, path }
}

fn open(path: &Path) -> Arc<StoreLock<Layers>> {
    StoreLock::open(path, Access::ReadWrite).unwrap()
}

fn impatient(path: &Path) -> Arc<StoreLock<Layers>> {
    let patience = Patience {
        timeout: Some(Duration::from_millis(200)),
    };
    StoreLock::open_with(path, Access::ReadWrite, patience).unwrap()
}

/// Another process that takes POSIX record locks on the whole file, as Go does.
struct Posix {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

const PEER: &str = r"
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o644)
kinds = {'r': fcntl.LOCK_SH, 'w': fcntl.LOCK_EX, 'u': fcntl.LOCK_UN}
for line in sys.stdin:
    kind, wait = line[0], line[1] == '+'
    try:
        fcntl.lockf(fd, kinds[kind] | (0 if wait or kind == 'u' else fcntl.LOCK_NB))
        print('yes', flush=True)
    except BlockingIOError:
        print('no', flush=True)
";

impl Posix {
    fn on(path: &Path) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", PEER])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 plays the part of a Go program");
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            orders,
            answers,
        }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn ask(&mut self, order: &str) -> String {
        self.order(order);
        self.answer()
    }
}

impl Drop for Posix {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_posix_lock_of_another_process_keeps_us_out_and_is_named() {
    let s = scratch();
    let lock = impatient(&s.path);
    let mut go = Posix::on(&s.path);
    assert_eq!(go.ask("w-"), "yes");
    let error = lock.read(&mut Held::nothing()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    let holder = format!("process {} (python3)", go.child.id());
    assert!(error.to_string().contains(&holder), "{error}");

    assert_eq!(go.ask("u-"), "yes");
    assert_eq!(go.ask("r-"), "yes");
    drop(lock.read(&mut Held::nothing()).unwrap());
    assert_eq!(
        lock.write(&mut Held::nothing()).unwrap_err().kind(),
        ErrorKind::Busy
    );
    assert_eq!(go.ask("u-"), "yes");
    drop(lock.write(&mut Held::nothing()).unwrap());
}

#[test]
fn our_locks_keep_a_posix_locker_out() {
    let s = scratch();
    let lock = open(&s.path);
    let mut go = Posix::on(&s.path);
    {
        let mut held = Held::nothing();
        let (_guard, _) = lock.read(&mut held).unwrap();
        assert_eq!(go.ask("w-"), "no");
        assert_eq!(go.ask("r-"), "yes");
        assert_eq!(go.ask("u-"), "yes");
    }
    {
        let mut held = Held::nothing();
        let (_guard, _) = lock.write(&mut held).unwrap();
        assert_eq!(go.ask("r-"), "no");
        // A Go program in this place would have lost its lock.
        drop(File::open(&s.path).unwrap());
        assert_eq!(go.ask("r-"), "no");
    }
    assert_eq!(go.ask("w-"), "yes");
}

#[test]
fn a_waiting_posix_locker_gets_its_turn_and_so_do_we() {
    let s = scratch();
    let lock = open(&s.path);
    let mut go = Posix::on(&s.path);
    {
        let mut held = Held::nothing();
        let (_guard, _) = lock.write(&mut held).unwrap();
        go.order("w+");
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(go.answer(), "yes");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| lock.write(&mut Held::nothing()).map(drop));
        thread::sleep(Duration::from_millis(100));
        assert!(!waiting.is_finished());
        assert_eq!(go.ask("u-"), "yes");
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn a_wait_that_was_given_up_does_not_keep_the_lock() {
    let s = scratch();
    let lock = impatient(&s.path);
    let mut go = Posix::on(&s.path);
    assert_eq!(go.ask("w-"), "yes");
    lock.write(&mut Held::nothing()).unwrap_err();
    assert_eq!(go.ask("u-"), "yes");
    assert_eq!(go.ask("w+"), "yes", "the helper thread kept the lock");
    assert_eq!(go.ask("u-"), "yes");
    drop(lock.write(&mut Held::nothing()).unwrap());
}

#[test]
fn readers_share_and_a_writer_is_alone() {
    let s = scratch();
    let (inside, writing) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for n in 0..8 {
            // Several objects for one path are one lock.
            let lock = open(&s.path);
            let (inside, writing) = (&inside, &writing);
            scope.spawn(move || {
                for _ in 0..200 {
                    let mut held = Held::nothing();
                    if n % 4 == 0 {
                        let (_guard, _) = lock.write(&mut held).unwrap();
                        assert_eq!(writing.fetch_add(1, Ordering::SeqCst), 0);
                        assert_eq!(inside.load(Ordering::SeqCst), 0);
                        writing.fetch_sub(1, Ordering::SeqCst);
                    } else {
                        let (_guard, _) = lock.read(&mut held).unwrap();
                        inside.fetch_add(1, Ordering::SeqCst);
                        assert_eq!(writing.load(Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
}

#[test]
fn a_thread_of_this_process_is_waited_for_only_as_long_as_allowed() {
    let s = scratch();
    let (lock, hasty) = (open(&s.path), impatient(&s.path));
    let mut held = Held::nothing();
    let (guard, _) = lock.write(&mut held).unwrap();
    let refused = |lock: Arc<StoreLock<Layers>>| {
        thread::spawn(move || lock.read(&mut Held::nothing()).unwrap_err())
            .join()
            .unwrap()
    };
    let error = refused(hasty);
    assert!(
        error.to_string().contains("another thread of this process"),
        "{error}"
    );
    drop(guard);
    drop(lock.read(&mut Held::nothing()).unwrap());
}

#[test]
fn writers_leave_tokens_that_others_notice() {
    let s = scratch();
    let lock = open(&s.path);
    let seen = lock.read(&mut Held::nothing()).unwrap().0.token().unwrap();
    assert!(seen.is_empty());
    let mut held = Held::nothing();
    let (guard, _) = lock.write(&mut held).unwrap();
    let mut before = Token::default();
    let ((), after) = guard
        .publish(|| {
            before = guard.token()?;
            Ok(())
        })
        .unwrap();
    assert!(!before.is_empty() && before != after);
    assert!(guard.modified_since(&seen).unwrap());
    assert!(!guard.modified_since(&after).unwrap());

    let failed = guard.publish(|| Err::<(), _>(Error::new(ErrorKind::Io, "no")));
    failed.unwrap_err();
    assert!(guard.modified_since(&after).unwrap());
    assert_eq!(std::fs::metadata(&s.path).unwrap().len(), 64);
}

#[test]
fn read_only_stores_are_never_opened_for_writing() {
    let s = scratch();
    let lock = StoreLock::<Containers>::open(&s.path, Access::ReadOnly).unwrap();
    let error = lock.write(&mut Held::nothing()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreIsReadOnly);
    let mut held = Held::nothing();
    let (guard, _) = lock.read(&mut held).unwrap();
    let link = format!(
        "/proc/self/fdinfo/{}",
        std::os::fd::AsRawFd::as_raw_fd(&*guard.file)
    );
    let info = std::fs::read_to_string(link).unwrap();
    let flags = info.lines().find_map(|l| l.strip_prefix("flags:")).unwrap();
    let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
    assert_eq!(flags & libc::O_ACCMODE, libc::O_RDONLY);
    assert_ne!(flags & libc::O_CLOEXEC, 0);
}

#[test]
fn two_names_of_one_file_are_one_lock() {
    let s = scratch();
    let lock = open(&s.path);
    let link = s.path.with_file_name("link.lock");
    std::os::unix::fs::symlink(&s.path, &link).unwrap();
    assert!(Arc::ptr_eq(&lock.shared, &open(&link).shared));
}

/// Adds one to the number in `file`, with the lock held, `rounds` times.
fn count_up(lock: &StoreLock<Layers>, file: &Path, rounds: usize) {
    for _ in 0..rounds {
        let mut held = Held::nothing();
        let (guard, _) = lock.write(&mut held).unwrap();
        let before = guard.token().unwrap();
        let number: usize = std::fs::read_to_string(file).unwrap().parse().unwrap();
        let ((), _) = guard
            .publish(|| {
                std::fs::write(file, (number + 1).to_string()).unwrap();
                Ok(())
            })
            .unwrap();
        assert!(guard.modified_since(&before).unwrap());
    }
}

const COUNTING_PEER: &str = r"
import fcntl, os, sys
lock, path, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
for _ in range(rounds):
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    fcntl.lockf(fd, fcntl.LOCK_EX)
    number = int(open(path).read())
    open(path, 'w').write(str(number + 1))
    os.pwrite(fd, os.urandom(64), 0)
    os.close(fd)
";

#[test]
fn threads_processes_and_go_do_not_lose_each_others_changes() {
    const ROUNDS: usize = 150;
    let s = scratch();
    let file = s.path.with_file_name("number");
    std::fs::write(&file, "0").unwrap();
    let mut children: Vec<_> = (0..2)
        .map(|_| {
            let mut go = Command::new("python3");
            go.args(["-c", COUNTING_PEER]).arg(&s.path).arg(&file);
            go.arg(ROUNDS.to_string()).spawn().unwrap()
        })
        .collect();
    let mut other = Command::new(std::env::current_exe().unwrap());
    other.args(["--ignored", "--exact", "locking::tests::the_other_process"]);
    other
        .current_dir(file.parent().unwrap())
        .stdout(Stdio::null());
    children.push(other.spawn().unwrap());
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| count_up(&open(&s.path), &file, ROUNDS));
        }
    });
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    let total = std::fs::read_to_string(&file).unwrap();
    assert_eq!(total, (6 * ROUNDS).to_string());
    assert_eq!(std::fs::metadata(&s.path).unwrap().len(), 64);
}

#[test]
#[ignore = "a part of `threads_processes_and_go_do_not_lose_each_others_changes`"]
fn the_other_process() {
    count_up(&open(Path::new("layers.lock")), Path::new("number"), 150);
}

#[test]
fn an_open_file_description_lock_of_another_process_is_named_too() {
    let s = scratch();
    let lock = impatient(&s.path);
    let program = r"
import fcntl, struct, sys, time
file = open(sys.argv[1], 'r+b')
F_OFD_SETLKW = 38
fcntl.fcntl(file, F_OFD_SETLKW, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0))
print('ready', flush=True)
time.sleep(600)
";
    let mut child = Command::new("python3")
        .args(["-c", program])
        .arg(&s.path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let error = lock.read(&mut Held::nothing()).unwrap_err();
    child.kill().unwrap();
    child.wait().unwrap();
    let holder = format!("held by process {} (python3)", child.id());
    assert!(error.to_string().contains(&holder), "{error}");
    drop(lock.read(&mut Held::nothing()).unwrap());
}

#[test]
fn root_a_read_only_file_system_needs_a_lock_file_that_exists() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let flags = MountFlags::empty();
    mount("plywood", dir.path(), "tmpfs", flags, c"size=1m").unwrap();
    let there = dir.path().join("there.lock");
    std::fs::write(&there, [1; 64]).unwrap();
    mount_remount(dir.path(), MountFlags::RDONLY, c"").unwrap();
    let opened = StoreLock::<Layers>::open(&there, Access::ReadOnly);
    let token = opened.and_then(|lock| lock.read(&mut Held::nothing())?.0.token());
    let missing = dir.path().join("missing.lock");
    let refused = [
        StoreLock::<Layers>::open(&missing, Access::ReadOnly),
        StoreLock::<Layers>::open(&there, Access::ReadWrite),
    ];
    unmount(dir.path(), UnmountFlags::DETACH).unwrap();
    assert_eq!(token.unwrap().as_bytes(), [1; 64]);
    for result in refused {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    }
}
