//! The code that the other side sent, dug out of an error of any layer.

use std::{error::Error, io};

use iroh::endpoint::{ConnectionError, ReadError, WriteError};
use iroh_blobs::get::GetError;

/// The reset, stop or close code that made a command fail, if it was one of these.
pub fn code_of(error: &anyhow::Error) -> Option<u64> {
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<GetError>() {
            return error.iroh_error_code().map(|code| code.into_inner());
        }
        // What an I/O error wraps is not a link of the chain of its own.
        match cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => code_of_quic(inner),
            None => code_of_quic(cause),
        }
    })
}

fn code_of_quic(error: &(dyn Error + 'static)) -> Option<u64> {
    let code = if let Some(ReadError::Reset(code)) = error.downcast_ref() {
        *code
    } else if let Some(WriteError::Stopped(code)) = error.downcast_ref() {
        *code
    } else if let Some(ConnectionError::ApplicationClosed(close)) = error.downcast_ref() {
        close.error_code
    } else {
        return None;
    };
    Some(code.into_inner())
}
