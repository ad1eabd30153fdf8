//! Chaining values of many chunks and parents at a time, level by level.
//!
//! A hasher that is given one chunk group has 8, 4, 2 and 1 parents to compress, so that most of
//! the vector units have nothing to do: a tenth of the time. Here all parents of one level of a
//! larger subtree are compressed together, which leaves every inner hash of the outboard behind.
//!
//! `blake3::platform` is left out of that crate's documentation. The tests of `hashing` compare
//! what comes out with bao-tree for every shape, so that a change there cannot go unnoticed.

use std::sync::OnceLock;

use blake3::IncrementCounter;
use blake3::platform::Platform;

use crate::Hash;
use crate::geometry::{CHUNK_SIZE, GROUP_SIZE, PAIR_SIZE, Subtree};

const CHUNK: usize = CHUNK_SIZE as usize;
const PAIR: usize = PAIR_SIZE as usize;
const HASH: usize = 32;
/// Chunks of the largest subtree that is hashed at once.
const CHUNKS_MAX: usize = 256;
/// Chunks given to one call: the widest vectors of today.
const LANES: usize = 16;

// The constants of BLAKE3, section 2.2 of its paper.
const IV: [u32; 8] = [
    0x6A09_E667,
    0xBB67_AE85,
    0x3C6E_F372,
    0xA54F_F53A,
    0x510E_527F,
    0x9B05_688C,
    0x1F83_D9AB,
    0x5BE0_CD19,
];
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 2;
const PARENT: u8 = 4;

fn platform() -> Platform {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    *PLATFORM.get_or_init(Platform::detect)
}

/// Hash a subtree and fill its pairs, if it has a shape that this is for.
///
/// That is a power of two of whole groups, at least two, and not the root of a blob.
pub(crate) fn fill(bytes: &[u8], subtree: Subtree, pairs: &mut [u8]) -> Option<Hash> {
    let len = subtree.len as usize;
    let fits = len.is_power_of_two() && len > GROUP_SIZE as usize && len <= CHUNKS_MAX * CHUNK;
    if subtree.is_root || !fits || bytes.len() != len {
        return None;
    }
    let platform = platform();
    let (mut level, mut above) = ([0; CHUNKS_MAX * HASH], [0; CHUNKS_MAX / 2 * HASH]);
    let mut count = len / CHUNK;
    let (chunks, _) = bytes.as_chunks::<CHUNK>();
    for (index, inputs) in chunks.chunks(LANES).enumerate() {
        let first = index * LANES;
        platform.hash_many(
            &refs::<CHUNK>(inputs)[..inputs.len()],
            &IV,
            subtree.start() + first as u64,
            IncrementCounter::Yes,
            0,
            CHUNK_START,
            CHUNK_END,
            &mut level[first * HASH..],
        );
    }
    let groups = len / GROUP_SIZE as usize;
    while count > 1 {
        if count <= groups {
            place(&level[..count * HASH], groups, pairs);
        }
        let (parents, _) = level[..count * HASH].as_chunks::<PAIR>();
        for (index, inputs) in parents.chunks(LANES).enumerate() {
            platform.hash_many(
                &refs::<PAIR>(inputs)[..inputs.len()],
                &IV,
                0,
                IncrementCounter::No,
                PARENT,
                0,
                0,
                &mut above[index * LANES * HASH..],
            );
        }
        count /= 2;
        level[..count * HASH].copy_from_slice(&above[..count * HASH]);
    }
    let mut root = [0; HASH];
    root.copy_from_slice(&level[..HASH]);
    Some(root)
}

/// References to up to `LANES` inputs, the last of them repeated.
fn refs<const N: usize>(inputs: &[[u8; N]]) -> [&[u8; N]; LANES] {
    std::array::from_fn(|index| &inputs[index.min(inputs.len() - 1)])
}

/// Put the pairs of one level, two hashes each, to their places in pre-order.
fn place(level: &[u8], groups: usize, pairs: &mut [u8]) {
    let count = level.len() / PAIR;
    // Groups below one pair of this level, and with them the pairs of its subtree.
    let width = groups / count;
    for (index, pair) in level.chunks_exact(PAIR).enumerate() {
        // Before it come all its ancestors, and all pairs of subtrees to its left.
        let mut at = 0;
        let mut span = groups;
        let mut rest = index * width;
        while span > width {
            span /= 2;
            at += 1;
            if rest >= span {
                at += span - 1;
                rest -= span;
            }
        }
        pairs[at * PAIR..(at + 1) * PAIR].copy_from_slice(pair);
    }
}
