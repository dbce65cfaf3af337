//! The recovery phrase of a cluster as people write it down, and the key behind it.
//!
//! Invariant: the phrase is shown once and stored nowhere; the founder's record holds the public key only. It has 128 bits
//! and a checksum, in letters and digits that are not mistaken for one another, so a slip of the pen is told from a wrong
//! phrase. Callers: daemon (founding, recovery), http.

use data_encoding::BASE32_NOPAD;

/// Letters of one group.
const GROUP: usize = 4;
/// Bytes of the secret, and of the checksum behind it.
const BYTES: (usize, usize) = (16, 4);

/// Why a text is no recovery phrase. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PhraseError {
    /// Another number of letters.
    #[error("a recovery phrase has 8 groups of 4 letters and digits; this has {0} letters")]
    Length(usize),
    /// The checksum is wrong, or a letter is none of the alphabet.
    #[error("this recovery phrase is mistyped: look at every group again (it uses A to Z and 2 to 7)")]
    Mistyped,
}

/// The phrase of a secret: `ABCD-EFGH-…`.
pub fn phrase(secret: &[u8; 16]) -> String {
    let bytes = [&secret[..], &checksum(secret)].concat();
    let letters = BASE32_NOPAD.encode(&bytes);
    let groups: Vec<&str> = (0..letters.len()).step_by(GROUP).map(|at| &letters[at..at + GROUP]).collect();
    groups.join("-")
}

/// The secret of a phrase; case, blanks and dashes do not matter.
pub fn read_phrase(text: &str) -> Result<[u8; 16], PhraseError> {
    let letters: String = text.chars().filter(|letter| !letter.is_whitespace() && *letter != '-').collect();
    let expected = (BYTES.0 + BYTES.1) * 8 / 5;
    if letters.chars().count() != expected {
        return Err(PhraseError::Length(letters.chars().count()));
    }
    let bytes = BASE32_NOPAD.decode(letters.to_ascii_uppercase().as_bytes()).map_err(|_| PhraseError::Mistyped)?;
    let secret: [u8; 16] = bytes[..BYTES.0].try_into().map_err(|_| PhraseError::Mistyped)?;
    if bytes[BYTES.0..] != checksum(&secret) {
        return Err(PhraseError::Mistyped);
    }
    Ok(secret)
}

/// The seed of the recovery key.
pub fn phrase_seed(secret: &[u8; 16]) -> [u8; 32] {
    blake3::derive_key("litemesh 1 recovery key", secret)
}

fn checksum(secret: &[u8; 16]) -> [u8; 4] {
    let hash = blake3::derive_key("litemesh 1 recovery phrase checksum", secret);
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_survives_paper() {
        let secret = *b"sixteen bytes !!";
        let text = phrase(&secret);
        assert_eq!((text.len(), text.matches('-').count()), (39, 7), "{text}");
        assert_eq!(read_phrase(&text), Ok(secret));
        assert_eq!(read_phrase(&format!(" {} \n", text.to_lowercase().replace('-', " "))), Ok(secret));
        assert_eq!(read_phrase(&text[1..]), Err(PhraseError::Length(31)));
        assert_eq!(read_phrase(""), Err(PhraseError::Length(0)));
        assert_ne!(phrase_seed(&secret), phrase_seed(b"another sixteen!"));
    }

    #[test]
    fn every_single_slip_of_the_pen_is_noticed() {
        let text = phrase(&[7; 16]);
        for at in (0..text.len()).filter(|at| text.as_bytes()[*at] != b'-') {
            for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567019é".chars().filter(|c| *c != text.as_bytes()[at] as char) {
                let slip = format!("{}{other}{}", &text[..at], &text[at + 1..]);
                assert_eq!(read_phrase(&slip), Err(PhraseError::Mistyped), "{slip}");
            }
        }
    }
}
