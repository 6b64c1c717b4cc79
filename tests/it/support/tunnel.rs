//! A way to a service that a test can close and open again.

use super::DEADLINE;
use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Forwards a port of its own. While it is closed, it closes each new connection at once.
pub struct Tunnel {
    /// The service's URL, by way of the tunnel.
    pub url: String,
    state: Arc<State>,
}

/// What a test sets, and what the forwarders count.
#[derive(Default)]
struct State {
    open: AtomicBool,
    /// Both ends of each connection: the client's, and the service's.
    streams: Mutex<Vec<[TcpStream; 2]>>,
    /// Connections that came while the tunnel was closed.
    refused: AtomicUsize,
    /// How often the connections of that time were silenced.
    silenced: AtomicUsize,
    /// Whether the broker behind it seems to belong to a cluster with a name.
    named: AtomicBool,
    /// Whether a confirm is passed on only when the other connections have ended.
    cuts_before_confirm: AtomicBool,
    /// Connections that their clients have ended.
    ended: AtomicUsize,
}

impl Tunnel {
    pub fn closed(service: &str) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a free port"), service)
    }

    pub fn opened(service: &str) -> Self {
        let tunnel = Self::closed(service);
        tunnel.open();
        tunnel
    }

    /// On a port that nothing listens on yet.
    pub fn open_on(port: u16, service: &str) -> Self {
        let tunnel =
            Self::on(TcpListener::bind(("127.0.0.1", port)).expect("the port is free still"), service);
        tunnel.open();
        tunnel
    }

    fn on(listener: TcpListener, service: &str) -> Self {
        let mut url = url::Url::parse(service).expect("a service has a URL");
        let default_port = if url.scheme().starts_with("amqp") { 5672 } else { 5432 };
        let target = (url.host_str().expect("a service has a host"), url.port().unwrap_or(default_port));
        let target = target.to_socket_addrs().ok().and_then(|mut all| all.next()).expect("an address");
        let own = listener.local_addr().expect("an address");
        url.set_host(Some("127.0.0.1")).expect("a host can be set");
        url.set_port(Some(own.port())).expect("a port can be set");
        let tunnel = Self { url: url.into(), state: Arc::default() };
        let state = tunnel.state.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if state.open.load(Ordering::SeqCst) {
                    let _ = forward(client, target, &state);
                } else {
                    state.refused.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        tunnel
    }

    pub fn open(&self) {
        self.state.open.store(true, Ordering::SeqCst);
    }

    /// How many connections came while the tunnel was closed.
    pub fn refused(&self) -> usize {
        self.state.refused.load(Ordering::SeqCst)
    }

    /// Present connections stay open, and no byte passes them any more. New ones work.
    pub fn silence(&self) {
        self.state.silenced.fetch_add(1, Ordering::SeqCst);
    }

    /// New connections see a broker whose operator has set the cluster's name.
    pub fn name_cluster(&self) {
        self.state.named.store(true, Ordering::SeqCst);
    }

    /// Cuts all connections, and takes no new ones.
    pub fn close(&self) {
        self.state.open.store(false, Ordering::SeqCst);
        for ends in self.state.streams.lock().expect("no forwarder panics").drain(..) {
            let _ = ends.each_ref().map(|end| end.shutdown(Shutdown::Both));
        }
    }

    /// Ends all other connections once the broker confirms a message on one, and only then passes the confirm on.
    pub fn cut_before_confirm(&self) {
        self.state.cuts_before_confirm.store(true, Ordering::SeqCst);
    }
}

/// What an AMQP client begins with.
const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";

/// Reads the broker's first frame. A name that it made up has an @, and one that is set has none.
fn with_cluster_name(server: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 7];
    server.read_exact(&mut frame)?;
    let size = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]) as usize;
    frame.resize(7 + size + 1, 0);
    server.read_exact(&mut frame[7..])?;
    let field = b"cluster_nameS";
    let at = frame.windows(field.len()).position(|bytes| bytes == field).expect("RabbitMQ names its cluster");
    let at = at + field.len() + 4;
    let sign = frame[at..].iter().position(|byte| *byte == b'@').expect("the name is RabbitMQ's own");
    frame[at + sign] = b'-';
    Ok(frame)
}

/// The head of `basic.ack` by the broker, which confirms a message: a method of 13 bytes, of class 60 and number 80.
fn is_confirm(bytes: &[u8]) -> bool {
    bytes.windows(11).any(|head| head[0] == 1 && head[3..] == [0, 0, 0, 13, 0, 60, 0, 80])
}

impl State {
    /// Ends the connections before this one, and waits until their clients have noticed.
    fn cut_others(&self, this: SocketAddr) {
        let before = self.ended.load(Ordering::SeqCst);
        let mut cut = 0;
        for [client, _] in self.streams.lock().expect("no forwarder panics").iter() {
            if client.peer_addr().is_ok_and(|address| address != this) {
                cut += usize::from(client.shutdown(Shutdown::Write).is_ok());
            }
        }
        let begun = Instant::now();
        while self.ended.load(Ordering::SeqCst) < before + cut && begun.elapsed() < DEADLINE {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn forward(client: TcpStream, target: SocketAddr, state: &Arc<State>) -> io::Result<()> {
    let mut server = TcpStream::connect(target)?;
    let address = client.peer_addr()?;
    state.streams.lock().expect("no forwarder panics").push([client.try_clone()?, server.try_clone()?]);
    if state.named.load(Ordering::SeqCst) {
        (&client).read_exact(&mut [0; PROTOCOL_HEADER.len()])?;
        server.write_all(PROTOCOL_HEADER)?;
        (&client).write_all(&with_cluster_name(&mut server)?)?;
    }
    let directions = [(client.try_clone()?, server.try_clone()?, false), (server, client, true)];
    for (mut from, mut to, is_answer) in directions {
        let (state, before) = (state.clone(), state.silenced.load(Ordering::SeqCst));
        std::thread::spawn(move || {
            let mut bytes = [0; 16 * 1024];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                let silent = state.silenced.load(Ordering::SeqCst) != before;
                let cuts = is_answer && state.cuts_before_confirm.load(Ordering::SeqCst);
                if cuts && is_confirm(&bytes[..count]) {
                    state.cut_others(address);
                }
                if !silent && to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
            state.ended.fetch_add(usize::from(!is_answer), Ordering::SeqCst);
        });
    }
    Ok(())
}
