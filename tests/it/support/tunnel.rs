//! A way to a service that a test can close and open again.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// Forwards a port of its own. While it is closed, it closes each new connection at once.
pub struct Tunnel {
    /// The service's URL, by way of the tunnel.
    pub url: String,
    open: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    /// Connections that came while the tunnel was closed.
    refused: Arc<AtomicUsize>,
    /// How often the connections of that time were silenced.
    silenced: Arc<AtomicUsize>,
    /// Whether the broker behind it seems to belong to a cluster with a name.
    named: Arc<AtomicBool>,
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
        let tunnel = Self {
            url: url.into(),
            open: Arc::default(),
            streams: Arc::default(),
            refused: Arc::default(),
            silenced: Arc::default(),
            named: Arc::default(),
        };
        let named = tunnel.named.clone();
        let (open, streams) = (tunnel.open.clone(), tunnel.streams.clone());
        let (refused, silenced) = (tunnel.refused.clone(), tunnel.silenced.clone());
        // Ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if open.load(Ordering::SeqCst) {
                    let _ = forward(client, target, &streams, &silenced, named.load(Ordering::SeqCst));
                } else {
                    refused.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        tunnel
    }

    pub fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// How many connections came while the tunnel was closed.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// Present connections stay open, and no byte passes them any more. New ones work.
    pub fn silence(&self) {
        self.silenced.fetch_add(1, Ordering::SeqCst);
    }

    /// New connections see a broker whose operator has set the cluster's name.
    pub fn name_cluster(&self) {
        self.named.store(true, Ordering::SeqCst);
    }

    /// Cuts all connections, and takes no new ones.
    pub fn close(&self) {
        self.open.store(false, Ordering::SeqCst);
        for stream in self.streams.lock().expect("no forwarder panics").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
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

fn forward(
    client: TcpStream,
    target: SocketAddr,
    streams: &Mutex<Vec<TcpStream>>,
    silenced: &Arc<AtomicUsize>,
    named: bool,
) -> io::Result<()> {
    let mut server = TcpStream::connect(target)?;
    streams.lock().expect("no forwarder panics").extend([client.try_clone()?, server.try_clone()?]);
    if named {
        (&client).read_exact(&mut [0; PROTOCOL_HEADER.len()])?;
        server.write_all(PROTOCOL_HEADER)?;
        (&client).write_all(&with_cluster_name(&mut server)?)?;
    }
    for (mut from, mut to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        let (silenced, before) = (silenced.clone(), silenced.load(Ordering::SeqCst));
        std::thread::spawn(move || {
            let mut bytes = [0; 16 * 1024];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                let silent = silenced.load(Ordering::SeqCst) != before;
                if !silent && to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}
