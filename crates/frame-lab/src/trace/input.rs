//! Where a trace's bytes come from, and how they are unpacked.
//!
//! A file tells what it is by its first bytes, not by its name: zstd is unpacked as it is read, text is taken as it
//! is, and what is neither but well known (perf's binary recording, gzip, xz) is named in the error with the command
//! that makes text of it. Memory is bounded whatever the input: one line is held at a time, and at most
//! [`LONGEST_LINE`] bytes of it.

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::PathBuf,
};

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

/// The first 200,000 events of a real trace: made by
/// `zstd -dc linux-6.18-build.kmem.txt.zst | head -n 200000 > cut && zstd --ultra -22 cut`.
const CUT: &[u8] = include_bytes!("../../data/linux-6.18-build.cut.kmem.txt.zst");

/// Bytes of a line that are kept. A longer one is no trace event; the rest of it is skipped.
pub(super) const LONGEST_LINE: usize = 16 * 1024;

/// Where a trace comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// The cut of a real trace that lies in the binary.
    Embedded,
    /// A file.
    File(PathBuf),
    /// Standard input: `perf script ... | frame-lab compare --trace -`.
    Stdin,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => {
                f.write_str("embedded cut of linux-6.18-build (a 2-CPU machine compiling Rust)")
            }
            Self::File(path) => path.display().fmt(f),
            Self::Stdin => f.write_str("standard input"),
        }
    }
}

impl Source {
    /// The source that `--trace` names.
    pub(crate) fn from_arg(arg: Option<&std::path::Path>) -> Self {
        match arg {
            None => Self::Embedded,
            Some(path) if path.as_os_str() == "-" => Self::Stdin,
            Some(path) => Self::File(path.to_owned()),
        }
    }

    /// The unpacked text of the source.
    pub(super) fn open(&self) -> io::Result<Lines> {
        let raw: Box<dyn Read> = match self {
            Self::Embedded => Box::new(CUT),
            Self::File(path) => Box::new(File::open(path)?),
            Self::Stdin => Box::new(io::stdin()),
        };
        let (start, raw) = peek(raw)?;
        let raw = BufReader::with_capacity(1 << 16, raw);
        let kind = Kind::of(&start);
        let text: Box<dyn BufRead> = match kind {
            Kind::Zstd => Box::new(BufReader::with_capacity(1 << 16, Zstd::new(raw))),
            Kind::Text => Box::new(raw),
            Kind::Foreign(hint) => return Err(io::Error::other(hint)),
        };
        Ok(Lines { text, line: Vec::new(), number: 0 })
    }
}

/// The first bytes, and the whole input with them back in front. A pipe may give them in pieces.
fn peek(mut raw: Box<dyn Read>) -> io::Result<(Vec<u8>, Box<dyn Read>)> {
    let mut start = Vec::new();
    raw.by_ref().take(16).read_to_end(&mut start)?;
    let whole = io::Cursor::new(start.clone()).chain(raw);
    Ok((start, Box::new(whole)))
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Zstd,
    Foreign(&'static str),
}

impl Kind {
    fn of(start: &[u8]) -> Self {
        const MAGICS: [(&[u8], Kind); 7] = [
            (&[0x28, 0xb5, 0x2f, 0xfd], Kind::Zstd),
            (
                b"PERFILE2",
                Kind::Foreign(
                    "this is perf's binary recording: give the text that `perf script -F cpu,time,event,trace -i FILE` prints",
                ),
            ),
            (
                b"2ELIFREP",
                Kind::Foreign(
                    "this is perf's binary recording of a machine of the other byte order: run `perf script` on it first",
                ),
            ),
            (
                b"\x17\x08\x44tracing",
                Kind::Foreign(
                    "this is trace-cmd's binary recording: give the text that `trace-cmd report FILE` prints",
                ),
            ),
            (
                &[0x1f, 0x8b],
                Kind::Foreign("this is gzip: unpack it with `gzip -dc FILE` and give `--trace -`"),
            ),
            (
                &[0xfd, b'7', b'z', b'X', b'Z'],
                Kind::Foreign("this is xz: unpack it with `xz -dc FILE` and give `--trace -`"),
            ),
            (b"\x7fELF", Kind::Foreign("this is a program, not a trace")),
        ];
        let known = MAGICS.into_iter().find(|(magic, _)| start.starts_with(magic));
        known.map_or(Self::Text, |(_, kind)| kind)
    }
}

/// zstd data as a reader: frames one after the other (as `cat a.zst b.zst` makes), each checked against its
/// checksum where it has one.
struct Zstd<R: Read> {
    state: State<R>,
}

enum State<R: Read> {
    Between(R),
    Inside(Box<StreamingDecoder<R, FrameDecoder>>),
    /// At the end, or behind an error.
    Done,
}

impl<R: BufRead> Zstd<R> {
    fn new(raw: R) -> Self {
        Self { state: State::Between(raw) }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::mem::replace(&mut self.state, State::Done) {
                State::Done => return Ok(0),
                State::Between(mut raw) => {
                    if raw.fill_buf()?.is_empty() {
                        return Ok(0);
                    }
                    let decoder = StreamingDecoder::new(raw).map_err(damaged)?;
                    self.state = State::Inside(Box::new(decoder));
                }
                State::Inside(mut decoder) => {
                    let read = decoder.read(buf).map_err(damaged)?;
                    if read > 0 {
                        self.state = State::Inside(decoder);
                        return Ok(read);
                    }
                    let (raw, frame) = decoder.into_parts();
                    let stored = frame.get_checksum_from_data();
                    if stored.is_some() && stored != frame.get_calculated_checksum() {
                        return Err(damaged("the checksum is wrong"));
                    }
                    self.state = State::Between(raw);
                }
            }
        }
    }
}

fn damaged(cause: impl fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "the zstd data is cut short or damaged ({cause}): fetch the file again, or save what can be had with `zstd -dc FILE > part.txt`"
        ),
    )
}

/// The lines of a trace, one at a time.
pub(super) struct Lines {
    text: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    #[cfg(test)]
    pub(super) fn of(text: &'static [u8]) -> Self {
        Self { text: Box::new(text), line: Vec::new(), number: 0 }
    }

    /// The next line without its end (`\n` or `\r\n`), or `None` at the end of the input. A line longer than
    /// [`LONGEST_LINE`] comes cut.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let mut any = false;
        loop {
            let buffer = self.text.fill_buf()?;
            if buffer.is_empty() {
                break;
            }
            any = true;
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            let room = LONGEST_LINE - self.line.len();
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            let taken = part.len() + usize::from(end.is_some());
            self.text.consume(taken);
            if end.is_some() {
                break;
            }
        }
        if !any {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(self.line.strip_suffix(b"\r").unwrap_or(&self.line)))
    }

    /// The number of the line that [`next`](Self::next) gave last: the first is 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut lines: Lines) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push(line.to_vec());
        }
        all
    }

    #[test]
    fn lines_end_in_any_way() {
        assert_eq!(all(Lines::of(b"a\r\nb\n\nc")), [&b"a"[..], b"b", b"", b"c"]);
        assert!(all(Lines::of(b"")).is_empty());
        assert_eq!(all(Lines::of(b"\n")), [b""]);
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_is_whole() {
        let mut text = vec![b'x'; 3 * LONGEST_LINE];
        text.extend_from_slice(b"\nnext\n");
        let lines = all(Lines::of(text.leak()));
        assert_eq!((lines[0].len(), lines[1].as_slice()), (LONGEST_LINE, &b"next"[..]));
    }

    #[test]
    fn kinds_are_known_by_their_first_bytes() {
        assert_eq!(Kind::of(CUT), Kind::Zstd);
        assert_eq!(Kind::of(b"[000] 1.0: kmem:"), Kind::Text);
        assert_eq!(Kind::of(b""), Kind::Text);
        assert!(matches!(Kind::of(b"PERFILE2\x68"), Kind::Foreign(hint) if hint.contains("perf script")));
        assert!(matches!(Kind::of(b"\x1f\x8b\x08"), Kind::Foreign(_)));
    }

    #[test]
    fn zstd_frames_follow_each_other_and_damage_is_told() {
        let read = |bytes: &[u8]| {
            let mut text = Vec::new();
            Zstd::new(bytes).read_to_end(&mut text).map(|_| text.iter().filter(|&&b| b == b'\n').count())
        };
        assert_eq!(read(CUT).unwrap(), 200_000);
        assert_eq!(read(&[CUT, CUT].concat()).unwrap(), 400_000);
        let cut_short = read(&CUT[..CUT.len() / 2]).unwrap_err();
        assert!(cut_short.to_string().contains("cut short"), "{cut_short}");
        let mut flipped = CUT.to_vec();
        flipped[CUT.len() / 2] ^= 1;
        assert!(read(&flipped).is_err());
        assert!(read(&[CUT, b"trailing text"].concat()).is_err());
    }
}
