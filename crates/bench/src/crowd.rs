//! Connections that ask for nothing, beside those that do: idle ones, and ones that are slow on purpose ("slow loris"). One that
//! the gateway closes is made anew at once, so that there are always as many.

use std::{process::ExitCode, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::sleep,
};

/// As which the benchmark starts itself.
pub const ROLE: &str = "crowd";
/// Between the bytes of a slow one.
const PACE: Duration = Duration::from_secs(1);
/// Before a connection that could not be made is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// Of the slow ones, every other never ends its head, and the others never end their body.
const HEADS: [&str; 2] = [
    "POST /api/SessionInvitation/smsInvite/?groupid=72 HTTP/1.1\r\nHost: gateway\r\nX-Slow: ",
    "POST /api/SessionInvitation/smsInvite/?groupid=72 HTTP/1.1\r\nHost: gateway\r\nContent-Length: 60000\r\n\r\n",
];

/// Until it is killed. It prints a line once all of them are there.
pub async fn run(gateway: &str, idle: &str, slow: &str) -> ExitCode {
    let count = |text: &str| text.parse::<usize>().expect("a number of connections");
    let (idle, slow) = (count(idle), count(slow));
    let (there, mut arrivals) = mpsc::channel(1);
    for place in 0..idle + slow {
        let head = (place < slow).then(|| HEADS[place % HEADS.len()]);
        tokio::spawn(stay(gateway.to_owned(), head, there.clone()));
    }
    for _ in 0..idle + slow {
        arrivals.recv().await;
    }
    println!("all are there");
    std::future::pending().await
}

async fn stay(gateway: String, head: Option<&'static str>, there: mpsc::Sender<()>) {
    let mut there = Some(there);
    loop {
        let Ok(mut stream) = TcpStream::connect(&gateway).await else {
            sleep(PAUSE).await;
            continue;
        };
        if let Some(there) = there.take() {
            let _ = there.send(()).await;
        }
        let (mut reading, mut writing) = stream.split();
        let hears = async {
            let mut answer = [0; 1_024];
            while reading.read(&mut answer).await.is_ok_and(|read| read > 0) {}
        };
        let dribbles = async {
            let Some(head) = head else { return std::future::pending().await };
            let mut sent = writing.write_all(head.as_bytes()).await;
            while sent.is_ok() {
                sleep(PACE).await;
                sent = writing.write_all(b"a").await;
            }
        };
        tokio::select! {
            () = hears => {}
            () = dribbles => {}
        }
    }
}
