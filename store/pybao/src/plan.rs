//! The items that make up an encoding, derived from the size of the blob and the ranges alone.
//!
//! Reader and writer walk the same plan, which is why the wire needs neither lengths nor types. The
//! walk visits only nodes that are sent, with one subtree a level on its stack: a claimed size or
//! a long list of ranges costs nothing before its items come.

use crate::geometry::{CHUNK_SIZE, GROUP_CHUNKS, PAIR_SIZE, Subtree};
use crate::ranges::Ranges;

/// The hashes of the two children of a node: 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The subtree on top of which it stands.
    pub subtree: Subtree,
    /// Whether anything of the left child follows.
    pub left: bool,
    /// Whether anything of the right child follows.
    pub right: bool,
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

/// The items of an encoding in order; an iterator that can look one item ahead.
#[derive(Clone, Debug)]
pub struct Plan {
    size: u64,
    /// The chunks selected, cut to the blob, so that the number of boundaries is even.
    selected: Ranges,
    /// Selected subtrees still to come, the next one last.
    stack: Vec<Subtree>,
    upcoming: Option<Item>,
}

impl Plan {
    /// The plan for `ranges` of a blob of `size` bytes, at most `geometry::SIZE_MAX`.
    pub fn new(size: u64, ranges: &Ranges) -> Self {
        let selected = ranges.truncate(size);
        let mut plan = Self {
            size,
            stack: Vec::new(),
            upcoming: None,
            selected,
        };
        if !plan.selected.is_empty() {
            plan.stack.push(Subtree::whole(size));
        }
        plan.upcoming = plan.step();
        plan
    }

    /// The size of the blob.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The item that `next` will give.
    pub fn peek(&self) -> Option<&Item> {
        self.upcoming.as_ref()
    }

    /// Bytes of the whole encoding without its size header, wherever the plan stands.
    ///
    /// Takes a number of steps proportional to the boundaries and the depth of the tree.
    pub fn encoded_len(&self) -> u64 {
        encoded_len(Subtree::whole(self.size), self.size, self.boundaries())
    }

    /// Bytes of data in the whole encoding, wherever the plan stands.
    pub fn payload_len(&self) -> u64 {
        let bytes = |chunk: u64| (chunk * CHUNK_SIZE).min(self.size);
        self.boundaries()
            .chunks_exact(2)
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
            self.upcoming = self.step();
        }
        bytes
    }

    fn boundaries(&self) -> &[u64] {
        self.selected.boundaries()
    }

    /// The place of the first boundary behind a chunk; it is odd if the chunk is selected.
    fn boundary_after(&self, chunk: u64) -> usize {
        self.boundaries().partition_point(|point| *point <= chunk)
    }

    fn is_selected(&self, subtree: Subtree) -> bool {
        let next = self.boundary_after(subtree.start);
        next % 2 == 1
            || self
                .boundaries()
                .get(next)
                .is_some_and(|start| *start < subtree.end())
    }

    fn is_wholly_selected(&self, subtree: Subtree) -> bool {
        let next = self.boundary_after(subtree.start);
        next % 2 == 1 && self.boundaries()[next] >= subtree.end()
    }

    fn step(&mut self) -> Option<Item> {
        let subtree = self.stack.pop()?;
        if subtree.is_in_group() && self.is_wholly_selected(subtree) {
            return Some(Item::Leaf(Leaf {
                start: subtree.start,
                len: subtree.byte_len(self.size) as usize,
                is_root: subtree.is_root,
            }));
        }
        let (left, right) = subtree.children();
        let pair = Pair {
            subtree,
            left: self.is_selected(left),
            right: self.is_selected(right),
        };
        if pair.right {
            self.stack.push(right);
        }
        if pair.left {
            self.stack.push(left);
        }
        Some(Item::Pair(pair))
    }
}

impl Iterator for Plan {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        let item = self.upcoming.take();
        self.upcoming = self.step();
        item
    }
}

/// Bytes of the encoding of a subtree, given an even number of boundaries.
fn encoded_len(subtree: Subtree, size: u64, boundaries: &[u64]) -> u64 {
    // Intervals that end at or before the subtree, or begin behind it, have no part in it.
    let first = boundaries.partition_point(|point| *point <= subtree.start) / 2 * 2;
    let last = boundaries
        .partition_point(|point| *point < subtree.end())
        .next_multiple_of(2);
    let inside = &boundaries[first..last];
    let [start, end, ..] = inside else {
        return 0;
    };
    if *start <= subtree.start && subtree.end() <= *end {
        let pairs = (subtree.chunks.div_ceil(GROUP_CHUNKS) - 1) * PAIR_SIZE;
        return pairs + subtree.byte_len(size);
    }
    let (left, right) = subtree.children();
    PAIR_SIZE + encoded_len(left, size, inside) + encoded_len(right, size, inside)
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
