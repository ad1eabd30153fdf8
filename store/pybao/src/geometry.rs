//! The shape of a BLAKE3 tree: sizes, counts and subtrees, no hashes.
//!
//! The tree is left-balanced: a subtree of `k > 1` chunks splits at the largest power of two below
//! `k`. So aligned groups of 16 chunks are whole subtrees, and the group tree is the chunk tree cut
//! off there. Sizes stay below 2^63 ([`SIZE_MAX`]); then nothing here can overflow.

/// Bytes of a BLAKE3 chunk, the unit of ranges.
pub const CHUNK_SIZE: u64 = 1024;
/// Chunks of a group, the unit that is stored and served.
pub const GROUP_CHUNKS: u64 = 16;
/// Bytes of a chunk group.
pub const GROUP_SIZE: u64 = CHUNK_SIZE * GROUP_CHUNKS;
/// Bytes of an inner node: the hashes of its two children.
pub const PAIR_SIZE: u64 = 64;
/// The largest size of a blob: what a file offset can hold.
pub const SIZE_MAX: u64 = i64::MAX as u64;

/// Chunks of a blob; the empty blob has one, empty.
pub fn chunk_count(size: u64) -> u64 {
    size.div_ceil(CHUNK_SIZE).max(1)
}

/// Bytes of outboard of a blob: 64 for each pair of chunk groups or more.
pub fn outboard_size(size: u64) -> u64 {
    (size.div_ceil(GROUP_SIZE).max(1) - 1) * PAIR_SIZE
}

/// A subtree: the chunks `[start, start + chunks)` and where its pairs are in the outboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subtree {
    /// Its first chunk.
    pub start: u64,
    /// How many chunks it has, at least one.
    pub chunks: u64,
    /// Place of its own pair in the pre-order outboard, in pairs. Its other pairs follow.
    pub pair_index: u64,
    /// Whether it is the whole blob.
    pub is_root: bool,
}

impl Subtree {
    /// The whole tree of a blob of `size` bytes.
    pub fn whole(size: u64) -> Self {
        Self {
            start: 0,
            chunks: chunk_count(size),
            pair_index: 0,
            is_root: true,
        }
    }

    /// The chunk behind its last one.
    pub fn end(&self) -> u64 {
        self.start + self.chunks
    }

    /// Chunk groups, the last of which may be short.
    pub fn groups(&self) -> u64 {
        self.chunks.div_ceil(GROUP_CHUNKS)
    }

    /// Whether it lies within one chunk group, so that it has no pair in the outboard.
    pub fn is_in_group(&self) -> bool {
        self.chunks <= GROUP_CHUNKS
    }

    /// Offset of its first byte.
    pub fn offset(&self) -> u64 {
        self.start * CHUNK_SIZE
    }

    /// Its bytes, in a blob of `size` bytes.
    pub fn byte_len(&self, size: u64) -> u64 {
        (self.end() * CHUNK_SIZE).min(size) - self.offset()
    }

    /// Offset of its own pair in the outboard, if it is stored there.
    pub fn outboard_offset(&self) -> Option<u64> {
        (!self.is_in_group()).then_some(self.pair_index * PAIR_SIZE)
    }

    /// In-order number of its topmost node, as bao-tree counts. Meaningful for two chunks or more.
    pub fn node(&self) -> u64 {
        self.start + self.left_chunks() - 1
    }

    /// Chunks of its left child: the largest power of two below `chunks`.
    fn left_chunks(&self) -> u64 {
        1 << (self.chunks - 1).checked_ilog2().unwrap_or(0)
    }

    /// The two children of a subtree of at least two chunks.
    pub fn children(&self) -> (Self, Self) {
        debug_assert!(self.chunks > 1);
        let left_chunks = self.left_chunks();
        let left = Self {
            start: self.start,
            chunks: left_chunks,
            pair_index: self.pair_index + 1,
            is_root: false,
        };
        let right = Self {
            start: self.start + left_chunks,
            chunks: self.chunks - left_chunks,
            pair_index: self.pair_index + left.groups(),
            is_root: false,
        };
        (left, right)
    }
}

#[cfg(test)]
mod tests {
    use bao_tree::{BaoTree, BlockSize, ChunkNum, TreeNode};

    use super::*;

    fn walk(subtree: Subtree, visit: &mut impl FnMut(Subtree)) {
        visit(subtree);
        if subtree.chunks > 1 {
            let (left, right) = subtree.children();
            walk(left, visit);
            walk(right, visit);
        }
    }

    #[test]
    fn nodes_and_offsets_are_those_of_bao_tree() {
        for chunks in (1..200).chain([1023, 1024, 1025, 4097]) {
            let size = chunks * CHUNK_SIZE - 7;
            let tree = BaoTree::new(size, BlockSize::from_chunk_log(4));
            assert_eq!(tree.outboard_size(), outboard_size(size));
            assert_eq!(tree.chunks(), ChunkNum(chunk_count(size)));
            walk(Subtree::whole(size), &mut |subtree| {
                if let Some(offset) = subtree.outboard_offset() {
                    let node: TreeNode = node_numbered(&tree, subtree.node());
                    assert_eq!(
                        tree.pre_order_offset(node),
                        Some(offset / PAIR_SIZE),
                        "{subtree:?} of {chunks} chunks"
                    );
                }
            });
        }
    }

    /// The node of bao-tree with this in-order number; its constructor is not public.
    fn node_numbered(tree: &BaoTree, number: u64) -> TreeNode {
        tree.pre_order_nodes_iter()
            .find(|node| node.mid() == ChunkNum(number + 1))
            .unwrap_or_else(|| panic!("node {number} is not in the tree"))
    }

    #[test]
    fn the_largest_blob_does_not_overflow() {
        let whole = Subtree::whole(SIZE_MAX);
        assert_eq!(whole.chunks, 1 << 53);
        assert_eq!(outboard_size(SIZE_MAX), ((1 << 49) - 1) * 64);
        let mut last = whole;
        while last.chunks > 1 {
            last = last.children().1;
        }
        assert_eq!(last.end(), 1 << 53);
        assert_eq!(last.byte_len(SIZE_MAX), 1023);
    }

    #[test]
    fn the_empty_blob_has_one_empty_chunk() {
        let whole = Subtree::whole(0);
        assert_eq!((whole.chunks, whole.byte_len(0)), (1, 0));
        assert_eq!(outboard_size(0), 0);
    }
}
