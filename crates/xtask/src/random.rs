//! Random names and keys.

use base64::{Engine, prelude::BASE64_STANDARD};
use std::{fs::File, io::Read};

fn bytes<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// 12 hexadecimal digits.
pub(crate) fn word() -> std::io::Result<String> {
    Ok(format!("{:012x}", u64::from_le_bytes(bytes()?) >> 16))
}

/// 32 bytes in base64, as `SECRETS_KEY` wants them.
pub(crate) fn key() -> std::io::Result<String> {
    Ok(BASE64_STANDARD.encode(bytes::<32>()?))
}

/// A number below a limit, near enough to even.
pub(crate) fn below(limit: u16) -> std::io::Result<u16> {
    let drawn = u32::from_le_bytes(bytes()?) % u32::from(limit);
    Ok(u16::try_from(drawn).expect("it is below a u16"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_part_of_a_name_for_databases_and_queues() {
        let word = word().unwrap();
        assert!(word.len() == 12 && word.chars().all(|digit| digit.is_ascii_hexdigit()), "{word}");
    }

    #[test]
    fn a_key_is_what_the_program_takes() {
        assert_eq!(BASE64_STANDARD.decode(key().unwrap()).unwrap().len(), 32);
    }
}
