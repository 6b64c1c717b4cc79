//! A node of a broker that takes logins, opens channels, and does nothing else: as one that is cut off from its cluster.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Listens until the test's process ends.
pub struct FakeBroker {
    pub url: String,
    /// Its host and port, as `/readyz` names it.
    pub address: String,
    logins: Arc<AtomicUsize>,
}

impl FakeBroker {
    /// A node that names no cluster.
    pub fn start() -> Self {
        Self::on("127.0.0.1:0", None)
    }

    /// A node on this address, of this cluster.
    pub fn on(address: &str, cluster: Option<&str>) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let logins = Arc::<AtomicUsize>::default();
        let (counted, start) = (logins.clone(), start(cluster));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (counted, start) = (counted.clone(), start.clone());
                std::thread::spawn(move || serve(client, &start, &counted));
            }
        });
        Self { url: format!("amqp://guest:guest@{address}/%2f"), address, logins }
    }

    /// How many clients have logged in.
    pub fn logins(&self) -> usize {
        self.logins.load(Ordering::SeqCst)
    }
}

fn serve(mut client: TcpStream, start: &[u8], logins: &AtomicUsize) -> io::Result<()> {
    client.read_exact(&mut [0; 8])?;
    client.write_all(start)?;
    loop {
        let mut head = [0; 7];
        client.read_exact(&mut head)?;
        let [kind, channel @ .., a, b, c, d] = head;
        let mut rest = vec![0; u32::from_be_bytes([a, b, c, d]) as usize + 1];
        client.read_exact(&mut rest)?;
        let answer: &[u8] = match (kind, rest.get(1), rest.get(3)) {
            // connection.start-ok: tune, with frames of 128 KiB and no heartbeat.
            (1, Some(10), Some(11)) => &[0, 10, 0, 30, 7, 255, 0, 2, 0, 0, 0, 0],
            // connection.open, connection.close, channel.open, confirm.select.
            (1, Some(10), Some(40)) => {
                logins.fetch_add(1, Ordering::SeqCst);
                &[0, 10, 0, 41, 0]
            }
            (1, Some(10), Some(50)) => &[0, 10, 0, 51],
            (1, Some(20), Some(10)) => &[0, 20, 0, 11, 0, 0, 0, 0],
            (1, Some(85), Some(10)) => &[0, 85, 0, 11],
            _ => continue,
        };
        client.write_all(&frame(channel, answer))?;
    }
}

/// The frame of connection.start.
fn start(cluster: Option<&str>) -> Vec<u8> {
    let long = |text: &str| {
        let length = u32::try_from(text.len()).expect("a short text").to_be_bytes();
        [&length, text.as_bytes()].concat()
    };
    let mut table = [&b"\x07versionS"[..], &long("3.10.8")].concat();
    if let Some(cluster) = cluster {
        table.extend([&b"\x0ccluster_nameS"[..], &long(cluster)].concat());
    }
    let length = u32::try_from(table.len()).expect("a short table").to_be_bytes();
    let arguments = [&[0, 10, 0, 10, 0, 9][..], &length, &table, &long("PLAIN"), &long("en_US")].concat();
    frame([0, 0], &arguments)
}

fn frame(channel: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    [&[1][..], &channel, &size, payload, &[0xce]].concat()
}
