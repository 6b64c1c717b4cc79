//! Whether amq-protocol's parser accepts some bytes, decided without its recursion. Tests compare the two.

use std::str::from_utf8;

/// How deep arrays and tables in a header may be nested.
pub(super) const MAX_DEPTH: usize = 64;

/// Reads bytes from the front. Each method returns `None` if there are too few.
struct ByteReader<'a>(&'a [u8]);

impl<'a> ByteReader<'a> {
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

/// Whether lapin can parse these bytes as a content header's properties, with none left.
pub(super) fn properties(bytes: &[u8]) -> bool {
    let mut bytes = ByteReader(bytes);
    walk_properties(&mut bytes).is_some() && bytes.0.is_empty()
}

/// Reads the properties in the order of their flags, from the highest bit on (AMQP 0-9-1, section 1.8.1).
fn walk_properties(bytes: &mut ByteReader<'_>) -> Option<()> {
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

/// An array or a table that is being read.
#[derive(Clone, Copy)]
struct Container {
    /// How many bytes follow its end.
    after: usize,
    /// Whether it is a table, whose values have names.
    is_table: bool,
}

/// The length of the table at the front in bytes, with its length field. `None` if it is nested too deep, or if lapin cannot
/// parse it.
pub(super) fn table(all: &[u8]) -> Option<usize> {
    let mut bytes = ByteReader(all);
    let length = bytes.length()?;
    let after = bytes.0.len().checked_sub(length)?;
    let mut inner = Container { after, is_table: true };
    // Instead of the thread's stack, which the parser's recursion would use. A flat table allocates nothing.
    let mut outer: Vec<Container> = Vec::new();
    loop {
        if bytes.0.len() == inner.after {
            match outer.pop() {
                Some(container) => inner = container,
                None => return Some(all.len() - after),
            }
            continue;
        }
        if inner.is_table {
            bytes.short_string()?;
        }
        let [kind] = bytes.number()?;
        match kind {
            b'A' | b'F' => {
                if outer.len() == MAX_DEPTH {
                    return None;
                }
                let length = bytes.length()?;
                let after = bytes.0.len().checked_sub(length).filter(|after| *after >= inner.after)?;
                outer.push(inner);
                inner = Container { after, is_table: kind == b'F' };
            }
            b'S' | b'x' => {
                let length = bytes.length()?;
                bytes.take(length)?;
            }
            kind => drop(bytes.take(size_of(kind)?)?),
        }
        // A value must end within its container.
        if bytes.0.len() < inner.after {
            return None;
        }
    }
}

/// The bytes of a value, for a type of fixed size.
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

/// Makes short strings valid UTF-8, without changing their length. `gaps` has the number of bytes before each of them.
pub(super) fn clean(mut bytes: &mut [u8], gaps: &[usize]) {
    for &gap in gaps {
        let Some((_, rest)) = bytes.split_at_mut_checked(gap) else { return };
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
