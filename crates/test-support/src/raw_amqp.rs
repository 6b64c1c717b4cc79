//! A publisher that writes AMQP 0-9-1 byte by byte, for messages that client libraries refuse to send
//! (<https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf>).

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Publishes to the queue with a `correlation_id` that is not UTF-8.
pub fn publish_undecodable(server: &str, queue: &str) {
    publish_raw(server, ("", queue), &[0x04, 0, 1, 0xff], b"{}");
}

/// Properties with a header of nested arrays (`A`) or tables (`F`), `levels` deep.
pub fn nested(kind: u8, levels: usize) -> Vec<u8> {
    // In a table, a value's name precedes its type.
    let name: &[u8] = if kind == b'F' { b"\x01n" } else { b"" };
    let each = name.len() + 5;
    let mut table = vec![1, b'h'];
    for level in 0..levels {
        if level > 0 {
            table.extend_from_slice(name);
        }
        table.push(kind);
        let within = u32::try_from((levels - 1 - level) * each).expect("it fits in a frame");
        table.extend_from_slice(&within.to_be_bytes());
    }
    let length = u32::try_from(table.len()).expect("it fits in a frame").to_be_bytes();
    [&[0x20, 0][..], &length, &table].concat()
}

/// Publishes to an exchange with a routing key, and waits for the confirm. These bytes are the properties.
pub fn publish_raw(server: &str, (exchange, key): (&str, impl AsRef<[u8]>), properties: &[u8], body: &[u8]) {
    let url = url::Url::parse(server).expect("a server has a URL");
    let host = (url.host_str().expect("a server has a host"), url.port().unwrap_or(5672));
    let mut connection = RawConnection(TcpStream::connect(host).expect("RabbitMQ is reached"));
    connection.0.set_read_timeout(Some(Duration::from_mins(1))).expect("a time-out can be set");
    let (user, password) = match url.username() {
        "" => ("guest", "guest"),
        user => (user, url.password().unwrap_or_default()),
    };
    let vhost = match url.path() {
        "" | "/" | "/%2f" | "/%2F" => "/",
        path => &path[1..],
    };

    connection.0.write_all(b"AMQP\x00\x00\x09\x01").expect("the broker reads");
    connection.expect(10, 10);
    let login = format!("\0{user}\0{password}");
    connection.method(0, 10, 11, &[&0_u32.to_be_bytes(), &short("PLAIN"), &long(&login), &short("en_US")]);
    connection.expect(10, 30);
    connection.method(0, 10, 31, &[&1_u16.to_be_bytes(), &131_072_u32.to_be_bytes(), &0_u16.to_be_bytes()]);
    connection.method(0, 10, 40, &[&short(vhost), &short(""), &[0]]);
    connection.expect(10, 41);
    connection.method(1, 20, 10, &[&short("")]);
    connection.expect(20, 11);
    connection.method(1, 85, 10, &[&[0]]);
    connection.expect(85, 11);

    connection.method(1, 60, 40, &[&0_u16.to_be_bytes(), &short(exchange), &short(key), &[0]]);
    // The class, a weight, the body's size, and the properties' flags and values.
    let header = [&60_u16.to_be_bytes()[..], &[0; 2], &(body.len() as u64).to_be_bytes(), properties];
    connection.frame(2, 1, &header.concat());
    connection.frame(3, 1, body);
    // The broker's confirm.
    connection.expect(60, 80);
}

struct RawConnection(TcpStream);

impl RawConnection {
    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let size = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
        let frame = [&[kind][..], &channel.to_be_bytes(), &size, payload, &[0xce]].concat();
        self.0.write_all(&frame).expect("the broker reads");
    }

    fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[&[u8]]) {
        let arguments = arguments.concat();
        self.frame(1, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes(), &arguments].concat());
    }

    /// Reads the next method, which must be this one.
    fn expect(&mut self, class: u16, method: u16) {
        let mut head = [0; 7];
        self.0.read_exact(&mut head).expect("the broker answers");
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let mut rest = vec![0; size + 1];
        self.0.read_exact(&mut rest).expect("the broker answers");
        let received = (u16::from_be_bytes([rest[0], rest[1]]), u16::from_be_bytes([rest[2], rest[3]]));
        assert_eq!(received, (class, method), "{}", String::from_utf8_lossy(&rest));
    }
}

fn short(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&[u8::try_from(text.len()).expect("a short string")][..], text].concat()
}

fn long(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).expect("a long string").to_be_bytes()[..], text.as_bytes()].concat()
}
