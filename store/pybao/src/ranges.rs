//! Sets of chunk numbers, as sorted boundaries.
//!
//! The points where membership flips, starting outside: `[0, 64]` is the first 64 chunks, `[64]`
//! everything from 64 on, `[]` nothing. Boundaries always increase strictly.

use std::sync::Arc;

use crate::geometry::{GROUP_CHUNKS, chunk_count};

/// An immutable set of chunk numbers, cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges(Arc<[u64]>);

/// The boundaries given do not increase strictly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotIncreasing;

impl Ranges {
    /// The set with these boundaries.
    ///
    /// # Errors
    /// They do not increase strictly.
    pub fn new(boundaries: Vec<u64>) -> Result<Self, NotIncreasing> {
        if boundaries.is_sorted_by(|a, b| a < b) {
            Ok(Self(boundaries.into()))
        } else {
            Err(NotIncreasing)
        }
    }

    /// Every chunk.
    pub fn all() -> Self {
        Self(Arc::new([0]))
    }

    /// The chunks of `[start, end)`; nothing if that is empty.
    pub fn of(start: u64, end: u64) -> Self {
        Self(if start < end {
            Arc::new([start, end])
        } else {
            Arc::new([])
        })
    }

    /// Where membership flips.
    pub fn boundaries(&self) -> &[u64] {
        &self.0
    }

    /// Whether no chunk is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The half-open intervals in order; an open one ends in `None`.
    fn intervals(&self) -> impl Iterator<Item = (u64, Option<u64>)> {
        self.0.chunks(2).map(|pair| (pair[0], pair.get(1).copied()))
    }

    /// The chunks selected in a blob of `size` bytes: past the end means the last chunk.
    ///
    /// The result is a subset of `[0, chunk_count(size))` with an even number of boundaries.
    pub fn truncate(&self, size: u64) -> Self {
        let chunks = chunk_count(size);
        let mut union = Union::default();
        for (start, end) in self.intervals() {
            // An interval that begins past the end selects the last chunk, as does one that
            // reaches beyond it, which then has the last chunk anyway.
            let start = start.min(chunks - 1);
            union.add(start, end.map_or(chunks, |end| end.min(chunks)));
        }
        union.into_ranges()
    }

    /// The smallest set of whole chunk groups around this one.
    ///
    /// An end in the very last group of the number space stays at the largest chunk number.
    pub fn round_up_to_groups(&self) -> Self {
        let mut union = Union::default();
        for (start, end) in self.intervals() {
            let start = start / GROUP_CHUNKS * GROUP_CHUNKS;
            match end {
                None => union.add_open(start),
                Some(end) => union.add(
                    start,
                    end.checked_next_multiple_of(GROUP_CHUNKS)
                        .unwrap_or(u64::MAX),
                ),
            }
        }
        union.into_ranges()
    }

    /// The chunk groups that lie in this set as a whole.
    pub fn full_groups(&self) -> Self {
        let mut union = Union::default();
        for (start, end) in self.intervals() {
            let Some(start) = start.checked_next_multiple_of(GROUP_CHUNKS) else {
                break;
            };
            match end {
                None => union.add_open(start),
                Some(end) => union.add(start, end / GROUP_CHUNKS * GROUP_CHUNKS),
            }
        }
        union.into_ranges()
    }
}

/// A set that grows by intervals whose starts do not decrease.
#[derive(Clone, Debug, Default)]
pub struct Union(Vec<u64>);

impl Union {
    /// Add `[start, end)`; nothing if that is empty.
    pub fn add(&mut self, start: u64, end: u64) {
        if start >= end || self.0.len() % 2 == 1 {
            return;
        }
        match self.0.last_mut() {
            Some(last) if start <= *last => *last = end.max(*last),
            _ => self.0.extend([start, end]),
        }
    }

    /// Add everything from `start` on.
    fn add_open(&mut self, start: u64) {
        if self.0.len() % 2 == 1 {
            return;
        }
        match self.0.last() {
            Some(last) if start <= *last => {
                self.0.pop();
            }
            _ => self.0.push(start),
        }
    }

    /// Add another set that begins where this one ends or later.
    pub fn append(&mut self, other: Self) {
        for pair in other.0.chunks_exact(2) {
            self.add(pair[0], pair[1]);
        }
    }

    /// Where membership flips.
    pub fn boundaries(&self) -> &[u64] {
        &self.0
    }

    /// The set so far.
    pub fn into_ranges(self) -> Ranges {
        Ranges(self.0.into())
    }
}

#[cfg(test)]
mod tests {
    use bao_tree::{BlockSize, ChunkNum, ChunkRanges, io};

    use super::*;
    use crate::plan::tests::{Random, random_ranges};

    fn theirs(ranges: &Ranges) -> ChunkRanges {
        ranges
            .intervals()
            .fold(ChunkRanges::empty(), |set, (start, end)| {
                set | match end {
                    None => ChunkRanges::from(ChunkNum(start)..),
                    Some(end) => ChunkRanges::from(ChunkNum(start)..ChunkNum(end)),
                }
            })
    }

    fn ours(ranges: &ChunkRanges) -> Vec<u64> {
        ranges.boundaries().iter().map(|chunk| chunk.0).collect()
    }

    #[test]
    fn boundaries_must_increase() {
        assert_eq!(Ranges::new(vec![1, 1]), Err(NotIncreasing));
        assert_eq!(Ranges::new(vec![2, 1]), Err(NotIncreasing));
        assert!(Ranges::new(vec![0, 1, u64::MAX]).is_ok());
    }

    #[test]
    fn rounding_is_that_of_bao_tree() {
        let group = BlockSize::from_chunk_log(4);
        let mut random = Random(1);
        for _ in 0..2000 {
            let ranges = random_ranges(&mut random, 100);
            let rounded = io::round_up_to_chunks_groups(theirs(&ranges), group);
            assert_eq!(ranges.round_up_to_groups().boundaries(), ours(&rounded));
            let full = io::full_chunk_groups(&theirs(&ranges), group);
            assert_eq!(ranges.full_groups().boundaries(), ours(&full));
        }
    }

    #[test]
    fn truncation_is_that_of_bao_tree() {
        let mut random = Random(2);
        for _ in 0..2000 {
            let ranges = random_ranges(&mut random, 100);
            let size = random.below(100 * 1024);
            let all = theirs(&ranges);
            let cut = io::sync::truncate_ranges(&all, size).boundaries().iter();
            let cut = theirs(&Ranges(cut.map(|chunk| chunk.0).collect()));
            let inside = ChunkRanges::from(..ChunkNum(chunk_count(size)));
            // They keep a start beyond the end as an open interval; it means the last chunk.
            let mut expected = &cut & &inside;
            if !(&cut - &inside).is_empty() {
                let last = ChunkNum(chunk_count(size) - 1);
                expected |= ChunkRanges::from(last..last + 1);
            }
            assert_eq!(ranges.truncate(size).boundaries(), ours(&expected));
        }
    }

    #[test]
    fn the_ends_of_the_number_space_do_not_overflow() {
        let last = Ranges::new(vec![u64::MAX]).unwrap();
        assert_eq!(last.truncate(0).boundaries(), [0, 1]);
        assert!(last.full_groups().is_empty());
        assert_eq!(last.round_up_to_groups().boundaries(), [u64::MAX - 15]);
        let near = Ranges::new(vec![u64::MAX - 2, u64::MAX - 1]).unwrap();
        assert_eq!(
            near.round_up_to_groups().boundaries(),
            [u64::MAX - 15, u64::MAX]
        );
    }
}
