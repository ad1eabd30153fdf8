//! Reading and writing at offsets, in bytes and files alike.
//!
//! Files are used with `pread` and `pwrite` only, so a descriptor shared with others keeps its
//! position.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use filedescriptor::FileDescriptor;

use crate::decode::Verified;

/// Buffers given to one system call; below the limit of every kernel we know.
const BUFFERS_MAX: usize = 512;
/// Reads of less than this are no reason to ask whether anything is cached.
const AHEAD_MIN: u64 = 512 * 1024;

/// Something with bytes at offsets.
pub trait ReadAt {
    /// Fill `buf` from `offset` on; fewer bytes come only at the end.
    ///
    /// # Errors
    /// Reading failed.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Fill buffers one after the other from `offset` on, in as few calls as possible; fewer bytes
    /// come only at the end.
    ///
    /// # Errors
    /// Reading failed.
    fn read_many_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        let mut len = 0;
        for buf in bufs {
            let more = self.read_at(buf, offset + len as u64)?;
            len += more;
            if more < buf.len() {
                break;
            }
        }
        Ok(len)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(buf, offset)
    }

    fn read_many_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        (**self).read_many_at(bufs, offset)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| self.get(offset..))
            .unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
}

impl ReadAt for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut len = 0;
        while len < buf.len() {
            match FileExt::read_at(self, &mut buf[len..], offset + len as u64) {
                Ok(0) => break,
                Ok(more) => len += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(len)
    }

    fn read_many_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        let mut len = 0;
        let mut rest = bufs;
        while !rest.is_empty() {
            let count = rest.len().min(BUFFERS_MAX);
            match rustix::io::preadv(self, &mut rest[..count], offset + len as u64) {
                Ok(0) => break,
                Ok(more) => {
                    IoSliceMut::advance_slices(&mut rest, more);
                    len += more;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(len)
    }
}

/// Bytes in memory or in a file.
#[derive(Debug)]
pub enum Source<B> {
    Bytes(B),
    File(File),
}

impl<B: AsRef<[u8]>> ReadAt for Source<B> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Self::Bytes(bytes) => ReadAt::read_at(bytes.as_ref(), buf, offset),
            Self::File(file) => ReadAt::read_at(file, buf, offset),
        }
    }

    fn read_many_at(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        match self {
            Self::Bytes(bytes) => bytes.as_ref().read_many_at(bufs, offset),
            Self::File(file) => file.read_many_at(bufs, offset),
        }
    }
}

/// Has the system read ahead of us where a file comes from a disk, at no cost where it is cached.
///
/// The read-ahead of the system itself gets confused by several workers at different places of
/// one file, and does not look far enough for one that reads little at once.
pub(crate) struct ReadAhead<'a> {
    file: &'a File,
    size: u64,
    /// Whether the system can tell if something is cached.
    can_probe: AtomicBool,
}

impl<'a> ReadAhead<'a> {
    pub(crate) fn new(file: &'a File, size: u64) -> Self {
        Self {
            file,
            size,
            can_probe: AtomicBool::new(cfg!(target_os = "linux")),
        }
    }

    /// The caller is about to read these bytes, and then most likely those behind them.
    ///
    /// This is only about speed, so that its failures are nobody's.
    pub(crate) fn expect(&self, offset: u64, len: u64) {
        if len >= AHEAD_MIN && self.can_probe.load(Ordering::Relaxed) && !self.is_cached(offset) {
            let len = (2 * len).min(self.size.saturating_sub(offset));
            self.ask_for(offset, len);
        }
    }

    #[cfg(target_os = "linux")]
    fn is_cached(&self, offset: u64) -> bool {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        let mut byte = [0];
        let mut buffers = [IoSliceMut::new(&mut byte)];
        match preadv2(self.file, &mut buffers, offset, ReadWriteFlags::NOWAIT) {
            Err(Errno::AGAIN) => false,
            Err(_) => {
                self.can_probe.store(false, Ordering::Relaxed);
                true
            }
            Ok(_) => true,
        }
    }

    #[cfg(target_os = "linux")]
    fn ask_for(&self, offset: u64, len: u64) {
        let len = std::num::NonZero::new(len);
        let _ = rustix::fs::fadvise(self.file, offset, len, rustix::fs::Advice::WillNeed);
    }

    #[cfg(not(target_os = "linux"))]
    fn is_cached(&self, _offset: u64) -> bool {
        true
    }

    #[cfg(not(target_os = "linux"))]
    fn ask_for(&self, _offset: u64, _len: u64) {
        let _ = (self.file, self.size);
    }
}

/// A file of our own for a descriptor that the caller may close at any time.
///
/// # Errors
/// The descriptor is not open, or there are too many.
pub fn dup(fd: RawFd) -> io::Result<File> {
    let copy = FileDescriptor::dup(&fd).map_err(into_io_error)?;
    copy.as_file().map_err(into_io_error)
}

fn into_io_error(error: filedescriptor::Error) -> io::Error {
    match error {
        filedescriptor::Error::Dup { source, .. }
        | filedescriptor::Error::Fcntl(source)
        | filedescriptor::Error::Io(source) => source,
        other => io::Error::other(other),
    }
}

/// Write buffers one after the other from `offset` on, in as few calls as possible.
///
/// # Errors
/// Writing failed; some of it may have been written.
pub fn write_all_at<F: AsFd>(
    file: F,
    mut offset: u64,
    buffers: &mut [IoSlice<'_>],
) -> io::Result<()> {
    let mut rest = buffers;
    // A vector of empty buffers writes 0 bytes for ever.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let count = rest.len().min(BUFFERS_MAX);
        match rustix::io::pwritev(&file, &rest[..count], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => {
                IoSlice::advance_slices(&mut rest, len);
                offset += len as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Gathers neighbouring buffers to write them together.
struct Gather<'a> {
    file: &'a File,
    offset: u64,
    end: u64,
    buffers: Vec<IoSlice<'a>>,
}

impl<'a> Gather<'a> {
    fn new(file: &'a File) -> Self {
        Self {
            file,
            offset: 0,
            end: 0,
            buffers: Vec::new(),
        }
    }

    fn write(&mut self, offset: u64, bytes: &'a [u8]) -> io::Result<()> {
        if offset != self.end {
            self.flush()?;
            self.offset = offset;
            self.end = offset;
        }
        self.buffers.push(IoSlice::new(bytes));
        self.end += bytes.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        write_all_at(self.file, self.offset, &mut self.buffers)?;
        self.buffers.clear();
        Ok(())
    }
}

/// Write what was verified in `buf` to its places: leaves to `data`, pairs to `outboard`.
///
/// What has no file is left out. Neighbours are written together, straight from `buf`.
///
/// # Errors
/// Writing failed; some of it may have been written.
pub fn write_verified(
    buf: &[u8],
    verified: &[Verified],
    data: Option<&File>,
    outboard: Option<&File>,
) -> io::Result<()> {
    if let Some(file) = data {
        let mut gather = Gather::new(file);
        for item in verified {
            if let Verified::Leaf { leaf, at } = item {
                gather.write(leaf.offset(), &buf[*at..at + leaf.len])?;
            }
        }
        gather.flush()?;
    }
    if let Some(file) = outboard {
        let mut gather = Gather::new(file);
        for item in verified {
            if let Verified::Pair { offset, at } = item {
                gather.write(*offset, &buf[*at..at + 64])?;
            }
        }
        gather.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn scratch(name: &str) -> File {
        let path = std::env::temp_dir().join(format!("pybao-{name}-{}", std::process::id()));
        let file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }

    #[test]
    fn many_buffers_some_empty_are_written_in_order() {
        let file = scratch("vectors");
        let bytes: Vec<u8> = (0..200_000).map(|i| (i % 241) as u8).collect();
        let mut buffers = vec![IoSlice::new(&[])];
        for piece in bytes.chunks(99) {
            buffers.push(IoSlice::new(piece));
            buffers.push(IoSlice::new(&[]));
        }
        write_all_at(&file, 10, &mut buffers).unwrap();
        write_all_at(&file, 0, &mut [IoSlice::new(&[]), IoSlice::new(&[])]).unwrap();
        write_all_at(&file, 0, &mut []).unwrap();
        let mut read = vec![0; bytes.len() + 20];
        let len = ReadAt::read_at(&file, &mut read, 0).unwrap();
        assert_eq!(len, bytes.len() + 10);
        assert!(read[10..len] == bytes);
    }

    #[test]
    fn sources_are_short_only_at_their_end() {
        let file = scratch("source");
        write_all_at(&file, 0, &mut [IoSlice::new(b"0123456789")]).unwrap();
        let sources = [Source::File(file), Source::Bytes(b"0123456789".as_slice())];
        for source in sources {
            let mut buf = [0; 4];
            for (offset, expected) in [(0, "0123"), (7, "789"), (10, ""), (1 << 40, "")] {
                let len = source.read_at(&mut buf, offset).unwrap();
                assert_eq!(&buf[..len], expected.as_bytes());
            }
        }
    }

    #[test]
    fn a_copy_of_a_descriptor_outlives_it() {
        let file = scratch("dup");
        let copy = dup(file.as_raw_fd()).unwrap();
        drop(file);
        write_all_at(&copy, 0, &mut [IoSlice::new(b"x")]).unwrap();
        let flags = rustix::io::fcntl_getfd(&copy).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        assert_eq!(dup(-1).unwrap_err().raw_os_error(), Some(9));
    }
}
