//! Pumps: verified bulk data between streams and files, without Python in between.
//!
//! Hashing and file access happen in blocking threads beside the network. What counts as proven is
//! recorded after it was written, so it holds at whatever moment a pump ends.

pub mod batch;
pub mod blob;
mod pool;
pub mod send;

use std::sync::LazyLock;

use pybao::{Hash, geometry::SIZE_MAX, ranges::Ranges};

use self::pool::Pool;
use crate::error::Error;

/// About the bytes that are read, hashed and written at one time. A transfer has several pumps, and
/// each at most four buffers beside those that the network has.
const BUFFER_SIZE: usize = 256 << 10;

/// Of all pumps but those of batches: a large blob takes one pump after the other, and each would
/// have the system clear memory for it anew.
static BUFFERS: LazyLock<Pool> = LazyLock::new(Pool::default);

/// Buffers that wait between the network and a blocking thread.
const QUEUE_MAX: usize = 2;

pub fn hash_of(bytes: &[u8]) -> Result<Hash, Error> {
    bytes
        .try_into()
        .map_err(|_| Error::Value(format!("a hash has 32 bytes, not {}", bytes.len())))
}

fn ranges_of(boundaries: Vec<u64>) -> Result<Ranges, Error> {
    Ranges::new(boundaries)
        .map_err(|_| Error::Value("the boundaries of ranges must increase".to_owned()))
}

fn check_size(size: u64) -> Result<u64, Error> {
    if size > SIZE_MAX {
        return Err(pybao::decode::DecodeError::SizeInvalid.into());
    }
    Ok(size)
}

/// A blocking thread ended by a panic.
fn panicked(_: tokio::task::JoinError) -> Error {
    Error::Failed("a thread of the pump panicked; please report this".to_owned())
}
