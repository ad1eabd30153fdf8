//! Text from the command line: who to ask, and which part of what.

use anyhow::{Context, Result, bail};
use iroh::{EndpointAddr, EndpointId};
use iroh_blobs::{
    Hash,
    protocol::{ChunkRanges, ChunkRangesExt},
    ticket::BlobTicket,
};
use iroh_tickets::endpoint::EndpointTicket;

/// Parses a blob ticket, an endpoint ticket, or `ID@IP:PORT[,IP:PORT]`.
pub fn parse_addr(text: &str) -> Result<EndpointAddr> {
    if let Ok(ticket) = text.parse::<BlobTicket>() {
        return Ok(ticket.addr().clone());
    }
    if let Ok(ticket) = text.parse::<EndpointTicket>() {
        return Ok(ticket.endpoint_addr().clone());
    }
    let (id, ips) = text
        .split_once('@')
        .with_context(|| format!("neither a ticket nor ID@IP:PORT: {text}"))?;
    let mut addr = EndpointAddr::new(id.parse::<EndpointId>().context("bad endpoint id")?);
    for ip in ips.split(',') {
        addr = addr.with_ip_addr(ip.parse().with_context(|| format!("bad address {ip}"))?);
    }
    Ok(addr)
}

/// Parses chunk ranges: `0..16,64..`, `..16`, `5`, `last`, `all`, `none`.
pub fn parse_ranges(text: &str) -> Result<ChunkRanges> {
    let mut ranges = ChunkRanges::empty();
    for part in text.split(',') {
        ranges |= match part {
            "all" => ChunkRanges::all(),
            "none" => ChunkRanges::empty(),
            "last" => ChunkRanges::last_chunk(),
            _ => match part.split_once("..") {
                Some(("", "")) => ChunkRanges::all(),
                Some((start, "")) => ChunkRanges::chunks(number(start)?..),
                Some(("", end)) => ChunkRanges::chunks(..number(end)?),
                Some((start, end)) => ChunkRanges::chunks(number(start)?..number(end)?),
                None => ChunkRanges::chunk(number(part)?),
            },
        };
    }
    Ok(ranges)
}

/// Parses `NAME` or `NAME:RANGES`; without ranges everything is meant.
///
/// The last colon counts, and only if what follows reads as ranges.
pub fn parse_selection(text: &str) -> Result<(&str, ChunkRanges)> {
    match text.rsplit_once(':') {
        Some((name, ranges)) => Ok((name, parse_ranges(ranges)?)),
        None => Ok((text, ChunkRanges::all())),
    }
}

/// Parses a hash in hex or base32.
pub fn parse_hash(text: &str) -> Result<Hash> {
    text.parse()
        .map_err(|error| anyhow::anyhow!("bad hash {text}: {error}"))
}

/// The boundaries of `ranges` as plain numbers: an odd count is open to infinity.
pub fn boundaries(ranges: &ChunkRanges) -> Vec<u64> {
    ranges.boundaries().iter().map(|chunk| chunk.0).collect()
}

/// Parses hex, or reads the bytes of the file after an `@`.
pub fn parse_bytes(text: &str) -> Result<Vec<u8>> {
    match text.strip_prefix('@') {
        Some(path) => std::fs::read(path).with_context(|| format!("cannot read {path}")),
        None => data_encoding::HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .context("bad hex"),
    }
}

fn number(text: &str) -> Result<u64> {
    match text.parse() {
        Ok(value) => Ok(value),
        Err(error) => bail!("bad chunk number {text}: {error}"),
    }
}
