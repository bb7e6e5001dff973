//! Bytes as text: arguments of the command line, and the escapes of a dump.

use std::fs;

use anyhow::{Context as _, Result, bail};

/// The bytes that an argument stands for.
pub(super) fn word(text: &str) -> Result<Vec<u8>> {
    if let Some(digits) = text.strip_prefix("hex:") {
        return from_hex(digits).with_context(|| format!("{text}: pairs of hex digits are needed"));
    }
    if let Some(path) = text.strip_prefix('@') {
        return fs::read(path).with_context(|| format!("cannot read {path}"));
    }
    let text = text.strip_prefix("text:").unwrap_or(text);
    Ok(text.as_bytes().to_vec())
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    let pairs = digits.chunks(2);
    digits.len().is_multiple_of(2).then_some(())?;
    pairs
        .map(|pair| {
            let [high, low] = pair else {
                return None;
            };
            let digit = |byte: u8| char::from(byte).to_digit(16);
            u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
        })
        .collect()
}

/// Printable ASCII as it is, but for the backslash; the rest as `\\`, `\t`, `\n`, `\r` or
/// `\xNN`. Injective, and without tabs and line ends.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'\t' => text.push_str("\\t"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

/// The bytes that [`escaped`] wrote.
pub(super) fn unescaped(text: &str) -> Result<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (byte, len) = match escape.as_bytes() {
            [b'\\', ..] => (b'\\', 1),
            [b't', ..] => (b'\t', 1),
            [b'n', ..] => (b'\n', 1),
            [b'r', ..] => (b'\r', 1),
            [b'x', ..] => {
                let digits = escape.get(1..3).and_then(from_hex);
                let Some(&[byte]) = digits.as_deref() else {
                    bail!("`{text}`: two hex digits are needed after \\x");
                };
                (byte, 3)
            }
            _ => bail!("`{text}`: an unknown escape"),
        };
        bytes.push(byte);
        rest = &escape[len..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back_from_its_escape() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        let text = escaped(&all);
        assert!(text.is_ascii() && !text.contains(['\t', '\n']));
        assert_eq!(unescaped(&text).expect("our own"), all);
        for bad in ["\\", "\\q", "\\x1", "\\xg0", "\\x1é"] {
            assert!(unescaped(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn arguments_are_text_or_digits() {
        assert_eq!(word("a b").expect("text"), b"a b");
        assert_eq!(word("hex:00fF").expect("digits"), [0, 255]);
        assert_eq!(word("text:hex:00").expect("text"), b"hex:00");
        assert!(word("hex:0").is_err() && word("hex:0g").is_err());
        assert!(word("@/no/such/file").is_err());
    }
}
