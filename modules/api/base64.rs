//! Base64, as templates, secrets, keys and kubeconfig files need it.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Writes standard base64 with padding.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |index: usize| chunk.get(index).copied().map_or(0, u32::from);
        let word = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    text
}

/// Reads standard base64, white space ignored; `None` for anything else.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let padding = digits.iter().rev().take_while(|byte| **byte == b'=').count();
    if !digits.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    for group in digits.chunks(4) {
        let mut word = 0;
        for digit in group {
            let value = if *digit == b'=' { 0 } else { ALPHABET.iter().position(|letter| letter == digit)? };
            word = word << 6 | u32::try_from(value).ok()?;
        }
        bytes.extend_from_slice(&word.to_be_bytes()[1..]);
    }
    // Padding anywhere but at the end would have been decoded as zeros above.
    let body = digits.len() - padding;
    if digits[..body].contains(&b'=') {
        return None;
    }
    bytes.truncate(bytes.len() - padding);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn it_reads_back_what_it_writes_and_nothing_else() {
        for text in ["", "a", "ab", "abc", "abcd", "\u{ff}\u{0}"] {
            assert_eq!(decode(&encode(text.as_bytes())).as_deref(), Some(text.as_bytes()));
        }
        for text in ["a", "ab", "====", "a=bc", "ab=c", "a$bc", "abcd="] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
