//! BLAKE3 verified-streaming trees ("bao") in chunk groups of 16 KiB, as iroh uses them.
//!
//! Sets of chunks, trees and the walk of an encoding are those of the bao-tree crate, hashes those
//! of the blake3 crate. What is ours is what hashes in parallel, and what works in place in
//! buffers.
//!
//! Plain values in, plain values out: bytes, numbers, descriptors. Whoever moves encodings over a
//! network needs four things:
//!
//! * [`plan::Plan`]: which items, of how many bytes, make up the encoding of some ranges of a blob;
//! * [`encode::Encoder`]: fills buffers with whole items, each checked before it leaves;
//! * [`decode::Verifier`]: checks whole items in place in a received buffer;
//! * [`decode::Proven`] and [`io::write_verified`]: what was verified goes to its place in files.
//!
//! [`push::Decoder`] is the same for input that comes in pieces of any size. The Python module is
//! behind the feature `python`; nothing outside of it knows Python.

pub mod decode;
pub mod encode;
pub mod files;
pub mod geometry;
pub mod hashing;
pub mod io;
pub mod plan;
mod pool;
pub mod progress;
pub mod push;
pub mod ranges;
pub mod read;
pub mod validate;
mod wide;
pub mod writing;

#[cfg(feature = "python")]
mod python;

/// A root or chaining value.
pub type Hash = [u8; 32];
