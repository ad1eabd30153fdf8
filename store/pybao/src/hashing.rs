//! Roots, chaining values and outboards.
//!
//! A subtree of `g` groups owns `g - 1` consecutive pairs of the pre-order outboard, so workers
//! fill disjoint parts of it without locks. Blocks of 1 MiB are hashed by one worker at a time;
//! memory is bounded by a block a worker, plus the outboard if it is made in memory.
//!
//! The creation of outboards in bao-tree uses one thread, so this recursion is ours.
//!
//! From a file of 1 GiB in the page cache an outboard takes, in CPU seconds beside `b3sum` (which
//! maps the file and makes none), medians of interleaved runs: one thread 0.34 and 0.35 on tmpfs,
//! 0.33 and 0.28 on ext4; two threads 0.32 and 0.36, 0.28 and 0.28. Nearly half of ours is the copy
//! of `pread` (7 GB/s), which mapping spares; reads of 256 KiB, that stay in the core's own cache
//! until they are hashed, and `wide` get it back. Reads of 128 KiB gain nothing more. Mapping is
//! no way: a file that its owner cuts short would kill the process.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::OnceLock;

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use rayon::prelude::*;

use crate::Hash;
use crate::geometry::{CHUNK_SIZE, GROUP_SIZE, PAIR_SIZE, Subtree, outboard_size};
use crate::io::{ReadAhead, ReadAt, write_all_at};
use crate::pool;
use crate::progress::Progress;
use crate::wide;

/// Bytes that one worker hashes at a time.
pub(crate) const BLOCK_SIZE: u64 = 1 << 20;
/// Bytes that one read of a block takes: what was read is still in the core's own cache when it is
/// hashed.
const READ_SIZE: u64 = 256 * 1024;
/// Blobs of together fewer bytes are hashed faster than other threads wake up.
const PARALLEL_MIN: usize = 256 * 1024;

/// The hash of a piece of data that is a subtree: its chaining value, or the root.
///
/// Only the root may be empty, and it starts at chunk 0.
pub fn leaf_hash(start: u64, bytes: &[u8], is_root: bool) -> Hash {
    if is_root {
        return *blake3::hash(bytes).as_bytes();
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(start * CHUNK_SIZE);
    hasher.update(bytes);
    hasher.finalize_non_root()
}

/// The hash of an inner node.
pub fn parent_hash(left: &Hash, right: &Hash, is_root: bool) -> Hash {
    if is_root {
        *merge_subtrees_root(left, right, Mode::Hash).as_bytes()
    } else {
        merge_subtrees_non_root(left, right, Mode::Hash)
    }
}

/// The two hashes of a pair of 64 bytes.
pub(crate) fn split_pair(pair: &[u8]) -> (Hash, Hash) {
    let (mut left, mut right) = ([0; 32], [0; 32]);
    left.copy_from_slice(&pair[..32]);
    right.copy_from_slice(&pair[32..64]);
    (left, right)
}

/// The root of a blob, on this thread.
pub fn hash(data: &[u8]) -> Hash {
    *blake3::hash(data).as_bytes()
}

/// The roots of many blobs, in order; `threads` 0 means as many as there are cores.
///
/// # Errors
/// Threads could not be started.
pub fn hash_many<B: AsRef<[u8]> + Sync>(blobs: &[B], threads: usize) -> io::Result<Vec<Hash>> {
    let bytes: usize = blobs.iter().map(|blob| blob.as_ref().len()).sum();
    let threads = if bytes < PARALLEL_MIN { 1 } else { threads };
    pool::run(threads, |parallel| {
        if parallel {
            blobs.par_iter().map(|blob| hash(blob.as_ref())).collect()
        } else {
            blobs.iter().map(|blob| hash(blob.as_ref())).collect()
        }
    })
}

/// Why an outboard could not be made.
#[derive(Debug)]
pub enum OutboardError {
    /// The file ended before the given size.
    FileShorter,
    /// `Progress::cancel` was called.
    Cancelled,
    /// Reading or writing failed, or there is no memory for the outboard.
    Io(io::Error),
}

impl From<io::Error> for OutboardError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Root and pre-order outboard of a blob in memory.
///
/// # Errors
/// Threads could not be started.
pub fn outboard(data: &[u8], threads: usize) -> io::Result<(Hash, Vec<u8>)> {
    let whole = Subtree::whole(data.len() as u64);
    let mut pairs = vec![0; outboard_size(data.len() as u64) as usize];
    let threads = if whole.len <= BLOCK_SIZE { 1 } else { threads };
    let root = pool::run(threads, |parallel| {
        fill_memory(data, whole, &mut pairs, parallel)
    })?;
    Ok((root, pairs))
}

/// Root and pre-order outboard of the first `size` bytes of a file.
///
/// The outboard goes to `target` from offset 0, or else is returned.
///
/// # Errors
/// See [`OutboardError`].
pub fn outboard_file(
    data: &File,
    size: u64,
    target: Option<&File>,
    threads: usize,
    progress: &Progress,
) -> Result<(Hash, Vec<u8>), OutboardError> {
    let metadata = data.metadata()?;
    if metadata.is_file() && metadata.len() < size {
        // Memory for the outboard is taken only for bytes that exist.
        return Err(OutboardError::FileShorter);
    }
    let mut pairs = Vec::new();
    if target.is_none() {
        let no_memory = || io::Error::from(io::ErrorKind::OutOfMemory);
        let len = usize::try_from(outboard_size(size)).map_err(|_| no_memory())?;
        pairs.try_reserve_exact(len).map_err(|_| no_memory())?;
        pairs.resize(len, 0);
    }
    let whole = Subtree::whole(size);
    let threads = if whole.len <= BLOCK_SIZE { 1 } else { threads };
    let job = FileJob {
        data,
        ahead: ReadAhead::new(data, size),
        target,
        progress,
        failure: OnceLock::new(),
    };
    let root = pool::run(threads, |parallel| job.fill(whole, &mut pairs, parallel))?;
    match (root, job.failure.into_inner()) {
        (Ok(root), None) => Ok((root, pairs)),
        (_, Some(failure)) => Err(failure),
        (Err(Stopped), None) => Err(OutboardError::Cancelled),
    }
}

/// Split the pairs of a subtree into its own, its left and its right child's.
fn split_pairs(pairs: &mut [u8], left: Subtree) -> (&mut [u8], &mut [u8], &mut [u8]) {
    let (own, rest) = pairs.split_at_mut(PAIR_SIZE as usize);
    let (left_pairs, right_pairs) = rest.split_at_mut(left.pairs_size() as usize);
    (own, left_pairs, right_pairs)
}

/// Hash a subtree given its bytes, and fill its pairs.
fn fill_memory(bytes: &[u8], subtree: Subtree, pairs: &mut [u8], parallel: bool) -> Hash {
    if subtree.is_in_group() {
        return leaf_hash(subtree.start(), bytes, subtree.is_root);
    }
    if let Some(hash) = wide::fill(bytes, subtree, pairs) {
        return hash;
    }
    let (left, right) = subtree.children();
    let (left_bytes, right_bytes) = bytes.split_at(left.len as usize);
    let (own, left_pairs, right_pairs) = split_pairs(pairs, left);
    let parallel = parallel && subtree.len > BLOCK_SIZE;
    let (left_hash, right_hash) = pool::join(
        parallel,
        || fill_memory(left_bytes, left, left_pairs, parallel),
        || fill_memory(right_bytes, right, right_pairs, parallel),
    );
    fill_pair(own, &left_hash, &right_hash, subtree.is_root)
}

/// Store a pair, and give its hash.
fn fill_pair(own: &mut [u8], left: &Hash, right: &Hash, is_root: bool) -> Hash {
    own[..32].copy_from_slice(left);
    own[32..].copy_from_slice(right);
    parent_hash(left, right, is_root)
}

thread_local! {
    /// The block that this thread works on, kept so that its memory is mapped only once.
    static BLOCK: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Run `work` on a buffer of `len` bytes that this thread keeps. Not to be nested.
pub(crate) fn with_block<R>(len: usize, work: impl FnOnce(&mut [u8]) -> R) -> R {
    BLOCK.with_borrow_mut(|block| {
        if block.len() < len {
            block.resize(len, 0);
        }
        work(&mut block[..len])
    })
}

/// The call ends early; the reason is in `FileJob::failure`, or it was cancelled.
struct Stopped;

struct FileJob<'a> {
    data: &'a File,
    ahead: ReadAhead<'a>,
    target: Option<&'a File>,
    progress: &'a Progress,
    failure: OnceLock<OutboardError>,
}

impl FileJob<'_> {
    /// Hash a subtree and fill its pairs: `pairs`, which is empty if there is a target.
    fn fill(&self, subtree: Subtree, pairs: &mut [u8], parallel: bool) -> Result<Hash, Stopped> {
        if self.progress.is_cancelled() || self.failure.get().is_some() {
            return Err(Stopped);
        }
        if subtree.len <= BLOCK_SIZE {
            return self.fill_block(subtree, pairs).map_err(|failure| {
                // The first failure is the one reported.
                let _ = self.failure.set(failure);
                Stopped
            });
        }
        let (left, right) = subtree.children();
        let (own, left_pairs, right_pairs) = if self.target.is_some() {
            Default::default()
        } else {
            split_pairs(pairs, left)
        };
        let (left_hash, right_hash) = pool::join(
            parallel,
            || self.fill(left, left_pairs, parallel),
            || self.fill(right, right_pairs, parallel),
        );
        let (left_hash, right_hash) = (left_hash?, right_hash?);
        let Some(target) = self.target else {
            return Ok(fill_pair(own, &left_hash, &right_hash, subtree.is_root));
        };
        let mut buffers = [IoSlice::new(&left_hash), IoSlice::new(&right_hash)];
        write_all_at(target, subtree.outboard_offset, &mut buffers).map_err(|error| {
            let _ = self.failure.set(error.into());
            Stopped
        })?;
        Ok(parent_hash(&left_hash, &right_hash, subtree.is_root))
    }

    fn fill_block(&self, subtree: Subtree, pairs: &mut [u8]) -> Result<Hash, OutboardError> {
        self.ahead.expect(subtree.offset, subtree.len);
        let hash = with_block(subtree.len.min(READ_SIZE) as usize, |buffer| {
            let Some(target) = self.target else {
                return fill_pieces(self.data, buffer, subtree, pairs);
            };
            let mut pairs = [0; (BLOCK_SIZE / GROUP_SIZE * PAIR_SIZE) as usize];
            let pairs = &mut pairs[..subtree.pairs_size() as usize];
            let hash = fill_pieces(self.data, buffer, subtree, pairs)?;
            write_all_at(target, subtree.outboard_offset, &mut [IoSlice::new(pairs)])?;
            Ok(hash)
        })?;
        self.progress.add(subtree.len);
        Ok(hash)
    }
}

/// Hash a subtree of a file and fill its pairs, reading no more at once than the buffer holds.
fn fill_pieces(
    data: &File,
    buffer: &mut [u8],
    subtree: Subtree,
    pairs: &mut [u8],
) -> Result<Hash, OutboardError> {
    let len = subtree.len as usize;
    if len <= buffer.len() {
        let piece = &mut buffer[..len];
        if data.read_at(piece, subtree.offset)? < len {
            return Err(OutboardError::FileShorter);
        }
        return Ok(fill_memory(piece, subtree, pairs, false));
    }
    let (left, right) = subtree.children();
    let (own, left_pairs, right_pairs) = split_pairs(pairs, left);
    let left_hash = fill_pieces(data, buffer, left, left_pairs)?;
    let right_hash = fill_pieces(data, buffer, right, right_pairs)?;
    Ok(fill_pair(own, &left_hash, &right_hash, subtree.is_root))
}

/// Root and pre-order outboard of the first `size` bytes of a file, on this thread.
///
/// For files of a few MiB at most: nobody can end it early.
///
/// # Errors
/// [`OutboardError::FileShorter`] or [`OutboardError::Io`].
pub(crate) fn outboard_small_file(
    data: &File,
    size: u64,
) -> Result<(Hash, Vec<u8>), OutboardError> {
    let whole = Subtree::whole(size);
    let mut pairs = vec![0; whole.pairs_size() as usize];
    let root = with_block(size.min(READ_SIZE) as usize, |buffer| {
        fill_pieces(data, buffer, whole, &mut pairs)
    })?;
    Ok((root, pairs))
}

#[cfg(test)]
mod tests {
    use std::env::temp_dir;
    use std::fs;

    use bao_tree::BlockSize;
    use bao_tree::io::outboard::PreOrderMemOutboard;

    use super::*;

    pub(crate) fn data(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
    }

    const SIZES: [usize; 12] = [
        0, 1, 1024, 16383, 16384, 16385, 65537, 1048576, 1048577, 3145728, 3150001, 9000001,
    ];

    #[test]
    fn outboards_are_those_of_bao_tree() {
        for size in SIZES {
            let data = data(size);
            let theirs = PreOrderMemOutboard::create(&data, BlockSize::from_chunk_log(4));
            for threads in [1, 3] {
                let (root, pairs) = outboard(&data, threads).unwrap();
                assert_eq!(&root, theirs.root.as_bytes(), "{size}");
                assert_eq!(pairs, theirs.data, "{size}");
                assert_eq!(hash_many(&[&data], threads).unwrap(), [root]);
            }
        }
    }

    #[test]
    fn files_give_the_same_outboard_in_memory_and_in_a_file() {
        let folder = temp_dir().join(format!("pybao-hashing-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for size in SIZES {
            let data = data(size);
            fs::write(folder.join("data"), &data).unwrap();
            let file = File::open(folder.join("data")).unwrap();
            let expected = outboard(&data, 1).unwrap();
            for threads in [1, 2] {
                let progress = Progress::default();
                let made = outboard_file(&file, size as u64, None, threads, &progress).unwrap();
                assert_eq!(made, expected);
                assert_eq!(progress.done(), size as u64);
                let target = File::create(folder.join("outboard")).unwrap();
                let (root, pairs) =
                    outboard_file(&file, size as u64, Some(&target), threads, &progress).unwrap();
                assert_eq!((root, pairs.len()), (expected.0, 0));
                assert_eq!(fs::read(folder.join("outboard")).unwrap(), expected.1);
                let longer = outboard_file(&file, size as u64 + 1, None, threads, &progress);
                assert!(matches!(longer, Err(OutboardError::FileShorter)));
                progress.cancel();
                let cancelled = outboard_file(&file, size as u64, None, threads, &progress);
                assert!(matches!(cancelled, Err(OutboardError::Cancelled)));
            }
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
