// SPDX-License-Identifier: Apache-2.0
//! Files that are in use while they are changed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, Flock, FlockArg, fcntl},
};

use super::mapping::Mapping;
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
};

const OLD: &str = "the old text";
const NEW: &str = "the new text";

fn child_with(target: &Target, fill: impl FnOnce(&Path) -> Outcome) -> Outcome {
    target.create_writable("base", None)?;
    target.within("base", fill)?;
    target.create_writable("child", Some("base"))?;
    Ok(())
}

fn one_file(path: &Path) -> Outcome {
    Ok(fs::write(path.join("file"), OLD)?)
}

fn record(target: &Target, name: &str, seen: &str) -> Outcome {
    demand!(
        seen == OLD || seen == NEW,
        "a reader that was there before the change sees neither the old nor the new: {seen:?}"
    );
    target.measure(name, f64::from(u8::from(seen == NEW)))?;
    Ok(())
}

pub(super) fn open_file(target: &mut Target) -> Outcome {
    child_with(target, one_file)?;
    target.within("child", |path| {
        let mut before = File::open(path.join("file"))?;
        fs::write(path.join("file"), NEW)?;
        let mut seen = String::new();
        before.read_to_string(&mut seen)?;
        record(target, "an_open_file_shows_later_writes", &seen)?;
        let now = fs::read_to_string(path.join("file"))?;
        same!(NEW, now, "the file when it is opened again");
        Ok(())
    })
}

pub(super) fn mapped_file(target: &mut Target) -> Outcome {
    child_with(target, one_file)?;
    target.within("child", |path| {
        let before = File::open(path.join("file"))?;
        let mapping = Mapping::shared(&before, OLD.len())?;
        same!(OLD, mapping.text(), "the mapped file");
        let mut writer = OpenOptions::new().write(true).open(path.join("file"))?;
        writer.write_all(NEW.as_bytes())?;
        record(target, "a_mapped_file_shows_later_writes", &mapping.text())?;
        let now = fs::read_to_string(path.join("file"))?;
        same!(NEW, now, "the file when it is opened again");
        Ok(())
    })
}

fn lock_range(file: &File, kind: i32) -> nix::Result<()> {
    let lock = libc::flock {
        l_type: i16::try_from(kind).unwrap_or(i16::MAX),
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).map(drop)
}

pub(super) fn locks(target: &mut Target) -> Outcome {
    child_with(target, |path| {
        one_file(path)?;
        Ok(fs::write(path.join("second"), OLD)?)
    })?;
    target.within("child", |path| {
        let writer = |name: &str| {
            let mut file = OpenOptions::new()
                .read(true)
                .append(true)
                .open(path.join(name))?;
            file.write_all(b"!")?;
            Ok::<_, io::Error>(file)
        };
        let holder = File::open(path.join("file"))?;
        let held = Flock::lock(holder, FlockArg::LockExclusiveNonblock);
        let held = held.map_err(|(_, error)| error)?;
        let other = Flock::lock(writer("file")?, FlockArg::LockExclusiveNonblock);
        same!(
            Some(Errno::EWOULDBLOCK),
            other.as_ref().err().map(|(_, error)| *error),
            "the answer to a second flock after the copy-up"
        );
        drop(held);
        let free = Flock::lock(writer("file")?, FlockArg::LockExclusiveNonblock);
        demand!(free.is_ok(), "the lock cannot be had after its end");
        drop((other, free));

        let holder = File::open(path.join("second"))?;
        lock_range(&holder, libc::F_RDLCK)?;
        let other = writer("second")?;
        let answer = lock_range(&other, libc::F_WRLCK);
        demand!(
            matches!(answer, Err(Errno::EAGAIN | Errno::EACCES)),
            "a write lock beside the read lock that was taken before the copy-up: {answer:?}"
        );
        drop(holder);
        let answer = lock_range(&other, libc::F_WRLCK);
        demand!(answer.is_ok(), "after the reader is gone: {answer:?}");
        Ok(())
    })
}

pub(super) fn running_program(target: &mut Target) -> Outcome {
    let programs = ["/usr/bin/sleep", "/bin/sleep"].map(Path::new);
    let Some(program) = programs.into_iter().find(|path| path.exists()) else {
        return Err(Failure::not_run("there is no program `sleep`: install it"));
    };
    let content = fs::read(program)?;
    child_with(target, |path| {
        fs::copy(program, path.join("run"))?;
        Ok(())
    })?;
    target.within("child", |path| {
        let file = path.join("run");
        let mut running = Command::new(&file).arg("60").stdin(Stdio::null()).spawn()?;
        let answers = [
            OpenOptions::new().write(true).open(&file).map(drop),
            OpenOptions::new().append(true).open(&file).map(drop),
            OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(&file)
                .map(drop),
        ];
        running.kill()?;
        running.wait()?;
        for answer in answers {
            same!(
                Some(libc::ETXTBSY),
                answer.err().and_then(|error| error.raw_os_error()),
                "the error number of opening a running program for writing"
            );
        }
        demand!(fs::read(&file)? == content, "the program's content changed");
        let mut after = OpenOptions::new().append(true).open(&file)?;
        after.write_all(b"tail")?;
        Ok::<_, Failure>(())
    })?;
    target.within("base", |path| {
        demand!(
            fs::read(path.join("run"))? == content,
            "the parent's program changed"
        );
        Ok::<_, Failure>(())
    })
}

pub(super) fn many_threads(target: &mut Target) -> Outcome {
    const THREADS: usize = 16;
    const NAMES: [&str; 4] = ["file", "hard-1", "hard-2", "hard-3"];
    let start = super::bytes(21, 2 << 20);
    child_with(target, |path| {
        for name in ["file", "hard-1"] {
            fs::write(path.join(name), &start)?;
        }
        fs::hard_link(path.join("hard-1"), path.join("hard-2"))?;
        Ok(fs::hard_link(path.join("hard-1"), path.join("hard-3"))?)
    })?;
    let linked = target.driver.capabilities().hard_link_copy_up;
    target.within("child", |path| {
        let append = |number: usize| {
            for name in NAMES {
                let mut file = OpenOptions::new().append(true).open(path.join(name))?;
                file.write_all(&[u8::try_from(number).unwrap_or(0); 8])?;
            }
            Ok::<_, io::Error>(())
        };
        let results: Vec<_> = thread::scope(|scope| {
            let workers: Vec<_> = (0..THREADS)
                .map(|number| scope.spawn(move || append(number)))
                .collect();
            workers
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect()
        });
        for result in results {
            result.map_err(|_| Failure::harness("a thread panicked"))??;
        }
        Ok::<_, Failure>(())
    })?;
    target.within("child", |path| {
        for name in NAMES {
            let mut file = File::open(path.join(name))?;
            let mut head = vec![0; start.len()];
            file.read_exact(&mut head)?;
            demand!(head == start, "the copied part of `{name}` is damaged");
            file.seek(io::SeekFrom::Start(start.len() as u64))?;
            let mut tail = Vec::new();
            file.read_to_end(&mut tail)?;
            let names = if linked && name != "file" { 3 } else { 1 };
            same!(
                THREADS * 8 * names,
                tail.len(),
                "bytes that {THREADS} threads appended to `{name}`"
            );
            let (records, rest) = tail.as_chunks::<8>();
            demand!(rest.is_empty(), "half a record in `{name}`");
            for number in 0..THREADS {
                let record = [u8::try_from(number).unwrap_or(0); 8];
                let seen = records.iter().filter(|seen| **seen == record).count();
                same!(names, seen, "records of thread {number} in `{name}`");
            }
        }
        Ok::<_, Failure>(())
    })?;
    target.within("base", |path| {
        for name in NAMES {
            demand!(
                fs::read(path.join(name))? == start,
                "the parent's `{name}` changed"
            );
        }
        Ok::<_, Failure>(())
    })
}
