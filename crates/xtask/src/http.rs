//! HTTP/1.0 to 127.0.0.1, for a request or two: a client library would take longer to compile than all of `./dev`.

use crate::ports;
use anyhow::{Context, Result, bail};
use std::{
    io::{Read, Write},
    time::Duration,
};

/// The body of a 2xx.
pub(crate) fn get(port: u16, path: &str) -> Result<String> {
    exchange(port, &format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n"), Duration::from_secs(5))
}

/// Posts JSON, with one more header.
pub(crate) fn post(port: u16, path: &str, header: &str, json: &str) -> Result<String> {
    let length = json.len();
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n{header}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{json}"
    );
    exchange(port, &request, Duration::from_secs(40))
}

fn exchange(port: u16, request: &str, limit: Duration) -> Result<String> {
    let mut wire = ports::connect(port).with_context(|| format!("127.0.0.1:{port} does not answer"))?;
    wire.set_read_timeout(Some(limit))?;
    wire.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    wire.read_to_end(&mut answer).with_context(|| format!("127.0.0.1:{port} answers too slowly"))?;
    body(&String::from_utf8_lossy(&answer))
}

fn body(answer: &str) -> Result<String> {
    let (head, body) = answer.split_once("\r\n\r\n").context("what answered is no HTTP server")?;
    let status = head.lines().next().unwrap_or_default();
    if status.starts_with("HTTP/1.") && status.split(' ').nth(1).is_some_and(|code| code.starts_with('2')) {
        return Ok(body.to_owned());
    }
    bail!("the answer is {status}: {body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_2xx_has_a_body() {
        assert_eq!(body("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}").unwrap(), "{}");
        assert_eq!(body("HTTP/1.0 204 No Content\r\n\r\n").unwrap(), "");
        for answer in ["HTTP/1.1 503 Service Unavailable\r\n\r\nno", "SSH-2.0\r\n\r\n", "", "HTTP/1.1 200"] {
            assert!(body(answer).is_err(), "{answer}");
        }
    }
}
