//! `link`: a cable between two network namespaces, with delay, loss and rate.
//!
//! It carries IP packets between two TUN devices whose descriptors it inherits, so that it needs
//! no kernel module for it, and no rights of its own. Either direction is a thread: read what has
//! come, write what is due, sleep for a tick.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, ErrorKind, Read, Write},
    os::fd::RawFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use filedescriptor::FileDescriptor;
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};

use crate::output::{say, stdin_closed};

/// How often packets that are due are looked for: what a delay can be too long by.
const TICK: Duration = Duration::from_micros(500);

/// The longest packet that a TUN device can hand over.
const PACKET_SIZE_MAX: usize = 1 << 16;

/// Packets read before those that are due are written.
const READ_AT_ONCE: usize = 256;

/// The least queue that a link gets when none is asked for.
const QUEUE_BYTES_MIN: u64 = 1 << 20;

#[derive(Debug, Args)]
pub struct LinkArgs {
    /// Descriptor of one TUN device.
    #[arg(long)]
    a: RawFd,
    /// Descriptor of the other one.
    #[arg(long)]
    b: RawFd,
    /// Time that a packet takes in one direction, in milliseconds.
    #[arg(long, default_value_t = 0.0)]
    delay_ms: f64,
    /// Share of the packets that are lost, in either direction, at random.
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Bits per second in either direction; no limit when not given.
    #[arg(long)]
    rate: Option<u64>,
    /// Bytes that wait for the rate before more are dropped; by default what the link can hold in
    /// a round trip, at least 1 MiB.
    #[arg(long)]
    queue: Option<u64>,
    /// What the random losses follow from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Clone, Copy)]
struct Knobs {
    delay: Duration,
    loss: f64,
    rate: Option<u64>,
    queue: Duration,
}

impl Knobs {
    fn of(args: &LinkArgs) -> Result<Self> {
        ensure!((0.0..=1.0).contains(&args.loss), "loss is from 0 to 1");
        ensure!(args.rate != Some(0), "a rate is 1 bit/s or more");
        let delay =
            Duration::try_from_secs_f64(args.delay_ms / 1e3).context("bad delay of a link")?;
        let queue = match args.rate {
            None => Duration::MAX,
            Some(rate) => {
                let round_trip = delay.as_secs_f64() * 2.0 * rate as f64 / 8.0;
                let bytes = args
                    .queue
                    .unwrap_or((round_trip as u64).max(QUEUE_BYTES_MIN));
                time_of(bytes, rate)
            }
        };
        Ok(Self {
            delay,
            loss: args.loss,
            rate: args.rate,
            queue,
        })
    }
}

/// What one direction did.
#[derive(Default)]
struct Counts {
    packets: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    dropped: AtomicU64,
}

impl Counts {
    fn describe(&self) -> Value {
        json!({
            "packets": self.packets.load(Relaxed),
            "bytes": self.bytes.load(Relaxed),
            "lost": self.lost.load(Relaxed),
            "dropped": self.dropped.load(Relaxed),
        })
    }
}

/// Carries packets until standard input is closed.
pub async fn run(args: LinkArgs) -> Result<()> {
    let knobs = Knobs::of(&args)?;
    let (a, b) = (open(args.a)?, open(args.b)?);
    let (forth, back) = (Arc::new(Counts::default()), Arc::new(Counts::default()));
    let way = Way::new(&a, &b, knobs, args.seed, forth.clone())?;
    thread::spawn(move || way.carry());
    let way = Way::new(&b, &a, knobs, args.seed.wrapping_add(1), back.clone())?;
    thread::spawn(move || way.carry());
    say(&json!({"event": "ready"}));
    stdin_closed().await;
    say(&json!({"event": "done", "forth": forth.describe(), "back": back.describe()}));
    Ok(())
}

fn open(fd: RawFd) -> Result<File> {
    let mut owned = FileDescriptor::dup(&fd).with_context(|| format!("bad descriptor {fd}"))?;
    owned.set_non_blocking(true)?;
    Ok(owned.as_file()?)
}

/// Time that `bytes` take at `rate` bits per second.
fn time_of(bytes: u64, rate: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 * 8.0 / rate as f64)
}

/// One direction.
struct Way {
    from: File,
    to: File,
    knobs: Knobs,
    random: fastrand::Rng,
    counts: Arc<Counts>,
    /// Packets under way, each with the moment it arrives.
    under_way: VecDeque<(Instant, Box<[u8]>)>,
    /// When the last packet that was let in has left at the given rate.
    free_at: Instant,
}

impl Way {
    fn new(from: &File, to: &File, knobs: Knobs, seed: u64, counts: Arc<Counts>) -> Result<Self> {
        Ok(Self {
            from: from.try_clone()?,
            to: to.try_clone()?,
            knobs,
            random: fastrand::Rng::with_seed(seed),
            counts,
            under_way: VecDeque::new(),
            free_at: Instant::now(),
        })
    }

    /// Runs until a device is gone.
    fn carry(mut self) {
        if let Err(error) = self.try_carry() {
            say(&json!({"event": "error", "message": format!("the link broke: {error}")}));
        }
    }

    fn try_carry(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; PACKET_SIZE_MAX];
        loop {
            let more = self.take(&mut buffer)?;
            self.deliver()?;
            if more {
                continue;
            }
            if self.under_way.is_empty() {
                poll(&mut [PollFd::new(&self.from, PollFlags::IN)], None)?;
            } else {
                thread::sleep(TICK);
            }
        }
    }

    /// Reads what has come. Whether there may be more.
    fn take(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        for _ in 0..READ_AT_ONCE {
            match self.from.read(buffer) {
                Ok(len) => self.admit(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn admit(&mut self, packet: &[u8]) {
        let now = Instant::now();
        self.free_at = self.free_at.max(now);
        if self.free_at - now > self.knobs.queue {
            self.counts.dropped.fetch_add(1, Relaxed);
            return;
        }
        if let Some(rate) = self.knobs.rate {
            self.free_at += time_of(packet.len() as u64, rate);
        }
        // A packet that is lost has taken its time on the link.
        if self.random.f64() < self.knobs.loss {
            self.counts.lost.fetch_add(1, Relaxed);
            return;
        }
        self.under_way
            .push_back((self.free_at + self.knobs.delay, packet.into()));
    }

    fn deliver(&mut self) -> io::Result<()> {
        let now = Instant::now();
        while let Some((due, packet)) = self.under_way.front() {
            if *due > now {
                break;
            }
            match self.to.write(packet) {
                Ok(_) => {
                    self.counts.packets.fetch_add(1, Relaxed);
                    self.counts.bytes.fetch_add(packet.len() as u64, Relaxed);
                }
                // The other host has no room, or its device is down: lost as on any link.
                Err(error) if is_loss(&error) => {
                    self.counts.dropped.fetch_add(1, Relaxed);
                }
                Err(error) => return Err(error),
            }
            self.under_way.pop_front();
        }
        Ok(())
    }
}

/// EIO is what a TUN device that is not up says.
fn is_loss(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
        || error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
        || error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error())
}
