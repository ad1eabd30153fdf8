//! The items that make up an encoding, derived from the size of the blob and the ranges alone.
//!
//! Reader and writer walk the same plan, which is why the wire needs neither lengths nor types. The
//! walk is bao-tree's `ResponseIter`. It visits only nodes that are sent, with one node a level on
//! its stack: a claimed size or a long list of ranges costs nothing before its items come.

use std::fmt;

use bao_tree::iter::{BaoChunk, ResponseIter};
use bao_tree::{BaoTree, ChunkNum, ChunkRanges, TreeNode};

use crate::geometry::{CHUNK_SIZE, GROUP, PAIR_SIZE, Subtree, chunk_count, tree};
use crate::ranges::Ranges;

// The walk counts the bytes below each node in a usize, so a claim would panic where that is small.
const _: () = assert!(usize::BITS >= 64, "pybao needs a 64-bit machine");

/// The hashes of the two children of a node: 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The node they are of.
    pub node: TreeNode,
    /// Whether it is the topmost node of the blob.
    pub is_root: bool,
    /// Whether anything of the left child follows.
    pub left: bool,
    /// Whether anything of the right child follows.
    pub right: bool,
}

impl Pair {
    /// In-order number of the node, as bao-tree counts.
    pub fn number(&self) -> u64 {
        self.node.mid().0 - 1
    }

    /// Whether it lies within one chunk group, so that it is not in the outboard.
    pub fn is_in_group(&self) -> bool {
        self.node.level() < u32::from(GROUP.chunk_log())
    }
}

/// A piece of data of up to a whole chunk group that is verified as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its first chunk.
    pub start: u64,
    /// Bytes; 0 only in the empty blob.
    pub len: usize,
    /// Whether it is the whole blob.
    pub is_root: bool,
}

impl Leaf {
    /// Offset of its first byte in the blob.
    pub fn offset(&self) -> u64 {
        self.start * CHUNK_SIZE
    }
}

/// What is sent and verified as a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    Pair(Pair),
    Leaf(Leaf),
}

impl Item {
    /// Its bytes in the encoding.
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::Pair(_) => PAIR_SIZE as usize,
            Self::Leaf(leaf) => leaf.len,
        }
    }
}

impl From<BaoChunk> for Item {
    fn from(chunk: BaoChunk) -> Self {
        match chunk {
            BaoChunk::Parent {
                node,
                is_root,
                left,
                right,
                ..
            } => Self::Pair(Pair {
                node,
                is_root,
                left,
                right,
            }),
            BaoChunk::Leaf {
                start_chunk,
                size,
                is_root,
                ..
            } => Self::Leaf(Leaf {
                start: start_chunk.0,
                len: size,
                is_root,
            }),
        }
    }
}

/// The items of an encoding in order; an iterator that can look one item ahead.
pub struct Plan {
    tree: BaoTree,
    /// The chunks selected, cut to the blob, so that the number of boundaries is even.
    selected: Ranges,
    items: ResponseIter,
    upcoming: Option<Item>,
    /// Items that `next` gave.
    taken: usize,
}

impl Clone for Plan {
    /// As a walk cannot be copied, the copy walks there from the beginning.
    fn clone(&self) -> Self {
        let mut plan = Self::of(self.tree, self.selected.clone());
        for _ in 0..self.taken {
            plan.step();
        }
        plan
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("tree", &self.tree)
            .field("selected", &self.selected)
            .field("upcoming", &self.upcoming)
            .finish_non_exhaustive()
    }
}

impl Plan {
    /// The plan for `ranges` of a blob of `size` bytes, at most `geometry::SIZE_MAX`.
    pub fn new(size: u64, ranges: &Ranges) -> Self {
        Self::of(tree(size), ranges.truncate(size))
    }

    fn of(tree: BaoTree, selected: Ranges) -> Self {
        let end = ChunkNum(chunk_count(tree.size()));
        let mut boundaries = selected.as_ref().clone().into_inner();
        // The walk takes a subtree as selected whole only if nothing ends in it or at its end.
        if boundaries.last() == Some(&end) {
            boundaries.pop();
        }
        let mut items = ResponseIter::new(tree, ChunkRanges::new_unchecked(boundaries));
        Self {
            tree,
            selected,
            upcoming: items.next().map(Item::from),
            items,
            taken: 0,
        }
    }

    /// The size of the blob.
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The item that `next` will give.
    pub fn peek(&self) -> Option<&Item> {
        self.upcoming.as_ref()
    }

    /// Offset of a pair in the outboard, if it is stored there.
    pub fn outboard_offset(&self, pair: &Pair) -> Option<u64> {
        let index = self.tree.pre_order_offset(pair.node)?;
        Some(index * PAIR_SIZE)
    }

    /// Bytes of the whole encoding without its size header, wherever the plan stands.
    ///
    /// Takes a number of steps proportional to the boundaries and the depth of the tree.
    pub fn encoded_len(&self) -> u64 {
        let selected = self.selected.as_ref().boundaries();
        encoded_len(Subtree::whole(self.size()), selected)
    }

    /// Bytes of data in the whole encoding, wherever the plan stands.
    pub fn payload_len(&self) -> u64 {
        let bytes = |chunk: ChunkNum| chunk.to_bytes().min(self.size());
        let selected = self.selected.as_ref().boundaries().chunks_exact(2);
        selected
            .map(|interval| bytes(interval[1]) - bytes(interval[0]))
            .sum()
    }

    /// Step over the next whole items of together at most `max` bytes, but at least one item.
    ///
    /// Returns their bytes. At the end of the plan, and for the empty blob, that is 0.
    pub fn skip_batch(&mut self, max: usize) -> usize {
        let mut bytes = 0;
        while let Some(item) = self.upcoming {
            let len = item.encoded_len();
            if bytes > 0 && len > max.saturating_sub(bytes) {
                break;
            }
            bytes += len;
            self.step();
        }
        bytes
    }

    fn step(&mut self) -> Option<Item> {
        let item = self.upcoming.take()?;
        self.upcoming = self.items.next().map(Item::from);
        self.taken += 1;
        Some(item)
    }
}

impl Iterator for Plan {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        self.step()
    }
}

/// Bytes of the encoding of a subtree, given an even number of boundaries.
///
/// bao-tree has no such count; the walk would take as many steps as there are items.
fn encoded_len(subtree: Subtree, boundaries: &[ChunkNum]) -> u64 {
    // Intervals that end at or before the subtree, or begin behind it, have no part in it.
    let first = boundaries.partition_point(|point| point.0 <= subtree.start()) / 2 * 2;
    let last = boundaries
        .partition_point(|point| point.0 < subtree.end())
        .next_multiple_of(2);
    let inside = &boundaries[first..last];
    let [start, end, ..] = inside else {
        return 0;
    };
    if start.0 <= subtree.start() && subtree.end() <= end.0 {
        return subtree.pairs_size() + subtree.len;
    }
    let (left, right) = subtree.children();
    PAIR_SIZE + encoded_len(left, inside) + encoded_len(right, inside)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::geometry::SIZE_MAX;

    /// A small linear congruential generator: tests need no better.
    pub(crate) struct Random(pub u64);

    impl Random {
        pub(crate) fn next(&mut self) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (self.0 >> 33) ^ (self.0 << 31)
        }

        pub(crate) fn below(&mut self, limit: u64) -> u64 {
            self.next() % limit
        }
    }

    /// Up to eight boundaries, mostly below `limit`.
    pub(crate) fn random_ranges(random: &mut Random, limit: u64) -> Ranges {
        let count = random.below(9);
        let mut boundaries: Vec<u64> = (0..count).map(|_| random.below(limit)).collect();
        if random.below(10) == 0 {
            boundaries.push(random.next());
        }
        boundaries.sort_unstable();
        boundaries.dedup();
        Ranges::new(boundaries).unwrap()
    }

    #[test]
    fn lengths_are_the_sum_of_the_items() {
        let mut random = Random(3);
        for _ in 0..3000 {
            let size = random.below(200 * 1024);
            let ranges = random_ranges(&mut random, 210);
            let plan = Plan::new(size, &ranges);
            let (mut bytes, mut payload) = (0, 0);
            for item in plan.clone() {
                bytes += item.encoded_len() as u64;
                if let Item::Leaf(leaf) = item {
                    payload += leaf.len as u64;
                }
            }
            assert_eq!(plan.encoded_len(), bytes, "{size} {ranges:?}");
            assert_eq!(plan.payload_len(), payload, "{size} {ranges:?}");
        }
    }

    #[test]
    fn batches_are_whole_items() {
        let ranges = Ranges::new(vec![3, 20, 64]).unwrap();
        let plan = Plan::new(1_000_000, &ranges);
        for max in [0, 1, 64, 100, 20_000, 1 << 20, usize::MAX] {
            let mut batched = plan.clone();
            let mut stepped = plan.clone();
            loop {
                let bytes = batched.skip_batch(max);
                let mut left = bytes;
                while left > 0 {
                    left -= stepped.next().unwrap().encoded_len();
                }
                assert_eq!(batched.peek(), stepped.peek());
                if bytes == 0 {
                    break;
                }
            }
            assert_eq!(batched.peek(), None);
        }
    }

    #[test]
    fn a_copy_goes_on_where_the_original_is() {
        let ranges = Ranges::new(vec![3, 20, 64]).unwrap();
        let mut plan = Plan::new(1_000_000, &ranges);
        loop {
            assert!(plan.clone().eq(plan.clone()));
            assert_eq!(plan.clone().peek(), plan.peek());
            let left = plan.clone().count();
            if plan.next().is_none() {
                assert_eq!(left, 0);
                break;
            }
            assert_eq!(plan.clone().count(), left - 1);
        }
    }

    #[test]
    fn the_largest_claim_costs_its_depth_only() {
        let last = Ranges::new(vec![u64::MAX]).unwrap();
        let plan = Plan::new(SIZE_MAX, &last);
        assert_eq!(plan.clone().count(), 54);
        assert_eq!(plan.encoded_len(), 53 * 64 + 1023);
        let all = Plan::new(SIZE_MAX, &Ranges::all());
        assert_eq!(all.encoded_len(), SIZE_MAX + ((1 << 49) - 1) * 64);
        assert_eq!(all.payload_len(), SIZE_MAX);
        assert_eq!(all.take(1000).count(), 1000);
    }
}
