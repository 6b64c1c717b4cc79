//! Another program where the gateway or the provider is expected: it answers every request in one way.

use std::{
    io::{Read, Write},
    net::TcpListener,
};

/// Starts it on a port of its own, and returns its URL. `head` is a status with more headers, such as `200 OK`. It ends with the
/// test's process.
pub fn fixed_server(head: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let answer = format!("HTTP/1.1 {head}\r\ncontent-length: 3\r\nconnection: close\r\n\r\nok\n");
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            // A body that is not read would reset the connection at its end.
            let _ = client.set_read_timeout(Some(std::time::Duration::from_millis(100)));
            while matches!(client.read(&mut [0; 4096]), Ok(1..)) {}
            let _ = client.write_all(answer.as_bytes());
        }
    });
    url
}
