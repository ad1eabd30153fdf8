//! Settings of the QUIC layer.

use std::{sync::Arc, time::Duration};

use iroh::endpoint::{QuicTransportConfig, VarInt};
use noq_proto::congestion::{Bbr3Config, CubicConfig, NewRenoConfig};
use pyo3::{exceptions::PyValueError, prelude::*};

/// noq keeps one buffer a packet and closes the whole connection when more than 2048 of them wait
/// on one stream, which a reader slower than the network reaches with a larger window.
pub const STREAM_RECEIVE_WINDOW_MAX: u64 = 2 << 20;

/// The longest interval at which iroh keeps single paths alive.
const PATH_KEEP_ALIVE_MAX: Duration = Duration::from_secs(5);

#[pyclass(frozen, from_py_object, module = "pyiroh._pyiroh")]
#[derive(Clone)]
pub struct TransportConfig(pub QuicTransportConfig);

pub fn varint(name: &str, value: u64) -> PyResult<VarInt> {
    VarInt::from_u64(value)
        .map_err(|_| PyValueError::new_err(format!("{name} must be below 2**62")))
}

pub fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    match Duration::try_from_secs_f64(value) {
        Ok(duration) => Ok(duration),
        Err(_) => Err(PyValueError::new_err(format!(
            "{name} must be a number of seconds, 0 or more"
        ))),
    }
}

fn positive_seconds(name: &str, value: f64) -> PyResult<Duration> {
    let duration = seconds(name, value)?;
    if duration < Duration::from_millis(1) {
        return Err(PyValueError::new_err(format!(
            "{name} must be at least 0.001"
        )));
    }
    Ok(duration)
}

#[pymethods]
impl TransportConfig {
    #[new]
    #[pyo3(signature = (
        *,
        idle_timeout_s=None,
        keep_alive_s=None,
        stream_receive_window=None,
        receive_window=None,
        send_window=None,
        max_bi_streams=None,
        max_uni_streams=None,
        congestion=None,
        initial_mtu=None,
        segmentation_offload=None,
        datagram_receive_buffer=None,
        datagram_send_buffer=None,
    ))]
    #[expect(clippy::too_many_arguments, reason = "each is a keyword of its own")]
    fn new(
        idle_timeout_s: Option<f64>,
        keep_alive_s: Option<f64>,
        stream_receive_window: Option<u64>,
        receive_window: Option<u64>,
        send_window: Option<u64>,
        max_bi_streams: Option<u64>,
        max_uni_streams: Option<u64>,
        congestion: Option<&str>,
        initial_mtu: Option<u16>,
        segmentation_offload: Option<bool>,
        datagram_receive_buffer: Option<usize>,
        datagram_send_buffer: Option<usize>,
    ) -> PyResult<Self> {
        let mut builder = QuicTransportConfig::builder();
        if let Some(value) = idle_timeout_s {
            let timeout = positive_seconds("idle_timeout_s", value)?
                .try_into()
                .map_err(|_| PyValueError::new_err("idle_timeout_s is too large"))?;
            builder = builder.max_idle_timeout(Some(timeout));
        }
        if let Some(value) = keep_alive_s {
            let interval = positive_seconds("keep_alive_s", value)?;
            builder = builder.keep_alive_interval(interval);
            if interval <= PATH_KEEP_ALIVE_MAX {
                builder = builder.default_path_keep_alive_interval(interval);
            }
        }
        if let Some(value) = stream_receive_window {
            if value == 0 || value > STREAM_RECEIVE_WINDOW_MAX {
                return Err(PyValueError::new_err(format!(
                    "stream_receive_window must be from 1 to {STREAM_RECEIVE_WINDOW_MAX}"
                )));
            }
            builder = builder.stream_receive_window(varint("stream_receive_window", value)?);
        }
        if let Some(value) = receive_window {
            builder = builder.receive_window(varint("receive_window", value)?);
        }
        if let Some(value) = send_window {
            builder = builder.send_window(value);
        }
        if let Some(value) = max_bi_streams {
            builder = builder.max_concurrent_bidi_streams(varint("max_bi_streams", value)?);
        }
        if let Some(value) = max_uni_streams {
            builder = builder.max_concurrent_uni_streams(varint("max_uni_streams", value)?);
        }
        if let Some(value) = congestion {
            builder = match value {
                "cubic" => builder.congestion_controller_factory(Arc::new(CubicConfig::default())),
                "newreno" => {
                    builder.congestion_controller_factory(Arc::new(NewRenoConfig::default()))
                }
                "bbr3" => builder.congestion_controller_factory(Arc::new(Bbr3Config::default())),
                _ => {
                    return Err(PyValueError::new_err(
                        "congestion must be cubic, newreno or bbr3",
                    ));
                }
            };
        }
        if let Some(value) = initial_mtu {
            if value < 1200 {
                return Err(PyValueError::new_err("initial_mtu must be at least 1200"));
            }
            builder = builder.initial_mtu(value);
        }
        if let Some(value) = segmentation_offload {
            builder = builder.enable_segmentation_offload(value);
        }
        if let Some(value) = datagram_receive_buffer {
            builder = builder.datagram_receive_buffer_size((value > 0).then_some(value));
        }
        if let Some(value) = datagram_send_buffer {
            builder = builder.datagram_send_buffer_size(value);
        }
        Ok(Self(builder.build()))
    }
}
