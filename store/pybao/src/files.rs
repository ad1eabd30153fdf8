//! What many folders hold and what many files are, in as few calls as there are batches of them.
//!
//! One worker does all system calls of one folder or file; workers share a batch. What fails fails
//! alone: its place in the answer says why.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rayon::prelude::*;
use rustix::fs::OFlags;

use crate::hashing::{self, OutboardError};
use crate::{Hash, pool};

/// Bytes of an identity.
pub const IDENTITY_SIZE: usize = 40;

/// Device, inode, size, mtime and ctime in ns: 8 bytes each, little endian.
pub type Identity = [u8; IDENTITY_SIZE];

/// Fewer items than this are done faster than other threads wake up.
const PARALLEL_MIN: usize = 8;

const NS: i64 = 1_000_000_000;

fn identity(metadata: &Metadata) -> Identity {
    let time = |seconds: i64, ns: i64| seconds.wrapping_mul(NS).wrapping_add(ns);
    let fields = [
        metadata.dev().to_le_bytes(),
        metadata.ino().to_le_bytes(),
        metadata.size().to_le_bytes(),
        time(metadata.mtime(), metadata.mtime_nsec()).to_le_bytes(),
        time(metadata.ctime(), metadata.ctime_nsec()).to_le_bytes(),
    ];
    let mut identity = [0; IDENTITY_SIZE];
    for (place, field) in identity.chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&field);
    }
    identity
}

/// What one folder holds; names are joined by NUL, which no name holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Folder {
    /// Regular files, in the order of the bytes of their names.
    pub files: Vec<u8>,
    /// Their identities, one after the other.
    pub identities: Vec<u8>,
    /// Folders, in the same order.
    pub folders: Vec<u8>,
    /// Symlinks.
    pub links: Vec<u8>,
    /// Everything else.
    pub others: Vec<u8>,
}

/// Look into many folders; links are not followed. `threads` 0 means as many as there are cores.
///
/// # Errors
/// Threads could not be started. What fails of a folder is in its place.
pub fn scan_folders<P: AsRef<[u8]> + Sync>(
    paths: &[P],
    threads: usize,
) -> io::Result<Vec<io::Result<Folder>>> {
    map(paths, threads, |path| scan_folder(path.as_ref()))
}

fn map<I: Sync, T: Send>(
    items: &[I],
    threads: usize,
    work: impl Fn(&I) -> T + Send + Sync,
) -> io::Result<Vec<T>> {
    let threads = if items.len() < PARALLEL_MIN {
        1
    } else {
        threads
    };
    pool::run(threads, |parallel| {
        if parallel {
            items.par_iter().map(work).collect()
        } else {
            items.iter().map(work).collect()
        }
    })
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

fn scan_folder(path: &[u8]) -> io::Result<Folder> {
    let mut files = Vec::new();
    let (mut folders, mut links, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for entry in fs::read_dir(path_of(path))? {
        let entry = entry?;
        let name = entry.file_name();
        let mut kind = entry.file_type()?;
        if kind.is_file() {
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                files.push((name, identity(&metadata)));
                continue;
            }
            // It was replaced between the two looks.
            kind = metadata.file_type();
        }
        let names = if kind.is_dir() {
            &mut folders
        } else if kind.is_symlink() {
            &mut links
        } else {
            &mut others
        };
        names.push(name);
    }
    files.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    let join = |mut names: Vec<std::ffi::OsString>| {
        names.sort_unstable();
        let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        names.join(&0)
    };
    let names: Vec<&[u8]> = files.iter().map(|(name, _)| name.as_bytes()).collect();
    Ok(Folder {
        files: names.join(&0),
        identities: files.iter().flat_map(|(_, identity)| *identity).collect(),
        folders: join(folders),
        links: join(links),
        others: join(others),
    })
}

/// A file that was read as a whole while it did not change.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    pub identity: Identity,
    pub root: Hash,
    /// Its bytes, if it is small.
    pub data: Option<Vec<u8>>,
    /// Empty up to one chunk group.
    pub outboard: Vec<u8>,
}

/// Why a file was not read.
#[derive(Debug)]
pub enum ReadError {
    /// Not a regular file.
    NotRegular,
    /// It is not what it was when it was opened, or the path leads to another one by now.
    Changed,
    /// It has more bytes than were to be read.
    TooLarge,
    /// The system refuses.
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Read and hash many files of up to `size_max` bytes; links are not followed.
///
/// Those of up to `data_max` bytes come with their data. Of larger ones the path is looked at once
/// more after they were hashed.
///
/// # Errors
/// Threads could not be started. What fails of a file is in its place.
pub fn read_files<P: AsRef<[u8]> + Sync>(
    paths: &[P],
    data_max: u64,
    size_max: u64,
    threads: usize,
) -> io::Result<Vec<Result<Read, ReadError>>> {
    map(paths, threads, |path| {
        read_file(path.as_ref(), data_max, size_max)
    })
}

fn read_file(path: &[u8], data_max: u64, size_max: u64) -> Result<Read, ReadError> {
    // A named pipe would block an open that waits for its writer.
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path_of(path))?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(ReadError::NotRegular);
    }
    let before = identity(&metadata);
    let size = metadata.size();
    if size > size_max {
        return Err(ReadError::TooLarge);
    }
    let read = if size <= data_max {
        let data = read_all(&file, size)?;
        Read {
            identity: before,
            root: hashing::hash(&data),
            data: Some(data),
            outboard: Vec::new(),
        }
    } else {
        let (root, outboard) =
            hashing::outboard_small_file(&file, size).map_err(|error| match error {
                OutboardError::Io(error) => ReadError::Io(error),
                _ => ReadError::Changed,
            })?;
        let there = match fs::symlink_metadata(path_of(path)) {
            Ok(metadata) => identity(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ReadError::Changed);
            }
            Err(error) => return Err(error.into()),
        };
        if there != before {
            return Err(ReadError::Changed);
        }
        Read {
            identity: before,
            root,
            data: None,
            outboard,
        }
    };
    if identity(&file.metadata()?) != before {
        return Err(ReadError::Changed);
    }
    Ok(read)
}

fn read_all(file: &File, size: u64) -> Result<Vec<u8>, ReadError> {
    let mut data = vec![0; size as usize];
    file.read_exact_at(&mut data, 0).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            ReadError::Changed
        } else {
            error.into()
        }
    })?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_fails_fails_alone() {
        let folder = std::env::temp_dir().join(format!("pybao-files-{}", std::process::id()));
        fs::create_dir_all(folder.join("inner")).unwrap();
        let data: Vec<u8> = (0..100_000).map(|i| (i % 251) as u8).collect();
        for (name, len) in [("empty", 0), ("large", 100_000), ("small", 10)] {
            fs::write(folder.join(name), &data[..len]).unwrap();
        }
        symlink("small", folder.join("link")).unwrap();
        let names = [
            "empty", "large", "small", "link", "inner", "absent", "small", "large",
        ];
        let path = |name: &str| folder.join(name).as_os_str().as_bytes().to_vec();
        let paths: Vec<_> = names.iter().map(|name| path(name)).collect();
        for threads in [1, 3] {
            let read = read_files(&paths, 10, 100_000, threads).unwrap();
            for (name, outcome) in names.iter().zip(&read) {
                match (*name, outcome) {
                    ("link" | "absent", Err(ReadError::Io(_))) => {}
                    ("inner", Err(ReadError::NotRegular)) => {}
                    (_, Ok(read)) => {
                        let bytes = fs::read(folder.join(name)).unwrap();
                        let (root, outboard) = hashing::outboard(&bytes, 1).unwrap();
                        assert_eq!((read.root, &read.outboard), (root, &outboard));
                        assert_eq!(read.data.is_some(), bytes.len() <= 10);
                        let metadata = fs::metadata(folder.join(name)).unwrap();
                        assert_eq!(read.identity, identity(&metadata));
                    }
                    (name, outcome) => panic!("{name}: {outcome:?}"),
                }
            }
            let large = read_files(&[path("large")], 10, 99_999, threads).unwrap();
            assert!(matches!(large[0], Err(ReadError::TooLarge)));
            let here = folder.as_os_str().as_bytes().to_vec();
            let scanned = scan_folders(&[here, path("absent")], threads).unwrap();
            let content = scanned[0].as_ref().unwrap();
            assert_eq!(content.files, b"empty\0large\0small");
            assert_eq!(content.identities.len(), 3 * IDENTITY_SIZE);
            assert_eq!(
                (&*content.folders, &*content.links),
                (&b"inner"[..], &b"link"[..])
            );
            assert!(scanned[1].is_err());
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
