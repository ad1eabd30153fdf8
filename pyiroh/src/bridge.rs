//! From a future on tokio to an awaitable of asyncio, without a tokio thread ever touching Python.
//!
//! Invariant: no thread of the runtime attaches to the interpreter, so the process may end at any
//! moment. A finished future leaves its outcome in a [`Slot`], queues the slot at the bridge of
//! the event loop that waits for it, and wakes that loop through a socket pair. The loop's own
//! thread then resolves one asyncio future per slot, which resumes the [`Operation`], and only
//! the operation turns the outcome into a Python value. An outcome that nobody takes, because
//! the operation was cancelled at whatever moment, is dropped: values put themselves back where
//! they came from when they are dropped.

use std::{
    future::Future,
    io::{Read, Write},
    mem,
    os::{fd::AsRawFd, unix::net::UnixStream},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use pyo3::{
    PyTraverseError, PyVisit,
    exceptions::{PyRuntimeError, PyStopIteration},
    prelude::*,
    sync::PyOnceLock,
    types::{PyType, PyWeakrefMethods, PyWeakrefReference},
};
use tokio::{runtime::Runtime, sync::oneshot};

use crate::error::Error;

/// Turns a result into its Python value, in the thread of the event loop.
pub type Deliver = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;
type Outcome = Result<Deliver, Error>;
type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Locks a mutex whose data stays whole when a holder panics.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one runtime of the process and the process it belongs to. Built at first use, never dropped.
static RUNTIME: OnceLock<(u32, Runtime)> = OnceLock::new();

/// The runtime, unless this process was forked from the one that started it.
pub fn runtime() -> Result<&'static Runtime, Error> {
    let started = RUNTIME.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("pyiroh")
            .enable_all()
            .build()
            .expect("the system can start threads");
        (std::process::id(), runtime)
    });
    if started.0 == std::process::id() {
        Ok(&started.1)
    } else {
        Err(Error::Forked)
    }
}

/// A value that lives on the runtime: unreachable in a forked process, where locks inside it may
/// be held for ever by threads that do not exist, and dropped within the runtime's context.
pub struct Local<T>(Option<T>);

impl<T> Local<T> {
    pub fn new(value: T) -> Self {
        Self(Some(value))
    }

    pub fn get(&self) -> Result<&T, Error> {
        runtime()?;
        Ok(self.0.as_ref().expect("only drop takes the value"))
    }

    pub fn into_inner(mut self) -> Result<T, Error> {
        runtime()?;
        Ok(self.0.take().expect("only drop takes the value"))
    }
}

impl<T> Drop for Local<T> {
    fn drop(&mut self) {
        match runtime() {
            Ok(runtime) => {
                let _context = runtime.enter();
                self.0 = None;
            }
            Err(_) => mem::forget(self.0.take()),
        }
    }
}

enum SlotState {
    Pending,
    Done(Outcome),
    Abandoned,
}

/// Where a future leaves its outcome, and the asyncio future that waits for it.
struct Slot {
    state: Mutex<SlotState>,
    /// Weak, so that an event loop that died with waiting tasks can be collected.
    waiter: Py<PyWeakrefReference>,
}

impl Slot {
    fn abandon(&self) {
        let old = mem::replace(&mut *lock(&self.state), SlotState::Abandoned);
        drop(old);
    }

    fn take(&self) -> Outcome {
        match mem::replace(&mut *lock(&self.state), SlotState::Abandoned) {
            SlotState::Done(outcome) => outcome,
            SlotState::Pending | SlotState::Abandoned => Err(Error::Failed(
                "the operation was resumed before it was done".to_owned(),
            )),
        }
    }
}

struct BridgeQueue {
    finished: Mutex<Vec<Arc<Slot>>>,
    /// Whether a wake-up is under way.
    woken: AtomicBool,
    writer: UnixStream,
}

impl BridgeQueue {
    fn push(&self, slot: Arc<Slot>) {
        lock(&self.finished).push(slot);
        if !self.woken.swap(true, Ordering::AcqRel) {
            // A full buffer means that the loop has a wake-up waiting; a closed one, no loop.
            let _ = (&self.writer).write(&[0]);
        }
    }
}

/// The end of the bridge that an event loop calls when its socket is readable.
#[pyclass(frozen, module = "pyiroh._pyiroh")]
struct Bridge {
    queue: Arc<BridgeQueue>,
    reader: UnixStream,
}

#[pymethods]
impl Bridge {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let mut bytes = [0; 64];
        while matches!((&self.reader).read(&mut bytes), Ok(64)) {}
        // Cleared before the queue is taken: what is pushed from here on wakes the loop again.
        self.queue.woken.store(false, Ordering::Release);
        let finished = mem::take(&mut *lock(&self.queue.finished));
        for slot in finished {
            // One waiter that fails must not cost the others their result.
            if let Err(err) = resolve(py, &slot) {
                err.write_unraisable(py, None);
            }
        }
        Ok(())
    }
}

fn resolve(py: Python<'_>, slot: &Slot) -> PyResult<()> {
    let Some(waiter) = slot.waiter.bind(py).upgrade() else {
        return Ok(());
    };
    if !waiter.call_method0("done")?.is_truthy()? {
        waiter.call_method1("set_result", (py.None(),))?;
    }
    Ok(())
}

/// Event loop -> its [`Bridge`]. Weak, so that a bridge goes with its loop.
static BRIDGES: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static GET_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn bridge_of(event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<BridgeQueue>> {
    let py = event_loop.py();
    let bridges = BRIDGES
        .get_or_try_init(py, || {
            let class = py.import("weakref")?.getattr("WeakKeyDictionary")?;
            Ok::<_, PyErr>(class.call0()?.unbind())
        })?
        .bind(py);
    let known = bridges.call_method1("get", (event_loop,))?;
    if !known.is_none() {
        return Ok(known.cast::<Bridge>()?.get().queue.clone());
    }
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    writer.set_nonblocking(true)?;
    let fd = reader.as_raw_fd();
    let queue = Arc::new(BridgeQueue {
        finished: Mutex::default(),
        woken: AtomicBool::new(false),
        writer,
    });
    let bridge = Bound::new(
        py,
        Bridge {
            queue: queue.clone(),
            reader,
        },
    )?;
    event_loop.call_method1("add_reader", (fd, &bridge))?;
    bridges.set_item(event_loop, &bridge)?;
    Ok(queue)
}

/// Makes sure that a task which panics still ends its operation.
struct Completion {
    slot: Arc<Slot>,
    queue: Arc<BridgeQueue>,
    outcome: Option<Outcome>,
}

impl Completion {
    fn finish(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(|| {
            Err(Error::Failed(
                "the operation panicked; please report this".to_owned(),
            ))
        });
        let unwanted = {
            let mut state = lock(&self.slot.state);
            match *state {
                SlotState::Pending => {
                    *state = SlotState::Done(outcome);
                    None
                }
                SlotState::Done(_) | SlotState::Abandoned => Some(outcome),
            }
        };
        if unwanted.is_none() {
            self.queue.push(self.slot.clone());
        }
    }
}

enum State {
    New(Work),
    Ready(Deliver),
    Running {
        /// The iterator of an asyncio future, which keeps that alive and knows how to wait for it.
        waiter: Py<PyAny>,
        slot: Arc<Slot>,
        /// Dropped to cancel the work.
        _cancel: oneshot::Sender<()>,
    },
    Finished,
}

/// A coroutine that runs beside Python; see the stub for what it promises.
#[pyclass(module = "pyiroh._pyiroh")]
pub struct Operation(
    /// Behind a mutex only because a class must be shareable between threads.
    Mutex<State>,
);

impl Operation {
    /// An operation that does `work` when it is first awaited.
    pub fn new<F>(work: F) -> Self
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        Self(Mutex::new(State::New(Box::pin(work))))
    }

    /// An operation whose result is known already.
    pub fn ready<F>(deliver: F) -> Self
    where
        F: FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send + 'static,
    {
        Self(Mutex::new(State::Ready(Box::new(deliver))))
    }

    fn state(&mut self) -> &mut State {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(py: Python<'_>, work: Work) -> PyResult<(State, Py<PyAny>)> {
        let runtime = runtime()?;
        let event_loop = GET_LOOP
            .get_or_try_init(py, || {
                let function = py.import("asyncio")?.getattr("get_running_loop")?;
                Ok::<_, PyErr>(function.unbind())
            })?
            .bind(py)
            .call0()?;
        let queue = bridge_of(&event_loop)?;
        let future = event_loop.call_method0("create_future")?;
        let waiter = future.call_method0("__await__")?;
        let slot = Arc::new(Slot {
            state: Mutex::new(SlotState::Pending),
            waiter: PyWeakrefReference::new(&future)?.unbind(),
        });
        let (cancel, cancelled) = oneshot::channel::<()>();
        let completion = Completion {
            slot: slot.clone(),
            queue,
            outcome: None,
        };
        runtime.spawn(async move {
            let outcome = tokio::select! {
                biased;
                _ = cancelled => Err(Error::Failed("cancelled".to_owned())),
                outcome = work => outcome,
            };
            completion.finish(outcome);
        });
        let yielded = waiter.call_method0("__next__")?.unbind();
        let state = State::Running {
            waiter: waiter.unbind(),
            slot,
            _cancel: cancel,
        };
        Ok((state, yielded))
    }

    fn step(&mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match mem::replace(self.state(), State::Finished) {
            State::New(work) => {
                let (state, yielded) = Self::start(py, work)?;
                *self.state() = state;
                Ok(yielded)
            }
            State::Ready(deliver) => Err(PyStopIteration::new_err((deliver(py)?,))),
            State::Running {
                waiter,
                slot,
                _cancel,
            } => match waiter.bind(py).call_method0("__next__") {
                Ok(yielded) => {
                    *self.state() = State::Running {
                        waiter,
                        slot,
                        _cancel,
                    };
                    Ok(yielded.unbind())
                }
                Err(err) if err.is_instance_of::<PyStopIteration>(py) => {
                    let value = slot.take()?(py)?;
                    Err(PyStopIteration::new_err((value,)))
                }
                Err(err) => {
                    slot.abandon();
                    Err(err)
                }
            },
            State::Finished => Err(PyRuntimeError::new_err(
                "cannot reuse an operation that was already awaited",
            )),
        }
    }

    fn abandon(&mut self) {
        if let State::Running { slot, .. } = mem::replace(self.state(), State::Finished) {
            slot.abandon();
        }
    }
}

#[pymethods]
impl Operation {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.step(py)
    }

    #[pyo3(signature = (value, /))]
    fn send(&mut self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let _ = value;
        self.step(py)
    }

    #[pyo3(signature = (typ, val=None, tb=None, /))]
    fn throw(
        &mut self,
        typ: &Bound<'_, PyAny>,
        val: Option<&Bound<'_, PyAny>>,
        tb: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let _ = tb;
        self.abandon();
        let given = val.unwrap_or(typ);
        let exception = match given.cast::<PyType>() {
            Ok(class) => class.call0()?,
            Err(_) => given.clone(),
        };
        Err(PyErr::from_value(exception))
    }

    fn close(&mut self) {
        self.abandon();
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let State::Running { waiter, .. } = &*lock(&self.0) {
            visit.call(waiter)?;
        }
        Ok(())
    }

    fn __clear__(&mut self) {
        self.abandon();
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.abandon();
    }
}
