//! A decoder that is fed bytes as they come, in pieces of any size.
//!
//! Whole items are verified where they lie; only an item that came in parts is gathered first, so at
//! most one of them (16 KiB) waits unverified. What is verified goes to its place before it counts
//! as proven.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::Hash;
use crate::decode::{DecodeError, Place, Proven, Verified, Verifier};
use crate::geometry::SIZE_MAX;
use crate::io::write_verified;
use crate::plan::{Item, Plan};
use crate::ranges::Ranges;

/// Bytes verified before they are written.
const BATCH_SIZE: usize = 1 << 20;
/// Bytes of the size header.
const HEADER_SIZE: usize = 8;

/// Why a decoder cannot go on.
#[derive(Clone, Debug)]
pub enum PushError {
    /// The bytes are not the blob asked for.
    Decode(DecodeError),
    /// Writing failed.
    Io(Arc<io::Error>),
}

impl From<DecodeError> for PushError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl From<io::Error> for PushError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// Where verified data and pairs go: to files, or into memory until they are taken.
#[derive(Debug, Default)]
struct Target {
    data: Option<File>,
    outboard: Option<File>,
    pieces: Vec<(u64, Vec<u8>)>,
    pairs: Vec<(u64, [u8; 64])>,
}

impl Target {
    fn keep(&mut self, buf: &[u8], verified: &[Verified]) -> io::Result<()> {
        write_verified(buf, verified, self.data.as_ref(), self.outboard.as_ref())?;
        for item in verified {
            match *item {
                Verified::Leaf { leaf, at } => {
                    if self.data.is_none() && leaf.len > 0 {
                        let bytes = buf[at..at + leaf.len].to_vec();
                        self.pieces.push((leaf.offset(), bytes));
                    }
                }
                Verified::Pair { offset, at } => {
                    if self.outboard.is_none() {
                        let mut pair = [0; 64];
                        pair.copy_from_slice(&buf[at..at + 64]);
                        self.pairs.push((offset, pair));
                    }
                }
            }
        }
        Ok(())
    }
}

/// What is known once the size is.
#[derive(Debug)]
struct Body {
    size: u64,
    verifier: Verifier,
    proven: Proven,
    encoded_len: u64,
}

impl Body {
    /// Verify the whole items at the beginning of `buf`, let `target` keep them, then record them.
    fn take(&mut self, buf: &[u8], target: &mut Target) -> Result<usize, PushError> {
        let mut verified = Vec::new();
        let outcome = self.verifier.verify(buf, &mut verified);
        // What came before a bad item is good.
        target.keep(buf, &verified)?;
        self.proven.record(&verified);
        Ok(outcome?)
    }
}

/// A push decoder for the encoding of ranges of one blob.
#[derive(Debug)]
pub struct Decoder {
    root: Hash,
    ranges: Ranges,
    size_max: u64,
    body: Option<Body>,
    /// The beginning of the header or of an item.
    pending: Vec<u8>,
    target: Target,
    unused: Vec<u8>,
    failure: Option<PushError>,
}

impl Decoder {
    /// For `ranges` of the blob `root`, with claimed sizes of at most `size_max`.
    ///
    /// Without `size` the encoding starts with the size header. Verified data is written to `data`
    /// and verified pairs to `outboard`, or kept to be taken.
    ///
    /// # Errors
    /// `size` is larger than `size_max`.
    pub fn new(
        root: Hash,
        ranges: Ranges,
        size: Option<u64>,
        size_max: u64,
        data: Option<File>,
        outboard: Option<File>,
    ) -> Result<Self, DecodeError> {
        let mut decoder = Self {
            root,
            ranges,
            size_max: size_max.min(SIZE_MAX),
            body: None,
            pending: Vec::new(),
            target: Target {
                data,
                outboard,
                ..Target::default()
            },
            unused: Vec::new(),
            failure: None,
        };
        if let Some(size) = size {
            decoder.start(size)?;
        }
        Ok(decoder)
    }

    fn start(&mut self, size: u64) -> Result<(), DecodeError> {
        if size > self.size_max {
            return Err(DecodeError::SizeInvalid);
        }
        let plan = Plan::new(size, &self.ranges);
        self.body = Some(Body {
            size,
            proven: Proven::new(size),
            encoded_len: plan.encoded_len(),
            verifier: Verifier::new(self.root, plan),
        });
        Ok(())
    }

    /// Take bytes of any number; what follows the end of the encoding is kept as unused.
    ///
    /// # Errors
    /// An item does not match its parent, or writing failed. What was verified before stays proven.
    /// Every later call gives the same error.
    pub fn feed(&mut self, data: &[u8]) -> Result<(), PushError> {
        self.check()?;
        let outcome = self.advance(data);
        if let Err(failure) = &outcome {
            self.failure = Some(failure.clone());
            self.pending.clear();
        }
        outcome
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// More was due, or the decoder had failed before.
    pub fn finish(&mut self) -> Result<(), PushError> {
        self.feed(&[])?;
        let is_within = !self.pending.is_empty();
        let upcoming = self.body.as_ref().map(|body| body.verifier.upcoming());
        let failure = match upcoming {
            Some(None) => return Ok(()),
            None if is_within => DecodeError::Truncated(None),
            None => DecodeError::SizeNotFound,
            Some(Some(item)) if is_within => DecodeError::Truncated(Some(Place::of(item))),
            Some(Some(item)) => match Place::of(item) {
                Place::Node(node) => DecodeError::ParentNotFound { node },
                Place::Chunk(chunk) => DecodeError::LeafNotFound { chunk },
            },
        };
        self.failure = Some(failure.into());
        Err(failure.into())
    }

    fn check(&self) -> Result<(), PushError> {
        self.failure.clone().map_or(Ok(()), Err)
    }

    fn advance(&mut self, mut data: &[u8]) -> Result<(), PushError> {
        if self.body.is_none() {
            self.gather(&mut data, HEADER_SIZE);
            let Ok(header) = <[u8; HEADER_SIZE]>::try_from(&self.pending[..]) else {
                return Ok(());
            };
            self.pending.clear();
            self.start(u64::from_le_bytes(header))?;
        }
        loop {
            let Some(body) = &mut self.body else {
                return Ok(());
            };
            let Some(due) = body.verifier.upcoming().map(Item::encoded_len) else {
                self.unused.extend_from_slice(data);
                return Ok(());
            };
            if self.pending.is_empty() && data.len() >= due {
                let batch = &data[..data.len().min(BATCH_SIZE)];
                let len = body.take(batch, &mut self.target)?;
                data = &data[len..];
                continue;
            }
            self.gather(&mut data, due);
            if self.pending.len() < due {
                return Ok(());
            }
            if let Some(body) = &mut self.body {
                body.take(&self.pending, &mut self.target)?;
            }
            self.pending.clear();
        }
    }

    /// Move bytes from the beginning of `data` to `pending` until that has `len`.
    fn gather(&mut self, data: &mut &[u8], len: usize) {
        let missing = len - self.pending.len();
        let (taken, rest) = data.split_at(missing.min(data.len()));
        self.pending.extend_from_slice(taken);
        *data = rest;
    }

    /// Verified data since the last call: offsets and bytes, ascending. Empty with a data file.
    pub fn take_pieces(&mut self) -> Vec<(u64, Vec<u8>)> {
        std::mem::take(&mut self.target.pieces)
    }

    /// Verified pairs since the last call, with their offsets in the outboard.
    pub fn take_pairs(&mut self) -> Vec<(u64, [u8; 64])> {
        std::mem::take(&mut self.target.pairs)
    }

    /// Bytes fed beyond the end of the encoding, handed over once.
    pub fn take_unused(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unused)
    }

    /// The claimed size, once known.
    pub fn size(&self) -> Option<u64> {
        self.body.as_ref().map(|body| body.size)
    }

    /// What was verified and is in its place, once the size is known.
    pub fn proven(&self) -> Option<&Proven> {
        self.body.as_ref().map(|body| &body.proven)
    }

    /// Whether the whole encoding was verified.
    pub fn is_done(&self) -> bool {
        self.failure.is_none()
            && self
                .body
                .as_ref()
                .is_some_and(|body| body.verifier.upcoming().is_none())
    }

    /// Bytes still missing to the end of the current item; 0 when done.
    pub fn needed(&self) -> usize {
        let due = match &self.body {
            None => HEADER_SIZE,
            Some(body) => body.verifier.upcoming().map_or(0, Item::encoded_len),
        };
        due.saturating_sub(self.pending.len())
    }

    /// Bytes still missing to the end of the encoding, once the size is known.
    pub fn remaining(&self) -> Option<u64> {
        let body = self.body.as_ref()?;
        Some(body.encoded_len - body.verifier.verified_len() - self.pending.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::Encoder;
    use crate::hashing::outboard;
    use crate::plan::tests::{Random, random_ranges};

    #[test]
    fn any_split_of_the_input_gives_the_same() {
        let mut random = Random(7);
        for _ in 0..300 {
            let size = random.below(150_000);
            let data: Vec<u8> = (0..size).map(|i| (i * 31 + i / 251) as u8).collect();
            let (root, pairs) = outboard(&data, 1).unwrap();
            let ranges = random_ranges(&mut random, size / 1024 + 2);
            let mut encoded = Vec::new();
            let mut encoder = Encoder::new(root, size, &ranges, &data[..], &pairs[..], true);
            encoder.fill(&mut encoded, usize::MAX).unwrap();
            encoded.extend_from_slice(b"next");
            let mut decoder =
                Decoder::new(root, ranges.clone(), None, SIZE_MAX, None, None).unwrap();
            let (mut rest, most) = (&encoded[..], 1 + random.below(40_000));
            while !rest.is_empty() {
                let len = (1 + random.below(most)).min(rest.len() as u64) as usize;
                decoder.feed(&rest[..len]).unwrap();
                rest = &rest[len..];
            }
            decoder.finish().unwrap();
            assert_eq!(decoder.take_unused(), b"next");
            assert_eq!((decoder.needed(), decoder.remaining()), (0, Some(0)));
            for (offset, pair) in decoder.take_pairs() {
                assert!(pairs[offset as usize..].starts_with(&pair));
            }
            let mut bytes = 0;
            for (offset, piece) in decoder.take_pieces() {
                assert!(data[offset as usize..].starts_with(&piece));
                bytes += piece.len() as u64;
            }
            let proven = decoder.proven().unwrap();
            assert_eq!(proven.boundaries(), ranges.truncate(size).boundaries());
            assert_eq!(proven.bytes(), bytes);
        }
    }

    #[test]
    fn a_claim_of_no_bytes_needs_the_empty_root() {
        let empty = crate::hashing::hash(b"");
        let new = |root| Decoder::new(root, Ranges::all(), None, SIZE_MAX, None, None).unwrap();
        let mut decoder = new(empty);
        decoder.feed(&[0; 8]).unwrap();
        decoder.finish().unwrap();
        assert!(decoder.proven().unwrap().size_proven());
        let mut decoder = new([7; 32]);
        let failure = decoder.feed(&[0; 8]).unwrap_err();
        let expected = DecodeError::LeafHashMismatch { chunk: 0 };
        assert!(matches!(failure, PushError::Decode(error) if error == expected));
        assert!(!decoder.is_done());
    }

    #[test]
    fn sizes_beyond_the_limit_are_refused() {
        let mut decoder = Decoder::new([0; 32], Ranges::all(), None, u64::MAX, None, None).unwrap();
        let failure = decoder.feed(&(1_u64 << 63).to_le_bytes()).unwrap_err();
        assert!(matches!(
            failure,
            PushError::Decode(DecodeError::SizeInvalid)
        ));
        assert!(Decoder::new([0; 32], Ranges::all(), Some(11), 10, None, None).is_err());
    }
}
