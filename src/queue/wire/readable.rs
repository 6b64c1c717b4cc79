//! What amq-protocol's parser takes, decided without its recursion. Where the two differ, a test finds it.

use std::str::from_utf8;

/// Arrays and tables in a header within one another, at most.
pub const MAX_DEPTH: usize = 64;

/// Bytes that are read from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*number)
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_be_bytes(self.number()?)).ok()
    }

    fn short_string(&mut self) -> Option<()> {
        let [length] = self.number()?;
        from_utf8(self.take(length.into())?).ok().map(drop)
    }
}

/// Whether the library can parse a content header's properties, and they end with these bytes.
pub fn properties(bytes: &[u8]) -> bool {
    let mut bytes = Bytes(bytes);
    walk_properties(&mut bytes).is_some() && bytes.0.is_empty()
}

/// In the order of their flags, from the highest bit on (AMQP 0-9-1, section 1.8.1).
fn walk_properties(bytes: &mut Bytes<'_>) -> Option<()> {
    let flags = u16::from_be_bytes(bytes.number()?);
    for property in 0..14 {
        if flags & (1 << (15 - property)) == 0 {
            continue;
        }
        match property {
            // headers
            2 => {
                let length = table(bytes.0)?;
                bytes.take(length)?;
            }
            // delivery_mode, priority
            3 | 4 => drop(bytes.take(1)?),
            // timestamp
            9 => drop(bytes.take(8)?),
            _ => bytes.short_string()?,
        }
    }
    Some(())
}

/// An array or a table that is being read: how many bytes follow its end, and whether its values have names.
#[derive(Clone, Copy)]
struct Open {
    rest: usize,
    named: bool,
}

/// The bytes of the table at the front, its length before it included; `None` for one that is too deep, or that the
/// library cannot parse.
pub fn table(all: &[u8]) -> Option<usize> {
    let mut bytes = Bytes(all);
    let length = bytes.length()?;
    let after = bytes.0.len().checked_sub(length)?;
    let mut inner = Open { rest: after, named: true };
    // The stack that the library's recursion would take from its thread. A flat table needs none.
    let mut outer: Vec<Open> = Vec::new();
    loop {
        if bytes.0.len() == inner.rest {
            match outer.pop() {
                Some(open) => inner = open,
                None => return Some(all.len() - after),
            }
            continue;
        }
        if inner.named {
            bytes.short_string()?;
        }
        let [kind] = bytes.number()?;
        match kind {
            b'A' | b'F' => {
                if outer.len() == MAX_DEPTH {
                    return None;
                }
                let length = bytes.length()?;
                let rest = bytes.0.len().checked_sub(length).filter(|rest| *rest >= inner.rest)?;
                outer.push(inner);
                inner = Open { rest, named: kind == b'F' };
            }
            b'S' | b'x' => {
                let length = bytes.length()?;
                bytes.take(length)?;
            }
            kind => drop(bytes.take(size_of(kind)?)?),
        }
        // Nothing reaches beyond what it is in.
        if bytes.0.len() < inner.rest {
            return None;
        }
    }
}

/// Bytes of a value of a fixed size, by its type.
fn size_of(kind: u8) -> Option<usize> {
    Some(match kind {
        b'V' => 0,
        b't' | b'b' | b'B' => 1,
        b's' | b'U' | b'u' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'L' | b'l' | b'd' | b'T' => 8,
        _ => return None,
    })
}

/// Makes short strings UTF-8 without changing their length: those that stand so many bytes after one another.
pub fn clean(mut bytes: &mut [u8], after: &[usize]) {
    for &skipped in after {
        let Some((_, rest)) = bytes.split_at_mut_checked(skipped) else { return };
        let Some((length, rest)) = rest.split_first_mut() else { return };
        let Some((text, rest)) = rest.split_at_mut_checked((*length).into()) else { return };
        if from_utf8(text).is_err() {
            for byte in text.iter_mut().filter(|byte| !byte.is_ascii()) {
                *byte = b'?';
            }
        }
        bytes = rest;
    }
}
