//! The shape of a BLAKE3 tree: sizes, counts and subtrees, no hashes.
//!
//! Nodes and their places in an outboard are those of bao-tree ([`tree`]). A [`Subtree`] is what is
//! hashed as one: it may also be a single chunk or group, which has no node there. Sizes stay below
//! 2^63 ([`SIZE_MAX`]); then nothing here can overflow.

use bao_tree::{BaoTree, BlockSize, ChunkNum};
use blake3::hazmat::left_subtree_len;

/// The chunk group: 16 chunks, the unit that is stored and served.
pub const GROUP: BlockSize = BlockSize::from_chunk_log(4);
/// Bytes of a BLAKE3 chunk, the unit of ranges.
pub const CHUNK_SIZE: u64 = BlockSize::ZERO.bytes() as u64;
/// Bytes of a chunk group.
pub const GROUP_SIZE: u64 = GROUP.bytes() as u64;
/// Bytes of an inner node: the hashes of its two children.
pub const PAIR_SIZE: u64 = 64;
/// The largest size of a blob: what a file offset can hold.
pub const SIZE_MAX: u64 = i64::MAX as u64;

/// The tree of a blob of `size` bytes.
pub fn tree(size: u64) -> BaoTree {
    BaoTree::new(size, GROUP)
}

/// Chunks of a blob; the empty blob has one, empty.
pub fn chunk_count(size: u64) -> u64 {
    ChunkNum::chunks(size).0.max(1)
}

/// Bytes of outboard of a blob: 64 for each pair of chunk groups or more.
pub fn outboard_size(size: u64) -> u64 {
    tree(size).outboard_size()
}

/// A subtree: the bytes `[offset, offset + len)` and where its pairs are in the outboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subtree {
    /// Offset of its first byte.
    pub offset: u64,
    /// Its bytes; 0 only in the empty blob.
    pub len: u64,
    /// Offset of its own pair in the pre-order outboard. Its other pairs follow.
    pub outboard_offset: u64,
    /// Whether it is the whole blob.
    pub is_root: bool,
}

impl Subtree {
    /// The whole tree of a blob of `size` bytes.
    pub fn whole(size: u64) -> Self {
        Self {
            offset: 0,
            len: size,
            outboard_offset: 0,
            is_root: true,
        }
    }

    /// Its first chunk.
    pub fn start(&self) -> u64 {
        self.offset / CHUNK_SIZE
    }

    /// The chunk behind its last one.
    pub fn end(&self) -> u64 {
        self.start() + chunk_count(self.len)
    }

    /// Whether it lies within one chunk group, so that it has no pair in the outboard.
    pub fn is_in_group(&self) -> bool {
        self.len <= GROUP_SIZE
    }

    /// Bytes of its pairs in the outboard.
    pub fn pairs_size(&self) -> u64 {
        outboard_size(self.len)
    }

    /// The two children of a subtree of at least two chunks.
    pub fn children(&self) -> (Self, Self) {
        let left = Self {
            offset: self.offset,
            len: left_subtree_len(self.len),
            outboard_offset: self.outboard_offset + PAIR_SIZE,
            is_root: false,
        };
        let right = Self {
            offset: self.offset + left.len,
            len: self.len - left.len,
            outboard_offset: left.outboard_offset + left.pairs_size(),
            is_root: false,
        };
        (left, right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_where_bao_tree_has_them() {
        for chunks in (1..200).chain([1023, 1024, 1025, 4097]) {
            let size = chunks * CHUNK_SIZE - 7;
            let tree = tree(size);
            let mut rest = vec![Subtree::whole(size)];
            let mut places = Vec::new();
            while let Some(subtree) = rest.pop() {
                if !subtree.is_in_group() {
                    let (left, right) = subtree.children();
                    places.push((right.offset / CHUNK_SIZE, subtree.outboard_offset));
                    rest.extend([right, left]);
                }
            }
            let nodes = tree.pre_order_nodes_iter().filter_map(|node| {
                let index = tree.pre_order_offset(node)?;
                Some((node.mid().0, index * PAIR_SIZE))
            });
            assert_eq!(places, nodes.collect::<Vec<_>>(), "{chunks} chunks");
            assert_eq!(outboard_size(size), places.len() as u64 * PAIR_SIZE);
        }
    }

    #[test]
    fn the_largest_blob_does_not_overflow() {
        let mut last = Subtree::whole(SIZE_MAX);
        assert_eq!(last.end(), 1 << 53);
        assert_eq!(outboard_size(SIZE_MAX), ((1 << 49) - 1) * 64);
        while last.len > CHUNK_SIZE {
            last = last.children().1;
        }
        assert_eq!((last.end(), last.len), (1 << 53, 1023));
    }

    #[test]
    fn the_empty_blob_has_one_empty_chunk() {
        let whole = Subtree::whole(0);
        assert_eq!((whole.start(), whole.end(), whole.len), (0, 1, 0));
        assert_eq!(outboard_size(0), 0);
    }
}
