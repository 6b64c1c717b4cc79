//! A way to a service that a test can close and open again.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// Forwards a port of its own. While it is closed, whoever connects is hung up on at once.
pub struct Tunnel {
    /// The service's URL, by way of the tunnel.
    pub url: String,
    open: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    /// Counts the times that the lines of before were silenced.
    silenced: Arc<AtomicUsize>,
}

impl Tunnel {
    pub fn closed(service: &str) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a free port"), service)
    }

    /// On a port on which nobody has listened so far.
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
        let tunnel =
            Self { url: url.into(), open: Arc::default(), streams: Arc::default(), silenced: Arc::default() };
        let (open, streams, silenced) =
            (tunnel.open.clone(), tunnel.streams.clone(), tunnel.silenced.clone());
        // Ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if open.load(Ordering::SeqCst) {
                    let _ = forward(client, target, &streams, &silenced);
                }
            }
        });
        tunnel
    }

    pub fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }

    /// The lines of now stay, and nothing comes through them any more. New ones work.
    pub fn silence(&self) {
        self.silenced.fetch_add(1, Ordering::SeqCst);
    }

    /// Cuts what goes through, and lets nobody in.
    pub fn close(&self) {
        self.open.store(false, Ordering::SeqCst);
        for stream in self.streams.lock().expect("no forwarder panics").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn forward(
    client: TcpStream,
    target: SocketAddr,
    streams: &Mutex<Vec<TcpStream>>,
    silenced: &Arc<AtomicUsize>,
) -> io::Result<()> {
    let server = TcpStream::connect(target)?;
    streams.lock().expect("no forwarder panics").extend([client.try_clone()?, server.try_clone()?]);
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
