//! How an endpoint's sockets become free although Python still holds what belongs to it.
//!
//! iroh keeps the sockets until the last endpoint, connection and stream is dropped. So each of
//! those has a [`Lease`] beside it, and those that Python can hold are [`Member`]s: once the
//! endpoint is closed they let go of what is iroh's, and the last lease tells that all of it went.

use std::{
    convert::Infallible,
    mem,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, Weak},
};

use tokio::sync::mpsc;

use crate::bridge::lock;

/// Members that are remembered before the first look for those that are gone.
const MEMBERS_MIN: usize = 64;

/// What Python holds of an endpoint.
pub trait Member: Send + Sync {
    /// Lets go of what is iroh's: now, or when the operation ends that has it. The endpoint is
    /// closed by then, so every operation ends.
    fn release(self: Arc<Self>);
}

struct Members {
    list: Vec<Weak<dyn Member>>,
    /// The length at which the list is looked through, so that joining costs little.
    prune_at: usize,
    is_released: bool,
}

/// A share in an endpoint, for as long as something of iroh's is held.
#[derive(Clone)]
pub struct Lease {
    members: Arc<Mutex<Members>>,
    _held: mpsc::Sender<Infallible>,
}

/// The end of all leases of one endpoint.
pub struct Leases {
    members: Arc<Mutex<Members>>,
    held: mpsc::Receiver<Infallible>,
}

/// The first lease of an endpoint, and what ends all of them.
pub fn lease() -> (Lease, Leases) {
    let members = Arc::new(Mutex::new(Members {
        list: Vec::new(),
        prune_at: MEMBERS_MIN,
        is_released: false,
    }));
    let (sender, held) = mpsc::channel(1);
    let lease = Lease {
        members: members.clone(),
        _held: sender,
    };
    (lease, Leases { members, held })
}

impl Lease {
    /// A value under this lease.
    pub fn with<T>(&self, value: T) -> Leased<T> {
        Leased {
            value,
            lease: self.clone(),
        }
    }

    /// Has a member released with the others, or at once if they are released already.
    pub fn join<M: Member + 'static>(&self, member: &Arc<M>) {
        let mut members = lock(&self.members);
        if members.is_released {
            drop(members);
            return member.clone().release();
        }
        if members.list.len() >= members.prune_at {
            members.list.retain(|member| member.strong_count() > 0);
            members.prune_at = MEMBERS_MIN.max(members.list.len() * 2);
        }
        let member: Weak<M> = Arc::downgrade(member);
        members.list.push(member);
    }
}

impl Leases {
    /// Releases all members and waits until no lease is left.
    pub async fn end(mut self) {
        let list = {
            let mut members = lock(&self.members);
            members.is_released = true;
            mem::take(&mut members.list)
        };
        for member in list.iter().filter_map(Weak::upgrade) {
            member.release();
        }
        // Nothing can be sent, so this is the end of the senders.
        let None = self.held.recv().await;
    }
}

/// A value of iroh's, dropped before its lease is.
#[derive(Clone)]
pub struct Leased<T> {
    value: T,
    pub lease: Lease,
}

impl<T> Leased<T> {
    /// The value without its lease.
    pub fn into_value(self) -> T {
        self.value
    }
}

impl<T> Deref for Leased<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Leased<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}
