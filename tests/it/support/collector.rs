//! A collector of spans, by OTLP over HTTP as JSON.

use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// It keeps all requests, and takes them.
pub struct Collector {
    pub url: String,
    requests: Arc<Mutex<Vec<CollectedRequest>>>,
}

/// A request to the collector.
#[derive(Debug, Clone)]
pub struct CollectedRequest {
    /// The first line and the headers, in lower case.
    pub head: String,
    pub body: Value,
}

impl Collector {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let requests: Arc<Mutex<Vec<CollectedRequest>>> = Arc::default();
        let into = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let into = Arc::clone(&into);
                std::thread::spawn(move || while take(&stream, &into).is_some() {});
            }
        });
        Self { url, requests }
    }

    pub fn requests(&self) -> Vec<CollectedRequest> {
        self.requests.lock().expect("no reader panics").clone()
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Value> {
        let spans = |request: CollectedRequest| {
            let resources = request.body["resourceSpans"].as_array().expect("resources").clone();
            let scopes = resources
                .into_iter()
                .flat_map(|resource| resource["scopeSpans"].as_array().expect("scopes").clone());
            scopes.flat_map(|scope| scope["spans"].as_array().expect("spans").clone()).collect::<Vec<_>>()
        };
        self.requests().into_iter().flat_map(spans).collect()
    }
}

/// Takes one request; `None` at the end of the connection.
fn take(mut stream: &TcpStream, into: &Mutex<Vec<CollectedRequest>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line).ok()? > 2 {
        head.push_str(&line.to_ascii_lowercase());
        line.clear();
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).expect("an export is JSON");
    into.lock().expect("no reader panics").push(CollectedRequest { head, body });
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}").ok()
}
