//! The verifying core: whole items of an encoding, checked in place in the buffer they came in.
//!
//! A stack holds the expected hashes of what is still to come, from the root on. A hash enters it
//! only from a pair that was itself verified, so nothing is believed that the root does not bind.
//!
//! `DecodeResponseIter` of bao-tree reads from a stream and gives each leaf memory of its own; it
//! took 1.10 times as long (64 MiB in memory, median of 9 interleaved rounds).

use std::ops::Range;

use bao_tree::{ChunkNum, ChunkRanges};

use crate::Hash;
use crate::geometry::chunk_count;
use crate::hashing::{leaf_hash, parent_hash, split_pair};
use crate::plan::{Item, Leaf, Plan};
use crate::ranges::boundaries;

/// Where in the tree something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In-order number of the node, as bao-tree counts.
    Node(u64),
    /// First chunk of the leaf.
    Chunk(u64),
}

impl Place {
    /// The place of an item.
    pub fn of(item: &Item) -> Self {
        match item {
            Item::Pair(pair) => Self::Node(pair.number()),
            Item::Leaf(leaf) => Self::Chunk(leaf.start),
        }
    }
}

/// Received bytes are not the blob asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// A pair does not match the hash its parent has for it.
    ParentHashMismatch { node: u64 },
    /// Data does not match the hash its parent has for it.
    LeafHashMismatch { chunk: u64 },
    /// The claimed size is impossible.
    SizeInvalid,
    /// The stream ended before the size.
    SizeNotFound,
    /// The stream ended where a pair was due.
    ParentNotFound { node: u64 },
    /// The stream ended where data was due.
    LeafNotFound { chunk: u64 },
    /// The stream ended within an item; `None` is the size.
    Truncated(Option<Place>),
}

/// An item that was verified in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Data: the bytes `[at, at + leaf.len)` of the buffer.
    Leaf { leaf: Leaf, at: usize },
    /// A pair that the outboard stores at `offset`: the bytes `[at, at + 64)` of the buffer.
    Pair { offset: u64, at: usize },
}

/// Checks the items of one encoding in order.
#[derive(Clone, Debug)]
pub struct Verifier {
    plan: Plan,
    /// Expected hashes of the subtrees on the plan's stack and of its upcoming item.
    expected: Vec<Hash>,
    verified_len: u64,
    failure: Option<DecodeError>,
}

impl Verifier {
    /// For the encoding, behind its size header, of what `plan` is about, from its beginning.
    pub fn new(root: Hash, plan: Plan) -> Self {
        Self {
            expected: vec![root],
            plan,
            verified_len: 0,
            failure: None,
        }
    }

    /// The items that are still to come.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The item that comes next, `None` at the end.
    pub fn upcoming(&self) -> Option<&Item> {
        self.plan.peek()
    }

    /// Bytes of the encoding verified so far.
    pub fn verified_len(&self) -> u64 {
        self.verified_len
    }

    /// Verify the whole items at the beginning of `buf`, and say how many bytes they have.
    ///
    /// Every verified leaf, and every pair that the outboard stores, is added to `verified`.
    ///
    /// # Errors
    /// An item does not match its parent. `verified` has those before it. Every later call gives
    /// the same error.
    pub fn verify(
        &mut self,
        buf: &[u8],
        verified: &mut Vec<Verified>,
    ) -> Result<usize, DecodeError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let mut at = 0;
        while let Some(item) = self.plan.peek().copied() {
            let Some(bytes) = buf.get(at..at + item.encoded_len()) else {
                break;
            };
            if let Err(failure) = self.verify_item(item, bytes) {
                self.failure = Some(failure);
                return Err(failure);
            }
            match item {
                Item::Leaf(leaf) => verified.push(Verified::Leaf { leaf, at }),
                Item::Pair(pair) => {
                    if let Some(offset) = self.plan.outboard_offset(&pair) {
                        verified.push(Verified::Pair { offset, at });
                    }
                }
            }
            at += bytes.len();
            self.verified_len += bytes.len() as u64;
            self.plan.next();
        }
        Ok(at)
    }

    fn verify_item(&mut self, item: Item, bytes: &[u8]) -> Result<(), DecodeError> {
        let expected = self.expected.pop();
        match item {
            Item::Leaf(leaf) => {
                let actual = leaf_hash(leaf.start, bytes, leaf.is_root);
                if Some(actual) != expected {
                    return Err(DecodeError::LeafHashMismatch { chunk: leaf.start });
                }
            }
            Item::Pair(pair) => {
                let (left, right) = split_pair(bytes);
                let actual = parent_hash(&left, &right, pair.is_root);
                if Some(actual) != expected {
                    return Err(DecodeError::ParentHashMismatch {
                        node: pair.number(),
                    });
                }
                if pair.right {
                    self.expected.push(right);
                }
                if pair.left {
                    self.expected.push(left);
                }
            }
        }
        Ok(())
    }
}

/// What was verified so far, and is in its place: chunks, bytes and whether they prove the size.
#[derive(Clone, Debug)]
pub struct Proven {
    chunks: u64,
    set: ChunkRanges,
    bytes: u64,
    size_proven: bool,
}

impl Proven {
    /// Nothing yet, of a blob of a claimed size.
    pub fn new(size: u64) -> Self {
        Self {
            chunks: chunk_count(size),
            set: ChunkRanges::empty(),
            bytes: 0,
            size_proven: false,
        }
    }

    /// Record what was verified and is where it belongs.
    pub fn record(&mut self, verified: &[Verified]) {
        // Neighbours enter the set together: there is one union for a batch of them.
        let mut run = 0..0;
        for item in verified {
            if let Verified::Leaf { leaf, .. } = item {
                let end = leaf.start + chunk_count(leaf.len as u64);
                if leaf.start != run.end {
                    self.add(run);
                    run = leaf.start..leaf.start;
                }
                run.end = end;
                self.bytes += leaf.len as u64;
                self.size_proven |= end == self.chunks;
            }
        }
        self.add(run);
    }

    fn add(&mut self, run: Range<u64>) {
        self.set |= ChunkRanges::from(ChunkNum(run.start)..ChunkNum(run.end));
    }

    /// Boundaries of the chunks.
    pub fn boundaries(&self) -> Vec<u64> {
        boundaries(&self.set)
    }

    /// Bytes of data.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the last chunk is among them, which binds the size to the root.
    pub fn size_proven(&self) -> bool {
        self.size_proven
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::Encoder;
    use crate::hashing::outboard;
    use crate::ranges::Ranges;

    #[test]
    fn batches_of_the_plan_are_what_the_verifier_takes() {
        let data: Vec<u8> = (0..3_000_000_u32)
            .map(|i| (i * 31 + i / 251) as u8)
            .collect();
        let size = data.len() as u64;
        let (root, pairs) = outboard(&data, 1).unwrap();
        let ranges = Ranges::new(vec![5, 100, 1000, 2000, u64::MAX]).unwrap();
        let mut encoder = Encoder::new(root, size, &ranges, &data[..], &pairs[..], false);
        let mut encoded = Vec::new();
        encoder.fill(&mut encoded, usize::MAX).unwrap();

        let mut batches = Plan::new(size, &ranges);
        let mut verifier = Verifier::new(root, batches.clone());
        let mut proven = Proven::new(size);
        let mut rest = &encoded[..];
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batches.skip_batch(100_000));
            let mut verified = Vec::new();
            assert_eq!(verifier.verify(batch, &mut verified), Ok(batch.len()));
            assert_eq!(verifier.upcoming(), batches.peek());
            proven.record(&verified);
            rest = after;
        }
        assert_eq!(verifier.verified_len(), encoder.encoded_size());
        assert_eq!(proven.boundaries(), [5, 100, 1000, 2000, 2929, 2930]);
        assert_eq!(proven.bytes(), batches.payload_len());
        assert!(proven.size_proven());
    }

    #[test]
    fn a_bad_item_leaves_those_before_it() {
        let data = vec![7; 100_000];
        let size = data.len() as u64;
        let (root, pairs) = outboard(&data, 1).unwrap();
        let mut encoder = Encoder::new(root, size, &Ranges::all(), &data[..], &pairs[..], false);
        let mut encoded = Vec::new();
        encoder.fill(&mut encoded, usize::MAX).unwrap();
        let end = encoded.len() - 1;
        encoded[end] ^= 1;
        let mut verifier = Verifier::new(root, Plan::new(size, &Ranges::all()));
        let mut verified = Vec::new();
        let failure = Err(DecodeError::LeafHashMismatch { chunk: 96 });
        assert_eq!(verifier.verify(&encoded, &mut verified), failure);
        let mut proven = Proven::new(size);
        proven.record(&verified);
        assert_eq!(proven.boundaries(), [0, 96]);
        assert!(!proven.size_proven());
        encoded[end] ^= 1;
        assert_eq!(verifier.verify(&encoded, &mut verified), failure);
    }
}
