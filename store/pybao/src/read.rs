//! Verified reading of a complete blob: a byte range into memory, or all of it into another file.

use std::fs::File;
use std::io::IoSlice;

use crate::Hash;
use crate::encode::{EncodeError, Walk};
use crate::geometry::{CHUNK_SIZE, GROUP_SIZE};
use crate::io::{ReadAt, write_all_at};
use crate::plan::{Item, Plan};
use crate::progress::Progress;
use crate::ranges::Ranges;

/// Bytes verified before they are written.
const BATCH_SIZE: usize = 1 << 20;

/// The bytes `[start, end)` of a blob, verified; `end` beyond the blob is its end.
///
/// # Errors
/// Data or outboard do not match the root, or could not be read.
pub fn read_verified<D: ReadAt, O: ReadAt>(
    root: Hash,
    size: u64,
    data: D,
    outboard: O,
    start: u64,
    end: u64,
) -> Result<Vec<u8>, EncodeError> {
    let end = end.min(size);
    // Of the empty blob the empty chunk is verified; elsewhere nothing asked is nothing read.
    let groups = if size == 0 {
        Ranges::all()
    } else if start < end {
        Ranges::of(start / CHUNK_SIZE, end.div_ceil(CHUNK_SIZE)).round_up_to_groups()
    } else {
        Ranges::of(0, 0)
    };
    let mut walk = Walk::new(root, Plan::new(size, &groups), data, outboard);
    let mut bytes = Vec::new();
    let mut item_bytes = Vec::with_capacity(GROUP_SIZE as usize);
    while let Some(item) = walk.append_next(&mut item_bytes)? {
        if let Item::Leaf(leaf) = item {
            let offset = leaf.offset();
            let from = start.saturating_sub(offset).min(leaf.len as u64) as usize;
            let to = end.saturating_sub(offset).min(leaf.len as u64) as usize;
            bytes.extend_from_slice(&item_bytes[from..to]);
        }
        item_bytes.clear();
    }
    Ok(bytes)
}

/// Why a blob could not be copied.
#[derive(Debug)]
pub enum CopyError {
    /// Data or outboard do not match the root, or could not be read.
    Encode(EncodeError),
    /// `Progress::cancel` was called.
    Cancelled,
    /// Writing failed.
    Io(std::io::Error),
}

/// Write a whole blob to a file from offset 0, each piece verified before it is written.
///
/// # Errors
/// See [`CopyError`]. What was written is all verified.
pub fn copy_verified<D: ReadAt, O: ReadAt>(
    root: Hash,
    size: u64,
    data: D,
    outboard: O,
    out: &File,
    progress: &Progress,
) -> Result<(), CopyError> {
    let mut walk = Walk::new(root, Plan::new(size, &Ranges::all()), data, outboard);
    let mut batch = Vec::with_capacity(BATCH_SIZE + GROUP_SIZE as usize);
    let mut offset = 0;
    loop {
        let begin = batch.len();
        let item = walk.append_next(&mut batch).map_err(CopyError::Encode)?;
        if let Some(Item::Pair(_)) = item {
            batch.truncate(begin);
        }
        if batch.len() >= BATCH_SIZE || item.is_none() {
            if progress.is_cancelled() {
                return Err(CopyError::Cancelled);
            }
            write_all_at(out, offset, &mut [IoSlice::new(&batch)]).map_err(CopyError::Io)?;
            offset += batch.len() as u64;
            progress.add(batch.len() as u64);
            batch.clear();
        }
        if item.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hashing::outboard;

    #[test]
    fn reads_are_verified_by_whole_groups() {
        let mut data: Vec<u8> = (0..100_000_u32).map(|i| (i * 31 + i / 251) as u8).collect();
        let size = data.len() as u64;
        let (root, pairs) = outboard(&data, 1).unwrap();
        for (start, end) in [
            (0, size),
            (5, 6),
            (16383, 16385),
            (99_999, u64::MAX),
            (7, 7),
            (9, 3),
        ] {
            let read = read_verified(root, size, &data[..], &pairs[..], start, end).unwrap();
            let expected = data.get(start as usize..end.min(size) as usize);
            assert_eq!(read, expected.unwrap_or_default());
        }
        data[20_000] ^= 1;
        let read = |start, end| read_verified(root, size, &data[..], &pairs[..], start, end);
        assert!(read(0, 16384).is_ok());
        assert!(read(32768, size).is_ok());
        let failure = read(32767, 32768);
        assert!(matches!(
            failure,
            Err(EncodeError::LeafHashMismatch { chunk: 16 })
        ));
    }
}
