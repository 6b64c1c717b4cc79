//! Connections to the gateway that send no whole request: idle ones, and slow ones ("slow loris"). When the gateway closes
//! one, another is opened at once, so that their number stays the same.

use std::{net::SocketAddr, process::ExitCode, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::sleep,
};

/// Between two bytes on a slow connection.
const BYTE_INTERVAL: Duration = Duration::from_secs(1);
/// Before another try, when no connection could be opened.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Half of the slow connections never end their head. The others never end their body.
const SLOW_REQUESTS: [&str; 2] = [
    "POST /api/SessionInvitation/smsInvite/?groupid=72 HTTP/1.1\r\nHost: gateway\r\nX-Slow: ",
    "POST /api/SessionInvitation/smsInvite/?groupid=72 HTTP/1.1\r\nHost: gateway\r\nContent-Length: 60000\r\n\r\n",
];

/// Runs until it is killed. It prints a line when all connections are open.
pub(crate) async fn run(gateway: SocketAddr, idle: usize, slow: usize) -> ExitCode {
    let (open, mut opened) = mpsc::channel(1);
    for index in 0..idle + slow {
        let request = (index < slow).then(|| SLOW_REQUESTS[index % SLOW_REQUESTS.len()]);
        tokio::spawn(stay_connected(gateway, request, open.clone()));
    }
    for _ in 0..idle + slow {
        opened.recv().await;
    }
    println!("all connections are open");
    std::future::pending().await
}

async fn stay_connected(gateway: SocketAddr, request: Option<&'static str>, open: mpsc::Sender<()>) {
    let mut open = Some(open);
    loop {
        let Ok(mut stream) = TcpStream::connect(gateway).await else {
            sleep(RETRY_DELAY).await;
            continue;
        };
        if let Some(open) = open.take() {
            let _ = open.send(()).await;
        }
        let (mut reading, mut writing) = stream.split();
        let read_until_closed = async {
            let mut answer = [0; 1_024];
            while reading.read(&mut answer).await.is_ok_and(|read| read > 0) {}
        };
        let write_slowly = async {
            let Some(request) = request else { return std::future::pending().await };
            let mut written = writing.write_all(request.as_bytes()).await;
            while written.is_ok() {
                sleep(BYTE_INTERVAL).await;
                written = writing.write_all(b"a").await;
            }
        };
        tokio::select! {
            () = read_until_closed => {}
            () = write_slowly => {}
        }
    }
}
