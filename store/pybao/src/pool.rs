//! Threads for hashing: pools that are made at first use and survive a `fork`.
//!
//! A forked child has the memory of its parent but none of its threads, so a pool belongs to the
//! process that made it. The child makes its own and never touches the inherited one.

use std::collections::HashMap;
use std::io;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// More threads than this gain nothing, whatever is asked for.
const THREADS_MAX: usize = 256;

struct Pools {
    process: u32,
    by_threads: HashMap<usize, Arc<ThreadPool>>,
}

static POOLS: Mutex<Option<Pools>> = Mutex::new(None);

fn pool(threads: usize) -> io::Result<Arc<ThreadPool>> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if let Some(inherited) = pools.take_if(|pools| pools.process != process) {
        // Dropping a pool wakes threads that do not exist here.
        std::mem::forget(inherited);
    }
    let pools = pools.get_or_insert_with(|| Pools {
        process,
        by_threads: HashMap::new(),
    });
    if let Some(pool) = pools.by_threads.get(&threads) {
        return Ok(pool.clone());
    }
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|n| format!("pybao-{n}"))
        .build()
        .map_err(io::Error::other)?;
    let pool = Arc::new(pool);
    pools.by_threads.insert(threads, pool.clone());
    Ok(pool)
}

/// How many threads `threads` means: 0 is as many as there are cores.
pub(crate) fn resolve(threads: usize) -> usize {
    let threads = match threads {
        0 => available_parallelism().map_or(1, NonZero::get),
        threads => threads,
    };
    threads.min(THREADS_MAX)
}

/// Run `work` in a pool, telling it whether to split itself; one thread needs no pool.
///
/// # Errors
/// The threads could not be started.
pub(crate) fn run<R: Send>(threads: usize, work: impl FnOnce(bool) -> R + Send) -> io::Result<R> {
    match resolve(threads) {
        1 => Ok(work(false)),
        threads => Ok(pool(threads)?.install(|| work(true))),
    }
}

/// Both results, in parallel if wanted.
pub(crate) fn join<A: Send, B: Send>(
    parallel: bool,
    left: impl FnOnce() -> A + Send,
    right: impl FnOnce() -> B + Send,
) -> (A, B) {
    if parallel {
        rayon::join(left, right)
    } else {
        (left(), right())
    }
}
