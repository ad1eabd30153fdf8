//! Many small files written in one call: the system calls are most of what one costs, and beside
//! other threads of Python each of them would wait for the interpreter twice.
//!
//! A file is written under a hidden name that is new, locked, and renamed to a name that is free.
//! Whatever does not go that way is left to the caller, with nothing of it left behind.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};

use crate::io::write_all_at;

/// What a file is to hold, in pieces one behind the other.
pub trait Content {
    fn pieces(&self) -> Vec<IoSlice<'_>>;
}

/// A file to be written.
pub struct NewFile<C> {
    /// Which of the folders it belongs to.
    pub folder: usize,
    /// The name until it is whole.
    pub hidden: CString,
    pub name: CString,
    pub content: C,
}

const NEW: OFlags = OFlags::RDWR
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// Write files in order, up to the first that cannot be: the files, still open and locked.
///
/// Those of up to `keep_open_over` bytes are closed: `None` stands for them.
pub fn write_files<C: Content>(
    folders: &[File],
    files: &[NewFile<C>],
    keep_open_over: usize,
) -> Vec<Option<OwnedFd>> {
    let mut written = Vec::with_capacity(files.len());
    let folders: Vec<_> = folders.iter().map(Folder::new).collect();
    for file in files {
        let Some(folder) = folders.get(file.folder) else {
            break;
        };
        let mut pieces = file.content.pieces();
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        let Ok(fd) = write_file(folder, file, &mut pieces) else {
            break;
        };
        written.push((len > keep_open_over).then_some(fd));
    }
    written
}

/// A folder, and what is known of its file system.
struct Folder<'a> {
    fd: &'a File,
    /// A write that succeeded has its room on the disk: closing tells nothing more.
    is_local: bool,
}

impl<'a> Folder<'a> {
    fn new(fd: &'a File) -> Self {
        let is_local = match rustix::fs::fstatfs(fd) {
            Ok(found) => LOCAL.contains(&u64::try_from(found.f_type).unwrap_or_default()),
            Err(_) => false,
        };
        Self { fd, is_local }
    }
}

/// File systems known to find room when they are written to, by their numbers in statfs(2): ext2
/// to ext4, tmpfs, XFS, Btrfs, F2FS, ZFS.
#[cfg(target_os = "linux")]
const LOCAL: [u64; 6] = [
    0xef53,
    0x0102_1994,
    0x5846_5342,
    0x9123_683e,
    0xf2f5_2010,
    0x2fc1_2fc1,
];
#[cfg(not(target_os = "linux"))]
const LOCAL: [u64; 0] = [];

fn write_file<C>(
    folder: &Folder<'_>,
    file: &NewFile<C>,
    pieces: &mut [IoSlice<'_>],
) -> io::Result<OwnedFd> {
    let fd = rustix::fs::openat(folder.fd, &file.hidden, NEW, Mode::from_raw_mode(0o666))?;
    // Nobody else writes to a file that he has not locked; one who has may keep it.
    rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
    match fill_and_name(folder, file, pieces, &fd) {
        Ok(()) => Ok(fd),
        Err(error) => {
            // The error that led here is the one that counts.
            let _ = rustix::fs::unlinkat(folder.fd, &file.hidden, AtFlags::empty());
            Err(error)
        }
    }
}

fn fill_and_name<C>(
    folder: &Folder<'_>,
    file: &NewFile<C>,
    pieces: &mut [IoSlice<'_>],
    fd: &OwnedFd,
) -> io::Result<()> {
    write_all_at(fd, 0, pieces)?;
    if !folder.is_local {
        // Some report a full disk only when a descriptor is closed. The other one has to stay
        // open: its lock keeps others from the hidden name until the file has its own.
        nix::unistd::close(fd.try_clone()?)?;
    }
    let (hidden, name) = (&file.hidden, &file.name);
    rustix::fs::renameat_with(folder.fd, hidden, folder.fd, name, RenameFlags::NOREPLACE)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;

    use super::*;

    struct Halves(&'static [u8]);

    impl Content for Halves {
        fn pieces(&self) -> Vec<IoSlice<'_>> {
            let (one, other) = self.0.split_at(self.0.len() / 2);
            vec![IoSlice::new(one), IoSlice::new(other)]
        }
    }

    fn file(name: &str, data: &'static [u8]) -> NewFile<Halves> {
        NewFile {
            folder: 0,
            hidden: CString::new(format!(".{name}")).unwrap(),
            name: CString::new(name).unwrap(),
            content: Halves(data),
        }
    }

    #[test]
    fn files_are_whole_or_left_to_the_caller() {
        let path = std::env::temp_dir().join(format!("pybao-writing-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let folder = [File::open(&path).unwrap()];
        let files = [file("a", b"one"), file("b", b""), file("c", b"longer")];
        let written = write_files(&folder, &files, 3);
        assert_eq!(written.len(), 3);
        assert!(written[0].is_none() && written[1].is_none());
        let kept = written[2].as_ref().unwrap();
        // Open and locked.
        let other = File::open(path.join("c")).unwrap();
        let lock = FlockOperation::NonBlockingLockExclusive;
        assert!(rustix::fs::flock(other.as_fd(), lock).is_err());
        assert_eq!(rustix::fs::fstat(kept).unwrap().st_size, 6);
        drop(written);
        assert_eq!(fs::read(path.join("a")).unwrap(), b"one");
        assert_eq!(fs::read(path.join("b")).unwrap(), b"");
        assert_eq!(fs::read(path.join("c")).unwrap(), b"longer");

        // A name that is taken, a hidden name that is taken, a folder that is not one.
        fs::write(path.join(".f"), b"left behind").unwrap();
        let taken = [file("d", b"four"), file("a", b"other"), file("e", b"five")];
        assert_eq!(write_files(&folder, &taken, 0).len(), 1);
        assert_eq!(write_files(&folder, &[file("f", b"six")], 0).len(), 0);
        assert_eq!(write_files(&[], &[file("g", b"seven")], 0).len(), 0);
        let no_folder = [File::open(path.join("a")).unwrap()];
        assert_eq!(write_files(&no_folder, &[file("h", b"eight")], 0).len(), 0);
        let mut names: Vec<_> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, [".f", "a", "b", "c", "d"]);
        assert_eq!(fs::read(path.join("a")).unwrap(), b"one");
        assert_eq!(fs::read(path.join(".f")).unwrap(), b"left behind");
        fs::remove_dir_all(&path).unwrap();
    }
}
