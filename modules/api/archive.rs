//! Archives: tar, plain or compressed with gzip, xz or zstd, read as a stream.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Component, Path, PathBuf};

use ruzstd::decoding::StreamingDecoder;

use super::error::{ModuleError, plain};

/// Bytes that tell the formats apart: a tar header.
const HEAD: usize = 512;

/// Opens an archive, going by its first bytes and not by its name, which is for messages only.
pub fn open<'a>(name: &str, mut reader: Box<dyn Read + 'a>) -> Result<tar::Archive<Box<dyn Read + 'a>>, ModuleError> {
    let mut head = Vec::with_capacity(HEAD);
    reader.by_ref().take(HEAD as u64).read_to_end(&mut head).map_err(|error| unreadable(name, &error))?;
    let format = Format::of(&head).map_err(|what| {
        ModuleError::host(format!("`{name}` is {what}, which kplay does not unpack"))
            .hint("it unpacks tar, plain or compressed with gzip, xz or zstd")
    })?;
    let whole: Box<dyn Read + 'a> = Box::new(Cursor::new(head).chain(reader));
    let content: Box<dyn Read + 'a> = match format {
        Format::Tar => whole,
        Format::Gzip => Box::new(flate2::read::MultiGzDecoder::new(whole)),
        Format::Xz => Box::new(lzma_rust2::XzReader::new(whole, true)),
        Format::Zstd => Box::new(Frames { decoder: None, source: Some(BufReader::new(whole)) }),
    };
    Ok(tar::Archive::new(content))
}

/// Returns where a member goes, relative to the folder that is unpacked into: without its first `strip` components, without a
/// leading `/` or `./`. `None` when nothing is left of it. A path with `..` is refused.
pub fn member_path(name: &Path, strip: u32) -> Result<Option<PathBuf>, ModuleError> {
    let mut parts = Vec::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::ParentDir => {
                return Err(ModuleError::host(format!("the archive has a member `{}`, which leads out of its folder", name.display()))
                    .hint("do not unpack this archive"));
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    let left: PathBuf = parts.into_iter().skip(strip as usize).collect();
    Ok(Some(left).filter(|left| !left.as_os_str().is_empty()))
}

/// Says that an archive cannot be read to its end.
pub fn unreadable(name: &str, error: &io::Error) -> ModuleError {
    ModuleError::host(format!("cannot read the archive `{name}`: {}", plain(error))).hint("is the file complete?")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Tar,
    Gzip,
    Xz,
    Zstd,
}

impl Format {
    /// Recognises a format by its first bytes; the error says what it seems to be instead.
    fn of(head: &[u8]) -> Result<Self, &'static str> {
        match head {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(Self::Xz),
            // A frame, or a frame that is to be skipped, as parallel compressors put first.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [b'B', b'Z', b'h', ..] => Err("compressed with bzip2"),
            [b'P', b'K', 3 | 5, ..] => Err("a zip file"),
            [0x5d, 0, 0, ..] => Err("compressed with lzma"),
            [b'7', b'z', 0xbc, 0xaf, ..] => Err("a 7z file"),
            [] => Err("empty"),
            _ if is_tar(head) => Ok(Self::Tar),
            [b'<', ..] => Err("a web page"),
            _ => Err("not an archive"),
        }
    }
}

/// A tar file begins with a header whose checksum is right, or with nothing but zeros when it is empty.
fn is_tar(head: &[u8]) -> bool {
    let Ok(block) = <&[u8; HEAD]>::try_from(head) else { return false };
    let header = tar::Header::from_byte_slice(block);
    let sum: u32 = block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
    block.iter().all(|byte| *byte == 0) || header.cksum().is_ok_and(|expected| expected == sum)
}

/// All frames of a zstd stream, one after the other.
struct Frames<R: Read> {
    decoder: Option<StreamingDecoder<BufReader<R>, ruzstd::decoding::FrameDecoder>>,
    source: Option<BufReader<R>>,
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(decoder) = &mut self.decoder {
                let count = decoder.read(buffer)?;
                if count > 0 || buffer.is_empty() {
                    return Ok(count);
                }
                self.source = self.decoder.take().map(StreamingDecoder::into_inner);
            }
            let Some(source) = &mut self.source else { return Ok(0) };
            if skip_frame(source)? {
                continue;
            }
            if source.fill_buf()?.is_empty() {
                return Ok(0);
            }
            let Some(source) = self.source.take() else { return Ok(0) };
            let decoder = StreamingDecoder::new_with_max_window_size(source, 1 << 27);
            self.decoder = Some(decoder.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?);
        }
    }
}

/// Skips a frame that holds no content; returns whether there was one.
fn skip_frame(source: &mut impl BufRead) -> io::Result<bool> {
    if !matches!(source.fill_buf()?, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]) {
        return Ok(false);
    }
    let mut head = [0; 8];
    source.read_exact(&mut head)?;
    let [_, _, _, _, size @ ..] = head;
    io::copy(&mut source.by_ref().take(u32::from_le_bytes(size).into()), &mut io::sink())?;
    Ok(true)
}

#[cfg(test)]
mod tests;
