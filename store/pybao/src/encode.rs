//! The writing end: items of an encoding, each checked against the root before it leaves.
//!
//! Data and outboard are only trusted as far as their hashes go. The hashes within a chunk group
//! are not stored; of a group that is served in part, all is read and the group hashed again.
//!
//! `encode_ranges_validated` of bao-tree pushes all of an encoding into a writer. This one is
//! pulled, buffer by buffer. For whole groups both take the same time; for the first half of every
//! group that one took 2.35 times as long (64 MiB in memory, median of 9 interleaved rounds).

use std::io::{self, IoSliceMut};
use std::mem;
use std::sync::Arc;

use crate::Hash;
use crate::geometry::{CHUNK_SIZE, GROUP_SIZE, PAIR_SIZE};
use crate::hashing::{leaf_hash, parent_hash, split_pair};
use crate::io::ReadAt;
use crate::plan::{Item, Leaf, Pair, Plan};
use crate::ranges::Ranges;

/// Bytes of outboard read at once: pairs needed one after the other mostly lie together.
const WINDOW_SIZE: usize = 64 * PAIR_SIZE as usize;
/// Bytes by which a buffer grows at a time: what is zeroed must still be in the cache when filled.
const STEP_SIZE: usize = 64 << 10;
/// Bytes of the size header.
const HEADER_SIZE: usize = 8;

/// Local data is not what its root says, or could not be read.
#[derive(Clone, Debug)]
pub enum EncodeError {
    /// A pair of the outboard does not match the hash its parent has for it.
    ParentHashMismatch { node: u64 },
    /// Data does not match the hash its parent has for it.
    LeafHashMismatch { chunk: u64 },
    /// Data or outboard end too early.
    SizeMismatch,
    /// Reading failed.
    Io(Arc<io::Error>),
}

impl From<io::Error> for EncodeError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// Reads the pairs of an outboard through a small window.
struct Pairs<O> {
    source: O,
    offset: u64,
    window: Vec<u8>,
}

impl<O: ReadAt> Pairs<O> {
    fn read(&mut self, offset: u64) -> Result<&[u8], EncodeError> {
        let is_inside =
            offset >= self.offset && offset + PAIR_SIZE <= self.offset + self.window.len() as u64;
        if !is_inside {
            self.window.resize(WINDOW_SIZE, 0);
            let len = self.source.read_at(&mut self.window, offset)?;
            self.window.truncate(len);
            self.offset = offset;
        }
        let at = (offset - self.offset) as usize;
        self.window
            .get(at..at + PAIR_SIZE as usize)
            .ok_or(EncodeError::SizeMismatch)
    }
}

/// A chunk group that is served in part, read whole and known to be right once its first pair was.
#[derive(Default)]
struct Group {
    /// Offset of its first byte in the blob.
    offset: Option<u64>,
    bytes: Vec<u8>,
}

impl Group {
    /// Offset of the group around an offset in the blob.
    fn offset_of(offset: u64) -> u64 {
        offset / GROUP_SIZE * GROUP_SIZE
    }

    /// The bytes from `offset` in the blob on, as many as `len` or the group has.
    fn bytes_at(&self, offset: u64, len: usize) -> &[u8] {
        let rest = &self.bytes[(offset % GROUP_SIZE) as usize..];
        &rest[..len.min(rest.len())]
    }
}

/// Whether a leaf is a whole chunk group of the usual length.
fn is_group(leaf: &Leaf) -> bool {
    leaf.len as u64 == GROUP_SIZE
}

/// Walks a plan over data and outboard, and gives each item once it is verified.
pub(crate) struct Walk<D, O> {
    plan: Plan,
    /// Expected hashes of the subtrees on the plan's stack and of its upcoming item.
    expected: Vec<Hash>,
    data: D,
    pairs: Pairs<O>,
    group: Group,
}

impl<D: ReadAt, O: ReadAt> Walk<D, O> {
    pub(crate) fn new(root: Hash, plan: Plan, data: D, outboard: O) -> Self {
        Self {
            plan,
            expected: vec![root],
            data,
            pairs: Pairs {
                source: outboard,
                offset: 0,
                window: Vec::new(),
            },
            group: Group::default(),
        }
    }

    /// Append the bytes of the next item to `out`, if there is one; nothing in case of an error.
    ///
    /// After an error the walk must not go on.
    pub(crate) fn append_next(&mut self, out: &mut Vec<u8>) -> Result<Option<Item>, EncodeError> {
        let Some(item) = self.plan.next() else {
            return Ok(None);
        };
        let begin = out.len();
        out.resize(begin + item.encoded_len(), 0);
        if let Err(error) = self.write(item, &mut out[begin..], false) {
            out.truncate(begin);
            return Err(error);
        }
        Ok(Some(item))
    }

    /// Read the data of whole groups to its place among the bytes of `items`, neighbours together.
    ///
    /// Gives how many of these leaves are there, from the first one on. None of it is checked, and
    /// what could not be read is left to `write`, which tells where it fails.
    fn read_groups(&self, items: &[Item], mut out: &mut [u8]) -> usize {
        let mut groups = 0;
        let mut bufs = Vec::new();
        let mut end = 0;
        for item in items {
            let (bytes, rest) = mem::take(&mut out).split_at_mut(item.encoded_len());
            out = rest;
            let Item::Leaf(leaf) = item else { continue };
            if !is_group(leaf) {
                continue;
            }
            if leaf.offset() != end {
                groups += self.read_run(&mut bufs, end);
                if !bufs.is_empty() {
                    return groups;
                }
            }
            bufs.push(IoSliceMut::new(bytes));
            end = leaf.offset() + GROUP_SIZE;
        }
        groups + self.read_run(&mut bufs, end)
    }

    /// Read groups that end at `end` together, and take them from `bufs`: all of them, or none if
    /// that failed.
    fn read_run(&self, bufs: &mut Vec<IoSliceMut<'_>>, end: u64) -> usize {
        let count = bufs.len();
        let len = count as u64 * GROUP_SIZE;
        match self.data.read_many_at(bufs, end - len) {
            Ok(read) if read as u64 == len => {
                bufs.clear();
                count
            }
            _ => 0,
        }
    }

    /// Fill `out` with the bytes of an item, of which each must come once and in order.
    ///
    /// With `is_read` the data of a leaf is there, and is to be checked.
    fn write(&mut self, item: Item, out: &mut [u8], is_read: bool) -> Result<(), EncodeError> {
        let expected = self.expected.pop();
        match item {
            Item::Pair(pair) => {
                let (left, right) = self.checked_pair(pair, expected)?;
                out[..32].copy_from_slice(&left);
                out[32..].copy_from_slice(&right);
                if pair.right {
                    self.expected.push(right);
                }
                if pair.left {
                    self.expected.push(left);
                }
                Ok(())
            }
            Item::Leaf(leaf) => self.write_leaf(leaf, expected, out, is_read),
        }
    }

    fn checked_pair(
        &mut self,
        pair: Pair,
        expected: Option<Hash>,
    ) -> Result<(Hash, Hash), EncodeError> {
        let (left, right) = match self.plan.outboard_offset(&pair) {
            Some(offset) => split_pair(self.pairs.read(offset)?),
            None => self.pair_in_group(pair)?,
        };
        if Some(parent_hash(&left, &right, pair.is_root)) == expected {
            return Ok((left, right));
        }
        Err(if pair.is_in_group() {
            // There is no pair to be wrong: it was made from the data.
            EncodeError::LeafHashMismatch {
                chunk: pair.node.chunk_range().start.0,
            }
        } else {
            EncodeError::ParentHashMismatch {
                node: pair.number(),
            }
        })
    }

    fn pair_in_group(&mut self, pair: Pair) -> Result<(Hash, Hash), EncodeError> {
        let start = pair.node.chunk_range().start.to_bytes();
        let offset = Group::offset_of(start);
        if self.group.offset != Some(offset) {
            let group = &mut self.group;
            group.offset = None;
            let len = (self.plan.size() - offset).min(GROUP_SIZE) as usize;
            group.bytes.resize(len, 0);
            if self.data.read_at(&mut group.bytes, offset)? < len {
                return Err(EncodeError::SizeMismatch);
            }
            group.offset = Some(offset);
        }
        let middle = pair.node.mid().to_bytes();
        let len = (middle - start) as usize;
        let hash = |half: u64| {
            let bytes = self.group.bytes_at(half, len);
            leaf_hash(half / CHUNK_SIZE, bytes, false)
        };
        Ok((hash(start), hash(middle)))
    }

    fn write_leaf(
        &mut self,
        leaf: Leaf,
        expected: Option<Hash>,
        out: &mut [u8],
        is_read: bool,
    ) -> Result<(), EncodeError> {
        let offset = leaf.offset();
        if self.group.offset == Some(Group::offset_of(offset)) {
            // The pairs above it were made from these very bytes.
            out.copy_from_slice(self.group.bytes_at(offset, leaf.len));
            return Ok(());
        }
        if !is_read && self.data.read_at(out, offset)? < leaf.len {
            return Err(EncodeError::SizeMismatch);
        }
        if Some(leaf_hash(leaf.start, out, leaf.is_root)) != expected {
            return Err(EncodeError::LeafHashMismatch { chunk: leaf.start });
        }
        Ok(())
    }
}

/// The encoding of ranges of one blob, buffer by buffer.
pub struct Encoder<D, O> {
    walk: Walk<D, O>,
    header: Option<[u8; HEADER_SIZE]>,
    /// The items that are written next.
    batch: Vec<Item>,
    encoded_size: u64,
    failure: Option<EncodeError>,
}

impl<D: ReadAt, O: ReadAt> Encoder<D, O> {
    /// For `ranges` of the blob `root` of `size` bytes, at most `geometry::SIZE_MAX`.
    ///
    /// With `header` the encoding starts with the size.
    pub fn new(root: Hash, size: u64, ranges: &Ranges, data: D, outboard: O, header: bool) -> Self {
        let plan = Plan::new(size, ranges);
        let header = header.then(|| size.to_le_bytes());
        let encoded_size = plan.encoded_len() + header.map_or(0, |header| header.len() as u64);
        Self {
            encoded_size,
            header,
            batch: Vec::new(),
            walk: Walk::new(root, plan, data, outboard),
            failure: None,
        }
    }

    /// Bytes of the whole encoding.
    pub fn encoded_size(&self) -> u64 {
        self.encoded_size
    }

    /// Whether everything was given out.
    pub fn is_done(&self) -> bool {
        let is_written = self.header.is_none() && self.batch.is_empty();
        is_written && self.walk.plan.peek().is_none() && self.failure.is_none()
    }

    /// Append the next whole items to `out`: at most `max` bytes of them, but at least one item.
    ///
    /// Nothing is appended at the end.
    ///
    /// # Errors
    /// The next item is bad. Items that were verified before it are given out first; every later
    /// call gives the same error.
    pub fn fill(&mut self, out: &mut Vec<u8>, max: usize) -> Result<(), EncodeError> {
        let begin = out.len();
        loop {
            let end = out.len();
            let room = max.saturating_sub(end - begin);
            let len = self.prepare(room.min(STEP_SIZE), end == begin);
            out.resize(end + len, 0);
            let written = self.write(&mut out[end..]);
            out.truncate(end + *written.as_ref().unwrap_or(&0));
            match written {
                Err(failure) if out.len() == begin => return Err(failure),
                Ok(_) if self.failure.is_none() && !self.is_done() && out.len() > end => {}
                _ => return Ok(()),
            }
        }
    }

    /// Fill the beginning of `out` with the next whole items; gives how many bytes they have.
    ///
    /// Those are verified, and what is behind them is not. There are none at the end, of the empty
    /// blob, or if `out` has no room for the next item; [`GROUP_SIZE`] is enough for any.
    ///
    /// # Errors
    /// As for [`Self::fill`].
    pub fn fill_slice(&mut self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let len = self.prepare(out.len(), false);
        self.write(&mut out[..len])
    }

    /// Plan what `write` does next: items of together at most `max` bytes. Returns their bytes.
    ///
    /// With `at_least_one` the first item is taken whatever its length.
    pub(crate) fn prepare(&mut self, max: usize, at_least_one: bool) -> usize {
        if self.failure.is_some() {
            return 0;
        }
        let mut len = self.header.map_or(0, |header| header.len());
        len += self.batch.iter().map(Item::encoded_len).sum::<usize>();
        while let Some(item) = self.walk.plan.peek().copied() {
            let is_free = at_least_one && len == 0;
            if !is_free && item.encoded_len() > max.saturating_sub(len) {
                break;
            }
            len += item.encoded_len();
            self.batch.push(item);
            self.walk.plan.next();
        }
        len
    }

    /// Write what was planned to a buffer of exactly its bytes; gives how many are verified.
    ///
    /// # Errors
    /// The first item is bad, or one in an earlier call was.
    pub(crate) fn write(&mut self, buf: &mut [u8]) -> Result<usize, EncodeError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let mut at = 0;
        if let Some(header) = self.header.take() {
            buf[..header.len()].copy_from_slice(&header);
            at = header.len();
        }
        let mut groups = self.walk.read_groups(&self.batch, &mut buf[at..]);
        for item in self.batch.drain(..) {
            let end = at + item.encoded_len();
            let is_read = groups > 0 && matches!(&item, Item::Leaf(leaf) if is_group(leaf));
            groups -= usize::from(is_read);
            if let Err(failure) = self.walk.write(item, &mut buf[at..end], is_read) {
                self.failure = Some(failure.clone());
                return if at > 0 { Ok(at) } else { Err(failure) };
            }
            at = end;
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use bao_tree::BaoTree;
    use bao_tree::io::BaoContentItem;
    use bao_tree::io::outboard::PreOrderMemOutboard;
    use bao_tree::io::sync::{DecodeResponseIter, encode_ranges_validated};

    use super::*;
    use crate::decode::{Verified, Verifier};
    use crate::geometry::GROUP;
    use crate::hashing::outboard;
    use crate::plan::tests::{Random, random_ranges};

    fn data(len: u64) -> Vec<u8> {
        (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
    }

    fn encode(data: &[u8], ranges: &Ranges, max: usize) -> Vec<u8> {
        let (root, pairs) = outboard(data, 1).unwrap();
        let size = data.len() as u64;
        let mut encoder = Encoder::new(root, size, ranges, data, &pairs[..], false);
        let mut all = Vec::new();
        while !encoder.is_done() {
            let mut some = Vec::new();
            encoder.fill(&mut some, max).unwrap();
            all.extend(some);
        }
        assert_eq!(all.len() as u64, encoder.encoded_size());
        assert!(all == encode_slices(root, data, &pairs, ranges, max));
        all
    }

    fn encode_slices(
        root: Hash,
        data: &[u8],
        pairs: &[u8],
        ranges: &Ranges,
        max: usize,
    ) -> Vec<u8> {
        let mut encoder = Encoder::new(root, data.len() as u64, ranges, data, pairs, false);
        let mut buf = vec![0; max.max(GROUP_SIZE as usize)];
        let mut all = Vec::new();
        while !encoder.is_done() {
            let len = encoder.fill_slice(&mut buf).unwrap();
            assert!(len > 0 || data.is_empty());
            all.extend_from_slice(&buf[..len]);
        }
        all
    }

    #[test]
    fn encodings_are_those_of_bao_tree_both_ways() {
        let mut random = Random(4);
        for round in 0..600 {
            let size = match round % 3 {
                0 => random.below(20) * 1024 + random.below(3),
                1 => random.below(20) * 16384 + random.below(3),
                _ => random.below(300_000),
            };
            let data = data(size);
            let ranges = random_ranges(&mut random, size / 1024 + 10);
            let max = [1, 5000, 1 << 20][round % 3];
            let encoded = encode(&data, &ranges, max);

            let outboard = PreOrderMemOutboard::create(&data, GROUP);
            let mut expected = Vec::new();
            let their_ranges = ranges.as_ref();
            encode_ranges_validated(&data[..], &outboard, their_ranges, &mut expected).unwrap();
            assert!(encoded == expected, "{size} {ranges:?}");

            let tree = BaoTree::new(size, GROUP);
            let mut decoded = Vec::new();
            let items = DecodeResponseIter::new(outboard.root, tree, &encoded[..], their_ranges);
            for item in items {
                if let BaoContentItem::Leaf(leaf) = item.unwrap() {
                    decoded.push((leaf.offset, leaf.data.to_vec()));
                }
            }
            let root = *outboard.root.as_bytes();
            let mut verifier = Verifier::new(root, Plan::new(size, &ranges));
            let mut verified = Vec::new();
            let len = verifier.verify(&encoded, &mut verified).unwrap();
            assert_eq!((len, verifier.upcoming()), (encoded.len(), None));
            let ours: Vec<_> = verified
                .iter()
                .filter_map(|item| match item {
                    Verified::Leaf { leaf, at } => {
                        Some((leaf.offset(), encoded[*at..at + leaf.len].to_vec()))
                    }
                    Verified::Pair { offset, at } => {
                        let stored = &outboard.data[*offset as usize..][..64];
                        assert_eq!(&encoded[*at..at + 64], stored);
                        None
                    }
                })
                .collect();
            assert!(ours == decoded, "{size} {ranges:?}");
        }
    }

    #[test]
    fn every_damaged_byte_is_refused() {
        let mut random = Random(5);
        for _ in 0..300 {
            let size = random.below(100_000);
            let data = data(size);
            let ranges = random_ranges(&mut random, size / 1024 + 2);
            let mut encoded = encode(&data, &ranges, 1 << 20);
            if encoded.is_empty() {
                continue;
            }
            let place = random.below(encoded.len() as u64) as usize;
            encoded[place] ^= 1 << random.below(8);
            let plan = Plan::new(size, &ranges);
            let mut verifier = Verifier::new(crate::hashing::hash(&data), plan);
            let mut verified = Vec::new();
            let failure = verifier.verify(&encoded, &mut verified).unwrap_err();
            assert_eq!(verifier.verify(&encoded, &mut verified), Err(failure));
            for item in verified {
                if let Verified::Leaf { leaf, at } = item {
                    let original = &data[leaf.offset() as usize..][..leaf.len];
                    assert!(&encoded[at..at + leaf.len] == original);
                }
            }
        }
    }

    #[test]
    fn nothing_of_bad_data_or_a_bad_outboard_leaves() {
        let mut random = Random(6);
        for _ in 0..300 {
            let size = 1 + random.below(200_000);
            let mut data = data(size);
            let (root, mut pairs) = outboard(&data, 1).unwrap();
            let ranges = random_ranges(&mut random, size / 1024 + 2);
            let good = encode(&data, &ranges, 1 << 20);
            if pairs.is_empty() || random.below(2) == 0 {
                data[random.below(size) as usize] ^= 1;
            } else {
                let place = random.below(pairs.len() as u64) as usize;
                pairs[place] ^= 1;
            }
            let mut encoder = Encoder::new(root, size, &ranges, &data[..], &pairs[..], false);
            let mut out = Vec::new();
            let mut failed = false;
            while !encoder.is_done() && !failed {
                failed = encoder.fill(&mut out, 1 << 20).is_err();
            }
            assert!(good.starts_with(&out));
            assert!(failed || good == out);
            if failed {
                let len = out.len();
                assert!(encoder.fill(&mut out, 1).is_err());
                assert_eq!(out.len(), len);
            }
        }
    }

    #[test]
    fn sources_that_end_early_are_reported() {
        let data = data(70_000);
        let (root, pairs) = outboard(&data, 1).unwrap();
        let mut out = Vec::new();
        let all = Ranges::all();
        let mut encoder = Encoder::new(root, 70_000, &all, &data[..], &pairs[..100], true);
        encoder.fill(&mut out, 1 << 20).unwrap();
        assert_eq!(out.len(), 8 + 64);
        let failure = encoder.fill(&mut out, 1 << 20);
        assert!(matches!(failure, Err(EncodeError::SizeMismatch)));
        let mut encoder = Encoder::new(root, 70_000, &all, &data[..69_999], &pairs[..], true);
        encoder.fill(&mut out, 1 << 20).unwrap();
        let failure = encoder.fill(&mut out, 1 << 20);
        assert!(matches!(failure, Err(EncodeError::SizeMismatch)));
    }
}
