//! Buffers that are used again: the memory of a new one costs as much as a copy of its bytes.

use std::{
    mem,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex},
};

use crate::bridge::lock;

/// Buffers that wait to be used again; more than this are given back to the system.
const FREE_MAX: usize = 6;

/// The free buffers of one transfer.
#[derive(Clone, Default)]
pub struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    /// An empty buffer, with room for `capacity` bytes.
    pub fn take(&self, capacity: usize) -> Buffer {
        let mut bytes = lock(&self.0).pop().unwrap_or_default();
        bytes.reserve(capacity);
        Buffer {
            bytes,
            pool: self.clone(),
        }
    }
}

/// A buffer that goes back when it is dropped.
#[derive(Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    pool: Pool,
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut bytes = mem::take(&mut self.bytes);
        bytes.clear();
        let mut free = lock(&self.pool.0);
        if free.len() < FREE_MAX && bytes.capacity() > 0 {
            free.push(bytes);
        }
    }
}
