//! Frames on a byte stream: a big-endian 4-byte length, then the bytes.
//!
//! Invariant: memory grows with the bytes that arrived, not with the length that was claimed. Callers: gate, join, link.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const GROW_BYTES: usize = 64 << 10;

/// Reads one frame. `InvalidData`: the length is above the limit, the peer's fault.
pub(crate) async fn read_frame(stream: &mut (impl AsyncRead + Unpin), limit: usize) -> io::Result<Vec<u8>> {
    let length = read_length(stream, limit).await?;
    read_body(stream, length).await
}

/// The first half of [`read_frame`]: may wait for ever on an idle stream.
pub(crate) async fn read_length(stream: &mut (impl AsyncRead + Unpin), limit: usize) -> io::Result<usize> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("frame of {length} bytes")));
    }
    Ok(length)
}

/// The second half of [`read_frame`].
pub(crate) async fn read_body(stream: &mut (impl AsyncRead + Unpin), length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let start = bytes.len();
        bytes.resize(length.min(start + GROW_BYTES.max(start)), 0);
        stream.read_exact(&mut bytes[start..]).await?;
    }
    Ok(bytes)
}

/// Writes one frame and flushes it.
pub(crate) async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // One write: on TCP each would become an encrypted packet of its own.
    let mut whole = Vec::with_capacity(4 + bytes.len());
    whole.extend_from_slice(&length.to_be_bytes());
    whole.extend_from_slice(bytes);
    stream.write_all(&whole).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::io::Cursor;

    #[tokio::test]
    async fn frames_come_back_and_lies_about_the_length_cost_nothing() {
        let mut stream = Cursor::new(Vec::new());
        let large = vec![7u8; 300_000];
        write_frame(&mut stream, b"one").await.unwrap();
        write_frame(&mut stream, b"").await.unwrap();
        write_frame(&mut stream, &large).await.unwrap();
        stream.set_position(0);
        assert_eq!(read_frame(&mut stream, 1 << 20).await.unwrap(), b"one");
        assert_eq!(read_frame(&mut stream, 1 << 20).await.unwrap(), b"");
        assert_eq!(read_frame(&mut stream, 1 << 20).await.unwrap(), large);
        assert_eq!(read_frame(&mut stream, 1 << 20).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);

        let kind = |bytes: &'static [u8]| async move {
            read_frame(&mut Cursor::new(bytes), 1 << 20).await.unwrap_err().kind()
        };
        assert_eq!(kind(&[255, 255, 255, 255]).await, io::ErrorKind::InvalidData);
        assert_eq!(kind(&[0, 15, 255, 255, 1]).await, io::ErrorKind::UnexpectedEof);
    }
}
