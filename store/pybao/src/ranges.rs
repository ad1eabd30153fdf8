//! Sets of chunk numbers: those of bao-tree, given and taken as sorted boundaries.
//!
//! The points where membership flips, starting outside: `[0, 64]` is the first 64 chunks, `[64]`
//! everything from 64 on, `[]` nothing. Boundaries always increase strictly.

use bao_tree::io::sync::truncate_ranges;
use bao_tree::io::{full_chunk_groups, round_up_to_chunks_groups};
use bao_tree::{ChunkNum, ChunkRanges};

use crate::geometry::{GROUP, chunk_count};

/// An immutable set of chunk numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges(ChunkRanges);

/// The boundaries given do not increase strictly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotIncreasing;

impl From<ChunkRanges> for Ranges {
    fn from(set: ChunkRanges) -> Self {
        Self(set)
    }
}

impl AsRef<ChunkRanges> for Ranges {
    fn as_ref(&self) -> &ChunkRanges {
        &self.0
    }
}

impl Ranges {
    /// The set with these boundaries.
    ///
    /// # Errors
    /// They do not increase strictly.
    pub fn new(boundaries: Vec<u64>) -> Result<Self, NotIncreasing> {
        ChunkRanges::new(boundaries.into_iter().map(ChunkNum).collect())
            .map(Self)
            .ok_or(NotIncreasing)
    }

    /// Every chunk.
    pub fn all() -> Self {
        Self(ChunkRanges::all())
    }

    /// The chunks of `[start, end)`; nothing if that is empty.
    pub fn of(start: u64, end: u64) -> Self {
        Self(ChunkRanges::from(ChunkNum(start)..ChunkNum(end)))
    }

    /// Where membership flips.
    pub fn boundaries(&self) -> Vec<u64> {
        boundaries(&self.0)
    }

    /// Whether no chunk is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The chunks selected in a blob of `size` bytes: past the end means the last chunk.
    ///
    /// The result is a subset of `[0, chunk_count(size))` with an even number of boundaries.
    pub fn truncate(&self, size: u64) -> Self {
        // Theirs keeps what goes on past the end as an open interval.
        let cut = truncate_ranges(&self.0, size);
        let end = ChunkNum(chunk_count(size));
        let inside = ChunkRanges::from(..end);
        let mut selected: ChunkRanges = cut.intersection(&inside);
        if !cut.is_subset(&inside) {
            selected |= ChunkRanges::from(end - 1..end);
        }
        Self(selected)
    }

    /// The smallest set of whole chunk groups around this one.
    ///
    /// An end in the very last group of the number space stays at the largest chunk number.
    pub fn round_up_to_groups(&self) -> Self {
        Self(round_up_to_chunks_groups(self.0.clone(), GROUP))
    }

    /// The chunk groups that lie in this set as a whole.
    pub fn full_groups(&self) -> Self {
        Self(full_chunk_groups(&self.0, GROUP))
    }
}

/// Where membership in a set flips.
pub(crate) fn boundaries(set: &ChunkRanges) -> Vec<u64> {
    set.boundaries().iter().map(|chunk| chunk.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{Random, random_ranges};

    #[test]
    fn boundaries_must_increase() {
        assert_eq!(Ranges::new(vec![1, 1]), Err(NotIncreasing));
        assert_eq!(Ranges::new(vec![2, 1]), Err(NotIncreasing));
        assert!(Ranges::new(vec![0, 1, u64::MAX]).is_ok());
    }

    fn is_in(boundaries: &[u64], chunk: u64) -> bool {
        boundaries.partition_point(|point| *point <= chunk) % 2 == 1
    }

    #[test]
    fn rounding_says_of_each_group_what_its_chunks_say() {
        let mut random = Random(1);
        for round in 0..500 {
            let ranges = match round % 10 {
                0 => {
                    let few = random.below(4);
                    let points = (0..2000).filter(|_| random.below(5) > few).collect();
                    Ranges::new(points).unwrap()
                }
                _ => random_ranges(&mut random, 100),
            };
            let inside = ranges.boundaries();
            let rounded = ranges.round_up_to_groups().boundaries();
            let full = ranges.full_groups().boundaries();
            for chunk in 0..2050 {
                let start = chunk / 16 * 16;
                let mut group = (start..start + 16).map(|chunk| is_in(&inside, chunk));
                assert_eq!(is_in(&rounded, chunk), group.clone().any(|is_in| is_in));
                assert_eq!(is_in(&full, chunk), group.all(|is_in| is_in));
            }
        }
    }

    #[test]
    fn truncation_keeps_what_is_inside_and_else_takes_the_last_chunk() {
        let mut random = Random(2);
        for _ in 0..2000 {
            let ranges = random_ranges(&mut random, 100);
            let size = random.below(100 * 1024);
            let chunks = chunk_count(size);
            let inside = ranges.boundaries();
            let beyond = is_in(&inside, u64::MAX) || inside.last() > Some(&chunks);
            let cut = ranges.truncate(size).boundaries();
            assert_eq!(cut.len() % 2, 0);
            for chunk in 0..110 {
                let expected = match chunk + 1 {
                    last if last == chunks => is_in(&inside, chunk) || beyond,
                    next => next < chunks && is_in(&inside, chunk),
                };
                assert_eq!(is_in(&cut, chunk), expected, "{size} {ranges:?}");
            }
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
