//! Buffers that are used again: the memory of a new one costs as much as a copy of its bytes.

use std::{
    mem,
    ops::Deref,
    sync::{Arc, Mutex},
};

use crate::bridge::lock;

/// Bytes of buffers that wait to be used again; more are given back to the system.
const FREE_MAX: usize = 8 << 20;

/// Free buffers, and the bytes they have together.
#[derive(Clone, Default)]
pub struct Pool(Arc<Mutex<(Vec<Vec<u8>>, usize)>>);

impl Pool {
    /// An empty buffer.
    pub fn take(&self) -> Buffer {
        let mut free = lock(&self.0);
        let bytes = free.0.pop().unwrap_or_default();
        free.1 -= bytes.len();
        Buffer {
            bytes,
            len: 0,
            pool: self.clone(),
        }
    }
}

/// A buffer that goes back when it is dropped.
#[derive(Default)]
pub struct Buffer {
    /// What is in it, and behind that bytes of earlier use, which need not be zeroed again.
    bytes: Vec<u8>,
    len: usize,
    pool: Pool,
}

impl Buffer {
    /// The next `len` bytes, to be written; `advance` makes them a part of the buffer.
    pub fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.len + len;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.len..end]
    }

    /// `len` bytes of the room were written.
    pub fn advance(&mut self, len: usize) {
        assert!(self.len + len <= self.bytes.len());
        self.len += len;
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.advance(bytes.len());
    }

    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = mem::take(&mut self.bytes);
        let mut free = lock(&self.pool.0);
        if !bytes.is_empty() && free.1 + bytes.len() <= FREE_MAX {
            free.1 += bytes.len();
            free.0.push(bytes);
        }
    }
}
